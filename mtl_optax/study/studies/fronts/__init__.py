"""Concave fronts: linear weights find their ends, Tchebycheff covers them."""
