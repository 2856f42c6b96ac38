"""The study of physics-informed networks: its references, derivatives and methods."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from benchmarks.studies.pinn import burgers, equation, kovasznay, network, record, rule
from benchmarks.studies.pinn.claim import measured
from benchmarks.studies.pinn.document import table
from benchmarks.studies.pinn.methods import LBFGS, lbfgs, mconfig, passes
from benchmarks.studies.pinn.study import SMALL, STUDY
from mtl_optax.study.command import cli
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, programs
from mtl_optax.study.engine.settings import Candidate, Settings
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.engine.transformations import Ingredients

EQUATIONS = burgers.EQUATION, kovasznay.EQUATION
NU = burgers.VISCOSITY


def small(equation_, seed=0):
    """A problem, and parameters and points of a run."""
    made = equation.problem(equation_, SMALL)
    return made, *made.init(seed)


def spectral(time, modes=1024, step=5e-4):
    """Burgers' equation again: Fourier modes of a wave of period 2, Runge and Kutta."""
    x = -1 + 2 * np.arange(modes) / modes
    k = 2 * np.pi * np.fft.rfftfreq(modes, 2 / modes)
    u, half = np.fft.rfft(-np.sin(np.pi * x)), np.exp(-NU * k**2 * step / 2)

    def slope(u):
        return -0.5j * k * np.fft.rfft(np.fft.irfft(u, modes) ** 2) * (k < k[-1] / 1.5)

    for _ in range(round(time / step)):
        a = step * slope(u)
        b = step * slope(half * (u + a / 2))
        c = step * slope(half * u + b / 2)
        d = step * slope(half**2 * u + half * c)
        u = half**2 * u + (half**2 * a + 2 * half * (b + c) + d) / 6
    return x, np.fft.irfft(u, modes)


def test_cole_and_hopf_against_fourier_modes():
    x, u = spectral(0.3)
    np.testing.assert_allclose(burgers.exact(x, 0.3 * np.ones_like(x)), u, atol=1e-6)


def test_burgers_reference_begins_as_a_sine_and_stays_odd():
    x, t = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(0, 1, 11), indexing="ij")
    u = burgers.exact(x, t)
    np.testing.assert_allclose(u[:, 0], -np.sin(np.pi * x[:, 0]), atol=1e-14)
    np.testing.assert_allclose(u, -u[::-1], atol=1e-12)
    np.testing.assert_allclose(u[[0, -1]], 0, atol=1e-12)
    np.testing.assert_allclose(u, burgers.exact(x, t, nodes=200), atol=1e-12)


def test_kovasznay_solves_the_equations():
    points = np.random.default_rng(0).uniform(kovasznay.LOW, kovasznay.HIGH, (50, 2))
    h = 1e-4

    def at(dx, dy):
        return kovasznay.exact(points[:, 0] + h * dx, points[:, 1] + h * dy)

    by_x, by_y = (at(1, 0) - at(-1, 0)) / (2 * h), (at(0, 1) - at(0, -1)) / (2 * h)
    laplacian = (at(1, 0) + at(-1, 0) + at(0, 1) + at(0, -1) - 4 * at(0, 0)) / h**2
    u, v, _ = at(0, 0).T
    force = np.stack([by_x[:, 2], by_y[:, 2]], axis=1)
    rest = u[:, None] * by_x[:, :2] + v[:, None] * by_y[:, :2] + force
    np.testing.assert_allclose(rest, laplacian[:, :2] / kovasznay.REYNOLDS, atol=1e-5)
    np.testing.assert_allclose(by_x[:, 0] + by_y[:, 1], 0, atol=1e-6)


