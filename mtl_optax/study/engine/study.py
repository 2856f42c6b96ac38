"""What a study is, and what comes out of it, as types.

A step leaves a `StepLog`, the lanes of a method a `LanesResult`; with names to its axes
that is a `MethodResult`; the methods of a part make a `PartResult`, the parts of a
study a `StudyResult`. Its numbers in one tidy table: tidy.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import BASELINE, EVERY, METHODS, SINGLE_TASK
from mtl_optax.study.engine.problem import Metric, Problem
from mtl_optax.study.engine.settings import Candidate, Settings
from mtl_optax.study.engine.transformations import Method


class Judgement(NamedTuple):
    """What a part says in words."""

    verdicts: dict[str, str]  # method -> one word or two, for the table
    sentences: dict[str, str]  # method -> the verdict with its numbers
    statement: str  # on all methods together


class MethodResult(NamedTuple):
    """What one method did; axes (candidate, scale, seed, task), time first where it is.

    Where there is no axis for candidates, it is the chosen one of each scale.
    """

    candidates: tuple[Candidate, ...]
    # split -> name -> [candidates, scales, seeds, T]
    metrics: dict[str, dict[str, NDArray]]
    chosen: NDArray[np.int64]  # [scales], index of the candidate
    score: NDArray  # [scales, seeds, T], the first metric on the reported split
    losses: NDArray  # [records, scales, seeds, T], before scaling
    shares: NDArray  # [records, scales, seeds, T] of the update, NaN if unknown
    path: NDArray | None  # [records, scales, seeds, ...], what the problem watches
    readings: dict[str, NDArray]  # [records, scales, seeds, ...] each, of the state
    compile_seconds: float
    run_seconds: float
    metric: Metric  # what `score` is


class Part(NamedTuple):
    """One problem and the methods that are compared on it."""

    name: str  # of its folder, where a study has several
    title: str
    question: str
    problem: Callable[[], Problem]
    settings: Settings
    quick: Settings  # the smoke run
    judge: Callable[[dict[str, MethodResult], tuple[str, ...]], Judgement]
    rules: tuple[str, ...]  # how `judge` decides
    # Of a PartResult: see report/figures, and report.document.Table
    figures: tuple[Callable[..., Any], ...] = ()
    tables: tuple[Callable[..., Any], ...] = ()  # after the scores
    # More CSVs than every part leaves: file name -> table
    files: Callable[..., dict[str, pd.DataFrame]] = lambda result: {}
    scales: tuple[float, ...] = (1,)  # factors on the loss of the first task
    baseline: str = BASELINE  # whose runs the others are paired with
    has_single_task: bool = True  # whether single_task can be among the methods
    methods: Mapping[str, Method] = {}
    # Method -> what it trains in place of `problem`: the same tasks and splits
    variants: Mapping[str, Callable[[], Problem]] = {}
    readings: tuple[str, ...] = ()  # names of fields of methods' states, which are kept
    # Trains what depends on the runs of the methods: -> more results
    then: Callable[
        [Problem, Settings, dict[str, MethodResult]], dict[str, MethodResult]
    ] = lambda problem, settings, results: {}

    @property
    def known(self) -> dict[str, Method]:
        """Every method that it can be trained with."""
        every = {**METHODS, **self.methods}
        if not self.has_single_task:
            del every[SINGLE_TASK]
        return every

    @property
    def every(self) -> tuple[str, ...]:
        """What "all" stands for."""
        return tuple(x for x in EVERY if x in self.known)


class PartResult(NamedTuple):
    """Everything that the report of a part shows."""

    study: str
    part: Part
    problem: Problem
    settings: Settings
    methods: dict[str, MethodResult]
    judgement: Judgement

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return self.problem.tasks

    def chosen(self, method: str) -> list[Candidate]:
        """The one of each scale."""
        result = self.methods[method]
        return [result.candidates[index] for index in result.chosen]


class Study(NamedTuple):
    """Parts that answer one question together; each is trained as if it were alone.

    Parts whose programs are the same, because what differs between them is data, are
    compiled once: the others find the program in JAX's compilation cache.
    """

    name: str
    title: str
    question: str
    parts: tuple[Part, ...]  # a single one has the folder of the study for itself
    quick: tuple[Part, ...]  # those of the smoke run, each with its quick settings
    # (StudyResult, part -> its report.document.Document) -> that of all parts; None:
    # what report.parts says of any
    document: Callable[["StudyResult", dict[str, Any]], Any] | None = None
    has_fixed_methods: bool = False  # whether each part has problem and methods its own
    # What is measured after all parts are trained, for `document`
    measure: Callable[[dict[str, PartResult]], Any] = lambda results: None


class StudyResult(NamedTuple):
    """Everything that the report of a study of several parts shows."""

    study: Study
    parts: dict[str, PartResult]  # by the name of the part
    command: str
    seconds: float
    measured: Any = None  # by the study's `measure`

    @property
    def first(self) -> PartResult:
        """One of the parts, for what they have in common."""
        return next(iter(self.parts.values()))

    @property
    def is_quick(self) -> bool:
        """Whether any part is that of the smoke run."""
        return any(part.settings.quick for part in self.parts.values())


def alone(part: Part) -> Study:
    """A study of one part, whose report is that of the part."""
    return Study(part.name, part.title, part.question, (part,), (part,))
