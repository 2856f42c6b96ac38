"""auto_lambda, moml and forum: weights that learn from a second batch."""

from functools import partial

import bilevel_reference as reference
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from toy_losses import wide_losses

import mtl_optax as mtl
from mtl_optax.core.solvers.value_gap import value_gap_weights
from mtl_optax.flax_support import MultiTaskTrainState, nnx_update

NAMES = "a", "b", "c"
SEED = 0
STEPS = 5


def matrices(rng):
    factors = rng.normal(size=(3, 3, 3))
    return factors @ factors.transpose(0, 2, 1) / 3 + 0.2 * np.eye(3)


def centres(rng, active):
    """Of each step and task; NaN where the task is missing."""
    found = rng.normal(size=(STEPS, 3, 3))
    return np.where(active[..., None], found, np.nan)


TRAIN, HELD_OUT = (matrices(np.random.default_rng(seed)) for seed in (1, 2))
START = {"w": np.array([0.7, -0.4]), "x": np.array(0.3)}
# Of one batch and the other: in the third step nobody judges, in the fourth none trains
ACTIVE = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)
JUDGES = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], bool)

# By name: ours, and what it is compared with
METHODS = {
    "auto_lambda": (
        partial(mtl.auto_lambda, learning_rate=0.3, optimizer=optax.adam(0.02)),
        partial(reference.AutoLambda, rate=0.02, eta=0.3),
    ),
    "auto_lambda, primary": (
        partial(
            *(mtl.auto_lambda,),
            learning_rate=lambda count: 0.3,
            init={"b": 0.4, "a": 0.2, "c": 0.1},
            primary={"a": True, "b": False, "c": True},
        ),
        partial(
            *(reference.AutoLambda,),
            rate=1e-4,
            eta=0.3,
            init=[0.2, 0.4, 0.1],
            primary=[1, 0, 1],
        ),
    ),
    "auto_lambda, softmax": (
        partial(mtl.auto_lambda, learning_rate=0.3, variant="softmax"),
        partial(reference.AutoLambda, rate=1e-3, eta=0.3, soft=True),
    ),
    "moml": (
        partial(mtl.moml, learning_rate=0.3, optimizer=optax.adam(0.05)),
        partial(reference.MOML, rate=0.05, eta=0.3),
    ),
    "forum": (
        partial(mtl.forum, phi=0.8, inner_steps=3, optimizer=optax.adam(0.02)),
        partial(reference.FORUM, rate=0.02, eta=0.1, inner_steps=3, phi=0.8),
    ),
}
PUBLIC = {
    "auto_lambda": partial(mtl.auto_lambda, learning_rate=0.1),
    "moml": mtl.moml,
    "forum": mtl.forum,
}
EACH = pytest.mark.parametrize("name", PUBLIC)


def quadratic_losses(params, matrices, centres):
    point = jnp.append(params["w"], params["x"])

    def loss(t):
        off = point - centres[t]
        return off @ jnp.asarray(matrices[t]) @ off / 2

    return {name: loss(t) for t, name in enumerate(NAMES)}