@pytest.mark.slow
def test_derivatives_are_those_of_reverse_mode(x64):
    params = network.init(0, 2, SMALL)
    params = jax.tree.map(lambda x: x + 0.3, params)  # biases too
    points = jax.random.uniform(jax.random.key(1), (6, 2))
    found = network.derivatives(params, points, twice=(1, 0))

    def one(point):
        return network.value(params, point[None])[0]

    first, second = (
        jax.vmap(jax.jacrev(one))(points),
        jax.vmap(jax.hessian(one))(points),
    )
    np.testing.assert_allclose(found.value, jax.vmap(one)(points))
    np.testing.assert_allclose(found.first, jnp.moveaxis(first, -1, 0))
    np.testing.assert_allclose(found.second[0], second[..., 1, 1])
    np.testing.assert_allclose(found.second[1], second[..., 0, 0])


def burgers_by_hand(u, points):
    def rest(point):
        (by_x, by_t), second = jax.grad(u)(point), jax.hessian(u)(point)
        return by_t + u(point) * by_x - NU * second[0, 0]

    start, walls = (jax.vmap(u)(points[x]) for x in ("initial", "boundary"))
    wave = jnp.sin(jnp.pi * points["initial"][:, 0])
    return jax.vmap(rest)(points["inside"]), start + wave, walls


def kovasznay_by_hand(velocity, points):
    def rest(point):
        uvp, first, second = (
            f(velocity)(point) for f in (lambda f: f, jax.jacfwd, jax.hessian)
        )
        force = jnp.trace(second, axis1=1, axis2=2)[:2] / kovasznay.REYNOLDS
        forces = first[:2] @ uvp[:2] + first[2] - force
        return jnp.append(forces, first[0, 0] + first[1, 1]) * jnp.sqrt(3.0)

    edge = jax.vmap(velocity)(points["boundary"])
    exact = kovasznay.exact(*np.asarray(points["boundary"]).T)
    return jax.vmap(rest)(points["inside"]), (edge - exact) * jnp.sqrt(3.0)


@pytest.mark.slow
def test_losses_are_what_is_left_of_the_equations(x64):
    for one, by_hand in zip(
        EQUATIONS, (burgers_by_hand, kovasznay_by_hand), strict=True
    ):
        _, params, points = small(one)

        def outputs(point, params=params, one=one):
            found = network.value(params, point[None])[0]
            return found[0] if len(one.outputs) == 1 else found

        wanted = [jnp.mean(x**2) for x in by_hand(outputs, points)]
        np.testing.assert_allclose(one.losses(params, points), wanted)


def test_points_lie_where_their_losses_ask():
    for one in EQUATIONS:
        points = one.draw(3, 40)
        for task, asked in zip(one.tasks, one.regions(points["inside"]).T, strict=True):
            assert asked.all() == (task == "residual")
            if task != "residual":
                own = one.regions(points[task])[:, one.tasks.index(task)]
                assert own.all()
        low, high = (np.array([x[at] for x in one.sides]) for at in (0, -1))
        cells = np.floor(40 * (points["inside"] - low) / (high - low))
        assert (np.sort(cells, axis=0) == np.arange(40)[:, None]).all()
        again, other = one.draw(3, 40)["inside"], one.draw(4, 40)["inside"]
        assert (again == points["inside"]).all()
        assert (other != points["inside"]).all()


def test_errors_are_those_of_each_region():
    made, params, _ = small(burgers.EQUATION)
    _, exact, regions = made.splits["grid"]
    assert regions.sum(axis=0).tolist() == [201 * 101, 201, 2 * 101]
    params = jax.tree.map(jnp.zeros_like, params)  # u = 0
    found = record.errors(params, made.splits["grid"])
    np.testing.assert_allclose(found[1], 0.5, rtol=0.01)  # a sine's mean square
    np.testing.assert_allclose(found[2], 0, atol=1e-12)
    np.testing.assert_allclose(found[0], np.mean(exact**2), rtol=1e-4)


