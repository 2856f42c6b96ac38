"""Numbers that are sent through a chain, and whether they came out multiplied.

Each entry is multiplied by a power of two, so that the arithmetic is exact, or by zero.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LARGE, _HUGE = 100_000, 10_000_000  # entries of the gradients
_CUT = 3  # of axes, where they are large
_TRIES = 3
Leaves = dict[str, jax.Array]  # by path
Try = tuple[Any, Any, Any]  # gradients, updates in the place of methods', parameters


def by_path(tree: Any) -> Leaves:
    """The leaves by where they are."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs}


def shapes_to_try(params: Any, num_tasks: int) -> list[Any]:
    """The parameters' shapes, if they are not too large; before that with axes cut.

    What looks at the sizes of parameters may not run where axes are cut.
    """

    def cut_to(most: int | None) -> Any:
        def shape(p: Any) -> jax.ShapeDtypeStruct:
            axes = tuple(n if most is None else min(n, most) for n in jnp.shape(p))
            return jax.ShapeDtypeStruct(axes, jnp.result_type(p))

        return jax.tree.map(shape, params)

    size = num_tasks * sum(math.prod(jnp.shape(p)) for p in jax.tree.leaves(params))
    cuts = [None] if size <= _LARGE else [_CUT, None] if size <= _HUGE else [_CUT]
    return [cut_to(most) for most in cuts]


def tries(like: Any, num_tasks: int) -> list[Try]:
    """Gradients, updates and parameters; entries scaled; with other parameters."""
    both = numbers_like(like, (num_tasks,), 0), numbers_like(like, (), 1)
    params, others = numbers_like(like, (), 2), numbers_like(like, (), 3)

    def scaled(k: int) -> Any:
        return jax.tree.map(lambda x: x * _factors(x, k), both)

    return [
        (*both, params),
        *((*scaled(k), params) for k in range(_TRIES)),
        (*both, others),
    ]


def numbers_like(like: Any, lead: tuple[int, ...], seed: int) -> Any:
    """Numbers of either sign, none of them near zero."""
    rng = np.random.default_rng(seed)

    def numbers(x: Any) -> jax.Array:
        shape = (*lead, *x.shape)
        sizes = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
        return jnp.asarray(sizes, x.dtype)

    return jax.tree.map(numbers, like)


def _factors(x: jax.Array, k: int) -> jax.Array:
    """A power of two or zero for each entry, another one in each try."""
    large = 2.0 ** (10 if x.dtype == jnp.float16 else 20)
    which = np.random.default_rng(x.size).integers(0, 4, x.shape)
    if x.ndim and x.size:  # so that no two rows are alike
        which.reshape(x.shape[0], -1)[:, :1] = np.arange(x.shape[0])[:, None]
    return jnp.asarray(np.array([large, 1 / large, 0, 1])[(which + k) % 4], x.dtype)


def scales(plain: jax.Array, *tried: jax.Array) -> bool:
    """Whether each entry was multiplied by a number, which parameters do not change."""
    wanted = [plain * _factors(plain, k) for k in range(_TRIES)]
    least = float(jnp.finfo(plain.dtype).tiny)

    def same(found: jax.Array, hoped: jax.Array) -> bool:
        left, right = np.asarray(found, np.float64), np.asarray(hoped, np.float64)
        return np.allclose(left, right, rtol=1e-3, atol=least)

    return all(map(same, tried, [*wanted, plain]))


def upright(leaf: jax.Array, before: jax.Array) -> bool:
    """Whether no entry changed its sign."""
    return bool(jnp.all(leaf * before >= 0))
