"""Studies in shards: the pieces that machines train apart, and who trains which.

A piece is a block of lanes (blocks.py) of one method of one part; a shard has some.
"""

import hashlib
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from mtl_optax.study.engine.blocks import seeds_of
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part

SINGLES = 3  # tasks, about: single_task has a run for each


class Shard(NamedTuple):
    """The i-th of n, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.number}/{self.of}"


class Piece(NamedTuple):
    """What is trained at once."""

    part: str
    method: str
    block: int
    cost: float  # next to others

    def about(self, settings: Settings) -> str:
        """Its candidate and seeds, in words."""
        groups = seeds_of(settings)
        candidate, group = divmod(self.block, len(groups))
        first, last = groups[group][[0, -1]]
        seeds = f"seeds {first} to {last}" if last > first else f"seed {first}"
        chosen = settings.candidates(self.method)[candidate]
        return f"{self.method}, learning rate {chosen}, {seeds}, of {self.part}"


def pieces(parts: Iterable[tuple[Part, Settings]]) -> list[Piece]:
    """All of a study: parts x methods x candidates x groups of seeds, in this order."""
    found = []
    for part, settings in parts:
        groups = seeds_of(settings)
        for method in settings.methods:
            lanes = groups.shape[1] * len(part.scales)
            cost = settings.steps * lanes * (SINGLES if method == SINGLE_TASK else 1)
            for block in range(len(settings.candidates(method)) * len(groups)):
                found.append(Piece(part.name, method, block, cost))
    return found


def share(every: list[Piece], shard: Shard) -> list[Piece]:
    """Those of a shard: neighbours, so that it compiles little, of about equal cost."""
    ends = list(accumulate(piece.cost for piece in every))
    middles = (end - piece.cost / 2 for end, piece in zip(ends, every, strict=True))
    owners = (int(shard.of * x / ends[-1]) + 1 for x in middles)
    return [x for x, own in zip(every, owners, strict=True) if own == shard.number]


def sources(folders: Iterable[Path]) -> str:
    """A digest of the Python files there: of a commit and all that is changed in it."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            found.update(file.relative_to(folder).as_posix().encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:12]