def test_alignment_of_two_is_their_cosine():
    cosines = jnp.array([[1.0, -0.3], [-0.3, 1.0]])
    assert record.alignment(cosines) == pytest.approx(-0.3)
    units = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0].T
    units[1] = 0.6 * units[0] + 0.8 * units[1]
    score = 2 * np.sum(units.mean(axis=0) ** 2) - 1
    found = record.alignment(jnp.asarray(units @ units.T))
    assert found == pytest.approx(score, abs=1e-6)


LANES = Lanes(np.arange(2, dtype=np.int32), np.full(2, 0.01), *np.ones((2, 2, 3)), {})


@pytest.mark.slow
def test_a_record_is_looked_at_once_and_training_does_not_notice():
    made, *_ = small(burgers.EQUATION)
    starts = jax.tree.map(
        lambda *x: jnp.stack(x), *(made.init(seed) for seed in (0, 1))
    )
    plain, logs = made._replace(programs=None), []
    of = next(iter(STUDY.parts)).known["unitary"]
    for make in (record.programs, programs):
        init, advance = make(plain, of, Recipe(6, record_every=3))
        carry = Carry(*starts, init(starts[0], LANES))
        logs.append(advance(carry, None, None, LANES, 6))
    (ended, log), (alike, other) = logs
    assert log.watched.shape == (2, 2, len(record.Watched._fields))
    np.testing.assert_allclose(log.losses, other.losses, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-6), ended, alike
    )
    for lane in range(2):
        params, points = jax.tree.map(lambda x, i=lane: x[i], ended[:2])
        grads = mtl.task_grads(lambda x, y=points: burgers.losses(x, y))(params)[1]
        cosines = mtl.cosine_similarity(grads)
        own = record.Watched(*log.watched[-1, lane])
        assert own.lowest == pytest.approx(float(cosines.min()), abs=1e-4)
        assert own.alignment == pytest.approx(float(2 * cosines.mean() - 1), abs=1e-4)
        whole = record.errors(params, made.splits["grid"])[0]
        assert own.error == pytest.approx(float(whole), rel=1e-4)


def steps(method, params, losses_fn, number):
    """After so many, with the state."""
    made = optax.with_extra_args_support(method)

    @jax.jit
    def step(params, state):
        _, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, state = made.update(grads, state, params, losses_fn=losses_fn)
        return optax.apply_updates(params, updates), state

    state = made.init(params)
    for _ in range(number):
        params, state = step(params, state)
    return params, state


def of_two(rate=None):
    problem = SimpleNamespace(tasks=("a", "b"))
    return Ingredients(problem, optax.adam(9.0), None, None, rate)


def bowls(x):
    return jnp.sum(jnp.array([1.0, 9.0]) * (x - 1) ** 2), jnp.sum((x + 1) ** 2)


def test_lbfgs_is_that_of_optax_on_the_sum_and_counts_what_it_costs():
    start, plain = jnp.array([3.0, -2.0]), optax.lbfgs()
    end, state = steps(lbfgs(of_two()), start, bowls, 6)
    np.testing.assert_allclose(end, [0.0, 0.8], atol=1e-4)

    def total(x):
        return sum(bowls(x))

    params, own, cost = start, plain.init(start), 0
    for _ in range(6):
        value, grad = jax.value_and_grad(total)(params)
        updates, own = plain.update(
            grad, own, params, value=value, grad=grad, value_fn=total
        )
        params = optax.apply_updates(params, updates)
        cost += 1 + int(optax.tree.get(own, "num_linesearch_steps"))
    np.testing.assert_allclose(end, params, atol=1e-6)
    assert state.passes == cost >= 12


def test_mconfig_moves_at_the_rate_of_the_engine():
    start = jnp.array([3.0, -2.0])
    rate = optax.linear_schedule(0.1, 0.0, 10)
    plain = optax.chain(mtl.mconfig(2), optax.scale_by_learning_rate(rate))
    end, _ = steps(mconfig(of_two(rate)), start, bowls, 5)
    np.testing.assert_array_equal(end, steps(plain, start, bowls, 5)[0])
    assert (end != start).all()


