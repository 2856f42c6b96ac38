"""TAG's look-ahead affinity: the specification's example, and what passes through."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from toy_losses import module_losses

import mtl_optax as mtl


def bowls(x, centre=3.0):
    return {"a": 0.5 * x**2, "b": 0.5 * (x - centre) ** 2}


EXAMPLE = [[0.19, -0.1025], [-0.44, 0.19]]


def observed(tx, losses_fn, params, state=None, /, **extras):
    """The state after one update, whose gradients must be the ones that went in."""
    losses, grads = mtl.task_grads(losses_fn)(params)
    state = tx.init(params) if state is None else state
    out, state = tx.update(grads, state, params, losses=losses, **extras)
    chex.assert_trees_all_equal(out, grads)
    return state


def test_example_of_the_specification():
    tx = mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=0.1)
    state = observed(tx, bowls, jnp.array(1.0))
    np.testing.assert_allclose(state.affinity, EXAMPLE, atol=1e-6)
    np.testing.assert_array_equal(state.counts, np.ones((2, 2)))


def test_the_function_of_this_batch_comes_with_the_update():
    tx = mtl.task_affinity(2, owner=None, learning_rate=0.1)
    state = observed(tx, bowls, jnp.array(1.0), losses_fn=lambda x: bowls(x, 3.0))
    np.testing.assert_allclose(state.affinity, EXAMPLE, atol=1e-6)
    other = mtl.task_affinity(2, losses_fn=None, owner=None, learning_rate=0.1)
    fixed = mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=0.1)
    overridden = [
        observed(tx, bowls, jnp.array(1.0), losses_fn=lambda x: bowls(x, 2.0))
        for tx in (other, fixed)
    ]
    chex.assert_trees_all_equal(*overridden)
    assert np.any(overridden[0].affinity != state.affinity)


PARAMS = {
    "trunk": jnp.array([[0.3, -0.2, 0.5], [0.1, 0.7, -0.4]]),
    "heads": {"a": jnp.ones(3), "b": jnp.array([0.5, -1.0, 2.0]), "c": -jnp.ones(3)},
}
OWNER = {"trunk": None, "heads": {"a": 0, "b": 1, "c": 2}}
X = jnp.asarray(np.random.default_rng(0).standard_normal((16, 2)), jnp.float32)


def heads_losses(params, x=X):
    features = jnp.tanh(x @ params["trunk"])
    return {
        name: jnp.mean((features @ head - t * x[:, 0]) ** 2)
        for t, (name, head) in enumerate(sorted(params["heads"].items()))
    }


def by_hand(params, moves):
    """Affinity where `moves` gives the step of the trunk for each gradient."""
    names = "abc"
    before = heads_losses(params)
    rows = []
    for source in names:
        gradient = jax.grad(lambda p, n=source: heads_losses(p)[n])(params)["trunk"]
        after = heads_losses(params | {"trunk": params["trunk"] + moves(gradient)})
        rows.append([1 - after[n] / before[n] for n in names])
    return np.array(rows, float)


def test_only_shared_leaves_look_ahead():
    tx = mtl.task_affinity(3, losses_fn=heads_losses, owner=OWNER, learning_rate=0.5)
    state = observed(tx, heads_losses, PARAMS)
    wanted = by_hand(PARAMS, lambda g: -0.5 * g)
    np.testing.assert_allclose(state.affinity, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.slow
def test_the_optimizer_makes_the_step_with_its_momentum(lazy):
    """The update that training with this optimiser would make of one task's gradient,
    after the momentum of the sum: TAG's CelebA code."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    watch = mtl.task_affinity(
        3, losses_fn=heads_losses, owner=OWNER, optimizer=optimizer, every_k=2
    )
    tx = optax.chain(watch, mtl.unitary(3), optimizer)
    grads_fn = (mtl.lazy_task_grads if lazy else mtl.task_grads)(heads_losses)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(grads_fn(params)[1], state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    wanted = []
    for number in range(3):
        if number % 2 == 0:
            momentum = state[2][0].trace["trunk"]
            wanted.append(by_hand(params, lambda g, m=momentum: -0.1 * (g + 0.9 * m)))
        params, state = step(params, state)
    np.testing.assert_array_equal(state[0].counts, np.full((3, 3), 2))
    mean = np.mean(wanted, axis=0)
    np.testing.assert_allclose(state[0].affinity, mean, rtol=1e-3, atol=1e-5)
    ours, theirs = state[0].optimizer_state[0].trace, state[2][0].trace
    np.testing.assert_allclose(ours["trunk"], theirs["trunk"], rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.slow
def test_in_a_chain_under_scan_with_adam(lazy):
    """It trains as without it, and averages the measured steps."""
    watch = mtl.task_affinity(
        3, losses_fn=heads_losses, owner=OWNER, learning_rate=0.1, every_k=3
    )
    method = mtl.on_shared(mtl.mgda(3), {"trunk": True, "heads": False})
    grads_fn = (mtl.lazy_task_grads if lazy else mtl.task_grads)(heads_losses)

    def train(tx):
        def step(carry, _):
            params, state = carry
            losses, grads = grads_fn(params)
            updates, state = tx.update(grads, state, params, losses=losses)
            return (optax.apply_updates(params, updates), state), params

        start = PARAMS, tx.init(PARAMS)
        return jax.jit(lambda start: lax.scan(step, start, length=7))(start)

    tx = optax.chain(watch, method, optax.adam(1e-2))
    (params, state), path = train(tx)
    (same, _), _ = train(optax.chain(method, optax.adam(1e-2)))
    chex.assert_trees_all_close(params, same, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state[0].counts, np.full((3, 3), 3))
    measured = [
        by_hand(jax.tree.map(lambda x, i=i: x[i], path), lambda g: -0.1 * g)
        for i in (0, 3, 6)
    ]
    mean = np.mean(measured, axis=0)
    np.testing.assert_allclose(state[0].affinity, mean, rtol=1e-3, atol=1e-5)
    mtl.check_chain(tx, PARAMS, 3, losses=jnp.ones(3))


def test_lazy_gradients_cost_nothing_between_measurements():
    """They pass through as they are, so the method behind still takes one pass."""
    tx = mtl.task_affinity(3, losses_fn=heads_losses, owner=OWNER, learning_rate=0.1)

    @jax.jit
    def step(params, state):
        lazy = mtl.lazy_task_grads(heads_losses)(params)[1]
        out, state = tx.update(lazy, state, params)
        assert out is lazy
        return state

    state = step(PARAMS, tx.init(PARAMS))
    stacked = observed(tx, heads_losses, PARAMS)
    np.testing.assert_allclose(state.affinity, stacked.affinity, rtol=1e-4, atol=1e-6)

    def shapes(jaxpr):
        return [str(e.primitive) for e in jaxpr.eqns]

    def only_watch(params, state):
        return tx.update(mtl.lazy_task_grads(heads_losses)(params)[1], state, params)[1]

    outside = shapes(jax.make_jaxpr(only_watch)(PARAMS, tx.init(PARAMS)).jaxpr)
    assert outside.count("cond") == 1
    forward = jax.make_jaxpr(lambda p: jax.linearize(heads_losses, p)[0])(PARAMS)
    products = shapes(forward.jaxpr).count("dot_general")
    assert outside.count("dot_general") <= 2 * products


def nan_losses(params):
    return heads_losses(params) | {"c": jnp.log(-jnp.sum(params["heads"]["c"] ** 2))}


@pytest.mark.parametrize("options", [{"learning_rate": 0.1}, {"optimizer": "momentum"}])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.slow
def test_a_missing_task_is_not_counted(options, lazy):
    """A NaN in its loss and gradients stays there; the others are as they are alone."""
    if "optimizer" in options:
        options = {"optimizer": optax.sgd(0.1, momentum=0.9)}
    tx = mtl.task_affinity(3, losses_fn=nan_losses, owner=OWNER, **options)
    grads = (mtl.lazy_task_grads if lazy else mtl.task_grads)(nan_losses)(PARAMS)[1]
    active = jnp.array([True, True, False])
    _, state = tx.update(grads, tx.init(PARAMS), PARAMS, active=active)
    chex.assert_tree_all_finite(state)
    np.testing.assert_array_equal(state.counts, active[:, None] & active[None, :])
    wanted = by_hand(PARAMS, lambda g: -0.1 * g)[:2, :2]
    np.testing.assert_allclose(state.affinity[:2, :2], wanted, rtol=1e-3, atol=1e-5)
    assert not state.affinity[2].any()
    assert not state.affinity[:, 2].any()


def test_no_active_task_freezes_the_state():
    tx = mtl.task_affinity(
        2, losses_fn=bowls, owner=None, optimizer=optax.sgd(0.1, momentum=0.9)
    )
    state = observed(tx, bowls, jnp.array(1.0))
    none = jnp.zeros(2, bool)
    same = observed(tx, bowls, jnp.array(2.0), state, active=none)
    chex.assert_trees_all_equal(same, state)


def test_pairs_are_averaged_over_their_own_measurements():
    tx = mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=0.1, every_k=1)
    state = observed(tx, bowls, jnp.array(1.0))
    first = jnp.array([True, False])
    state = observed(tx, bowls, jnp.array(2.0), state, active=first)
    np.testing.assert_array_equal(state.counts, [[2, 1], [1, 1]])
    np.testing.assert_allclose(state.affinity, EXAMPLE, atol=1e-6)


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_that_is_not_positive_is_not_counted(loss):
    def flat_and_bowl(x):
        return {"a": loss + 0 * x, "b": 0.5 * x**2}

    tx = mtl.task_affinity(2, losses_fn=flat_and_bowl, owner=None, learning_rate=0.1)
    state = observed(tx, flat_and_bowl, jnp.array(1.0))
    np.testing.assert_array_equal(state.counts, [[0, 1], [0, 1]])
    np.testing.assert_allclose(state.affinity, [[0, 0], [0, 0.19]], atol=1e-6)


def test_learning_rate_may_be_mapped_over():
    def affinity(learning_rate):
        tx = mtl.task_affinity(
            2, losses_fn=bowls, owner=None, learning_rate=learning_rate
        )
        return observed(tx, bowls, jnp.array(1.0)).affinity

    both = jax.vmap(affinity)(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(both[0], EXAMPLE, atol=1e-6)
    np.testing.assert_allclose(both[1][0, 0], 1 - 0.8**2, atol=1e-6)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("optimizer", [None, optax.sgd(0.1, momentum=0.9)])
@pytest.mark.slow
def test_on_a_mesh(kind, optimizer):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))

    def of_mesh(params):
        wide = params["trunk"]
        return {"a": jnp.mean(wide**2), "b": jnp.mean((wide - params["b"][None]) ** 2)}

    params = {"trunk": jnp.arange(16.0).reshape(16, 1) / 16, "b": jnp.ones(1)}
    tx = mtl.task_affinity(
        2,
        losses_fn=of_mesh,
        owner={"trunk": None, "b": 1},
        learning_rate=0.1,
        optimizer=optimizer,
    )
    wanted = observed(tx, of_mesh, params)
    put = lambda spec: lambda x: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
    with jax.set_mesh(mesh):
        there = {"trunk": put(PartitionSpec("x"))(params["trunk"])}
        there["b"] = put(PartitionSpec())(params["b"])

        @jax.jit
        def step(params, state):
            grads = mtl.task_grads(of_mesh)(params)[1]
            return tx.update(grads, state, params)[1]

        state = step(there, tx.init(there))
    chex.assert_trees_all_close(state, wanted, rtol=1e-5)


