"""Gain against Quality under each group of attacks: small plots on the same axes, and their key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.drawing import ATTACKED, CLEAN, PURIFIED, TOLD, Plot, plain, short
from tasks.inline_svg import INK, inline
from tasks.leaderboard import Column, Standing, on_front

ALL, CLEAN_IMAGES = "All attacks", "Clean images"
WIDE, HIGH = 3.4, 2.7
"""Inches of 72 points: three plots fill a wide screen, one a narrow one."""
LEFT, RIGHT, LOW, TOP = 0.14, 0.985, 0.165, 0.985
"""Edges of the axes, as shares of a plot."""
COLOURS = (PURIFIED, CLEAN, "#b08900", "#c2528b", "#8b949c")
SHAPES = "osD^vPX<>p"
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
APART = 0.11
"""Least distance of two ticks, as a share of the axis."""
WORST_GAIN = 2.0
"""Largest gain on the axis."""
SPREAD, MARGIN = 0.15, 0.03
"""How far below the median, and beyond the purifiers, the axis of quality goes."""
DASHES = (0, (2, 2))
SIDES = (
    *((6, 2, "left"), (-6, 2, "right"), (6, -8, "left"), (-6, -8, "right")),
    *((0, 6, "center"), (0, -12, "center"), (4, 6, "right"), (4, -12, "right")),
)
"""Where a name may stand: points across and up from its mark, and the end that is there."""
SIZE = 7.0
"""Points of a label."""
Box = tuple[float, float, float, float]
"""Left, lower, right and upper edge in points."""


@dataclass(frozen=True)
class View:
    """The axes that all plots share: gains up to one, by their square root, and qualities."""

    gain: float
    low: float
    high: float

    def inside(self, dot: Dot) -> tuple[float, float]:
        """Gain and quality of a dot, moved to the edge where it lies beyond."""
        return min(dot.gain, self.gain), max(dot.quality, self.low)

    def ticks(self) -> list[float]:
        """Gains at which the axis has ticks, the largest first; 0 is always among them."""
        chosen: list[float] = []
        least, last = APART * math.sqrt(self.gain), math.inf
        for tick in reversed([tick for tick in TICKS if tick <= self.gain]):
            if min(last - math.sqrt(tick), math.sqrt(tick)) >= least:
                chosen.append(tick)
                last = math.sqrt(tick)
        return [*chosen, 0.0]

    def place(self, dot: Dot) -> tuple[float, float]:
        """Where a dot is, in points from the corner of the axes."""
        gain, quality = self.inside(dot)
        across = math.sqrt(gain / self.gain) * WIDE * 72 * (RIGHT - LEFT)
        return across, (quality - self.low) / (self.high - self.low) * HIGH * 72 * (TOP - LOW)


@dataclass(frozen=True)
class Sign:
    """How a purifier is drawn: the same in every plot."""

    colour: str
    shape: str
    filled: bool = True


@dataclass(frozen=True)
class Dot:
    """A purifier under a group of attacks."""

    standing: Standing
    gain: float
    quality: float


def group_plots(standings: Sequence[Standing], baseline: str | None) -> list[Plot]:
    """The key, a plot for all attacks, one for each group and one for clean images.

    Purifiers on the front of a plot, no purifier and the baseline bear their names. Axes begin
    where most purifiers are; those that are worse stand at the edge.

    Args:
        standings: the leaderboard.
        baseline: label of the purifier that others are compared with.

    Returns:
        The plots; empty where no attack was run.
    """
    panels = _panels(standings)
    dots = [dot for found in panels.values() for dot in found]
    if not dots:
        return []
    qualities = [dot.quality for dot in dots]
    view = View(
        gain=min(WORST_GAIN, 1.05 * max(dot.gain for dot in dots)) or 1.0,
        low=max(min(qualities), float(np.median(qualities)) - SPREAD) - MARGIN,
        high=max(qualities) + MARGIN,
    )
    signs = _signs(standings)
    plots = [
        _plot(name, found, signs, baseline, view, f"group {place}")
        for place, (name, found) in enumerate(panels.items())
    ]
    return [_key(standings, signs, baseline), *plots]


def _panels(standings: Sequence[Standing]) -> dict[str, list[Dot]]:
    """What each plot shows, by its title."""
    groups = dict.fromkeys(name for one in standings for name in one.groups if name != "clean")
    panels: dict[str, list[Dot]] = {}
    for name in (ALL, *groups, CLEAN_IMAGES):
        for one in standings:
            if (name, one.purifier) == (CLEAN_IMAGES, "none"):
                continue  # nothing was done to them
            if name == ALL:
                values = {measure: found.value for measure, found in one.mean.items()}
            else:
                values = one.groups.get("clean" if name == CLEAN_IMAGES else name, {})
            gain, quality = values.get("gain", math.nan), values.get("quality", math.nan)
            if math.isfinite(gain) and math.isfinite(quality):
                panels.setdefault(name, []).append(Dot(one, gain, quality))
    return panels if groups else {}


def _signs(standings: Sequence[Standing]) -> dict[str, Sign]:
    """A sign for each purifier; those that are given the clean original are hollow."""
    signs, plain_ones, told = {}, 0, 0
    for one in standings:
        if one.purifier == "none":
            signs[one.purifier] = Sign(ATTACKED, "X")
        elif one.knowledge == "reference":
            signs[one.purifier] = Sign(TOLD, SHAPES[told % len(SHAPES)], filled=False)
            told += 1
        else:
            shape = SHAPES[plain_ones // len(COLOURS) % len(SHAPES)]
            signs[one.purifier] = Sign(COLOURS[plain_ones % len(COLOURS)], shape)
            plain_ones += 1
    return signs


def _name(purifier: str) -> str:
    return "no purifier" if purifier == "none" else short(purifier, 26)


def _mark(axes: Axes, place: tuple[float, float], sign: Sign, *, ringed: bool) -> None:
    """A purifier's sign; the baseline has a ring around it."""
    (x, y) = place
    axes.plot(
        [x],
        [y],
        sign.shape,
        color=sign.colour,
        fillstyle="full" if sign.filled else "none",
        markersize=5.0,
        markeredgewidth=0.9 if not sign.filled else 0.0,
        clip_on=False,
    )
    if ringed:
        axes.plot([x], [y], "o", color=INK, fillstyle="none", markersize=9, markeredgewidth=0.8)


