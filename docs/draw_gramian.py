"""Draws docs/images/gramian.png, the figure of docs/gramian.md.

python docs/draw_gramian.py
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

OUT = Path(__file__).parent / "images" / "gramian.png"
INK, BLUE, ORANGE, GREEN, GREY = "#222222", "#2f6db3", "#d9762b", "#3b8a4b", "#8a8a8a"
COLUMNS = (20.0, 47.0, 74.0)  # of the three weights
SHEETS = 3


def box(
    ax: Any,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    color: str,
    size: float = 12,
) -> None:
    """A round box around a text; x and y are its centre."""
    corner = (x - width / 2, y - height / 2)
    style = {"boxstyle": "round,pad=0,rounding_size=1"}
    shape = FancyBboxPatch(corner, width, height, fc="white", ec=color, lw=1.6, **style)
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", color=INK, fontsize=size)


def sheets(
    ax: Any, x: float, y: float, size: tuple[float, float], color: str, ghost: bool
) -> None:
    """T matrices, one behind the other; x and y are the centre of all."""
    width, height = size
    for i in reversed(range(SHEETS)):
        shift = 0.9 * (i - (SHEETS - 1) / 2)
        corner = (x - width / 2 + shift, y - height / 2 + shift)
        style: dict[str, Any] = {"fc": "white", "ec": color, "lw": 1.3}
        style |= {"ls": (0, (3, 2))} if ghost else {"fc": color, "alpha": 1.0}
        style |= {} if ghost else {"ec": "white"}
        ax.add_patch(Rectangle(corner, width, height, **style))


def arrow(
    ax: Any, start: tuple[float, float], end: tuple[float, float], color: str
) -> None:
    """From one point to another."""
    style = {"arrowstyle": "-|>", "mutation_scale": 15, "lw": 1.7}
    ax.add_patch(
        FancyArrowPatch(start, end, color=color, shrinkA=0, shrinkB=0, **style)
    )


def note(
    ax: Any, x: float, y: float, text: str, color: str = INK, **about: Any
) -> None:
    """A text around a point."""
    style = {"ha": "center", "va": "center", "fontsize": 11} | about
    ax.text(x, y, text, color=color, **style)


def passes(ax: Any) -> None:
    """The forward pass, and below it T cotangents on their way back."""
    forward, backward, losses = 66.0, 53.0, 97.0
    for number, x in enumerate(COLUMNS, 1):
        before = COLUMNS[number - 2] + 6 if number > 1 else 3
        box(ax, x, forward, 12, 6, rf"layer {number}, $W_{number}$", INK)
        arrow(ax, (before, forward), (x - 6, forward), BLUE)
        between = (before + x - 6) / 2
        note(ax, between, forward + 2.4, rf"$X_{number}$", BLUE, fontsize=14)
        sheets(ax, x, backward, (9, 4), ORANGE, ghost=False)
        after = COLUMNS[number] - 6 if number < len(COLUMNS) else losses - 8
        arrow(ax, (after, backward), (x + 6.5, backward), ORANGE)
        label = rf"$D_{{{number},1}} \ldots D_{{{number},T}}$"
        note(ax, x, backward - 5, label, ORANGE, fontsize=14)
    arrow(ax, (COLUMNS[-1] + 6, forward), (losses - 8, forward), BLUE)
    box(ax, losses, forward, 16, 6, r"heads, $L_1 \ldots L_T$", INK)
    box(ax, losses, backward, 16, 7, "each head is\npulled back once", ORANGE)
    arrow(ax, (losses, forward - 3), (losses, backward + 3.5), ORANGE)
    title = {"ha": "left", "fontsize": 12.5, "fontweight": "bold"}
    note(ax, 3, 72.5, "Forward: every layer's input $X$ is kept", BLUE, **title)
    note(ax, 3, 59.7, "Backward: T cotangents $D$ of every output", ORANGE, **title)


def factors(ax: Any) -> None:
    """What is kept at each weight, and what is not made."""
    title = {"ha": "left", "fontsize": 12.5, "fontweight": "bold"}
    text = "At each weight: two factors in place of T gradients"
    note(ax, 3, 42.8, text, INK, **title)
    y = 32.5
    for number, x in enumerate(COLUMNS, 1):
        left, right = x - 7.5, x + 5
        frame = (x - 12.5, y - 8.5)
        ax.add_patch(Rectangle(frame, 25, 17.2, fc="#f6f6f6", ec="#d0d0d0", lw=1))
        ax.add_patch(Rectangle((left - 4, y + 2.6), 8, 3, fc=BLUE, ec="white"))
        note(ax, left, y + 6.9, rf"$X_{number}$  $[R, m]$", BLUE, fontsize=10.5)
        sheets(ax, left, y - 2.2, (7, 2.4), ORANGE, ghost=False)
        note(ax, left, y - 6.6, rf"$D_{number}$  $[T, R, n]$", ORANGE, fontsize=10.5)
        sheets(ax, right + 0.6, y + 0.4, (8, 8), GREY, ghost=True)
        note(ax, right - 0.3, y - 0.5, "not\nmade", GREY, fontsize=10.5)
        gradient = rf"$X_{number}^\top D_{{{number},t}}$  $[T, m, n]$"
        note(ax, right + 0.3, y - 6.6, gradient, GREY, fontsize=10.5)
    text = "Small where there\nare few rows R,\nbatch × positions"
    note(ax, 97, y, text, INK, fontsize=11)


def results(ax: Any) -> None:
    """The Gramian, weights from it, and the weighted sum."""
    y = 10.5
    gramian = r"$K_{ts}=\sum_l\,\langle D_{l,t},\,(X_l X_l^\top)\,D_{l,s}\rangle$"
    update = r"$d_l=X_l^\top\,\sum_t w_t\,D_{l,t}$"
    box(ax, 23, y, 40, 9, gramian, GREEN, 15)
    box(ax, 56, y, 14, 9, "method:\n$w$ from $K$", INK)
    box(ax, 87, y, 36, 9, update, GREEN, 15)
    arrow(ax, (43, y), (49, y), GREEN)
    arrow(ax, (63, y), (69, y), GREEN)
    # All factors go both ways.
    ax.plot((COLUMNS[0], COLUMNS[2]), (20.6, 20.6), color=GREEN, lw=1.7)
    for x in COLUMNS:
        ax.plot((x, x), (20.6, 24), color=GREEN, lw=1.7)
    arrow(ax, (25, 20.6), (25, y + 4.5), GREEN)
    arrow(ax, (74, 20.6), (74, y + 4.5), GREEN)
    title = {"fontsize": 12, "fontweight": "bold"}
    note(ax, 23, 3.4, "Gramian: T × T numbers, over all weights $l$", GREEN, **title)
    note(ax, 87, 3.4, "Update: one product a weight", GREEN, **title)


def main() -> None:
    """Writes the picture."""
    figure, ax = plt.subplots(figsize=(11, 7.9))
    ax.set(xlim=(0, 108), ylim=(0, 75))
    ax.axis("off")
    passes(ax)
    factors(ax)
    results(ax)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