@pytest.mark.slow
def test_flax_nnx_module_and_groups_from_the_affinity():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.trunk = nnx.Linear(2, 4, rngs=rngs)
            self.heads = nnx.List([nnx.Linear(4, 1, rngs=rngs) for _ in range(3)])

    def losses_of(net, x):
        z = jnp.tanh(net.trunk(x))
        wanted = x[:, 0], x[:, 0] ** 2, -x[:, 1]
        return tuple(
            jnp.mean((head(z)[:, 0] - y) ** 2)
            for head, y in zip(net.heads, wanted, strict=True)
        )

    losses_fn, params, rest = module_losses(Net(nnx.Rngs(0)), losses_of)

    def owner(params):
        def of(path, _):
            keys = [getattr(k, "key", None) for k in path]
            return int(keys[1]) if keys[0] == "heads" else None

        labels = [of(*leaf) for leaf in jax.tree_util.tree_leaves_with_path(params)]
        return jax.tree.unflatten(jax.tree.structure(params), labels)

    tx = optax.chain(
        mtl.task_affinity(3, owner=owner, learning_rate=0.1, every_k=1),
        mtl.mean(3),
        optax.adam(1e-2),
    )

    @jax.jit
    def step(params, state, x):
        grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(params, rest, x)[1]
        updates, state = tx.update(
            grads, state, params, losses_fn=lambda p: losses_fn(p, rest, x)[0]
        )
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state, X)
    assert np.all(np.diag(state[0].affinity) > 0)
    groups, _ = mtl.select_task_groups(state[0].affinity, budget=2)
    assert set().union(*groups) == {0, 1, 2}


