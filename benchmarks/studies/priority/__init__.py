"""Priority: an order of channels, of tensions and of tasks."""
