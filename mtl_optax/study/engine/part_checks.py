"""What a new part of a study may get wrong: said, never compared all the same."""

import jax

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Judgement, MethodResult, Part


def names(part: Part, settings: Settings) -> None:
    """All that is said of a method is said of one that there is."""
    for field, said in {
        "methods": settings.methods,
        "variants": part.variants,
        "grids": settings.grids,
        # That of another part of the study, where it has no single tasks itself
        "baseline": () if part.baseline == SINGLE_TASK else (part.baseline,),
    }.items():
        if unknown := [name for name in said if name not in part.known]:
            raise ValueError(
                f"part '{part.name}': its {field} name {', '.join(unknown)}, which is "
                f"no method that it knows. Add it to Part.methods, or mend the name."
            )


def alike(part: Part, problem: Problem, name: str, variant: Problem) -> None:
    """A variant can be compared only on the same tasks, splits and metrics."""
    for field in ("tasks", "splits", "metrics", "chosen_on", "reported_on"):
        ours, other = (getattr(x, field) for x in (problem, variant))
        if field == "splits":
            ours, other = (
                {k: jax.tree.leaves(jax.tree.map(len, v)) for k, v in x.items()}
                for x in (ours, other)
            )
        if ours != other:
            raise ValueError(
                f"part '{part.name}': the variant that {name} trains has other {field} "
                f"({other}) than the problem of the part ({ours}); numbers of both "
                f"would stand side by side. Give both the same."
            )


def read(part: Part, settings: Settings, results: dict[str, MethodResult]) -> None:
    """Every reading was found in some method's state, if all methods ran."""
    found = {name for own in results.values() for name in own.readings}
    missing = [name for name in part.readings if name not in found]
    if missing and set(part.settings.methods) <= set(settings.methods):
        raise ValueError(
            f"part '{part.name}': no method has {missing} in its state. Readings are "
            f"names of fields of the states of methods, as in their docstrings."
        )


def judged(part: Part, said: Judgement, results: dict[str, MethodResult]) -> None:
    """Every method has a verdict and a sentence."""
    for what in ("verdicts", "sentences"):
        missing = [name for name in results if name not in getattr(said, what)]
        if missing:
            raise ValueError(
                f"part '{part.name}': its judge leaves {', '.join(missing)} out of "
                f"{what}. Say something of each method that it is given."
            )
