"""One error for whoever takes lazy task gradients for a tree of arrays."""

from typing import Any, NoReturn, TypeVar

import jax

C = TypeVar("C", bound=type)

MESSAGE = (
    "Lazy task gradients are no tree of arrays: nothing can map over them, index them "
    "or calculate with them before a method has combined them, and they cannot cross "
    "the border of a jax.jit, scan, cond or vmap, in or out. Put the method first in "
    "the chain, optax.chain(method, optax.clip_by_global_norm(1.0), optax.adam(1e-3)), "
    "and make and use them inside one jitted step. In place of nnx.Optimizer.update "
    "call mtl_optax.flax_support.nnx_update; in place of TrainState take "
    "mtl_optax.flax_support.MultiTaskTrainState; in place of lax.pmean over devices "
    "pass axis_name= where they are made. Where stacked gradients are needed, as for "
    "optax.partition or a transformation before the method, make them with "
    "mtl_optax.task_grads, or by lazy.stack()."
)


def refuse(*_: Any, **__: Any) -> NoReturn:
    """Raises, and says what to do instead."""
    raise ValueError(MESSAGE)


def not_a_tree(cls: C) -> C:
    """Makes JAX raise our error wherever it would take an object for a tree or array.

    A class that JAX does not know would be a leaf: under a transformation before the
    method that fails in ways that name neither cause nor cure, or, as with an optimiser
    that skips what it does not know, not at all.
    """
    jax.tree_util.register_pytree_node(cls, refuse, refuse)
    return cls


class NoArithmetic:
    """What is neither an array nor a container of some."""

    __array__ = __jax_array__ = refuse
    __getitem__ = __contains__ = __len__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __neg__ = refuse
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __matmul__ = refuse
