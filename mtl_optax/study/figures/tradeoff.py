"""The figure of what the subordinate tasks cost the first ones."""

from matplotlib.figure import Figure

from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn
from mtl_optax.study.styles import style
from mtl_optax.study.verdicts.subordinate import primary_and_later


def tradeoff(results: Results) -> Drawn:
    """A point a setting of each method, with its sd in both directions."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for method, outcome in results.outcomes.items():
        primary, later = primary_and_later(outcome)
        look, several = style(method), primary.shape[1] > 1
        ax.errorbar(
            *(later.mean(axis=1), primary.mean(axis=1)),
            xerr=later.std(axis=1, ddof=1) if several else None,
            yerr=primary.std(axis=1, ddof=1) if several else None,
            fmt=look.marker,
            color=look.colour,
            capsize=2,
            label=method,
        )
        candidates = results.settings.candidates(method)
        points = zip(later.mean(axis=1), primary.mean(axis=1), strict=True)
        for candidate, at in zip(candidates, points, strict=True):
            first = next(iter(candidate.settings.values()), 0.0)
            ax.annotate(*(f"{first:g}", at), xytext=(4, 4), textcoords="offset points")
    ax.set(xlabel="parity and greater / %", ylabel="digits / %")
    ax.legend()
    return Drawn(
        figure,
        "Test accuracy of the first tasks against that of the subordinate ones, mean "
        "and sd over seeds. The numbers are multiplier rates and weights.",
    )
