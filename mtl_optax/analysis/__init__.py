"""Measures of gradients, predictions and studies: pure functions, and plots."""

from mtl_optax.analysis.adam_scale import adam_scale_invariance

__all__ = ["adam_scale_invariance"]