def test_it_compiles_once():
    tx = mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=0.1)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(x, state):
        return tx.update(mtl.task_grads(bowls)(x)[1], state, x)[1]

    state = tx.init(jnp.array(1.0))
    for x in (1.0, 2.0):
        state = step(jnp.array(x), state)


def test_half_precision_and_an_empty_tree():
    x = jnp.array(1.0, jnp.bfloat16)
    tx = mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=0.1)
    state = observed(tx, bowls, x)
    assert state.affinity.dtype == jnp.float32
    np.testing.assert_allclose(state.affinity, EXAMPLE, atol=0.02)
    out, state = tx.update({}, tx.init({}), {})
    assert out == {}


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="give its learning_rate="):
        mtl.task_affinity(2, losses_fn=bowls, owner=None)
    with pytest.raises(ValueError, match="learning_rate must be at least 0"):
        mtl.task_affinity(2, losses_fn=bowls, owner=None, learning_rate=-1.0)
    with pytest.raises(ValueError, match="every_k must be at least 1"):
        mtl.task_affinity(2, owner=None, learning_rate=1.0, every_k=0)
    tx = mtl.task_affinity(2, owner=None, learning_rate=0.1)
    x, grads = jnp.array(1.0), jnp.ones(2)
    with pytest.raises(ValueError, match="losses_fn="):
        tx.update(grads, tx.init(x), x)
    with pytest.raises(ValueError, match="params"):
        tx.update(grads, tx.init(x), losses_fn=bowls)
    with pytest.raises(ValueError, match="num_tasks=2"):
        tx.update(jnp.ones(3), tx.init(x), x, losses_fn=bowls)
    with pytest.raises(ValueError, match="losses_fn= gave 3 losses for 2 tasks"):
        tx.update(grads, tx.init(x), x, losses_fn=lambda x: (x, x, x))
    tx = mtl.task_affinity(2, owner=0, learning_rate=0.1)
    with pytest.raises(ValueError, match="Put None on the leaves"):
        tx.update(grads, tx.init(x), x, losses_fn=bowls)
