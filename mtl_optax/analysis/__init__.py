"""Measures of gradients, predictions and studies: pure functions, and plots."""
