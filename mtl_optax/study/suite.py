"""A study of several parts: each a study with its folder, and one page on all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mtl_optax.study.compare import Results, Study


class Suite(NamedTuple):
    """Studies that answer one question together; each is trained as if it were alone.

    Parts whose programs are the same, because what differs between them is data, are
    compiled once: the others find the program in JAX's compilation cache.
    """

    name: str
    title: str
    question: str
    parts: tuple[Study, ...]  # their names are their folders
    quick: tuple[Study, ...]  # those of the smoke run, each with its quick settings
    write: Callable[["Whole", Path], None]  # report.html and more, above the parts
    show: Callable[["Whole", Console], None]  # what the terminal shows in the end
    has_fixed_methods: bool = False  # whether each part has problem and methods its own
    # What is measured after all parts are trained, for `write` and `show`
    measure: Callable[[dict[str, Results]], Any] = lambda results: None

    @property
    def has_single_task(self) -> bool:
        """Whether single_task can be among the methods of every part."""
        return all(part.has_single_task for part in self.parts)

    @property
    def extra(self) -> tuple[str, ...]:
        """Methods that only some part can be trained with."""
        return ()


class Whole(NamedTuple):
    """Everything that the page of a suite shows."""

    suite: Suite
    results: dict[str, Results]  # by the name of the part
    command: str
    seconds: float
    measured: Any = None  # by the suite's `measure`

    @property
    def is_quick(self) -> bool:
        """Whether any part is that of the smoke run."""
        return any(results.settings.quick for results in self.results.values())
