"""Networks of K tasks as pairs of functions: rows of each task in, rows of each out.

Each network adds the one-hot vector of the task itself, so that observations hold none.
The first layers have He's uniform initial values, the last ones nearly zero ones: the
choice is ours.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn import SoftModularNet

Array = jax.Array
_HIDDEN = jax.nn.initializers.he_uniform()
_LAST = 1e-3  # bound of a last layer's initial values


class Network(NamedTuple):
    """Functions of parameters."""

    init: Callable[[Array], Any]  # key -> parameters
    apply: Callable[[Any, Array], Array]  # parameters, [K, n, d] -> [K, n, out]
    shared: Callable[[Any], Any]  # parameters -> True where all tasks share a leaf


def multi_head(
    num_tasks: int, in_dim: int, out_dim: int, hidden: Sequence[int] = (400, 400, 400)
) -> Network:
    """A trunk for all tasks, which sees the one-hot too, and a linear head for each.

    Args:
      num_tasks: K.
      in_dim: d, without the one-hot.
      out_dim: of each head.
      hidden: widths of the trunk's layers, with ReLU.

    Returns:
      A :class:`Network` with parameters `{"trunk": [...], "heads": ...}`; the heads'
      leaves are `[K, ...]`, and not shared.

    Raises:
      ValueError: in `apply`, for rows of another number of tasks or another width; in
        `shared`, for parameters of another kind of network.

    Cost: one pass over the rows of all tasks, and each head over its own.

    When not to use it: for tasks that come only after training, which have no head.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from mtl_optax import rl
      >>> actor = rl.multi_head(2, in_dim=3, out_dim=4, hidden=(8,))
      >>> params = actor.init(jax.random.key(0))
      >>> actor.apply(params, jnp.ones((2, 5, 3))).shape
      (2, 5, 4)
      >>> actor.shared(params)["heads"]
      {'bias': False, 'kernel': False}
    """
    sizes = [in_dim + num_tasks, *hidden]

    def init(key: Array) -> Any:
        trunk, heads = jax.random.split(key)
        return {
            "trunk": _layers(trunk, sizes),
            "heads": {
                "kernel": _uniform(heads, (num_tasks, sizes[-1], out_dim)),
                "bias": jnp.zeros((num_tasks, out_dim)),
            },
        }

    def apply(params: Any, x: Array) -> Array:
        heads = params["heads"]
        x = with_one_hot(_rows(x, num_tasks, in_dim))
        features = _trunk(params["trunk"], x)
        y = jnp.einsum("kni,kio->kno", features, heads["kernel"])
        return y + jnp.broadcast_to(heads["bias"][:, None], y.shape)

    return Network(init, apply, partial(_all_but, "heads"))


def one_hot_mlp(
    num_tasks: int, in_dim: int, out_dim: int, hidden: Sequence[int] = (400, 400, 400)
) -> Network:
    """One network for all tasks, which tells them by the one-hot alone.

    Args:
      num_tasks: K.
      in_dim: d, without the one-hot.
      out_dim: of the last layer.
      hidden: widths of the layers before, with ReLU.

    Returns:
      A :class:`Network` of which tasks share every leaf: `on_shared` is of no use.

    Raises:
      ValueError: in `apply`, for rows of another number of tasks or another width.

    Cost: one pass over the rows of all tasks.

    When not to use it: where tasks want outputs of different scale; heads of their own
    (`multi_head`) cost little.
    """
    sizes = [in_dim + num_tasks, *hidden]

    def init(key: Array) -> Any:
        trunk, last = jax.random.split(key)
        head = {
            "kernel": _uniform(last, (sizes[-1], out_dim)),
            "bias": jnp.zeros(out_dim),
        }
        return {"trunk": _layers(trunk, sizes), "head": head}

    def apply(params: Any, x: Array) -> Array:
        x = with_one_hot(_rows(x, num_tasks, in_dim))
        return _dense(params["head"], _trunk(params["trunk"], x))

    return Network(init, apply, lambda params: jax.tree.map(lambda _: True, params))


def soft_modules(num_tasks: int, in_dim: int, out_dim: int, **options: Any) -> Network:
    """A :class:`mtl_optax.nn.SoftModularNet`; the one-hot reaches its routing alone.

    Args:
      num_tasks: K.
      in_dim: d.
      out_dim: of the outputs.
      **options: others of `SoftModularNet`, as `num_layers`.

    Returns:
      A :class:`Network` with the parameters of that module, but "own", which is
      `[K, embed_dim]` and not shared. To be weighed by
      `mtl_optax.nn.temperature_task_weights`, as its authors do.

    Raises:
      ValueError: in `apply`, for rows of another number of tasks or another width; in
        `shared`, for parameters of another kind of network.

    Cost: four times the multiplications of an MLP with the same width of two modules
    (measured at 64 units).

    When not to use it: see :class:`mtl_optax.nn.SoftModularNet`.
    """

    def build(key: Array, num_tasks: int) -> SoftModularNet:
        rngs = nnx.Rngs(params=key)
        return SoftModularNet(in_dim, num_tasks, out_dim, **options, rngs=rngs)

    # A task's rows go through the network that has its embedding for the only one.
    graph = nnx.graphdef(nnx.eval_shape(lambda: build(jax.random.key(0), 1)))

    def init(key: Array) -> Any:
        params = nnx.to_pure_dict(nnx.state(build(key, num_tasks)))
        return {**params, "own": jnp.stack(list(params["own"].values()))}

    def apply(params: Any, x: Array) -> Array:
        def of_task(own: Array, x: Array) -> Array:
            return nnx.merge(graph, {**params, "own": {"0": own}})({"0": x})["0"]

        return jax.vmap(of_task)(params["own"], _rows(x, num_tasks, in_dim))

    return Network(init, apply, partial(_all_but, "own"))


def independent(num_tasks: int, network: Network) -> Network:
    """K networks that share nothing: what single-task learning is.

    Args:
      num_tasks: K.
      network: of one task.

    Returns:
      A :class:`Network` with parameters like `network`'s, `[K, ...]`, none of them
      shared: the method is `mtl_optax.unitary`, without `on_shared`.

    Raises:
      ValueError: in `apply`, for rows of another number of tasks.

    Cost: K networks in memory; the multiplications of one over the rows of all tasks.

    When not to use it: where tasks have something to learn from each other.
    """

    def init(key: Array) -> Any:
        return jax.vmap(network.init)(jax.random.split(key, num_tasks))

    def apply(params: Any, x: Array) -> Array:
        x = _rows(x, num_tasks)
        return jax.vmap(network.apply)(params, x[:, None])[:, 0]

    return Network(init, apply, lambda params: jax.tree.map(lambda _: False, params))


def twin(network: Network) -> Network:
    """Two networks side by side, with parameters `{"0": ..., "1": ...}`.

    Args:
      network: with outputs `[K, n, 1]`; `apply` of the pair gives `[2, K, n]`.

    Returns:
      A :class:`Network`; its `shared` is the mask for the chain of the critics.

    Raises:
      ValueError: in `apply`, for a network with several outputs a row; in `shared`, for
        parameters that are not of a pair.

    Cost: that of both networks, apart: as one network with an axis of two a step takes
    a quarter longer on a CPU (measured).
    """

    def init(key: Array) -> Any:
        first, second = jax.random.split(key)
        return {"0": network.init(first), "1": network.init(second)}

    def apply(params: Any, x: Array) -> Array:
        values = jnp.stack([network.apply(own, x) for own in params.values()])
        if values.shape[1:] != (*x.shape[:2], 1):
            raise ValueError(
                f"A critic has one output a row, {(*x.shape[:2], 1)}; got "
                f"{values.shape[1:]}: make its network with out_dim=1."
            )
        return values[..., 0]

    def shared(params: Any) -> Any:
        if set(params) != {"0", "1"}:
            raise ValueError(
                f"These are no parameters of a pair of critics: they have the parts "
                f"{sorted(params)}. For an actor take its own, actor.shared."
            )
        return {name: network.shared(own) for name, own in params.items()}

    return Network(init, apply, shared)


def with_one_hot(x: Array) -> Array:
    """Rows `[K, n, d]` with the task they belong to, `[K, n, d + K]`."""
    num_tasks, n, _ = x.shape
    task = jnp.eye(num_tasks, dtype=x.dtype)[:, None]
    return jnp.concatenate([x, jnp.broadcast_to(task, (num_tasks, n, num_tasks))], -1)


def _rows(x: Any, num_tasks: int, in_dim: int | None = None) -> Array:
    """The rows of each task, if they are what the network was made for."""
    x = jnp.asarray(x)  # float64 of NumPy as float32, where JAX has no other
    wrong = x.ndim != 3 or x.shape[0] != num_tasks
    if wrong or in_dim not in (None, x.shape[-1]):
        width = "d" if in_dim is None else in_dim
        raise ValueError(
            f"A network made for {num_tasks} tasks takes rows [{num_tasks}, n, {width}]"
            f", for an actor observations, for a critic these and actions; got "
            f"{x.shape}. Make it with the K tasks and the in_dim that arrive."
        )
    return x


def _all_but(owned: str, params: Any) -> Any:
    """True on the leaves of all parts but one."""
    if owned not in params:
        raise ValueError(
            f"These are no parameters of this network: they have no part {owned!r} "
            f"but {sorted(params)}. An actor has actor.shared; a pair of critics has "
            "mtl_optax.rl.twin(critic).shared."
        )
    return {
        part: jax.tree.map(lambda _, here=part != owned: here, leaves)
        for part, leaves in params.items()
    }


def _layers(key: Array, sizes: Sequence[int]) -> list[Any]:
    keys = jax.random.split(key, len(sizes))
    return [
        {"kernel": _HIDDEN(own, (d_in, d_out)), "bias": jnp.zeros(d_out)}
        for own, d_in, d_out in zip(keys, sizes, sizes[1:], strict=False)
    ]


def _trunk(layers: list[Any], x: Array) -> Array:
    """Of the rows of all tasks at once, which is a tenth faster than block by block."""
    rows = x.reshape(-1, x.shape[-1])
    for layer in layers:
        rows = jax.nn.relu(_dense(layer, rows))
    return rows.reshape(*x.shape[:-1], -1)


def _dense(layer: Any, x: Array) -> Array:
    y = x @ layer["kernel"]
    return y + jnp.broadcast_to(layer["bias"], y.shape)


def _uniform(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-_LAST, maxval=_LAST)
