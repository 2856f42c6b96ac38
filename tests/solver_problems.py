"""Gramians that solvers find easy or hard, and the solvers, jitted."""

import jax
import numpy as np
import pytest

from mtl_optax.core.solvers import cagrad_solver, conic_solver, nash_solver
from mtl_optax.core.solvers.dual_cone import project_dual_cone
from mtl_optax.core.solvers.min_norm import in_hull, min_norm_weights

FAMILIES = ("random", "conflict", "scales", "lowrank", "dup")
SIZES = (1, 2, 3, 10, 50)
DTYPES = (np.float32, np.float64)
EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


def rows_of(family, num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_tasks, 200))
    if num_tasks == 1:
        return rows
    if family == "conflict":
        rows = rows - 1.02 * rows.mean(0)
    elif family == "scales":
        rows *= rng.permutation(np.logspace(-3, 3, num_tasks))[:, None]
    elif family == "lowrank":
        rows = rng.standard_normal((num_tasks, 3)) @ rng.standard_normal((3, 200))
    elif family == "dup":
        rows[1] = rows[0]
    return rows


def gramians(rows, dtype):
    """For the solver, and for the oracle, which needs a definite one."""
    exact = rows @ rows.T
    return exact.astype(dtype), exact


def cosine(gramian):
    norms = np.sqrt(np.diag(gramian))
    return gramian / np.outer(norms, norms), norms


def everyone(num_tasks):
    return np.ones(num_tasks, bool)


def is_stationary(family, num_tasks):
    """Ten or more random directions in three dimensions surround the origin."""
    return family == "lowrank" and num_tasks >= 10


# Compiled once for each size and dtype of this file.
PROJECT = jax.jit(jax.vmap(project_dual_cone, (None, 0)))
MIN_NORM = jax.jit(min_norm_weights)
IN_HULL = jax.jit(in_hull)
NASH = jax.jit(nash_solver.nash_weights)
CAGRAD = jax.jit(cagrad_solver.cagrad_weights)
CONIC = jax.jit(conic_solver.conic_weights)

ONE = np.float32(1)

over_sizes = pytest.mark.parametrize("num_tasks", SIZES)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES)