def _plot(
    name: str,
    dots: Sequence[Dot],
    signs: dict[str, Sign],
    baseline: str | None,
    view: View,
    salt: str,
) -> Plot:
    """One group of attacks."""
    figure = Figure(figsize=(WIDE, HIGH), facecolor="none")
    axes = figure.add_axes((LEFT, LOW, RIGHT - LEFT, TOP - LOW))
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_xlim(0, view.gain)
    axes.set_ylim(view.low, view.high)
    usable = [dot for dot in dots if dot.standing.knowledge != "reference"]
    points = [(dot.gain, dot.quality) for dot in usable]
    front = [dot for dot in usable if on_front((dot.gain, dot.quality), points)]
    line = sorted(view.inside(dot) for dot in front)
    axes.step(
        *zip(*line, strict=True), where="post", color=INK, alpha=0.5, linewidth=0.9, ls=DASHES
    )
    known = [dot for dot in dots if dot.standing.purifier in ("none", baseline)]
    named = known + [dot for dot in front if dot not in known]
    for dot in sorted(dots, key=lambda one: one in named):
        label = dot.standing.purifier
        _mark(axes, view.inside(dot), signs[label], ringed=label == baseline)
    _label(axes, named, [view.place(dot) for dot in dots], view)
    plain(axes, "gain")
    axes.set_ylabel("quality", color=INK, labelpad=2)
    axes.spines["left"].set_visible(True)
    axes.set_xticks(view.ticks())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelsize=SIZE)
    for label_ in (axes.xaxis.label, axes.yaxis.label):
        label_.set_fontsize(SIZE + 1)
    said = "; ".join(
        f"{_name(dot.standing.purifier)}: gain {dot.gain:.3f}, quality {dot.quality:.3f}"
        for dot in named
    )
    title = f"Gain and quality, {name.lower()}"
    return Plot(name, f"{title}, {len(dots)} purifiers, of them {said}", inline(figure, salt))


def _root(values: Column) -> Column:
    root: Column = np.sqrt(np.maximum(values, 0.0))
    return root


def _label(
    axes: Axes, named: Sequence[Dot], places: Sequence[tuple[float, float]], view: View
) -> None:
    """Names beside marks, the first ones first, where they cover neither marks nor each other."""
    width, height = WIDE * 72 * (RIGHT - LEFT), HIGH * 72 * (TOP - LOW)
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    for dot in named:
        x, y = view.place(dot)
        text = _name(dot.standing.purifier)
        long = 0.52 * SIZE * len(text)
        for dx, dy, side in SIDES:
            left = x + dx - {"left": 0.0, "center": long / 2, "right": long}[side]
            box = left, y + dy - 1, left + long, y + dy + SIZE - 1
            within = box[0] >= 2 and box[2] <= width + 3 and box[1] >= 1 and box[3] <= height + 3
            if within and not any(_covers(box, other) for other in taken):
                taken.append(box)
                axes.annotate(
                    text,
                    view.inside(dot),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha=side,
                    fontsize=SIZE,
                    color=INK,
                )
                break


def _covers(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _key(standings: Sequence[Standing], signs: dict[str, Sign], baseline: str | None) -> Plot:
    """What the marks stand for."""
    count = len(standings)
    columns = 2 if count > 8 else 1
    lines = -(-count // columns)
    high = (13 * lines + 8) / 72
    figure = Figure(figsize=(WIDE, high), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDE * 72)
    axes.set_ylim(high * 72, 0)
    for place, one in enumerate(standings):
        x, y = 8 + (place // lines) * WIDE * 36, 10 + 13 * (place % lines)
        _mark(axes, (x, y), signs[one.purifier], ringed=one.purifier == baseline)
        name = _name(one.purifier) + (" (baseline)" if one.purifier == baseline else "")
        axes.annotate(name, (x + 9, y), va="center", fontsize=SIZE, color=INK)
    names = ", ".join(_name(one.purifier) for one in standings)
    return Plot("Key", f"Marks of {names}", inline(figure, "group key"))