def trained(tx, gradients, centres):
    """Points and weights after each step of one scan."""

    def step(carry, at):
        params, state = carry
        first, second, active, judges = at
        losses_fn = lambda p: quadratic_losses(p, TRAIN, first)  # noqa: E731
        losses, grads = gradients(losses_fn)(params)
        update, state = tx.update(
            *(grads, state, params),
            losses=losses,
            active=active,
            losses_fn=losses_fn,
            validation_losses_fn=lambda p: quadratic_losses(p, HELD_OUT, second),
            validation_active=dict(zip(NAMES, judges, strict=True)),
        )
        params = jax.tree.map(lambda p, u: p - 0.2 * u, params, update)
        point = jnp.append(params["w"], params["x"])
        return (params, state), (point, mtl.task_weights(state))

    params = jax.tree.map(jnp.asarray, START)
    masks = jnp.asarray(ACTIVE), jnp.asarray(JUDGES)
    return lax.scan(step, (params, tx.init(params)), (*centres, *masks))[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.slow
def test_it_is_what_the_paper_defines(name, x64):
    """With tasks missing, whose losses are NaN; stacked, lazily; compiled once."""
    ours, theirs = METHODS[name]
    rng = np.random.default_rng(SEED)
    first, second = centres(rng, ACTIVE), centres(rng, JUDGES)
    method, point = theirs(3), np.append(START["w"], START["x"])
    points, weights = np.zeros((STEPS, 3)), np.zeros((STEPS, 3))
    for at in range(STEPS):
        train = reference.Quadratics(first[at], TRAIN)
        held_out = reference.Quadratics(second[at], HELD_OUT)
        tasks, judges = (list(np.flatnonzero(x[at])) for x in (ACTIVE, JUDGES))
        step, used = method.update(point, train, held_out, tasks, judges)
        points[at] = point = point - 0.2 * step
        weights[at, list(used)] = list(used.values())
    assert name != "forum" or np.unique(weights.any(axis=1)).size == 2  # both regimes
    for gradients in (mtl.task_grads, mtl.lazy_task_grads):
        found = jax.jit(partial(trained, ours(3), gradients))((first, second))
        np.testing.assert_allclose(found[0], points, rtol=2e-6, atol=2e-7)
        np.testing.assert_allclose(found[1], weights, rtol=2e-6, atol=2e-7)


# --- By hand --------------------------------------------------------------------------


def both_sides(x):
    return {"a": (x - 1) ** 2, "b": (x + 1) ** 2}


def one_update(tx, losses_fn, params, validation=None, state=None, **extras):
    validation = losses_fn if validation is None else validation

    @jax.jit
    def update(params, state):
        _, grads = mtl.lazy_task_grads(losses_fn)(params)
        asks = {"losses_fn": losses_fn, "validation_losses_fn": validation, **extras}
        return tx.update(grads, state, params, **asks)

    return update(params, tx.init(params) if state is None else state)


def test_auto_lambda_by_hand():
    """Ahead is 0, v = -2, h = (4, -4), the slopes of lambda (-0.4, 0.4)."""
    tx = mtl.auto_lambda(
        *(2,),
        learning_rate=0.1,
        optimizer=optax.sgd(1.0),
        init=0.5,
        primary=[True, False],
    )
    update, state = one_update(tx, both_sides, jnp.array(0.0))
    np.testing.assert_allclose(mtl.task_weights(state), [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(update, -2 * 0.9 + 2 * 0.1, rtol=1e-6)
    # No projection: the weight of the harmful task becomes negative.
    _, state = one_update(tx, both_sides, jnp.array(0.0), state=state)
    assert mtl.task_weights(state)[1] < 0
    # And it starts at 0.1, with Adam at 1e-4; LibMTL's form at 1/T, with 1e-3.
    for variant, start, rate in (("raw", 0.1, 1e-4), ("softmax", 0.5, 5e-4)):
        tx = mtl.auto_lambda(2, learning_rate=0.1, primary=[1, 0], variant=variant)
        _, state = one_update(tx, both_sides, jnp.array(0.0))
        wanted = [start + rate, start - rate]
        np.testing.assert_allclose(mtl.task_weights(state), wanted, atol=1e-6)


def test_moml_by_hand():
    """Rows (-0.2, 0.2) and (0.2, -0.2) are opposed: exactly nothing is learned."""
    tx, x = mtl.moml(2), jnp.array(0.0)
    state = tx.init(x)
    for _ in range(3):
        update, state = one_update(tx, both_sides, x, state=state)
    assert float(update) == 0
    chex.assert_trees_all_equal(state.learned.values, tx.init(x).learned.values)
    # Both want more of b: unit rows (1, -1) / sqrt(2), and their shortest mixture.
    tx = mtl.moml(2, optimizer=optax.sgd(1.0))
    right = lambda x: {"a": x, "b": 3 * x}  # noqa: E731
    _, state = one_update(tx, right, x)
    wanted = 0.5 + np.sqrt(0.5) * np.array([-1, 1])
    np.testing.assert_allclose(state.learned.values, wanted, rtol=1e-6)


def test_forum_by_hand():
    """One task: u = -1 and q = (0, -2), pi = phi - 2/4; nu is 0, or pi."""
    x, square = jnp.array(0.0), lambda x: ((x - 1) ** 2,)
    update, state = one_update(mtl.forum(1), square, x)
    assert float(update) == -1
    assert mtl.task_weights(state) == 0
    update, state = one_update(mtl.forum(1, phi=2.0), square, x)
    np.testing.assert_allclose(mtl.task_weights(state), 1.5, rtol=1e-6)
    np.testing.assert_allclose(update, -1 + 1.5 * -2, rtol=1e-6)


@pytest.mark.parametrize(("step_size", "second"), [(None, 2**-0.75), (0.5, 0.5)])
@pytest.mark.slow
def test_forums_mean_of_weights(step_size, second):
    """All of the first weights, and then 2^(-3/4), or what one says."""
    axes = lambda p: (p[0], p[1])  # noqa: E731, of unit gradients
    params = jnp.ones(2)
    tx = mtl.forum(2, step_size=step_size)
    _, state = one_update(tx, axes, params)
    first = 0.5 if step_size is None else 0.25
    np.testing.assert_allclose(state.objective_weights, [first, first], rtol=1e-6)
    only = {"validation_active": jnp.array([True, False])}
    _, state = one_update(tx, axes, params, state=state, **only)
    wanted = [first + second * (1 - first), first]
    np.testing.assert_allclose(state.objective_weights, wanted, rtol=1e-6)


def test_forums_program_is_solved_exactly():
    """Against every set of active constraints, in both regimes and on their border."""
    solve = jax.jit(jax.vmap(partial(value_gap_weights, active=jnp.ones(3, bool))))
    cases, kinds, rng = [], [], np.random.default_rng(0)
    for case in range(60):
        dims = (2, 3, 6)[case % 3]
        rows = rng.normal(size=(3, dims)) + (case % 2) * rng.normal(size=dims)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        q = rng.normal(size=dims) * 10 ** rng.uniform(-1, 1)
        q += rng.uniform(0, 2) * np.linalg.norm(q) * rows.mean(axis=0)
        phi = (0.1, 0.5, 2.0)[case // 3 % 3]
        if case % 4 == 3:  # the shortest vector is just not allowed
            phi = max(reference.shortest(rows) @ rows @ q / (q @ q), 0.0) + 0.01
        cases.append((rows, q, phi))
    about = [(u @ u.T, u @ q, q @ q + 1e-8, phi) for u, q, phi in cases]
    found = solve(*(jnp.asarray(np.stack(x)) for x in zip(*about, strict=True)))
    for (u, q, phi), w in zip(cases, np.asarray(found, float), strict=True):
        square = q @ q + 1e-8

        def value(w, nu, u=u, q=q, phi=phi, square=square):
            return np.sum((w @ u + nu * q) ** 2) - nu * phi * square

        best, nu = reference.gap_program(u, q, square, phi)
        excess = w @ (phi - u @ q / square)
        kinds.append("free" if nu > 1e-6 else "border" if excess > -1e-4 else "zero")
        assert abs(w.sum() - 1) < 1e-5
        ours = value(w, max(excess, 0))
        assert ours <= value(best, nu) + 1e-4 * (1 + abs(value(best, nu)))
    assert min(map(kinds.count, ("free", "border", "zero"))) > 3, kinds


# --- Degenerate input -----------------------------------------------------------------


@EACH
@pytest.mark.slow
def test_zero_one_task_and_low_precision(name):
    zero = lambda p: (jnp.sum(0 * p["w"]), jnp.sum(p["w"] ** 2))  # noqa: E731
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {"w": jnp.ones(2, dtype)}
        update, state = one_update(PUBLIC[name](2), zero, params)
        assert update["w"].dtype == dtype
        chex.assert_tree_all_finite((update, state))
    none = lambda p: (jnp.sum(0 * p["w"]),) * 2  # noqa: E731
    update, state = one_update(PUBLIC[name](2), none, {"w": jnp.ones(2)})
    assert not update["w"].any()
    chex.assert_tree_all_finite(state)
    alone = lambda p: (jnp.sum(p["w"] ** 2),)  # noqa: E731
    huge = lambda p: tuple(1e25 * x for x in zero(p))  # noqa: E731
    for losses_fn, num_tasks in ((alone, 1), (huge, 2)):
        tx = PUBLIC[name](num_tasks)
        update, state = one_update(tx, losses_fn, {"w": jnp.ones(2)})
        chex.assert_tree_all_finite((update, state))
    if name == "moml":
        np.testing.assert_allclose(one_update(tx, zero, params)[0]["w"], 1.0, rtol=0.1)


def test_equal_tasks_are_no_reason_to_move():
    """The rounding of equal slopes is not blown up by Adam."""
    same = lambda x: (jnp.sum(jnp.sin(x)),) * 3  # noqa: E731
    x = jnp.arange(5.0)
    for tx in (mtl.moml(3), mtl.auto_lambda(3, learning_rate=0.1, variant="softmax")):
        _, state = one_update(tx, same, x)
        chex.assert_trees_all_equal(state.learned.values, tx.init(x).learned.values)


# --- In programs ----------------------------------------------------------------------


@EACH
@pytest.mark.slow
def test_rates_are_numbers_of_lanes(name):
    """Traced, under vmap; and the second batch changes no compiled step."""
    make = METHODS[name][0].func

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def weights(rate, shift):
        tx = make(2, learning_rate=rate, optimizer=optax.sgd(0.5))
        later = lambda x: both_sides(x + shift)  # noqa: E731
        update, _ = one_update(tx, both_sides, jnp.array(0.2), later)
        return update

    found = weights(jnp.array([0.1, 0.3]), 0.5)
    weights(jnp.array([0.1, 0.3]), 0.7)
    assert weights._cache_size() == 1
    tx = make(2, learning_rate=0.3, optimizer=optax.sgd(0.5))
    later = lambda x: both_sides(x + 0.5)  # noqa: E731
    alone, _ = one_update(tx, both_sides, jnp.array(0.2), later)
    np.testing.assert_allclose(found[1], alone, rtol=1e-5)


PARAMS = {"trunk": jnp.ones((3, 3)), "a": jnp.ones(3), "b": jnp.ones(3)}
X = jnp.ones((2, 3))
GIVEN = {
    "losses_fn": lambda p: wide_losses(p, X),
    "validation_losses_fn": lambda p: wide_losses(p, 2 * X),
}


def traced(tx, stacked=False, **extras):
    def run():
        form = mtl.task_grads if stacked else mtl.lazy_task_grads
        _, grads = form(wide_losses)(PARAMS, X)
        return tx.update(grads, tx.init(PARAMS), PARAMS, **extras)[0]

    return jax.eval_shape(run)


def injected():
    make = optax.inject_hyperparams(
        *(mtl.auto_lambda, "num_tasks"), hyperparam_dtype=jnp.float32
    )
    return make(num_tasks=2, learning_rate=0.1)


METHOD = PUBLIC["auto_lambda"](2)
ADAM = optax.chain(METHOD, optax.adam(0.1))
AROUND = {
    **{name: make(2) for name, make in PUBLIC.items()},
    "schedule": mtl.moml(2, learning_rate=lambda count: 0.1 / (count + 1)),
    "inject_hyperparams": injected(),
    "task_affinity": optax.chain(
        mtl.task_affinity(2, owner=None, learning_rate=0.1), ADAM
    ),
    "skip_nonfinite_tasks": mtl.skip_nonfinite_tasks(ADAM, 2),
    "accumulate_tasks": mtl.accumulate_tasks(ADAM, 2, every_k=2),
    "flat_mtl": mtl.flat_mtl(METHOD, rho_shared=0.1),
    "stale": mtl.stale(ADAM, 2),
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.slow
def test_what_stands_around_it_hands_the_second_batch_on(name):
    tx = AROUND[name]
    chex.assert_trees_all_equal_shapes(traced(tx, **GIVEN), PARAMS)
    mtl.check_chain(tx, PARAMS, 2)


def test_flax_hands_the_second_batch_on():
    def linen():
        state = MultiTaskTrainState.create(apply_fn=None, params=PARAMS, tx=ADAM)
        _, grads = mtl.lazy_task_grads(wide_losses)(PARAMS, X)
        return state.apply_gradients(grads=grads, **GIVEN).params

    chex.assert_trees_all_equal_shapes(jax.eval_shape(linen), PARAMS)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    before = model.kernel[...]

    def losses_fn(params):
        kernel = params["kernel"][...]
        return jnp.sum(kernel[:, 0] ** 2), jnp.sum((kernel[:, 1] - 1) ** 2)

    @nnx.jit
    def step(model, optimizer):
        _, grads = mtl.lazy_task_grads(losses_fn)(nnx.state(model, nnx.Param))
        nnx_update(optimizer, model, grads, **dict.fromkeys(GIVEN, losses_fn))

    step(model, optimizer)
    assert (model.kernel[...] != before).all()


@EACH
def test_its_state_follows_the_tasks(name):
    old, new = PUBLIC[name](2), PUBLIC[name](3)
    x = jnp.array(0.2)
    _, state = one_update(old, both_sides, x)
    grown = mtl.resize_tasks(state, ("a", "c"), NAMES, new.init(x))
    back = mtl.resize_tasks(grown, NAMES, ("a", "c"), old.init(x))
    chex.assert_trees_all_equal(back, state)
    with pytest.raises(ValueError, match="num_tasks=3"):
        one_update(new, lambda x: (x, x, x), x, state=state)


def flops(tx, more=True):
    params = {"trunk": jnp.zeros((64, 64)), "a": jnp.zeros(64), "b": jnp.zeros(64)}
    state, x = tx.init(params), jnp.zeros((64, 64))

    def step(params, state, x, y):
        _, grads = mtl.lazy_task_grads(wide_losses)(params, x)
        second = {"validation_losses_fn": lambda p: wide_losses(p, y)}
        return tx.update(grads, state, params, **second if more else {})

    lowered = jax.jit(step).lower(params, state, x, x)
    return lowered.compile().cost_analysis()["flops"]


@pytest.mark.optimized
@pytest.mark.slow
def test_what_a_step_costs():
    """In products of matrices: 2 forward, 3 backward, 3 in forward mode."""
    one = flops(mtl.unitary(2), more=False) / 5
    # Forward on both, three backward, one more in forward mode.
    auto_lambda = mtl.auto_lambda(2, learning_rate=0.1)
    assert flops(auto_lambda) == pytest.approx((4 + 3 * 3 + 3) * one, rel=0.03)
    # Forward on both, T + 2 backward, T in forward mode.
    moml = mtl.moml(2)
    assert flops(moml) == pytest.approx((4 + 4 * 3 + 2 * 3) * one, rel=0.03)


# --- Errors ---------------------------------------------------------------------------


@EACH
def test_the_second_batch_is_needed_and_the_error_shows_the_call(name):
    tx = PUBLIC[name](2)
    asks = GIVEN | {"validation_losses_fn": None}
    text = (
        rf"{name} needs the extra argument validation_losses_fn=.*second batch.*"
        r"validation_losses_fn=lambda p: losses_fn\(p, x_val, y_val\)"
    )
    with pytest.raises(ValueError, match=text):
        traced(tx, **asks)
    wrong = {
        "losses only": lambda p: (wide_losses(p, X), {"seen": X}),
        "gave 3 losses for 2 .*validation_active=": lambda p: (0.0, 1.0, 2.0),
        "named differently": lambda p: {"a": 1.0, "z": 1.0},
    }
    for text, given in wrong.items():
        with pytest.raises(ValueError, match=text):
            traced(tx, **asks | {"validation_losses_fn": given})
    for mask in (jnp.ones(2), jnp.ones(3, bool)):
        with pytest.raises(ValueError, match="validation_active= must be a boolean"):
            traced(tx, **GIVEN, validation_active=mask)
    with pytest.raises(ValueError, match="named differently"):
        traced(tx, **GIVEN, validation_active={"a": True, "z": True})
    with pytest.raises(ValueError, match="needs the extra argument params="):
        tx.update(PARAMS, tx.init(PARAMS), **GIVEN)
    with pytest.raises(ValueError, match="gramian= has no effect here"):
        traced(tx, **GIVEN, gramian=jnp.eye(2))


def test_it_needs_all_leaves():
    mask = {"trunk": True, "a": False, "b": False}
    tx = mtl.on_shared(mtl.moml(2), mask)
    text = r"moml calls validation_losses_fn= with .*some leaves only.*chain\(mtl_optax"
    with pytest.raises(ValueError, match=text):
        traced(tx, **GIVEN)


def test_primary_tasks_are_told_one_by_one():
    make = partial(mtl.auto_lambda, learning_rate=0.1)
    for primary in ("a", 0, ["a"]):
        with pytest.raises(ValueError, match="tells of each task whether it is one"):
            make(2, primary=primary)
    with pytest.raises(ValueError, match="names no task"):
        make(2, primary={"a": False, "b": False})
    for argument in ("primary", "init"):
        with pytest.raises(ValueError, match=f"{argument} must have one entry a task"):
            make(2, **{argument: jnp.ones(3)})
    with pytest.raises(ValueError, match="variant must be one of"):
        make(2, variant="tanh")
