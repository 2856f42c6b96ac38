"""What must hold on an accelerator: of layer-wise Gramians, bf16 gradients, meshes."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mtl_optax as mtl

# Float32 products stay below this, TF32 is a hundred times above.
TOLERANCE = 1e-5


class Row(NamedTuple):
    """What was found, and whether it may be so."""

    text: str
    ok: bool = True


class Part(NamedTuple):
    """Rows, and what finds them."""

    name: str
    rows: tuple[str, ...]
    run: Callable[[], dict[str, Row]]


def layers(dtype: Any = jnp.float32) -> tuple[Any, Callable[[Any], dict[str, Any]]]:
    """Parameters, and losses whose weights have fewer rows than inputs."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        drawn = random.standard_normal(shape) / np.sqrt(shape[0])
        return jnp.asarray(drawn, dtype)

    params = {"one": normal(256, 256), "two": normal(256, 256), "out": normal(256, 4)}
    x, y = normal(32, 256), normal(32, 4)

    def losses_fn(params: Any) -> dict[str, Any]:
        out = jnp.tanh(jnp.tanh(x @ params["one"]) @ params["two"]) @ params["out"]
        each = jnp.mean((out - y) ** 2, axis=0)
        return {f"{i}": each[i] for i in range(4)}

    return params, losses_fn


def _apart(found: Any, wanted: Any) -> float:
    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


def _below(error: float) -> Row:
    return Row(f"relative error {error:.1e}", error < TOLERANCE)


def _exact(stacked: Any) -> Any:
    """The Gramian in float64, on the host."""
    flat = [
        np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(stacked)
    ]
    return sum(x @ x.T for x in flat)


def _forms() -> dict[str, Row]:
    """Both of the same gradients, whose own rounding is then that of one pass."""
    params, losses_fn = layers()
    with jax.default_matmul_precision("highest"):
        by = {
            form: jax.jit(
                lambda p, form=form: mtl.gramian(
                    mtl.lazy_task_grads(losses_fn, form=form)(p)[1]
                )
            )(params)
            for form in ("rows", "direct")
        }
        stacked = jax.jit(mtl.task_grads(losses_fn))(params)[1]
    return {form: _below(_apart(gram, _exact(stacked))) for form, gram in by.items()}


def _bf16() -> dict[str, Row]:
    params, losses_fn = layers(jnp.bfloat16)
    stacked = jax.jit(mtl.task_grads(losses_fn))(params)[1]
    error = _apart(jax.jit(mtl.gramian)(stacked), _exact(stacked))
    tx = mtl.upgrad(num_tasks=4)
    update, state = jax.jit(tx.update)(stacked, tx.init(params), params)
    weights = np.asarray(mtl.task_weights(state), np.float64)
    flat = jax.tree.map(lambda x: np.asarray(x, np.float64), stacked)
    wanted = jax.tree.map(lambda g: np.tensordot(weights, g, 1), flat)
    worst = max(map(_apart, jax.tree.leaves(update), jax.tree.leaves(wanted)))
    kept = {x.dtype for x in jax.tree.leaves(update)} == {jnp.dtype(jnp.bfloat16)}
    return {
        "Gramian": _below(error),
        "update": Row(
            f"relative error {worst:.1e}, rounded once", kept and worst < 2**-8
        ),
    }


COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def _mesh() -> dict[str, Row]:
    """Arrays with shardings on one device: the same numbers, and nothing is sent."""
    params, losses_fn = layers()
    tx = mtl.upgrad(num_tasks=4)

    def gathered(params: Any) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return losses_fn(params)
        explicit = AxisType.Explicit in mesh.axis_types
        place = jax.sharding.reshard if explicit else lax.with_sharding_constraint
        return losses_fn(jax.tree.map(lambda p: place(p, PartitionSpec()), params))

    @jax.default_matmul_precision("highest")
    def update(params: Any, state: Any) -> Any:
        return tx.update(mtl.lazy_task_grads(gathered)(params)[1], state, params)[0]

    wanted = jax.jit(update)(params, tx.init(params))
    rows = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        one = {"devices": jax.devices()[:1], "axis_types": (kind,)}
        mesh = jax.make_mesh((1,), ("d",), **one)
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec("d")))
            program = jax.jit(update).lower(placed, tx.init(placed)).compile()
            found = program(placed, tx.init(placed))
        sent = set(re.findall(rf" ({COLLECTIVES})", program.as_text()))
        worst = max(map(_apart, jax.tree.leaves(found), jax.tree.leaves(wanted)))
        ok = not sent and worst < TOLERANCE
        what = f"sends {', '.join(sorted(sent)) or 'nothing'}, apart {worst:.1e}"
        rows[kind.name] = Row(what, ok)
    return rows


def checks() -> list[Part]:
    """What must hold."""
    return [
        Part("Gramian layer by layer", ("rows", "direct"), _forms),
        Part("bf16 gradients", ("Gramian", "update"), _bf16),
        Part("mesh of one device", ("Auto", "Explicit"), _mesh),
    ]
