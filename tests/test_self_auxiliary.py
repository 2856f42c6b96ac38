"""Self-auxiliary towers: what they add to gradients; that they go without a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import HardSharing, SelfAuxiliary, owner, strip_auxiliaries

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
GOALS = {"a": jnp.sin(X[:, :1]), "b": X[:, 1:2] * X[:, 2:]}


def linear(rngs, d_out=1):
    return nnx.Linear(4, d_out, rngs=rngs)


def network(gamma=1.0, mode="inside", width=8, aux=linear, rngs=None, **options):
    rngs = rngs or nnx.Rngs(0)
    towers = {
        task: nnx.Sequential(
            linear(rngs, width), jnp.tanh, nnx.Linear(width, 1, rngs=rngs)
        )
        for task in ("a", "b")
    }
    base = HardSharing(nnx.Linear(3, 4, rngs=rngs), towers)
    return SelfAuxiliary(base, lambda task: aux(rngs), gamma, mode, **options)


def losses_of(outputs, goals=GOALS):
    return {task: jnp.mean((y - goals[task]) ** 2) for task, y in outputs.items()}


def split(net):
    graphdef, params = nnx.split(net)
    return graphdef, nnx.to_pure_dict(params)


GRAPHDEF, PARAMS = split(network())


def total(params, gamma, mode):
    net = nnx.merge(GRAPHDEF, params)
    net.gamma, net.mode = gamma, mode
    outputs, terms = net.with_auxiliary(X, losses_of)
    losses = losses_of(outputs)
    if mode == "inside":
        losses = {task: loss + terms[task] for task, loss in losses.items()}
    else:
        assert set(terms) == {"a_auxiliary", "b_auxiliary"}
        losses = {**losses, **terms}
    return sum(losses.values())


GRADIENTS = jax.jit(jax.grad(total), static_argnums=2)


def test_gamma_0_gives_the_gradients_of_the_base():
    grads = GRADIENTS(PARAMS, 0.0, "inside")
    assert all(np.all(g == 0) for g in jax.tree.leaves(grads["own"]))
    base = nnx.graphdef(nnx.merge(GRAPHDEF, PARAMS).base)
    alone = jax.grad(lambda p: sum(losses_of(nnx.merge(base, p)(X)).values()))
    for g, wanted in zip(
        jax.tree.leaves(grads["base"]),
        jax.tree.leaves(alone(PARAMS["base"])),
        strict=True,
    ):
        assert np.any(wanted != 0)
        np.testing.assert_allclose(g, wanted, rtol=1e-4, atol=1e-6)


def test_gradients_of_the_shared_part_are_affine_in_gamma():
    at = [GRADIENTS(PARAMS, float(gamma), "inside")["base"] for gamma in (0, 1, 3)]
    kernels = [g["encoder"]["kernel"] for g in at]
    assert np.abs(kernels[1] - kernels[0]).max() > 0.01
    np.testing.assert_allclose(
        kernels[2] - kernels[0], 3 * (kernels[1] - kernels[0]), rtol=1e-4, atol=1e-5
    )
    # The main towers do not see the auxiliary ones.
    for g0, g3 in zip(*(jax.tree.leaves(at[i]["own"]) for i in (0, 2)), strict=True):
        np.testing.assert_allclose(g0, g3, rtol=1e-4, atol=1e-6)


def test_as_tasks_the_sum_of_2t_losses_is_the_same():
    for g, wanted in zip(
        *(
            jax.tree.leaves(GRADIENTS(PARAMS, 0.3, mode))
            for mode in ("as_tasks", "inside")
        ),
        strict=True,
    ):
        np.testing.assert_allclose(g, wanted, rtol=1e-4, atol=1e-6)


def test_without_auxiliaries_outputs_are_bit_identical():
    net = network()
    outputs, terms = net.with_auxiliary(X, losses_of)
    params = strip_auxiliaries(nnx.state(net))
    base = nnx.merge(nnx.graphdef(net.base), params)
    for task, y in outputs.items():
        np.testing.assert_array_equal(base(X)[task], y)
        np.testing.assert_array_equal(net(X)[task], y)
        small = net.own[task](net.base.encoder(X))
        assert terms[task] == jnp.mean((small - GOALS[task]) ** 2)
    assert len(jax.tree.leaves(params)) == len(jax.tree.leaves(nnx.state(net))) - 4


def test_gamma_of_each_task_and_owners_of_both_towers():
    net = network(gamma={"a": 0.0, "b": 2.0})
    _, terms = net.with_auxiliary(X, losses_of)
    assert terms["a"] == 0 < terms["b"]
    tasks = nnx.to_pure_dict(owner(("a", "b"))(nnx.state(net)))
    assert tasks["own"]["b"]["kernel"] == 1
    assert tasks["base"]["own"]["b"]["layers"][0]["kernel"] == 1
    assert tasks["base"]["encoder"]["kernel"] is None


def test_a_big_auxiliary_tower_is_an_error():
    big = lambda rngs: linear(rngs, 10)  # noqa: E731, 50 parameters against 49
    with pytest.raises(ValueError, match=r"task 'a' has 50 parameters.*tower 49"):
        network(aux=big)
    assert network(aux=big, allow_big=True).own["a"].kernel.shape == (4, 10)
    with pytest.raises(ValueError, match="mode must be one of"):
        network(mode="both")
    with pytest.raises(ValueError, match="parameters of a SelfAuxiliary"):
        strip_auxiliaries(PARAMS["base"])
