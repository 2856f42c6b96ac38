"""Four domains of digits: the same scans seen in four ways, few of them with labels.

The scans are split before they are transformed: none of the test scans was seen in
training, in any domain. Each domain draws scans of its own for training, as many of
each digit as the others. All arms see them through one fixed layer of random units,
which stands for the fixed network whose features VMTL was made for.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.nn import same_class_inputs
from mtl_optax.study.data.digits import split_scans

DOMAINS = ("plain", "rotated", "inverted", "blurred")
NUM_DIGITS, NUM_FEATURES = 10, 64
LARGEST = 0.2  # of the fractions; with smaller ones arrays are as large


class Examples(NamedTuple):
    """Features and digits of each domain."""

    features: NDArray[np.float32]  # [4, N, 64]
    digits: NDArray[np.int32]  # [4, N], -1 where there is no label


class Domains(NamedTuple):
    """What all seeds have in common."""

    scans: dict[str, NDArray[np.float32]]  # split -> [N, 8, 8], between 0 and 1
    digits: dict[str, NDArray[np.int32]]  # split -> [N]


@cache
def four_domains() -> Domains:
    """The scans of the splits "train", "val" and "test"."""
    from sklearn.datasets import load_digits

    scans, digits = load_digits(return_X_y=True)
    scans = (scans / 16).astype(np.float32).reshape(-1, 8, 8)
    members = split_scans(np.random.default_rng(0))
    return Domains(
        {name: scans[indices] for name, indices in members.items()},
        {name: digits[indices].astype(np.int32) for name, indices in members.items()},
    )


def views(scans: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scans `[N, 8, 8]` as each domain has them, `[4, N, 8, 8]`."""
    around = np.pad(scans, ((0, 0), (1, 1), (1, 1)))  # the paper is white
    nine = [around[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    rotated = np.rot90(scans, axes=(1, 2))
    return np.stack([scans, rotated, 1 - scans, np.mean(nine, axis=0)])


def features(scans: NDArray[np.float32]) -> NDArray[np.float32]:
    """A layer of random units, the same for all: `[..., 64]` of scans `[..., 8, 8]`."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, NUM_FEATURES)) / np.sqrt(32)
    pixels = 2 * scans.reshape(*scans.shape[:-2], 64) - 1
    return np.maximum(pixels @ weights, 0).astype(np.float32)


def whole(domains: Domains, split: str) -> Examples:
    """All scans of a split in each domain."""
    digits = np.tile(domains.digits[split], (len(DOMAINS), 1))
    return Examples(features(views(domains.scans[split])), digits)


def num_seen(domains: Domains) -> int:
    """How many scans `labelled` returns of each domain, whatever the fraction."""
    counts = np.bincount(domains.digits["train"])
    return sum(round(LARGEST * int(count)) for count in counts)


def labelled(domains: Domains, fraction: float, seed: int) -> tuple[Examples, NDArray]:
    """What a seed trains on, sorted by digit, and how many of each digit there are.

    Returns:
      Examples `[4, N, ...]`, and `[10]`. N is the same for all fractions, so that their
      programs are: behind the labelled scans there are some without.
    """
    rng = np.random.default_rng([seed, 1])
    digits = domains.digits["train"]
    every = [np.flatnonzero(digits == digit) for digit in range(NUM_DIGITS)]
    counts = np.array([round(fraction * len(members)) for members in every])
    size = num_seen(domains)

    def of_one() -> NDArray:
        pairs = zip(every, counts, strict=True)
        drawn = [rng.permutation(members)[:count] for members, count in pairs]
        return np.resize(np.concatenate(drawn), size)

    drawn = np.stack([of_one() for _ in DOMAINS])
    scans = domains.scans["train"]
    seen = np.stack([views(scans[x])[d] for d, x in enumerate(drawn)])
    known = np.arange(size) < counts.sum()
    return Examples(features(seen), np.where(known, digits[drawn], -1)), counts


def surrogates(seen: Examples) -> jax.Array:
    """For each scan with a label those like it in other domains, `[4, 3, N, 64]`."""
    pairs = list(zip(*seen, strict=True))
    return jnp.stack(
        [
            same_class_inputs(*pair, [*pairs[:d], *pairs[d + 1 :]]).inputs
            for d, pair in enumerate(pairs)
        ]
    )


def batches(counts: NDArray, steps: int, of_each: int, seed: int) -> NDArray[np.int32]:
    """Indices `[steps, 4, 10 of_each]` of labelled examples, as many of each digit."""
    rng = np.random.default_rng([seed, 2])
    first = np.cumsum(counts) - counts
    shape = steps, len(DOMAINS), NUM_DIGITS, of_each
    drawn = first[:, None] + rng.integers(counts[:, None], size=shape)
    return drawn.reshape(*shape[:2], -1).astype(np.int32)
