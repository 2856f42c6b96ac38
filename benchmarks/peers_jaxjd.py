"""JaxJD's UPGrad, from a checkout of its source.

Its repository is one folder without a package; `FOLDER` is the one that holds it under
the name `JaxJD`. Its solver `qpax` needs the package of that name.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def _solvers() -> tuple[str, ...]:
    qpax = ("qpax",) if importlib.util.find_spec("qpax") else ()
    return (*qpax, "nesterov_pgd")


def _compiled(folder: Path, name: str, like: jax.Array) -> dict[str, Callable]:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    function = getattr(importlib.import_module("JaxJD.upgrad"), name)
    with jax.enable_x64(True):
        return {
            f"jaxjd {solver}": jax.jit(partial(function, solver=solver))
            .lower(like)
            .compile()
            for solver in _solvers()
        }


def weightings(folder: Path, like: jax.Array) -> dict[str, Callable]:
    """Functions of a Gramian, `[T, T]`."""
    return _compiled(folder, "upgrad_weighting", like)


def aggregators(folder: Path, like: jax.Array) -> dict[str, Callable]:
    """Functions of a Jacobian, `[T, P]`."""
    return _compiled(folder, "upgrad", like)


def doubles(matrices: Any) -> list[jax.Array]:
    """In float64, which it asks for."""
    with jax.enable_x64(True):
        return [jnp.asarray(matrix, jnp.float64) for matrix in matrices]
