"""Measures of fronts against their definitions, and fronts trained in one program."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.analysis.pareto import (
    hypervolume,
    pareto_mask,
    simplex_lattice,
    spacing,
)
from mtl_optax.study.data.pareto_problems import PROBLEMS, stays_in

# --- Measures -------------------------------------------------------------------------


def corners(count, num_tasks, seed):
    """Points on a grid, so that volumes can be counted; with twins, and beyond it."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (count, num_tasks)).astype(float)
    points[-1] = points[0]
    return points


def dominates(one, other):
    return all(one <= other) and any(one < other)


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_the_mask_keeps_what_no_point_dominates(num_tasks):
    for seed in range(5):
        points = corners(12, num_tasks, seed)
        points[3, 0] = np.nan
        points[4] = np.inf
        known = [p for p in points if not np.isnan(p).any()]
        wanted = [
            not np.isnan(p).any() and not any(dominates(q, p) for q in known)
            for p in points
        ]
        np.testing.assert_array_equal(pareto_mask(points), wanted)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
def test_hypervolume_counts_the_cells_of_a_grid(num_tasks):
    volume = jax.jit(hypervolume)
    for seed in range(5):
        points, reference = corners(8, num_tasks, seed), np.full(num_tasks, 5.0)
        points[2, -1] = np.nan
        cells = itertools.product(range(5), repeat=num_tasks)
        known = points[~np.isnan(points).any(axis=1)]
        wanted = sum(any(np.all(p <= cell) for p in known) for cell in cells)
        assert volume(points, reference) == wanted


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_hypervolume_is_inclusion_and_exclusion_of_boxes(num_tasks):
    points = np.random.default_rng(1).uniform(0, 1.2, (5, num_tasks))
    reference = np.linspace(0.9, 1.1, num_tasks)
    wanted = 0.0
    for size in range(1, 6):
        for some in itertools.combinations(points, size):
            sides = np.maximum(reference - np.max(some, axis=0), 0)
            wanted += (-1) ** (size + 1) * np.prod(sides)
    np.testing.assert_allclose(hypervolume(points, reference), wanted, rtol=2e-6)


def test_hypervolume_of_points_that_beat_the_reference_nowhere_is_zero():
    points = jnp.array([[2.0, 0.0], [0.0, 1.0], [jnp.inf, jnp.inf]])
    assert hypervolume(points, jnp.ones(2)) == 0
    both = jax.vmap(hypervolume, (None, 0))(points, jnp.array([[1.0, 1.0], [3.0, 2.0]]))
    np.testing.assert_array_equal(both, [0, 4])


def test_infinite_losses_make_no_measure_nan():
    far = jnp.array([[-jnp.inf, 1.0, 0.0], [-jnp.inf, 0.5, 0.0], [1.0, 0.0, 0.0]])
    for size in (1, 2, 3):
        assert hypervolume(far[:, :size], jnp.full(size, 2.0)) == jnp.inf
    finite = jnp.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0]])
    assert hypervolume(finite, [jnp.inf, 5.0]) == jnp.inf
    ended = jnp.concatenate([finite, jnp.array([[jnp.inf, 0.0], [jnp.inf, 0.5]])])
    assert hypervolume(ended, [4.0, 5.0]) == hypervolume(finite, [4.0, 5.0])
    assert spacing(ended) == spacing(finite) > 1
    # Products of heights may leave the range, while a slab without height is none.
    steep = jnp.array([[-1e30, -1e30, 0.0], [0.0, 0.0, 0.0]])
    assert hypervolume(steep, jnp.ones(3)) == jnp.inf


def test_spacing_is_the_deviation_of_distances_to_neighbours():
    points = np.random.default_rng(2).uniform(size=(7, 3))
    points[5, 1] = np.nan
    kept = np.array([True, True, False, True, True, True, True])
    some = points[kept & ~np.isnan(points).any(axis=1)]
    nearest = [
        min(np.abs(p - q).sum() for j, q in enumerate(some) if j != i)
        for i, p in enumerate(some)
    ]
    np.testing.assert_allclose(
        spacing(points, kept), np.std(nearest, ddof=1), rtol=1e-5
    )
    for few in range(3):  # no number rather than a NaN
        assert spacing(points, np.arange(7) < few) == 0
    assert abs(spacing(simplex_lattice(2, 10))) < 1e-6


