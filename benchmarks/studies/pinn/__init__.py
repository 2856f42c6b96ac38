"""Losses of physics-informed networks as tasks: two equations, six optimisers."""
