"""Measures of gradients, predictions and whole studies: pure functions, no plots."""
