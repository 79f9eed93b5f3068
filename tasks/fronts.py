"""Gain against Quality, one dot a purifier: what cannot be bettered in both lies on a line."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.drawing import ATTACKED, CLEAN, PURIFIED, TOLD, WIDTH, Plot, plain, short
from tasks.inline_svg import INK, inline
from tasks.leaderboard import Standing

Dot = tuple[float, float, str, str]
"""Gain, quality, label and colour."""


def front_plot(standings: Sequence[Standing], baseline: str | None) -> Plot | None:
    """Mean gain and quality of every purifier over all attacks; None without any attack."""
    known = [one for one in standings if one.mean and one.mean["gain"].value >= 0]
    if not known:
        return None
    figure = Figure(figsize=(2 * WIDTH, 4.2), facecolor="none")
    axes = figure.add_axes((0.07, 0.13, 0.91, 0.85))
    dots: list[Dot] = []
    for one in known:
        colour = PURIFIED
        if one.purifier == "none":
            colour = ATTACKED
        elif one.knowledge == "reference":
            colour = TOLD
        elif one.purifier == baseline:
            colour = CLEAN
        name = "no purifier" if one.purifier == "none" else short(one.purifier, 30)
        dots.append((one.mean["gain"].value, one.mean["quality"].value, name, colour))
        for axis, measure in (("x", "gain"), ("y", "quality")):
            _whisker(axes, one, axis, measure, colour)
    line = sorted((one.mean["gain"].value, one.mean["quality"].value) for one in known if one.front)
    axes.step(
        [x for x, _ in line],
        [y for _, y in line],
        where="post",
        color=INK,
        alpha=0.5,
        linewidth=0.9,
        linestyle=(0, (2, 2)),
    )
    for gain, quality, name, colour in dots:
        axes.plot([gain], [quality], "o", color=colour, markersize=5)
        axes.annotate(
            name,
            (gain, quality),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.margins(0.12, 0.08)
    axes.set_ylabel("quality: likeness to the clean image", fontsize=9, color=INK)
    plain(axes, "gain left of the attack: lower is better")
    axes.spines["left"].set_visible(True)
    title = "Gain and quality over all attacks"
    words = "; ".join(f"{name}: gain {x:.3f}, quality {y:.3f}" for x, y, name, _ in dots)
    return Plot(title, f"{title}: {words}", inline(figure, "front"))


def _whisker(axes: Axes, one: Standing, axis: str, measure: str, colour: str) -> None:
    """The interval of a dot, along one axis."""
    span = [one.mean[measure].low, one.mean[measure].high]
    other = one.mean["quality" if measure == "gain" else "gain"].value
    x, y = (span, [other, other]) if axis == "x" else ([other, other], span)
    axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.6)
