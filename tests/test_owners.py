"""owner=: which task owns each leaf, as a tree, a prefix of one, or a function."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.core.arguments.leaf_groups import owned, owners

PARAMS = {"heads": [jnp.ones(2), {"b": jnp.ones(1), "w": jnp.ones(3)}], "trunk": 1.0}


@pytest.mark.parametrize(
    ("owner", "wanted"),
    [
        (None, [None] * 4),
        ({"heads": [0, 1], "trunk": None}, [0, 1, 1, None]),
        ({"heads": [0, {"b": 1, "w": None}], "trunk": None}, [0, 1, None, None]),
        (lambda params: {"heads": [np.int32(1), 0], "trunk": None}, [1, 0, 0, None]),
        ({"heads": None, "trunk": None}, [None] * 4),
    ],
)
def test_owners(owner, wanted):
    assert owners(owner, PARAMS, num_tasks=2) == wanted


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (True, r"leaf \['trunk'\] has True, which is a mask; put None"),
        (np.bool_(False), "a mask"),
        (b"a", "neither None"),
        (0.0, "neither None"),
        (2, "2 tasks are numbered from 0"),
        (-1, "2 tasks are numbered from 0"),
    ],
)
def test_errors_name_leaf_and_cure(label, message):
    with pytest.raises(ValueError, match=message):
        owners({"heads": None, "trunk": label}, PARAMS, num_tasks=2)


def test_owners_by_name():
    owner = {"heads": ["b", {"b": "a", "w": None}], "trunk": None}
    labels = owners(owner, PARAMS, num_tasks=2)
    assert labels == ["b", "a", None, None]
    for names in (None, ("a", "b")):
        assert owned(labels, names, 2).tasks == (1, 0, None, None)
    assert owned(labels, ("a", "b", "c"), 3).tasks == (1, 0, None, None)
    assert owned([1, None, 0], ("a", "b"), 2).tasks == (1, None, 0)


def test_errors_of_names():
    with pytest.raises(
        ValueError, match=r"\['heads'\]\[0\] has 'b' by name, others an"
    ):
        owners({"heads": ["b", 0], "trunk": None}, PARAMS, num_tasks=2)
    with pytest.raises(
        ValueError, match=r"names 2 tasks, \['a', 'b'\], but num_tasks=1"
    ):
        owners({"heads": ["b", "a"], "trunk": None}, PARAMS, num_tasks=1)
    with pytest.raises(
        ValueError, match=r"1 of 2 tasks, \['a'\].*pass losses= as a dict"
    ):
        owned(["a", None], None, 2)
    with pytest.raises(ValueError, match=r"\['a'\], but those of the .*\['b', 'c'\]"):
        owned(["a", None], ("b", "c"), 2)


def test_a_tree_without_leaves():
    assert owners(None, {}, num_tasks=2) == []
