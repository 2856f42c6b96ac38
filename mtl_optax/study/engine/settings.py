"""What a run of a study is made of: sizes, optimiser, and the candidates of a method.

A candidate is a learning rate, with settings of the method where a study tries several.
The best is chosen on validation data, for each method and scale, with the seeds that
are reported or with others (`tuning_seeds`); test data choose nothing.
"""

from itertools import product
from typing import NamedTuple

from mtl_optax.study.engine.methods import OPTIMIZERS
from mtl_optax.study.engine.program import Recipe


class Candidate(NamedTuple):
    """One of the settings that a method is tried with."""

    learning_rate: float
    settings: dict[str, float]  # keyword arguments of the method

    def __str__(self) -> str:
        """The rate, and what else there is."""
        return f"{_short(self.learning_rate)} {self.more()}".rstrip()

    def more(self) -> str:
        """All but the rate."""
        return " ".join(f"{name}={_short(x)}" for name, x in self.settings.items())


def _short(number: float) -> str:
    """In six digits, or in all if they say more: two candidates have two names."""
    text = f"{number:g}"
    return text if float(text) == number else repr(float(number))


class Settings(NamedTuple):
    """What a run of a study is made of."""

    methods: tuple[str, ...]
    seeds: int = 5
    tuning_seeds: int = (
        0  # further seeds, on which candidates are chosen; 0: on the same
    )
    steps: int = 1000
    learning_rates: tuple[float, ...] = (OPTIMIZERS["adam"].learning_rate,)
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 64
    points: int | None = None  # records to keep, about; None keeps every step
    # method -> keyword of it -> values, tried in all combinations with the rates
    grids: dict[str, dict[str, tuple[float, ...]]] = {}  # noqa: RUF012, read only
    quick: bool = False

    def recipe(self, readings: tuple[str, ...] = ()) -> Recipe:
        """For `train`; with the names of what is read from methods' states."""
        most = 1 if self.points is None else max(1, self.steps // self.points)
        every = max(n for n in range(1, most + 1) if self.steps % n == 0)
        return Recipe(
            *(self.steps, self.optimizer, self.schedule, self.batch_size),
            *(every, readings),
        )

    @property
    def every_seed(self) -> int:
        """The number of all seeds: those reported, then those that choose."""
        return self.seeds + self.tuning_seeds

    @property
    def choosing(self) -> bool:
        """Whether any method has several candidates."""
        return any(len(self.candidates(method)) > 1 for method in self.methods)

    def candidates(self, method: str) -> list[Candidate]:
        """All combinations of learning rate and what `grids` has for the method."""
        grid = self.grids.get(method, {})
        return [
            Candidate(rate, dict(zip(grid, values, strict=True)))
            for rate in self.learning_rates
            for values in product(*grid.values())
        ]
