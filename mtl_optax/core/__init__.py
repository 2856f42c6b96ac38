"""The bridge from per-task gradients to one update."""
