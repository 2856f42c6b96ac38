"""What no method can see from inside: by shapes, by a few numbers, before training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax_places
import pytest

import mtl_optax as mtl

PARAMS = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
MASK = {"w": True, "b": False}
OWNER = {"w": None, "b": 0}
T = 2
ADAM = optax.adam(1e-3)
SGD = optax.sgd(0.1)


def chain(*behind, method=None):
    return optax.chain(method or mtl.mean(T), *(behind or (ADAM,)))


def before(*parts):
    return optax.chain(*parts, mtl.mean(T), SGD)


def each(tx):
    return before(mtl.per_task(tx, T))


def inside(*parts, method=None, **kind):
    kind = kind or {"shared": MASK}
    held = optax.chain(method or mtl.mean(T), *parts) if parts else method
    return optax.chain(mtl.on_shared(held, **kind), ADAM)


def beside(other):
    """A method for one leaf, something else for the other."""
    return optax.partition({"a": chain(), "b": other}, {"w": "a", "b": "b"})


def every(step, **extra):
    return step % 2 == 0


def own_sum():
    """An aggregator that somebody wrote."""
    return optax.stateless(lambda g, p: jax.tree.map(lambda x: x.sum(0), g))


RIGHT = {
    "first in chain": chain(method=mtl.mgda(T)),
    "SGD after": chain(SGD, method=mtl.cagrad(T)),
    "clipping after": chain(optax.clip_by_global_norm(1.0), ADAM, method=mtl.upgrad(T)),
    "decay after": chain(optax.add_decayed_weights(0.1), SGD),
    "before MultiSteps": chain(optax.MultiSteps(ADAM, 2).gradient_transformation()),
    "before apply_if_finite": chain(optax.apply_if_finite(ADAM, 5)),
    "before conditionally_mask": chain(optax.conditionally_mask(ADAM, every)),
    "Muon after": chain(optax.contrib.muon(0.1)),
    "L-BFGS after": chain(optax.lbfgs()),
    "Polyak after": chain(optax.polyak_sgd()),
    "plateau after": chain(ADAM, optax.contrib.reduce_on_plateau()),
    "schedule-free after": chain(optax.contrib.schedule_free(SGD, 0.1)),
    "mechanize after": chain(optax.contrib.mechanize(SGD)),
    "on_shared": inside(method=mtl.mgda(T)),
    "on_shared by labels": inside(method=mtl.mean(T), labels={"w": (0, 1), "b": (0,)}),
    "on_shared by names": inside(
        method=mtl.mean(T), labels={"w": ("a", "b"), "b": "a"}
    ),
    "on_shared by one name": inside(
        method=mtl.mean(3), labels={"w": ("a", "b"), "b": "a"}
    ),
    "a scale in on_shared": inside(optax.scale(2.0)),
    "a method of stacks in on_shared": inside(method=mtl.db_mtl(T)),
    "moments a task in on_shared": mtl.on_shared(
        optax.chain(mtl.per_task(optax.trace(0.9), T), mtl.mean(T)), MASK
    ),
    "partition": beside(optax.chain(mtl.unitary(T), SGD)),
    "frozen beside": beside(optax.chain(mtl.unitary(T), optax.set_to_zero())),
    "frozen first": before(optax.transforms.freeze(MASK)),
    "frozen last": chain(ADAM, optax.transforms.freeze(MASK)),
    "inject_hyperparams": optax.inject_hyperparams(
        mtl.cagrad, static_args=("num_tasks",), hyperparam_dtype=jnp.float32
    )(num_tasks=T, c=0.4),
    "named_chain": optax.named_chain(("method", mtl.mean(T)), ("adam", ADAM)),
    "random": chain(method=mtl.pcgrad(T, key=0)),
    "from gradients": chain(method=mtl.graddrop(T, key=0)),
    "from losses": chain(method=mtl.uw(T)),
    "by name": chain(method=mtl.pcd(T, primary="main")),
    "values by name": chain(method=mtl.cagrad(T, preference={"a": 1.0, "b": 2.0})),
    "a schedule": chain(method=mtl.cagrad(T, c=optax.linear_schedule(0.0, 0.5, 10))),
    "every_k": chain(
        method=mtl.from_weighting(mtl.every_k(mtl.mgda.weighting(), 3), T)
    ),
    "Adam a task": each(optax.scale_by_adam()),
    "clipping a task": each(optax.clip_by_global_norm(1.0)),
    "decay a task": each(optax.add_decayed_weights(0.1)),
    "noise a task": each(optax.add_noise(0.1, 0.5, 0)),
    "Muon a task": each(optax.contrib.muon(0.1)),
    "scaled before": before(optax.scale(0.5)),
    "scheduled before": before(optax.scale_by_schedule(lambda count: 0.5)),
    "a leaf scaled before": before(optax.masked(optax.scale(0.5), MASK)),
    "zero_nans before": before(optax.zero_nans()),
    "SGD before": optax.chain(SGD, mtl.mean(T)),
    "identity before": before(optax.identity(), optax.with_extra_args_support(SGD)),
    "accumulate_tasks": mtl.accumulate_tasks(chain(), T, 3),
    "skip_nonfinite_tasks": mtl.skip_nonfinite_tasks(chain(), T),
    "both": mtl.accumulate_tasks(mtl.skip_nonfinite_tasks(chain(), T), T, 2),
    "flat_mtl": chain(method=mtl.flat_mtl(mtl.mean(T), rho_shared=0.1, shared=MASK)),
    "samo": chain(method=mtl.samo(mtl.mean(T), key=0, shared=MASK)),
    "selective_groups": mtl.selective_groups(T, ADAM, owner=OWNER, key=0),
    "cso": mtl.cso(
        T, SGD, strength_fn=lambda p, _: {"w": None, "b": None}, total_epochs=5, key=0
    ),
    "task_affinity": before(mtl.task_affinity(T, owner=OWNER, learning_rate=0.1)),
    "SAM": optax.contrib.sam(
        chain(), chain(mtl.safe_normalize(), SGD), opaque_mode=True
    ),
    "SAM after": chain(
        mtl.drop_extra_args(optax.contrib.sam(SGD, SGD)), method=mtl.uw(T)
    ),
    "one's own": optax.chain(own_sum(), ADAM),
}
MIXES = r"stands before the method.*changes every task's.*per_task"
STEP = "on_shared.*the others would climb.*Put it behind"
RAISES = r"before the method raised .*\[T, \*param\].*behind the method.*per_task"
AROUND = "around the method raised .*around the optimiser only"
WRONG = {
    "Adam before": (
        before(optax.scale_by_adam()),
        r"\.mu\['b'\] changes shape.*from \(4,\) to \(2, 4\).*aggregator first",
    ),
    "trace before": (before(optax.trace(0.9)), "stateful transformation.*per_task"),
    "masked around": (
        optax.masked(chain(), MASK),
        r"\['b'\] come out stacked.*as they went in.*on_shared",
    ),
    "apply_if_finite around": (
        optax.apply_if_finite(chain(), 3),
        "apply_if_finite around.*skip_nonfinite_tasks",
    ),
    "MultiSteps around": (
        optax.MultiSteps(chain(), 2).gradient_transformation(),
        "MultiSteps around.*accumulate_tasks",
    ),
    "MultiSteps around, in a chain": (
        optax.chain(optax.MultiSteps(chain(), 2).gradient_transformation()),
        "MultiSteps around.*accumulate_tasks",
    ),
    "no aggregator": (ADAM, "no aggregator.*mgda"),
    "stateless without aggregator": (SGD, "no aggregator.*mgda"),
    "conditionally_mask around": (
        optax.conditionally_mask(chain(), every),
        f"conditionally_mask {AROUND}",
    ),
    "conditionally_transform around": (
        optax.conditionally_transform(chain(), every),
        f"conditionally_transform {AROUND}",
    ),
    "mechanize around": (optax.contrib.mechanize(chain()), f"mechanize {AROUND}"),
    "flatten around": (
        optax.flatten(chain()),
        "flatten around the method hands it something else than gradients stacked",
    ),
    "SAM after, with keywords": (
        chain(optax.contrib.sam(SGD, SGD), method=mtl.uw(T)),
        "unexpected keyword argument.*drop_extra_args",
        {"losses": jnp.ones(T)},
    ),
    "a method behind another": (
        optax.chain(mtl.mean(T), mtl.mgda(T)),
        "a method stands behind another one, and gets its update.*Keep one",
    ),
    "another tree": (
        chain(optax.stateless(lambda g, p: jnp.zeros(()))),
        "the updates have 1 leaves, the parameters 2.*another tree",
    ),
    "an aggregation before": (
        before(own_sum()),
        "What stands before the method handed it leaves of other shapes",
    ),
    "an argument that nobody knows": (
        chain(
            optax.GradientTransformationExtraArgs(
                lambda params: (), lambda g, state, params, *, luck, **extra: (g, state)
            )
        ),
        "'luck'.*to check_chain, by name",
    ),
    "muon before": (before(optax.contrib.muon(0.1)), f"muon {RAISES}"),
    "adaptive_grad_clip before": (
        before(optax.adaptive_grad_clip(0.1)),
        f"adaptive_grad_clip {RAISES}",
    ),
    "scale_by_sm3 before": (before(optax.scale_by_sm3()), f"scale_by_sm3 {RAISES}"),
    "prodigy before": (before(optax.contrib.prodigy()), f"prodigy {RAISES}"),
    "dadapt_adamw before": (
        before(optax.contrib.dadapt_adamw()),
        f"dadapt_adamw {RAISES}",
    ),
    "momo before": (before(optax.contrib.momo()), f"momo {RAISES}"),
}
# Fault 13: what changes every task's gradient, one by one and in whatever goes around.
FIRST = {
    "add_decayed_weights": optax.add_decayed_weights(1e-4),
    "keep_params_nonnegative": optax.keep_params_nonnegative(),
    "centralize": optax.centralize(),
    "add_noise": optax.add_noise(1e-4, 0.5, 0),
    "dog": optax.contrib.dog(),
    "dowg": optax.contrib.dowg(),
    "scale_by_polyak": optax.scale_by_polyak(),
    "scale_by_trust_ratio": optax.scale_by_trust_ratio(),
    "scale_by_param_block_norm": optax.scale_by_param_block_norm(),
    "clip_by_global_norm": optax.clip_by_global_norm(100.0),
    "clip_by_block_rms": optax.clip_by_block_rms(1.0),
    "clip": optax.clip(1.0),
    "normalize": optax.contrib.normalize(),
}
CLIP, DECAY = FIRST["clip_by_global_norm"], FIRST["add_decayed_weights"]
DEEPER = {
    "in accumulate_tasks": mtl.accumulate_tasks(before(CLIP), T, 3),
    "before accumulate_tasks": optax.chain(CLIP, mtl.accumulate_tasks(chain(), T, 3)),
    "in skip_nonfinite_tasks": mtl.skip_nonfinite_tasks(before(CLIP), T),
    "in both": mtl.accumulate_tasks(mtl.skip_nonfinite_tasks(before(CLIP), T), T, 3),
    "in on_shared": mtl.on_shared(before(CLIP), MASK),
    "before on_shared": optax.chain(CLIP, mtl.on_shared(mtl.mean(T), MASK)),
    "in partition": beside(before(CLIP)),
    "in inject_hyperparams": optax.inject_hyperparams(
        lambda size: before(optax.clip_by_global_norm(size))
    )(size=1.0),
    "behind per_task": before(mtl.per_task(ADAM, T), CLIP),
    "before per_task": before(CLIP, mtl.per_task(ADAM, T)),
    "before task_affinity": before(
        CLIP, mtl.task_affinity(T, owner=OWNER, learning_rate=0.1)
    ),
    "in SAM": optax.contrib.sam(
        before(CLIP), chain(mtl.safe_normalize(), SGD), opaque_mode=True
    ),
    "in flat_mtl": mtl.flat_mtl(optax.chain(CLIP, mtl.mean(T)), rho_shared=0.1),
    "in samo": mtl.samo(optax.chain(CLIP, mtl.mean(T)), key=0),
    "in a jitted update": optax.GradientTransformationExtraArgs(
        before(CLIP).init, jax.jit(before(CLIP).update)
    ),
    "between scales": before(optax.scale(2.0), CLIP, optax.scale(0.5)),
    "warming up": before(
        optax.add_decayed_weights(optax.linear_schedule(0.0, 0.1, 10))
    ),
}
# Fault 1: what acts on displacements, behind a method in on_shared.
BEHIND = {
    "sgd": optax.sgd(0.1),
    "scale(-1)": optax.scale(-1.0),
    "clip": optax.clip_by_global_norm(1.0),
    "decay": optax.add_decayed_weights(1e-4),
    "sign": optax.scale_by_sign(),
    "a schedule": optax.scale_by_learning_rate(optax.constant_schedule(0.1)),
    "warming up": optax.sgd(optax.linear_schedule(0.0, 0.1, 10)),
    "adafactor": optax.adafactor(0.1),
    "trust ratio": optax.scale_by_trust_ratio(),
}


def sample(cases, *names):
    """Those of these names; in the full run all."""
    assert cases.keys() >= set(names)
    return [
        pytest.param(name, marks=() if name in names else pytest.mark.slow)
        for name in cases
    ]


def check(tx, **extra):
    return mtl.check_chain(tx, PARAMS, T, **extra)


@pytest.mark.parametrize(
    "name",
    sample(
        RIGHT,
        "first in chain",
        "on_shared by names",
        "by name",
        "clipping a task",
        "both",
        "scaled before",
    ),
)
def test_right_places_pass(name):
    num_tasks = 3 if "one name" in name else T
    assert mtl.check_chain(RIGHT[name], PARAMS, num_tasks) is None


@pytest.mark.parametrize(
    "name",
    sample(
        WRONG,
        "Adam before",
        "masked around",
        "MultiSteps around",
        "no aggregator",
        "conditionally_mask around",
        "flatten around",
        "momo before",
    ),
)
def test_wrong_places_are_named_with_their_cure(name):
    tx, message, *extra = WRONG[name]
    with pytest.raises(ValueError, match=f"check_chain: .*{message}"):
        check(tx, **dict(*extra))


@pytest.mark.parametrize(
    "name", sample(FIRST, "add_decayed_weights", "centralize", "clip_by_global_norm")
)
def test_what_changes_every_tasks_gradient_before_a_method(name):
    message = MIXES.replace("method.*", rf"method \(.*{name}.*\) ", 1)
    with pytest.raises(ValueError, match=f"check_chain: .*{message}"):
        check(before(FIRST[name]))


@pytest.mark.parametrize(
    "name", sample(DEEPER, "in both", "in partition", "in a jitted update")
)
def test_the_same_wherever_the_method_is(name):
    with pytest.raises(ValueError, match=f"check_chain: .*{MIXES}"):
        check(DEEPER[name])


@pytest.mark.parametrize("name", sample(BEHIND, "sgd", "warming up"))
def test_what_acts_on_displacements_inside_on_shared(name):
    with pytest.raises(ValueError, match=STEP):
        check(inside(BEHIND[name]))


AT_ALL_TIMES = {
    "by labels": inside(SGD, labels={"w": (0, 1), "b": (0,)}),
    "in accumulate_tasks": inside(method=mtl.accumulate_tasks(chain(SGD), T, 2)),
    "in skip_nonfinite_tasks": inside(method=mtl.skip_nonfinite_tasks(chain(SGD), T)),
    "in inject_hyperparams": inside(
        method=optax.inject_hyperparams(lambda rate: chain(optax.sgd(rate)))(rate=0.1)
    ),
    "between scales": inside(optax.scale(2.0), SGD, optax.scale(2.0)),
    "in flat_mtl": mtl.flat_mtl(chain(SGD), rho_shared=0.1),
    "in samo": mtl.samo(chain(SGD), key=0),
}


@pytest.mark.parametrize("name", sample(AT_ALL_TIMES, "in accumulate_tasks"))
def test_the_same_wherever_the_optimiser_is(name):
    inside_of = [x for x in ("flat_mtl", "samo") if name == f"in {x}"]
    message = f"{inside_of[0]}.*Put it behind" if inside_of else STEP
    with pytest.raises(ValueError, match=f"check_chain: .*{message}"):
        check(AT_ALL_TIMES[name])


FROZEN = {
    "set_to_zero": (beside(optax.set_to_zero()), "come out zero: frozen by"),
    "identity": (beside(optax.identity()), "as they went in: optax.masked.*identity"),
    "selective_transform": (
        optax.selective_transform(chain(), freeze_mask={"w": False, "b": True}),
        "come out zero: frozen by optax.set_to_zero.*selective_transform",
    ),
    "freeze beside": (
        beside(optax.transforms.freeze(True)),
        "come out zero: frozen by",
    ),
    "an optimiser beside": (beside(ADAM), r"changes shape|each group of leaves"),
    "SGD beside": (beside(SGD), "each group of leaves needs one: .*unitary"),
}


@pytest.mark.parametrize("name", sample(FROZEN, "set_to_zero", "identity"))
def test_a_leaf_beside_the_method_has_its_own_cause_and_cure(name):
    tx, message = FROZEN[name]
    with pytest.raises(ValueError, match=f"check_chain: .*{message}"):
        check(tx)


def frozen(where):
    freeze = optax.transforms.freeze({"w": False, "b": True})
    parts = [mtl.imtl_g(T), optax.sgd(0.1)]
    return optax.chain(*([freeze, *parts] if where == "first" else [*parts, freeze]))


def test_frozen_first_is_out_of_the_gramian_and_last_in_it():
    rng = np.random.default_rng(0)
    grads = {k: jnp.asarray(rng.normal(size=(T, *p.shape))) for k, p in PARAMS.items()}
    found = {}
    for where in ("first", "last"):
        tx = frozen(where)
        check(tx)
        found[where], state = tx.update(grads, tx.init(PARAMS), PARAMS)
        seen = grads if where == "last" else {"w": grads["w"]}
        gramian = state[0 if where == "last" else 1].task_gramian
        np.testing.assert_allclose(gramian, mtl.gramian(seen), rtol=1e-5)
        np.testing.assert_array_equal(found[where]["b"], np.zeros(4))
    alone = mtl.imtl_g(T)
    params = {"w": PARAMS["w"]}
    expected, _ = alone.update({"w": grads["w"]}, alone.init(params), params)
    np.testing.assert_allclose(found["first"]["w"], -0.1 * expected["w"], rtol=1e-5)
    assert np.any(np.abs(found["first"]["w"] - found["last"]["w"]) > 1e-4)
    for cure in ("unitary.num_tasks., optax.set_to_zero", "freeze.mask., method"):
        with pytest.raises(ValueError, match=cure):
            check(beside(optax.set_to_zero()))


def test_extra_arguments_reach_the_method():
    tx = chain(method=mtl.uw(T))
    check(tx)
    check(tx, losses=jnp.ones(T))
    with pytest.raises(ValueError, match="losses= has 3 entries"):
        check(tx, losses=jnp.ones(3))
    with pytest.raises(ValueError, match="active= must be a boolean"):
        check(tx, active=jnp.ones(3, bool))


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (jnp.ones(3, int), "int32"),
        (jax.random.key(0), "key<fry>"),
        (np.ones(2, bool), "bool"),
        (3, "int"),
        (jnp.tanh, "PjitFunction|function"),
        (jax.ShapeDtypeStruct((), jnp.uint8), "uint8"),
    ],
)
def test_leaves_without_gradients_have_one_cure(leaf, kind):
    """Whatever goes around: neither partition nor unitary nor freezing is one."""
    for tx in (chain(), beside(optax.set_to_zero())):
        message = rf"leaf \['b'\] of .* is .*({kind}).*eqx.partition.*nnx.split.*wrt="
        with pytest.raises(ValueError, match=message):
            mtl.check_chain(tx, {"w": jnp.ones(3), "b": leaf}, T)


def test_complex_parameters_split_in_two():
    params = {"w": jnp.ones(3, complex), "b": jnp.ones(2)}
    mtl.check_chain(optax.contrib.split_real_and_imaginary(chain()), params, T)
    with pytest.raises(ValueError, match="split_real_and_imaginary"):
        mtl.check_chain(chain(), params, T)


def test_wrong_num_tasks_is_the_guards_error():
    with pytest.raises(ValueError, match="stacked over 3 tasks, the method was built"):
        mtl.check_chain(chain(), PARAMS, 3)


def test_takes_abstract_parameters_of_any_size():
    shapes = jax.eval_shape(lambda: {"w": jnp.ones((10**6, 10**6)), "b": jnp.ones(4)})
    mtl.check_chain(chain(), shapes, T)
    with pytest.raises(ValueError, match=MIXES):
        mtl.check_chain(before(CLIP), shapes, T)
    with pytest.raises(ValueError, match=STEP):
        mtl.check_chain(inside(SGD), shapes, T)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_takes_parameters_of_half_precision(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    mtl.check_chain(before(optax.scale(0.1)), params, T)
    for wrong in (CLIP, DECAY, FIRST["centralize"]):
        with pytest.raises(ValueError, match=MIXES):
            mtl.check_chain(before(wrong), params, T)


def test_scalars_one_task_and_one_array():
    for params in ({"a": jnp.zeros(())}, jnp.zeros(3)):
        for num_tasks in (1, 3):
            good = optax.chain(optax.scale(2.0), mtl.mean(num_tasks), ADAM)
            mtl.check_chain(good, params, num_tasks)
            with pytest.raises(ValueError, match=MIXES):
                mtl.check_chain(optax.chain(DECAY, good), params, num_tasks)
            with pytest.raises(ValueError, match=MIXES):
                mtl.check_chain(optax.chain(CLIP, good), params, num_tasks)


def test_gradients_that_only_look_stacked():
    """Layers for scan: every leaf begins with T, whether it is stacked or not."""
    layers = {"w": jnp.ones((T, 3, 3)), "b": jnp.ones((T, 3))}
    stacked = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), layers)

    def losses_fn(p):
        return {"a": jnp.sum(p["w"]), "b": jnp.sum(p["b"])}

    lazy = mtl.lazy_task_grads(losses_fn)(layers)[1]
    for right in (stacked, jax.eval_shape(lambda: stacked), lazy):
        mtl.check_chain(chain(), layers, T, gradients=right)
    features = mtl.feature_task_grads(
        lambda p, x: x @ p["w"][0], lambda p, z, x: (z.sum(), z.prod())
    )
    given = features(layers, jnp.ones((5, 3)))[1]
    mtl.check_chain(mtl.graddrop(T, key=0, at="features"), layers, T, gradients=given)
    for wrong in (before(CLIP), beside(chain())):
        with pytest.raises(
            ValueError, match=r"check_chain: .*gradients are lazy.*behind"
        ):
            mtl.check_chain(wrong, layers, T, gradients=lazy)
    with pytest.raises(ValueError, match=r"gradients= do not fit.*not stacked"):
        mtl.check_chain(chain(), layers, T, gradients=layers)
    with pytest.raises(ValueError, match=r"gradients= do not fit.*other parameters"):
        mtl.check_chain(chain(), PARAMS, T, gradients=lazy)


def test_a_wrapper_that_drops_the_parameters_is_told():
    inner = chain(SGD)
    dropping = optax.GradientTransformation(
        inner.init, lambda g, state, params=None: inner.update(g, state)
    )
    with pytest.warns(UserWarning, match="without params.*Pass params on"):
        check(dropping)


def test_nothing_of_a_check_is_left_in_what_was_jitted():
    """A check makes up losses, and numbers in the place of a method's update."""
    inner = chain(SGD, method=mtl.uw(T))
    tx = optax.GradientTransformationExtraArgs(inner.init, jax.jit(inner.update))
    check(tx)
    grads = jax.tree.map(lambda p: jnp.stack([p, 3 * p]), PARAMS)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="uw needs the extra argument losses="):
        tx.update(grads, state, PARAMS)
    update, _ = tx.update(grads, state, PARAMS, losses=jnp.ones(T))
    expected, _ = inner.update(grads, state, PARAMS, losses=jnp.ones(T))
    np.testing.assert_allclose(update["w"], expected["w"], rtol=1e-6)


# --- The table ------------------------------------------------------------------------

COMMITTED = optax_places.PATH.read_text("utf-8")
ROWS = [row for row in COMMITTED.splitlines() if row.startswith("| `optax")]
SAME = optax.__version__ == optax_places.VERSION
SOME = "adam", "MultiSteps", "sam"
OF_THIS_OPTAX = pytest.mark.skipif(not SAME, reason="the table is of another optax")


@OF_THIS_OPTAX
def test_the_table_has_every_public_transformation():
    names = {row.split("`")[1] for row in ROWS}
    assert names == set(optax_places.public().values())
    assert len(names) > 130


@OF_THIS_OPTAX
@pytest.mark.parametrize("name", SOME)
def test_rows_of_the_table(name):
    assert optax_places.row(name) in ROWS


@OF_THIS_OPTAX
@pytest.mark.slow
def test_the_whole_table():
    assert optax_places.table() == COMMITTED
