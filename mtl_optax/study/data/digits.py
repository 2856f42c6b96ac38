"""Multi-digits: two overlapping handwritten digits, and four questions about them.

Real scans of 8 x 8 pixels that ship inside scikit-learn, so nothing is downloaded. The
scans are split before any two of them are composed: no scan of the test images was ever
seen in training, not even under another digit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CREDITS = (
    "Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, "
    "CC BY 4.0; the 1,797 scans as shipped by scikit-learn, composed in pairs."
)

# Task and number of classes; the first T of them make the problem with T tasks.
TASKS = {"left": 10, "right": 10, "parity": 2, "greater": 2}
NUM_SCANS = {"train": 1097, "val": 300, "test": 400}
NUM_IMAGES = {"train": 4000, "val": 1000, "test": 2000}
CANVAS = 12  # pixels a side; the second digit starts at (4, 4)


class Split(NamedTuple):
    """Images and answers of one split."""

    images: NDArray[np.float32]  # [N, 144], between 0 and 1
    labels: NDArray[np.int32]  # [N, T]


def multi_digits(
    num_tasks: int, seed: int = 0, train_scans: int | None = None
) -> dict[str, Split]:
    """The splits "train", "val" and "test" with the first `num_tasks` of TASKS.

    With `train_scans` training images are made of so few scans; the others stay.
    """
    from sklearn.datasets import load_digits

    scans, digits = load_digits(return_X_y=True)
    scans = (scans / 16).astype(np.float32).reshape(-1, 8, 8)
    rng = np.random.default_rng(seed)
    splits = {}
    for name, members in split_scans(rng).items():
        if name == "train":
            members = members[:train_scans]
        left, right = rng.choice(members, size=(2, NUM_IMAGES[name]))
        images = compose(scans[left], scans[right]).reshape(-1, CANVAS**2)
        answers = labels(digits[left], digits[right])
        splits[name] = Split(images, answers[:, :num_tasks])
    return splits


def split_scans(rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Indices of the scans of each split; no scan is in two of them."""
    order = rng.permutation(sum(NUM_SCANS.values()))
    members = np.split(order, np.cumsum(list(NUM_SCANS.values()))[:-1])
    return dict(zip(NUM_SCANS, members, strict=True))


def compose(
    left: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scans `[N, 8, 8]` on canvases `[N, 12, 12]`: the brighter one in each pixel."""
    canvas = np.zeros((len(left), CANVAS, CANVAS), np.float32)
    canvas[:, :8, :8] = left
    canvas[:, 4:, 4:] = np.maximum(canvas[:, 4:, 4:], right)
    return canvas


def labels(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int32]:
    """The answers `[N, 4]`, in the order of TASKS."""
    answers = [left, right, (left + right) % 2, left > right]
    return np.stack(answers, axis=1).astype(np.int32)
