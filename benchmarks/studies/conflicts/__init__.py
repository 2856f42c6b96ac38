"""Conflicts of gradients: between tasks, and between samples of one task."""
