"""A new study that is wrong is told so: what is wrong, and what to do."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from matplotlib.figure import Figure
from tiny_study import LOSS, SETTINGS, part, problem

from mtl_optax.study import studies
from mtl_optax.study.command import choices
from mtl_optax.study.command.arguments import UsageError, parser
from mtl_optax.study.engine import part_checks, starts
from mtl_optax.study.engine.blocks import lanes
from mtl_optax.study.engine.program import Carry, Lanes, programs
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Candidate
from mtl_optax.study.engine.study import Judgement, Study
from mtl_optax.study.report.frame import png


def trained(**changes):
    """Up to the compiler."""
    own, recipe = problem(**changes), SETTINGS.recipe()
    starts.prepare(own, [0], recipe)
    method = part().known["unitary"]
    init, advance = programs(own, method, recipe)
    lane = Lanes(*lanes(2, (1,), SETTINGS._replace(seeds=1), "unitary"))
    variables = jax.tree.map(lambda x: jnp.asarray(x)[None], own.init(0))

    def whole(params, state):
        carry = Carry(params, state, init(params, lane))
        return advance(carry, None, None, lane, 4)

    jax.eval_shape(whole, *variables)


@pytest.mark.parametrize(
    ("losses", "got"),
    [
        (lambda params, batch: (params[0],), r"as losses \[\(\)\]"),
        (lambda params, batch: (params[0],) * 3, r"\[\(\), \(\), \(\)\]"),
        (lambda params, batch: (params, params), r"\[\(3,\), \(3,\)\]"),
        (lambda params, batch: {"a": params[0], "b": params[1]}, "as losses dict"),
        (lambda params, batch: params, r"as losses \[\(\), \(\), \(\)\]"),
    ],
)
def test_losses_are_one_a_task(losses, got):
    with pytest.raises(ValueError, match=rf"'tiny': return a pair, one number.*{got}"):
        trained(losses=losses)


def test_losses_may_be_an_array():
    trained(losses=lambda params, batch: params[:2])


@pytest.mark.parametrize(
    "change",
    [
        lambda state: (*state, state[0]),
        lambda state: (state[0] + 0.5, state[1]),
        lambda state: (state[0], state[1][:1]),
        lambda state: None,
    ],
)
def test_a_state_keeps_its_structure(change):
    def losses(params, state, batch, now):
        return (params[0], params[1]), change(state)

    plain = problem()
    state = jnp.zeros((), jnp.int32), jnp.zeros(2)
    own = plain._replace(init=lambda seed: (jnp.ones(3), state), losses=losses)
    with pytest.raises(ValueError, match=r"keep its structure.*as `init` makes it"):
        run(part(lambda: own), SETTINGS)


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        (lambda x, split: {"loss": x}, r"'loss' on split 'end' must have shape \(2,\)"),
        (lambda x, split: {"loss": x.sum()}, r"a number a task; got \(\)"),
        (lambda x, split: {"error": x[:2]}, r"'loss' is missing; it gives \['error'\]"),
    ],
)
def test_metrics_are_there_with_a_number_a_task(evaluate, said):
    with pytest.raises(ValueError, match=said):
        trained(evaluate=evaluate)


@pytest.mark.parametrize("field", ["chosen_on", "reported_on"])
def test_splits_that_are_not_evaluated(field):
    with pytest.raises(ValueError, match=rf"{field} is 'val'.*\['end'\]"):
        run(part(partial(problem, **{field: "val"})), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tasks": ("a", "c")}, "tasks"),
        ({"splits": {"end": None, "more": None}}, "splits"),
        ({"splits": {"end": jnp.ones(3)}}, "splits"),
        ({"reported_on": "train"}, "reported_on"),
    ],
)
def test_variants_that_cannot_be_compared(changes, field):
    variants = {"mean": partial(problem, **changes)}
    with pytest.raises(ValueError, match=f"variant that mean trains has other {field}"):
        run(part(variants=variants), SETTINGS)


def test_a_misspelt_reading():
    own = part(readings=("targets",))
    with pytest.raises(ValueError, match=r"'tiny': no method has \['targets'\]"):
        part_checks.read(own, SETTINGS, {})
    # Not all methods ran: the one that has it may be left out.
    part_checks.read(own, SETTINGS._replace(methods=("mean",)), {})


def test_a_judge_that_forgets_a_method():
    everything = {"unitary": "x", "mean": "y"}
    for said in ({"unitary": "x"}, everything), (everything, {"unitary": "x"}):
        with pytest.raises(ValueError, match="its judge leaves mean out of"):
            part_checks.judged(part(), Judgement(*said, ""), everything)
    part_checks.judged(part(), Judgement(everything, everything, ""), everything)


def test_candidates_have_a_name_each():
    rates = 0.001, 0.00100000001, 1e-5, 30.0
    assert [str(Candidate(rate, {})) for rate in rates] == [
        *("0.001", "0.00100000001", "1e-05", "30")
    ]
    assert str(Candidate(0.1, {"x": 1 / 3})) == f"0.1 x={1 / 3!r}"
    assert str(Candidate(0.1, {"x": 0.25, "y": 500})) == "0.1 x=0.25 y=500"


def test_methods_are_those_that_every_part_knows():
    mine = {"mine": lambda of: of.optimizer}
    parts = part(methods=mine), part(name="two", has_single_task=False)
    study = Study("x", "X", "?", parts, parts[:1])
    for name in ("mine", "single_task"):
        options = parser().parse_args(["study", "--methods", f"unitary,{name}"])
        with pytest.raises(UsageError, match=f"unknown method '{name}'; known: unit"):
            choices.check(study, options)
    every = parser().parse_args(["study", "--methods", "all"])
    choices.check(study, every)
    assert "single_task" not in every.methods
    assert "pcgrad" in every.methods
    more = parser().parse_args(["study", "--methods", "sam,all,f_mean,mean"])
    choices.check(study, more)
    assert sorted(more.methods) == sorted({*every.methods, "sam", "f_mean"})
    assert more.methods[0] == "sam"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("a", "a")}, "a name of its own; got"),
        ({"tasks": ()}, "a name of its own; got"),
        ({"loss": (LOSS,) * 3}, "once for all 2 tasks or once for each; got 3"),
        (
            {"splits": {"end": (jnp.ones(3), jnp.ones(2))}},
            r"arrays of split 'end' have \[2, 3\] examples",
        ),
        (
            {
                "init": lambda seed: {"trunk": jnp.ones(3), "head": jnp.ones(3)},
                "owner": lambda params: {"trunk": None},
            },
            "owner=",
        ),
    ],
)
def test_tasks_and_their_losses_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        run(part(partial(problem, **changes)), SETTINGS)


@pytest.mark.parametrize(
    ("field", "changes", "settings"),
    [
        ("variants", {"variants": {"unitry": problem}}, {}),
        ("baseline", {"baseline": "unitry"}, {}),
        ("grids", {}, {"grids": {"unitry": {"x": (1.0,)}}}),
        ("methods", {}, {"methods": ("unitary", "unitry")}),
    ],
)
def test_misspelt_methods(field, changes, settings):
    with pytest.raises(ValueError, match=f"its {field} name unitry, which is no"):
        run(part(**changes), SETTINGS._replace(**settings))


def test_a_figure_has_a_caption():
    with pytest.raises(TypeError, match=r"figure bare: return Drawn\(figure, caption"):
        png(bare, None)


def bare(result):
    return Figure()


def test_parts_have_folders_of_their_own():
    study = Study("x", "X", "?", (part(), part()), (part(),))
    with pytest.raises(ValueError, match="parts of x share a name"):
        choices.check(study, parser().parse_args(["study"]))


@pytest.mark.parametrize("name", studies.STUDIES)
def test_studies_name_methods_that_there_are(name):
    study = studies.load(name)
    choices.check(study, parser().parse_args(["study", name]))
    for own in (*study.parts, *study.quick):
        for settings in (own.settings, own.quick):
            part_checks.names(own, settings)
