"""The small plots of a leaderboard: one a group of attacks, purifiers drawn alike in all."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from tasks.fronts import front_plot
from tasks.group_fronts import View, group_plots
from tasks.inline_svg import inline
from tasks.leaderboard import Estimate, Standing, on_front

GROUPS = ("color", "fgsm", "clean")
GIVEN = {
    "none": [(0.02, 0.7), (0.8, 0.65), (0.0, 1.0)],
    "half": [(0.08, 0.6), (0.1, 0.6), (0.07, 0.6)],
    "median": [(0.06, 0.65), (0.08, 0.62), (0.09, 0.64)],
    "jpeg": [(0.1, 0.64), (0.3, 0.61), (0.1, 0.63)],
    "flip": [(0.05, 0.15), (3.0, 0.14), (0.03, 0.16)],
    "told": [(0.01, 0.9), (0.01, 0.9), (0.01, 0.9)],
}
MARK = re.compile(r'<use xlink:href="#([^"]+)"[^>]*style="([^"]*#[^"]*)"')


def board(given: dict[str, list[tuple[float, float]]]) -> list[Standing]:
    made = []
    for name, points in given.items():
        groups = {
            group: {"gain": gain, "quality": quality, "srcc": 0.5}
            for group, (gain, quality) in zip(GROUPS, points, strict=True)
        }
        means = np.mean(points[:2], axis=0)
        mean = {
            measure: Estimate(value, value - 0.01, value + 0.01)
            for measure, value in zip(("gain", "quality"), means.tolist(), strict=True)
        }
        knowledge = {"none": "none", "told": "reference"}.get(name, "blind")
        made.append(Standing(name, knowledge, {}, groups, mean))
    return made


def marks(svg: str) -> list[tuple[str, str]]:
    """The shape's outline and the style of every mark that has a colour of its own."""
    outlines = dict(re.findall(r'<path id="([^"]+)" d="([^"]*)"', svg))
    return sorted((outlines[name], style) for name, style in MARK.findall(svg))


def test_there_is_a_plot_for_each_group_and_a_key() -> None:
    plots = group_plots(board(GIVEN), "half")
    assert [one.title for one in plots] == ["Key", "All attacks", "color", "fgsm", "Clean images"]
    key, whole, color, fgsm, clean = plots
    assert key.alt == "Marks of no purifier, half, median, jpeg, flip, told"
    for plot in (whole, color, fgsm):
        assert marks(plot.svg) == marks(key.svg), "the same marks everywhere"
    assert len(marks(key.svg)) == len(GIVEN)
    assert len(marks(clean.svg)) == len(GIVEN) - 1
    assert "no purifier" not in clean.svg + clean.alt


def test_the_words_name_the_front_the_baseline_and_no_purifier() -> None:
    _, _, color, fgsm, clean = group_plots(board(GIVEN), "half")
    assert color.alt == (
        "Gain and quality, color, 6 purifiers, of them no purifier: gain 0.020, quality 0.700; "
        "half: gain 0.080, quality 0.600"
    )
    assert "median: gain 0.080, quality 0.620" in fgsm.alt
    assert "told" not in fgsm.alt
    assert "jpeg" not in fgsm.alt
    assert "flip: gain 0.030, quality 0.160" in clean.alt
    for plot in (color, fgsm, clean):
        assert ">half<" in plot.svg


def test_purifiers_are_told_apart() -> None:
    many = {f"purifier {place}": [(0.1, 0.5), (0.2, 0.5), (0.1, 0.6)] for place in range(45)}
    key = group_plots(board(many), None)[0].svg
    assert len(set(marks(key))) == 45


def test_without_attacks_there_is_none() -> None:
    calm = board(GIVEN)
    for one in calm:
        one.groups = {"clean": one.groups["clean"]}
        one.mean = {}
    assert group_plots(calm, "half") == []
    assert group_plots([], None) == []


@pytest.mark.parametrize(
    ("point", "stays"),
    [((0.1, 0.6), True), ((0.1, 0.5), False), ((0.2, 0.7), True), ((0.3, 0.7), False)],
)
def test_the_front_is_what_nothing_betters(point: tuple[float, float], stays: bool) -> None:
    assert on_front(point, [(0.1, 0.6), (0.2, 0.7)]) is stays


def test_text_takes_the_font_and_colour_of_the_page() -> None:
    plots = [*group_plots(board(GIVEN), "half"), front_plot(board(GIVEN), "half")]
    for plot in plots:
        assert plot is not None
        assert "font-family" not in plot.svg
        assert "#010203" not in plot.svg
        assert len(plot.svg) < 13_000


def test_names_that_are_used_are_kept() -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
    axes.plot([0, 1], [0, 2], "o-", clip_on=True)
    text = inline(figure, "salt")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used
    assert set(re.findall(r' id="([^"]+)"', text)) == used


@pytest.mark.parametrize(
    ("gain", "ticks"),
    [(0.63, [0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.0]), (0.0138, [0.01, 0.005, 0.002, 0.001, 0.0])],
)
def test_ticks_are_apart_whatever_the_gains(gain: float, ticks: list[float]) -> None:
    assert View(gain, 0.0, 1.0).ticks() == ticks
