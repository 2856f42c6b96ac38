"""Errors against the reference, as ratios: of a part, and across the parts."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.pinn.methods import LBFGS
from benchmarks.studies.pinn.record import Watched
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import RULE as PAIRED
from mtl_optax.study.report.paired import change, word

RULE = (
    f"The error is the mean square of the difference to the reference, over the whole "
    f"domain and all outputs. Compared are log10 of errors, seed by seed: -1 is a "
    f"tenth of the error. Verdicts are against {BASELINE}. {PAIRED}"
)
PASSES = (
    f"Backward passes are counted as the papers count them: one for each task whose "
    f"gradient a step asks for; {LBFGS} one for a step and one for each try of its "
    f"line search. They are not time: the gradient of 50 points at a wall costs less "
    f"than that of the residual."
)
MEAN = "{method}: error {mean:.1e}, the geometric mean over seeds."
AGAINST = "{method}, {word}: error {mean:.1e}, log10 ratio {change} to that of {base}."


def error(own: MethodResult) -> NDArray:
    """log10 of the error over the whole domain, `[seeds]`."""
    return own.score[0, :, 0]


def watched(own: MethodResult, name: str) -> NDArray:
    """One of `Watched`, `[records, seeds]`."""
    assert own.path is not None
    return own.path[:, 0, :, Watched._fields.index(name)]


def aligned(own: MethodResult) -> NDArray:
    """How the tasks' gradients agree in the second half of training, `[seeds]`."""
    every = watched(own, "alignment")
    return every[len(every) // 2 :].mean(axis=0)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Each method of a part against the plain sum, if it is there."""
    del tasks
    words, sentences = {}, {}
    base = results.get(BASELINE)
    for method, own in results.items():
        told = {"method": method, "mean": 10 ** error(own).mean(), "base": BASELINE}
        if base is None or method == BASELINE:
            words[method] = "baseline" if method == BASELINE else ""
            sentences[method] = MEAN.format(**told)
        else:
            ratio = error(own) - error(base)
            words[method] = word(ratio, higher_is_better=False)
            told |= {"word": words[method], "change": change(ratio)}
            sentences[method] = AGAINST.format(**told)
    best = min(results, key=lambda x: np.nan_to_num(error(results[x]).mean(), nan=9.0))
    lowest = 10 ** error(results[best]).mean()
    return Judgement(words, sentences, f"The lowest error is {lowest:.1e}, of {best}.")