def made_up(errors, alignment=0.0, records=4, **readings):
    """A method's result with these log errors `[seeds]`."""
    errors = np.asarray(errors, float)
    score = np.repeat(errors[None, :, None], 3, axis=2)
    path = np.full((records, 1, len(errors), 3), alignment)
    path[..., 0] = 10**errors
    metric = Metric("log10 MSE", "", higher_is_better=False)
    return MethodResult(
        *((Candidate(0.1, {}),), {}, np.zeros(1, int), score, path, path, path),
        *(readings, 1.0, 1.0, metric),
    )


def results(**parts):
    """Of a study, as far as claim and table look."""
    settings = Settings((), seeds=3, steps=12)
    made = {n: SimpleNamespace(methods=x, settings=settings) for n, x in parts.items()}
    return SimpleNamespace(parts=made)


SPREAD = np.array([0.0, 0.1, -0.1])


def test_the_claim_is_read_from_ratios_of_errors():
    whole = {
        "unitary": made_up(SPREAD - 1, alignment=-0.5),
        "pcgrad": made_up(SPREAD - 1.5 + [0, 0.01, 0.02]),
        "imtl_g": made_up([-3.0, -1.0, 0.0]),
        "conflictfree": made_up(SPREAD - 1.2 + [0, 0.01, 0]),
        "mconfig": made_up(SPREAD - 1),
    }
    short = {"conflictfree": made_up(SPREAD - 0.9 + [0, 0.01, 0])}
    second = {LBFGS: made_up([-5.0, -3.4, -3.6], alignment=0.25)}
    found = measured(results(burgers=whole, burgers_passes=short, burgers_lbfgs=second))
    words = [x.verdict for x in found]
    here = "does not hold here"
    assert words == ["holds", here, "cannot tell", "holds", "holds", "holds"]
    assert found[0].estimate == pytest.approx(-0.2 + 0.01 / 3)
    best = np.array([-3.0, -1.4 + 0.01, -1.6 + 0.02])  # of the five, seed by seed
    assert found[4].estimate == pytest.approx(np.mean([-5.0, -3.4, -3.6] - best))
    assert found[5].estimate == pytest.approx(0.75)
    assert measured(results(burgers={"pcgrad": whole["pcgrad"]})) == []


def test_a_part_is_judged_against_the_sum_where_it_is():
    both = {
        "unitary": made_up(SPREAD - 1),
        "mconfig": made_up(SPREAD - 2 + [0, 0.1, 0]),
    }
    said = rule.judge(both, ("a", "b", "c"))
    assert said.verdicts == {"unitary": "baseline", "mconfig": "better"}
    assert (
        "mconfig, better: error 1.1e-02, log10 ratio -0.97" in said.sentences["mconfig"]
    )
    assert said.statement == "The lowest error is 1.1e-02, of mconfig."
    alone = rule.judge({LBFGS: both["mconfig"]}, ("a",))
    assert alone.verdicts == {LBFGS: ""}


def test_passes_are_counted_as_papers_do():
    own = made_up(SPREAD)
    assert passes("unitary", own, 4, 12).tolist() == [3, 6, 9, 12]
    assert passes("pcgrad", own, 4, 12).tolist() == [9, 18, 27, 36]
    counted = np.array([[[2, 4, 6]], [[8, 10, 12]]])  # [records, scales, seeds]
    own = made_up(SPREAD, records=2, passes=counted)
    assert passes(LBFGS, own, 2, 12).tolist() == [4, 10]
    (row,) = table(results(burgers_lbfgs={LBFGS: own})).rows
    assert row[:5] == ["burgers_lbfgs", LBFGS, "0.1", "12", "10"]


@pytest.mark.slow
def test_the_study_runs(tmp_path):
    command = ["study", "pinn", "--quick", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    text = (tmp_path / "claim.csv").read_text("utf-8")
    assert text.count("\n") == 1 + 4
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 2 + 3
