"""Flat minima: F- methods under wrong and missing labels of one of two tasks."""
