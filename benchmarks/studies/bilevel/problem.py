"""Multi-digits, four tasks: most training labels of the right digit are wrong.

Validation and test labels are all right: what judges weights, and what chooses among
candidates, is clean.
"""

import numpy as np

from mtl_optax.study.data.classification import ABOUT, classification
from mtl_optax.study.data.digits import TASKS, Split, multi_digits
from mtl_optax.study.data.networks import MultiTaskMLP
from mtl_optax.study.engine.problem import Problem

NOISY = "right"  # the auxiliary task with wrong labels
PRIMARY = "left"
WRONG = 0.8  # of its training labels, each another digit than the true one


def problem() -> Problem:
    """The primary task alone chooses among candidates."""
    splits = multi_digits(len(TASKS))
    splits["train"] = with_wrong_labels(splits["train"])
    made = classification(
        "Multi-digits, T=4, right damaged",
        dict(TASKS),
        splits,
        MultiTaskMLP,
        f"{ABOUT} Of {NOISY} {WRONG:.0%} of the training labels are wrong; validation "
        "and test labels are right. auto_lambda, moml and forum weigh heads too, and "
        "see batches of validation data (with their right labels for all tasks), which "
        "the others use only to choose among candidates.",
    )
    chosen_by = (list(TASKS).index(PRIMARY),)
    facts = {**made.facts, f"wrong_labels_of_{NOISY}": WRONG}
    return made._replace(chosen_by=chosen_by, facts=facts)


def with_wrong_labels(split: Split, share: float = WRONG, seed: int = 0) -> Split:
    """So many labels of the noisy task moved to another class; the share is exact."""
    rng = np.random.default_rng(seed)
    number, task = len(split.labels), list(TASKS).index(NOISY)
    wrong = rng.permutation(number) < round(share * number)
    shifts = rng.integers(1, TASKS[NOISY], size=number)
    labels = split.labels.copy()
    labels[wrong, task] = (labels[:, task] + shifts)[wrong] % TASKS[NOISY]
    return split._replace(labels=labels)