@pytest.mark.parametrize(("num_tasks", "divisions"), [(1, 3), (2, 4), (3, 19), (4, 3)])
def test_the_lattice_has_every_multiple_once(num_tasks, divisions):
    lattice = np.asarray(simplex_lattice(num_tasks, divisions))
    counts = itertools.product(range(divisions + 1), repeat=num_tasks)
    wanted = [k for k in counts if sum(k) == divisions]
    np.testing.assert_allclose(lattice * divisions, wanted, atol=1e-5)


def test_measures_say_what_shapes_they_take():
    with pytest.raises(ValueError, match=r"losses must be \[N, T\].*shape \(3,\)"):
        pareto_mask(jnp.ones(3))
    with pytest.raises(ValueError, match=r"reference must have one entry a task"):
        hypervolume(jnp.ones((4, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"mask must have one entry a point"):
        spacing(jnp.ones((4, 2)), jnp.ones(3, bool))
    with pytest.raises(ValueError, match="divisions must be a Python int"):
        simplex_lattice(2, 2.0)


# --- Fronts ---------------------------------------------------------------------------

TWO = jnp.array([[0.25, 0.75], [0.5, 0.5], [0.8, 0.2]])
START = {"x": jnp.array([0.5, -0.2, 0.1])}
# Those that take a preference.
TAKING = {
    "constant": lambda p: mtl.constant(2, weights=p),
    **{
        name: lambda p, name=name: getattr(mtl, name)(2, preference=p)
        for name in ("stch", "tchebycheff", "pbi", "cosmos", "epo", "pmgda", "cagrad")
    },
    "upgrad": lambda p: mtl.upgrad(2, preference=p),
    "conflictfree": lambda p: mtl.conflictfree(2, preference=p),
}


def bowls(params):
    x = params["x"]
    return {"a": jnp.sum((x - 1) ** 2), "b": jnp.sum((x + 1) ** 2) + 0.1 * x[0]}


def alone(method, losses_fn, params, batches, optimizer):
    """One run, step by step."""
    tx = optax.chain(method, optimizer)
    state = tx.init(params)
    for batch in batches:
        _, grads = mtl.lazy_task_grads(losses_fn)(params, *batch)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


QUICK = "constant", "stch", "epo"
RUNS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in TAKING
]


@pytest.mark.parametrize("name", RUNS)
def test_each_run_is_that_of_its_preference_alone(name):
    sgd = optax.sgd(0.05)
    about = {"losses_fn": bowls, "params": START, "steps": 3, "optimizer": sgd}
    front = mtl.pareto_front(TAKING[name], TWO, **about)
    for i, preference in enumerate(TWO):
        end = alone(TAKING[name](preference), bowls, START, [()] * 3, sgd)
        np.testing.assert_allclose(front.params["x"][i], end["x"], rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(
            front.losses[i], jnp.stack([*bowls(end).values()]), rtol=2e-5
        )


@pytest.mark.slow
def test_starts_batches_chunks_and_measures():
    """Against the runs one by one, in groups of 1, 2 and all."""

    def losses_fn(params, batch):
        return tuple(jnp.mean((params * batch - y) ** 2) for y in (1.0, -1.0))

    batches = jnp.linspace(0.5, 2.0, 8).reshape(4, 2)
    starts = jnp.array([[0.1, 0.3], [0.2, -0.5], [jnp.nan, 0.0]])
    make, after = (lambda p: mtl.stch(2, preference=p, mu=0.1)), optax.adam(0.1)
    test = jnp.array([1.0, 3.0])
    about = {
        "losses_fn": losses_fn,
        "batches": batches,
        "optimizer": after,
        "evaluate": lambda params: losses_fn(params, test),
        "reference": [9.0, 8.0],
    }
    for size in (None, 2, 1, 5):
        front = mtl.pareto_front(make, TWO, starts=starts, chunk_size=size, **about)
        for i in range(2):
            steps = [(batch,) for batch in batches]
            end = alone(make(TWO[i]), losses_fn, starts[i], steps, after)
            np.testing.assert_allclose(front.params[i], end, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(front.losses[i], losses_fn(end, test), rtol=1e-5)
    losses = np.asarray(front.losses)
    assert np.isnan(losses[2]).all()
    np.testing.assert_array_equal(front.non_dominated, pareto_mask(losses))
    assert not front.non_dominated[2]
    np.testing.assert_allclose(front.hypervolume, hypervolume(losses, [9.0, 8.0]))
    np.testing.assert_allclose(front.spacing, spacing(losses, front.non_dominated))
    np.testing.assert_array_equal(front.reference, [9, 8])

    one = mtl.pareto_front(make, TWO, params=starts[0], chunk_size=2, **about)
    np.testing.assert_allclose(one.params[0], front.params[0], rtol=1e-5)
    assert not np.allclose(one.params[1], front.params[1])


def test_a_front_can_be_jitted_over_its_preferences_and_has_a_reference_of_its_own():
    def trained(preferences):
        return mtl.pareto_front(
            TAKING["stch"], preferences, losses_fn=bowls, params=START, steps=2
        )

    front = jax.jit(trained)(TWO)
    np.testing.assert_allclose(front.losses, trained(TWO).losses, rtol=1e-5)
    np.testing.assert_allclose(front.reference, jnp.max(front.losses, axis=0))
    np.testing.assert_allclose(front.preferences, TWO)
    many = jax.eval_shape(jax.vmap(trained), jnp.stack([TWO, TWO]))  # fronts at once
    assert many.losses.shape == (2, 3, 2)
    assert many.hypervolume.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_runs_are_trained_where_their_preferences_are(kind):
    types = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.make_mesh((8,), ("runs",), axis_types=types)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("runs"))
    lattice = simplex_lattice(2, 7)
    about = {"losses_fn": bowls, "params": START, "steps": 2, "reference": [9.0, 9.0]}
    alike = mtl.pareto_front(TAKING["stch"], lattice, **about)
    with jax.set_mesh(mesh):
        there = jax.device_put(lattice, spread)
        about["params"] = {"x": jnp.array([0.5, -0.2, 0.1])}  # on this mesh
        front = mtl.pareto_front(TAKING["stch"], there, **about)
    assert front.params["x"].sharding.spec[0] == "runs"
    np.testing.assert_allclose(front.params["x"], alike.params["x"], rtol=1e-5)
    np.testing.assert_allclose(front.hypervolume, alike.hypervolume, rtol=1e-5)
    np.testing.assert_array_equal(front.non_dominated, alike.non_dominated)


def test_a_method_of_the_losses_costs_one_backward_pass_however_many_runs():
    """Traced, not run: how often the trunk is pulled back in the program of all."""
    pulled = []

    @jax.custom_vjp
    def trunk(x):
        return jnp.sin(x)

    def backward(x, ct):
        pulled.append(1)
        return (jnp.cos(x) * ct,)

    trunk.defvjp(lambda x: (jnp.sin(x), x), backward)

    def losses_fn(x):
        hidden = trunk(x)
        return jnp.sum(hidden**2), jnp.sum(hidden + 2)

    passes = {}
    for name in ("stch", "constant", "epo"):
        pulled.clear()
        jax.eval_shape(
            lambda p, name=name: mtl.pareto_front(
                TAKING[name], p, losses_fn=losses_fn, params=jnp.ones(3), steps=2
            ),
            TWO,
        )
        passes[name] = len(pulled)
    assert passes["stch"] == passes["constant"] == 1
    assert passes["epo"] >= 2  # the count tells


WRONG = {
    r"preferences must be \[N, T\].*p\[None, :\]": {"preferences": TWO[0]},
    "not negative.*row 1 is": {"preferences": TWO.at[1, 0].set(-1)},
    "finite.*row 2 is": {"preferences": TWO.at[2, 1].set(jnp.nan)},
    "Row 2 of preferences is zero.*leave it out": {"preferences": TWO.at[2].set(0)},
    "losses_fn returns 2 losses, but preferences have 3": {
        "preferences": jnp.ones((4, 3))
    },
    "evaluate returns 1 losses, but": {"evaluate": lambda p: (jnp.sum(p["x"]),)},
    "stch takes the number of tasks.*Write lambda p: mtl.stch": {"method_of": mtl.stch},
    "got GradientTransformation.*write lambda p: method": {"method_of": mtl.mean(2)},
    r"optimizer= is what follows.*adam\(1e-2\); got adam": {"optimizer": optax.adam},
    r"named differently.*losses_fn: \['a', 'b'\]; evaluate: \['b', 'c'\]": {
        "evaluate": lambda p: {"b": bowls(p)["b"], "c": bowls(p)["a"]}
    },
    "auto_lambda needs.*Nor can .* mtl_optax.pareto_front, which has one batch": {
        "method_of": lambda p: mtl.auto_lambda(2, learning_rate=0.1, primary=p)
    },
    r"reference must have one entry a task, shape \(2,\); got shape \(1,\)": {
        "reference": [9.0]
    },
    "reference: .*'a', 'c'.*the gradients: .*'a', 'b'": {
        "reference": {"a": 9.0, "c": 9.0}
    },
    "what method_of returns takes a transformation": {"method_of": lambda p: None},
    "got both": {"starts": {"x": jnp.ones((3, 3))}},
    "got neither": {"params": None},
    r"there are 3 preferences: every leaf must be \[3, ": {
        "params": None,
        "starts": {"x": jnp.ones((2, 3))},
    },
    "needs steps=": {"steps": None},
    "needs evaluate=": {"batches": jnp.ones((2, 3))},
    "steps=2, but batches have 4": {
        "batches": jnp.ones((4, 3)),
        "evaluate": bowls,
    },
    "share a leading axis": {
        "batches": (jnp.ones(4), jnp.ones(3)),
        "evaluate": bowls,
    },
    "chunk_size must be at least 1": {"chunk_size": 0},
    "num_tasks=3": {"method_of": lambda p: mtl.stch(3)},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said_with_its_cure(message):
    about = {"method_of": TAKING["stch"], "preferences": TWO, "losses_fn": bowls}
    about |= {"params": START, "steps": 2} | WRONG[message]
    with pytest.raises(ValueError, match=message):
        mtl.pareto_front(about.pop("method_of"), about.pop("preferences"), **about)


# --- Problems whose front is known ----------------------------------------------------


def on_the_front(name, shares):
    """Parameters of its points, from where its definition says that they are."""
    first, second = shares
    if name == "VLMOP2":
        return np.full(10, (2 * first - 1) / 10**0.5)
    if name == "DTLZ2":
        return np.r_[first, second, np.full(10, 0.5)]
    return np.r_[first, np.zeros(29)]


@pytest.mark.parametrize("name", PROBLEMS)
def test_known_fronts_and_their_volumes(name):
    """No point that is tried lies below the front, and the set reaches it."""
    problem, rng = PROBLEMS[name], np.random.default_rng(0)
    front = problem.front(1000)
    losses = jax.jit(lambda x: jnp.stack(problem.losses(x)))
    for shares in rng.uniform(0.01, 1, (5, 2)):
        x = jnp.asarray(on_the_front(name, shares), jnp.float32)
        reached = np.asarray(losses(x))[None]
        assert np.min(np.abs(front - reached).max(axis=1)) < 0.05
    random = rng.uniform(0, 1, (20, len(problem.start)))
    above = np.stack([losses(jnp.asarray(x, jnp.float32)) for x in random])
    assert not np.any((above[:, None] < front[None] - 1e-6).all(axis=-1))
    found = hypervolume(front, np.ones(problem.num_tasks))
    rough = 0.06 if problem.num_tasks == 3 else 0.003  # 31 x 31 points of a sphere
    assert 0 < problem.volume - found < rough * problem.volume
    assert pareto_mask(front[1:-1]).all() or problem.num_tasks == 3


def test_no_step_leaves_the_box():
    tx, params = stays_in((0.0, 1.0)), jnp.array([0.1, 0.9, 0.5])
    updates = tx.update(jnp.array([-1.0, 0.05, 0.7]), tx.init(params), params)[0]
    np.testing.assert_allclose(params + updates, [0, 0.95, 1], atol=1e-6)
