"""Gradients of many tasks layer by layer: factors in place of Jacobians."""
