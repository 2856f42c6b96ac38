"""Every misuse that trains nonsense elsewhere is an error here, with its cure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl

PARAMS = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}


def stacked(num_tasks, params=PARAMS):
    return jax.tree.map(lambda p: jnp.ones((num_tasks, *p.shape), p.dtype), params)


def update(tx, grads, params=PARAMS, **extra):
    return tx.update(grads, tx.init(params), params, **extra)


METHODS = {
    "unitary": mtl.unitary,
    "mgda": mtl.mgda,
    "graddrop": lambda num_tasks: mtl.graddrop(num_tasks, key=0),
}


@pytest.mark.parametrize("method", METHODS)
def test_unstacked_gradients(method):
    with pytest.raises(ValueError, match=r"\['b'\].*\(4,\).*not stacked.*task_grads"):
        update(METHODS[method](2), PARAMS)


@pytest.mark.parametrize("method", METHODS)
def test_unstacked_gradients_whose_leaves_share_a_leading_size(method):
    """Averaging over that axis would be silent; the shape of the parameter tells."""
    params = {"a": jnp.ones((2, 5)), "b": jnp.ones((2,))}
    with pytest.raises(ValueError, match=r"\['a'\].*\(2, 5\).*Expected \(2, 2, 5\)"):
        update(METHODS[method](2), params, params)


def test_unstacked_gradients_without_params():
    tx = mtl.mgda(2)
    with pytest.raises(ValueError, match="not stacked"):
        tx.update({"w": jnp.ones((3, 4))}, tx.init(PARAMS))


@pytest.mark.parametrize("method", METHODS)
def test_wrong_task_count(method):
    with pytest.raises(ValueError, match="stacked over 3 tasks, the method was built"):
        update(METHODS[method](2), stacked(3))


def test_wrong_task_count_of_lazy_gradients():
    _, lazy = mtl.lazy_task_grads(lambda p: (jnp.sum(p["w"]),) * 3)(PARAMS)
    with pytest.raises(ValueError, match=r"carry 3 tasks.*num_tasks=2"):
        update(mtl.mgda(2), lazy)


def test_lazy_gradients_of_other_parameters():
    _, lazy = mtl.lazy_task_grads(lambda p: (jnp.sum(p["w"]),) * 2)(PARAMS)
    other = {"w": jnp.ones((3, 5)), "b": jnp.ones(4)}
    with pytest.raises(ValueError, match="made for other parameters"):
        update(mtl.mgda(2), lazy, other)


def test_two_leaves_with_different_task_counts():
    grads = {"w": jnp.ones((2, 3, 4)), "b": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match=r"\['b'\].*stacked over 3 tasks"):
        update(mtl.mgda(2), grads)


def test_gradients_with_other_leaves_than_params():
    with pytest.raises(ValueError, match="1 leaves, params 2"):
        update(mtl.mgda(2), {"w": jnp.ones((2, 3, 4))})


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.bool_])
def test_leaves_that_are_not_real_floating(dtype):
    params = {"w": jnp.ones(3, dtype)}
    with pytest.raises(ValueError, match=r"\['w'\].* dtype .*eqx.partition"):
        update(mtl.mgda(2), stacked(2, params), params)


def test_multi_steps_around_us_is_named_by_the_guard():
    tx = optax.MultiSteps(optax.chain(mtl.mgda(2), optax.adam(1e-3)), 2)
    with pytest.raises(ValueError, match="accumulate_tasks"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("tx", [mtl.uw(2), mtl.mgda(2, normalization="loss")])
def test_missing_losses(tx):
    with pytest.raises(ValueError, match=r"losses=.*MultiTaskTrainState.*lazy"):
        update(tx, stacked(2))


@pytest.mark.parametrize("losses", [jnp.ones(3), {"a": 1.0}, (1.0, 2.0, 3.0)])
def test_losses_of_wrong_length(losses):
    with pytest.raises(ValueError, match=r"losses= has \d entries, but num_tasks=2"):
        update(mtl.uw(2), stacked(2), losses=losses)


def test_previous_losses_of_wrong_length():
    losses = {"losses": jnp.ones(2), "previous_losses": (1.0, 2.0, 3.0)}
    with pytest.raises(ValueError, match=r"previous_losses must .*\(2,\)"):
        update(mtl.famo(2), stacked(2), **losses)


@pytest.mark.parametrize("active", [[True], [True] * 3, [1.0, 0.0], [[True, False]]])
def test_active_of_wrong_length_or_dtype(active):
    with pytest.raises(ValueError, match=r"active= must be a boolean .*\(2,\)"):
        update(mtl.mgda(2), stacked(2), active=jnp.array(active))


@pytest.mark.parametrize("transform", [mtl.task_grads, mtl.lazy_task_grads])
@pytest.mark.parametrize(
    "losses", [{"b": 1.0, "a": "w"}, (1.0, "w")], ids=["dict", "tuple"]
)
def test_a_task_loss_that_is_not_a_scalar(transform, losses):
    def not_scalar(params):
        return jax.tree.map(
            lambda x: params["w"] if x == "w" else params["w"][0, 0], losses
        )

    with pytest.raises(ValueError, match=r"shape \(3, 4\).*must be a scalar"):
        transform(not_scalar)(PARAMS)


def test_losses_array_of_wrong_rank():
    with pytest.raises(ValueError, match=r"array of shape \(3, 4\)"):
        mtl.task_grads(lambda params: params["w"])(PARAMS)


def test_no_losses_at_all():
    with pytest.raises(ValueError, match="empty"):
        mtl.task_grads(lambda params: {})(PARAMS)


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: mtl.cagrad(2, c=-0.1), "c must be at least 0; got -0.1"),
        (lambda: mtl.cagrad(2, rescale=3), "rescale must be one of 0, 1, 2"),
        (lambda: mtl.cagrad(2, preference=[1.0]), r"preference must .*\(2,\)"),
        (lambda: mtl.upgrad(2, reg_eps=-1.0), "reg_eps must be at least 0"),
        (lambda: mtl.upgrad(2, preference=[1.0] * 3), r"preference must .*\(2,\)"),
        (lambda: mtl.conflictfree(2, preference=[1.0]), r"preference must .*\(2,\)"),
        (lambda: mtl.dualproj(2, reg_eps=-1.0), "reg_eps must be at least 0"),
        (lambda: mtl.dualproj(2, preference=[1.0] * 3), r"preference must .*\(2,\)"),
        (
            lambda: mtl.fairgrad(2, alpha=-1),
            "alpha must be positive and finite; got -1",
        ),
        (lambda: mtl.fairgrad(2, alpha=np.inf), "alpha must be positive and finite"),
        (lambda: mtl.gradvac(2, key=0, beta=-0.1), "beta must be at least 0"),
        (lambda: mtl.gradvac(2, key=0, beta=1.5), "beta must be at most 1; got 1.5"),
        (lambda: mtl.gradvac(2, key=0, eps=-1.0), "eps must be at least 0"),
        (lambda: mtl.gradvac(2, key=0, granularity="row"), "granularity must be one"),
        (lambda: mtl.krum(4, num_byzantine=2), "at least 5 tasks.*num_tasks=4. Lower"),
        (lambda: mtl.krum(4, num_byzantine=-1), "num_byzantine must be at least 0"),
        (lambda: mtl.krum(4, num_byzantine=1.0), "num_byzantine must be a Python int"),
        (
            lambda: mtl.krum(2, num_byzantine=0, num_selected=3),
            "num_selected=3 exceeds num_tasks=2",
        ),
        (lambda: mtl.nash_mtl(2, max_norm=-1), "max_norm must be at least 0"),
        (lambda: mtl.mgda(2, normalization="l1"), "normalization must be one of"),
        (lambda: mtl.mgda(2, apply_to="both"), "apply_to must be one of"),
        (lambda: mtl.pcgrad(2, key=0, order="sorted"), "order must be one of"),
        (lambda: mtl.pcgrad(2, key=0, reduction="max"), "reduction must be one of"),
        (lambda: mtl.pcgrad(2, key=0, granularity="row"), "granularity must be one"),
        (lambda: mtl.pcgrad(2, key=0.5), "key must be an int, a key"),
        (lambda: mtl.graddrop(2, key=0, leak=[0.5]), r"leak must .*\(2,\)"),
        (lambda: mtl.graddrop(2, key=0, at="logits"), "at must be one of"),
        (lambda: mtl.trimmed_mean(4, trim_number=2), "must be at most 1"),
        (lambda: mtl.trimmed_mean(3, trim_number=1.0), "trim_number must be a Python"),
        (lambda: mtl.excess_mtl(2, warmup=-1), "warmup must be at least 0"),
        (lambda: mtl.excess_mtl(2, normalize="mean"), "normalize must be one of"),
        (lambda: mtl.db_mtl(2, beta=-0.1), "beta must be at least 0"),
        (lambda: mtl.moco(2, rho=-0.1), "rho must be at least 0"),
        (lambda: mtl.moco(2, projection="none"), "projection must be one of"),
        (lambda: mtl.aligned_mtl(2, scale_mode="max"), "scale_mode must be one of"),
        (lambda: mtl.constant(2, weights=[1.0]), r"weights must .*\(2,\)"),
        (lambda: mtl.rlw(2, key=0, distribution="beta"), "distribution must be one of"),
        (lambda: mtl.dwa(2, temperature=-1), "temperature must be at least 0"),
        (lambda: mtl.dwa(2, window=2.0), "window must be a Python int"),
        (lambda: mtl.dwa(2, average="running"), "average must be one of"),
        (lambda: mtl.famo(2, weight_decay=-1), "weight_decay must be at least 0"),
        (lambda: mtl.famo(2, min_losses=[0.0]), r"min_losses must .*\(2,\)"),
        (lambda: mtl.stch(2, mu=-1), "mu must be at least 0"),
        (lambda: mtl.stch(2, nadir=[1.0]), r"nadir must .*\(2,\)"),
        (
            lambda: mtl.stch(2, nadir=[1.0] * 2, reference=[0.0] * 2),
            "neither preference= nor reference=",
        ),
        (lambda: mtl.tchebycheff(2, reference=[1.0]), r"reference must .*\(2,\)"),
        (lambda: mtl.pbi(2, theta=-1), "theta must be at least 0"),
        (lambda: mtl.cosmos(2, mu=-1), "mu must be at least 0"),
        (lambda: mtl.cosmos(2, preference=[1.0]), r"preference must .*\(2,\)"),
        (lambda: mtl.on_shared(mtl.mgda(2), {}, rest="mean"), "rest must be one of"),
        (lambda: mtl.lazy_task_grads(sum, chunk_size=0), "chunk_size must be at least"),
    ],
)
def test_bad_arguments_at_construction(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


@pytest.mark.parametrize("num_tasks", [0, -1])
def test_too_few_tasks(num_tasks):
    with pytest.raises(ValueError, match="num_tasks must be at least 1"):
        mtl.mgda(num_tasks)


@pytest.mark.parametrize(
    "num_tasks", [2.0, np.bool_(1), jnp.array(2), True, None, "2"], ids=repr
)
@pytest.mark.parametrize("factory", [mtl.mgda, lambda n: mtl.graddrop(n, key=0)])
def test_num_tasks_that_is_no_python_int(factory, num_tasks):
    with pytest.raises(
        ValueError, match=r"num_tasks must be a Python int.*static_args"
    ):
        factory(num_tasks)


@pytest.mark.parametrize("num_tasks", [np.int64(2), np.uint8(2)], ids=repr)
def test_an_int_of_numpy_is_the_same_number(num_tasks):
    def program(t, chain):
        def step(grads):
            return update(chain(t), grads, losses=jnp.ones(2))

        return str(jax.make_jaxpr(step)(stacked(2)))

    for chain in (
        lambda t: mtl.accumulate_tasks(mtl.mgda(t), t, every_k=t),
        lambda t: mtl.from_weighting(mtl.every_k(mtl.dwa.weighting(window=t), t), t),
        lambda t: mtl.graddrop(t, key=0),
    ):
        assert program(num_tasks, chain) == program(2, chain)


def test_inject_hyperparams_without_static_args_says_the_cure():
    tx = optax.inject_hyperparams(mtl.cagrad)(num_tasks=2, c=0.4)
    with pytest.raises(ValueError, match=r'static_args=\("num_tasks", ...\)'):
        tx.init(PARAMS)


def test_weights_of_wrong_length_in_combine():
    with pytest.raises(ValueError, match=r"shape \(2,\); got shape \(3,\)"):
        mtl.combine(stacked(2), jnp.ones(3))


def test_gramian_of_nothing():
    with pytest.raises(ValueError, match="no leaves"):
        mtl.gramian({})


@pytest.mark.parametrize(
    "key",
    [0, jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")],
    ids=["int", "typed", "raw", "another kind"],
)
def test_every_form_of_key(key):
    tx = mtl.pcgrad(3, key=key)
    grads = {"w": jax.random.normal(jax.random.key(1), (3, 5))}
    params = {"w": jnp.zeros(5)}
    first, state = tx.update(grads, tx.init(params), params)
    assert state.weighting.key.dtype == jnp.uint32
    assert jnp.all(jnp.isfinite(first["w"]))


# --- Parameters that cannot be trained ------------------------------------------------

MIXED = {"w": jnp.array([1.0, -2.0]), "n": jnp.int32(3)}


def losses_of(params, power=2.0):
    return {
        "a": jnp.sum(params["w"] ** power) + 0 * params["n"],
        "b": jnp.sum((params["w"] - params["n"]) ** 2),
    }


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (jnp.int32(3), "dtype int32"),
        (np.array([True]), "dtype bool"),
        (7, "dtype int32"),
        (jax.random.key(0), "a random key"),
        (jnp.ones(2, jnp.complex64), "dtype complex64"),
        (jax.nn.relu, "no array but"),
        ("relu", "no array but a str"),
        (object(), "no array but a object"),
    ],
    ids=["int", "bool", "number", "key", "complex", "function", "string", "module"],
)
def test_leaves_of_the_parameters_without_a_gradient(leaf, kind):
    params = {"w": jnp.ones(2), "n": leaf}
    doors = [
        mtl.task_grads(losses_of),
        mtl.lazy_task_grads(losses_of),
        mtl.feature_task_grads(lambda p: p["w"], lambda p, z: (z.sum(), z.max())),
        mtl.task_grads_at(losses_of),
        lambda p: mtl.group_grads_at(losses_of)(p, jnp.ones(2)),
        mtl.mgda(2).init,
        optax.chain(mtl.uw(2), optax.adam(1e-3)).init,
        mtl.graddrop(2, key=0).init,
        lambda p: mtl.check_chain(mtl.mgda(2), p, 2),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=rf"leaf \['n'\] .*{kind}") as info:
            door(params)
        for cure in ("{**params, **trained}", "eqx.partition", "nnx.split", "wrt="):
            assert cure in str(info.value)


def test_the_cure_trains():
    """As the message says, word for word."""
    params = MIXED
    with pytest.raises(ValueError, match=r"trained = {'w': params\['w'\]}"):
        mtl.task_grads(losses_of)(params)
    trained = {"w": params["w"]}
    tx = optax.chain(mtl.mgda(2), optax.adam(0.1))
    mtl.check_chain(tx, trained, 2)

    @jax.jit
    def step(trained, state):
        grads_fn = mtl.task_grads(lambda trained: losses_of({**params, **trained}))
        losses, grads = grads_fn(trained)
        updates, state = tx.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state, losses

    state, seen = tx.init(trained), []
    for _ in range(5):
        trained, state, losses = step(trained, state)
        seen.append(losses)
    assert jnp.all(seen[-1] < seen[0])
    assert {**params, **trained}["n"].shape == ()


# --- What losses_fn returns, and takes ------------------------------------------------


@dataclasses.dataclass
class Losses:
    a: jax.Array


X = jnp.ones(2)
ALIKE = {
    "nothing": (lambda p: None, "without a return"),
    "nested": (lambda p: {"a": {"x": p.sum()}}, r"losses\['a'\] is a dict.*flat dict"),
    "a pair": (lambda p: ({"a": p.sum()}, 1), r"losses\[0\] is a dict.*has_aux=True"),
    "no loss": (lambda p: {"a": p.sum(), "b": None}, r"losses\['b'\] is a NoneType"),
    "dataclass": (lambda p: Losses(p.sum()), r"a Losses.*dataclasses\.asdict"),
    "integers": (
        lambda p: {"a": p.sum(), "b": jnp.argmax(p)},
        r"losses\['b'\] has dtype int32.*gradient.*active=",
    ),
    "zero": (lambda p: (p.sum(), 0), r"losses\[1\] has dtype int32.*return 0\.0"),
    "an array": (lambda p: jnp.arange(2), "losses has dtype int32"),
}


@pytest.mark.parametrize("what", ALIKE)
def test_losses_that_are_none(what):
    losses_fn, message = ALIKE[what]
    for grads_fn in (
        mtl.task_grads(losses_fn),
        mtl.feature_task_grads(lambda p: p, lambda p, z: losses_fn(z)),
        lambda p: mtl.task_grads_at(losses_fn)(p[None]),
        lambda p: mtl.group_grads_at(losses_fn)(p, jnp.ones(2)),
    ):
        with pytest.raises(ValueError, match=message):
            grads_fn(X)


def test_no_aux_where_some_was_promised():
    with pytest.raises(ValueError, match=r"has_aux=True.*\(losses, aux\); got a dict"):
        mtl.task_grads(lambda p: {"a": p.sum(), "b": p.max()}, has_aux=True)(X)


def test_keyword_arguments_reach_the_losses():
    params = {"w": MIXED["w"]}

    def cubic(params, power=2.0, *, train):
        assert train is False
        return losses_of({**MIXED, **params}, power)

    given = {"power": 3.0, "train": False}
    wanted = mtl.task_grads(lambda p: losses_of({**MIXED, **p}, 3.0))(params)
    got = mtl.task_grads(cubic)(params, **given)
    lazy = mtl.lazy_task_grads(cubic)(params, **given)
    at_z = mtl.feature_task_grads(
        lambda p, power, train: p["w"], lambda p, z, **kw: cubic({"w": z}, **kw)
    )(params, **given)
    for losses, grads in (got, (lazy[0], lazy[1].stack()), (at_z[0], at_z[1].stack())):
        np.testing.assert_array_equal(losses, wanted[0])
        np.testing.assert_allclose(grads["w"], wanted[1]["w"], rtol=1e-6)
    twice = {"w": jnp.stack([params["w"]] * 2)}
    rows = mtl.task_grads_at(cubic, **given)(twice)
    np.testing.assert_allclose(rows["w"], wanted[1]["w"], rtol=1e-6)
    one = mtl.group_grads_at(cubic, **given)(params, jnp.array([1.0, 0.0]))[1]
    np.testing.assert_allclose(one["w"], wanted[1]["w"][0], rtol=1e-6)


# --- A weighting is no method ---------------------------------------------------------

RULE = mtl.mgda.weighting()
WRONG = {
    "on_shared": lambda: mtl.on_shared(RULE, {"w": True}),
    "accumulate_tasks": lambda: mtl.accumulate_tasks(RULE, 2, 2),
    "skip_nonfinite_tasks": lambda: mtl.skip_nonfinite_tasks(RULE, 2),
    "per_task": lambda: mtl.per_task(RULE, 2),
    "flat_mtl": lambda: mtl.flat_mtl(RULE, rho_shared=0.1),
    "samo": lambda: mtl.samo(RULE, key=0),
    "check_chain": lambda: mtl.check_chain(RULE, PARAMS, 2),
    "chain": lambda: optax.chain(RULE, optax.adam(1e-3)).init(PARAMS),
    "chain checked": lambda: mtl.check_chain(
        optax.chain(mtl.every_k(RULE, 2), optax.adam(1e-3)), PARAMS, 2
    ),
    "init": lambda: mtl.cr_mogm(mtl.uw.weighting()).init(PARAMS),
    "scheduled": lambda: mtl.cagrad.weighting(c=lambda count: 0.4).init(PARAMS),
}


@pytest.mark.parametrize("where", WRONG)
def test_a_weighting_where_a_method_belongs(where):
    cure = r"weighting.*mtl_optax\.from_weighting\(weighting, num_tasks\)"
    with pytest.raises(ValueError, match=cure):
        WRONG[where]()


def test_a_method_that_was_not_made():
    with pytest.raises(ValueError, match=r"function mgda.*calling it with the number"):
        mtl.on_shared(mtl.mgda, {"w": True})
