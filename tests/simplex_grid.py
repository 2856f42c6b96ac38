"""Least values of convex functions on the simplex, by grids that shrink."""

import numpy as np


def least_on_simplex(value, num_tasks):
    """The weights of two or three tasks at which `value([N, T]) -> [N]` is least."""
    size = num_tasks - 1
    unit = np.meshgrid(*[np.linspace(-1, 1, 13)] * size, indexing="ij")
    unit = np.stack(unit, axis=-1).reshape(-1, size)
    centre, reach = np.full(size, 1 / num_tasks), 1.0
    for _ in range(45):
        some = np.maximum(centre + reach * unit, 0)
        some /= np.maximum(some.sum(axis=1, keepdims=True), 1)
        weights = np.concatenate([some, 1 - some.sum(axis=1, keepdims=True)], axis=1)
        best = np.argmin(value(weights))
        centre, reach = some[best], reach * 0.6
    return weights[best]
