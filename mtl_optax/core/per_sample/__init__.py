"""Gradients of single samples, from one backward pass of the whole batch."""
