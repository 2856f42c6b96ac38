"""Multi-digits with a known truth: tasks in two blocks, one for each digit.

Whether a digit is odd, and whether it is 5 or more, follows from the digit, and says
nothing about the other one, which is drawn apart. So a method that groups tasks should
find the tasks of the left digit together, and those of the right one.
"""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.classification import classification
from mtl_optax.study.data.digits import Split, multi_digits
from mtl_optax.study.data.networks import CHANNELS, MultiTaskCNN, MultiTaskMLP
from mtl_optax.study.engine.problem import Problem

Groups = tuple[tuple[int, ...], ...]

# What is asked of each digit, and the number of answers; the first T/2 of them.
QUESTIONS = {"": 10, "_parity": 2, "_high": 2}
ABOUT = (
    "Two blocks of tasks: the left digit, whether it is odd (parity), whether it is 5 "
    "or more (high); the same of the right one. All methods share start, batches and "
    "network: trunk {trunk}, ReLU, a linear head for each task. Scans are split into "
    "training, validation and test before any are composed. single_task trains each "
    "task in a network of its own."
)


def classes(num_tasks: int) -> dict[str, int]:
    """Task -> number of classes, the left block first."""
    questions = list(QUESTIONS.items())[: num_tasks // 2]
    return {
        f"{digit}{question}": count
        for digit in ("left", "right")
        for question, count in questions
    }


def truth(num_tasks: int) -> Groups:
    """The two blocks."""
    half = num_tasks // 2
    return tuple(range(half)), tuple(range(half, num_tasks))


def labels(digits: NDArray[np.int32], num_tasks: int) -> NDArray[np.int32]:
    """The answers `[N, T]`, from left and right digits `[N, 2]`."""
    answers = [digits, digits % 2, digits >= 5][: num_tasks // 2]
    blocks = [answer[:, side] for side in (0, 1) for answer in answers]
    return np.stack(blocks, axis=1).astype(np.int32)


NETWORKS = {"mlp": MultiTaskMLP, "cnn": MultiTaskCNN}
TRUNKS = {
    "mlp": "144-128-64",
    "cnn": f"of two 3 x 3 convolutions of {CHANNELS} channels with 2 x 2 pooling, 64",
}


def block_digits(num_tasks: int, network: str) -> Problem:
    """Two, four or six tasks, with the network "mlp" or "cnn"."""
    splits = {
        name: Split(split.images, labels(split.labels, num_tasks))
        for name, split in multi_digits(2).items()
    }
    return classification(
        f"Multi-digits in two blocks, T={num_tasks}, {network}",
        classes(num_tasks),
        splits,
        NETWORKS[network],
        ABOUT.format(trunk=TRUNKS[network]),
    )
