"""Every public function says what it owes its reader."""

import inspect

import pytest

import mtl_optax as mtl

SECTIONS = ("Args", "Returns", "Raises", "Cost", "When not to use it", "References")
PUBLIC = [getattr(mtl, name) for name in mtl.__all__]
FUNCTIONS = [f for f in PUBLIC if inspect.isfunction(f)]
METHODS = [f for f in FUNCTIONS if f.__module__.split(".")[1].startswith("from_")]
# Parts of the library itself: no paper to name, no other tool to prefer.
OWN = {
    "conflict_summary",
    "check_chain",
    "combine",
    "conflicts",
    "connection_strength",
    "from_weighting",
    "explain",
    "gramian",
    "group_grads_at",
    "lazy_task_grads",
    "metrics",
    "resize_tasks",
    "task_cosines",
    "task_grads",
    "task_grads_at",
    "task_names",
    "task_weights",
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_docstring_has_its_parts(function):
    text = inspect.getdoc(function)
    assert text.splitlines()[0].endswith("."), "starts with one sentence"
    assert ">>> " in text, "has an example that runs"
    spared = set()
    if function.__name__ in OWN:
        spared |= {"References", "When not to use it"}
    if not inspect.signature(function).parameters:
        spared.add("Args")
    if "analysis" in function.__module__:
        spared.add("Cost")
    for section in SECTIONS:
        assert section in spared or f"{section}:" in text, section


@pytest.mark.parametrize("method", METHODS, ids=lambda f: f.__name__)
def test_a_method_states_scale_invariances_and_guarantee(method):
    text = inspect.getdoc(method)
    assert "Output scale:" in " ".join(text.split())
    assert "Guarantee:" in text
    assert "Invariances:" in text
