"""How far runs at other scales of the first loss depart from the run at scale 1."""

import jax
import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.studies.adam_scale.problem import start

# Of the first loss. The paper's, and a power of two: to multiply by it rounds nothing.
PAPERS = (10, 0.1, 0.01)
EXACT = 8
SCALES = (1, *PAPERS, EXACT)
SAME, APART = 1e-6, 1e-2
KINDS = ("trunk", "heads")
INVARIANT, HEADS, NEITHER = "invariant", "heads invariant", "depends"
RULE = (
    f"The departure of a run is its distance, in all parameters of the trunk or of the "
    f"heads together, from the run at scale 1 of the same seed, over the way which "
    f"that run has gone from its start (as in mtl_optax.analysis.adam_scale), after "
    f"the last step. {INVARIANT}: at scale {EXACT} below {SAME:g} in both, at every "
    f"seed. To multiply by {EXACT} rounds nothing, so that what does not depend on the "
    f"scale goes the same way to the bit; by {', '.join(map(str, PAPERS))} it does, "
    f"and rounding may grow over the steps. {HEADS}: so in the heads, while the trunk "
    f"departs or is frozen. {NEITHER}: the rest."
)

Departures = dict[str, NDArray[np.float64]]


def departures(own: MethodResult, scales: tuple[float, ...]) -> Departures:
    """Of trunk and heads, `[records, seeds]`: the largest over these scales."""
    assert own.path is not None
    at = [SCALES.index(scale) for scale in scales]
    seeds = range(own.path.shape[2])
    begun = {kind: _rows([start(seed)[kind] for seed in seeds]) for kind in KINDS}
    size = begun["trunk"].shape[1]
    parts = {"trunk": own.path[..., :size], "heads": own.path[..., size:]}
    return {kind: _largest(parts[kind], begun[kind], at) for kind in KINDS}


def _rows(trees: list) -> NDArray[np.float64]:
    """One a tree, of all its numbers."""
    return np.stack(
        [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in trees]
    )


def _largest(path: NDArray, begun: NDArray, at: list[int]) -> NDArray[np.float64]:
    """Of a path `[records, scales, seeds, P]` from starts `[seeds, P]`."""
    way = np.linalg.norm(path[:, 0] - begun[None], axis=-1)
    apart = np.linalg.norm(path[:, at] - path[:, :1], axis=-1).max(axis=1)
    # A frozen trunk goes nowhere, and departs from nothing.
    nowhere = np.where(apart > 0, np.inf, 0.0)
    return np.divide(apart, way, out=nowhere, where=way > 0)


def word(own: MethodResult) -> str:
    """Of RULE."""
    found = {kind: x[-1] for kind, x in departures(own, (EXACT,)).items()}
    same = {kind: bool((x < SAME).all()) for kind, x in found.items()}
    if not same["heads"]:
        return NEITHER
    return INVARIANT if same["trunk"] and _moves(own) else HEADS


def _moves(own: MethodResult) -> bool:
    """Whether the trunk is elsewhere than at its start."""
    assert own.path is not None
    begun = _rows([start(seed)["trunk"] for seed in range(own.path.shape[2])])
    trunk = own.path[-1, 0, :, : begun.shape[1]]
    return bool((trunk != begun).any())


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Each way of training, its heads and its trunk."""
    del tasks
    words = {method: word(own) for method, own in results.items()}
    sentences = {}
    for method, own in results.items():
        last = {k: x[-1].max() for k, x in departures(own, PAPERS).items()}
        numbers = [f"{k} {x:.1e}" if x else f"{k} 0" for k, x in last.items()]
        sentences[method] = (
            f"{method}, {words[method]}: at the paper's scales the largest departures "
            f"of all seeds are {', '.join(numbers)}."
        )
    whole = [method for method, found in words.items() if found == INVARIANT]
    return Judgement(
        words,
        sentences,
        "Trunk and heads do not depend on the scale with "
        f"{', '.join(whole) or 'no method here'}.",
    )
