"""What each method needs, costs and promises, and which one to try where."""
