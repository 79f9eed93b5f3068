"""The page of a scan: how many images are suspect, which, and what the model would get of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from flows.report import LISTED, fill
from flows.scorecard import count
from tasks.decision import Decision
from tasks.outputs import rejected_rows
from tasks.survey import Survey
from tasks.suspects import histograms, pictured


def render(state: Survey, summary: dict[str, Any], table: Any, decision: Decision) -> str:
    """Make the page of a finished scan.

    Args:
        state: a run with nothing left to compute.
        summary: what ``scan.json`` holds.
        table: the scan's rows.
        decision: rule and thresholds.

    Returns:
        HTML that refers to nothing outside itself; the same scan gives the same text.

    Raises:
        DamagedChunk: where images of the run cannot be read.
    """
    rejected = rejected_rows(state)
    suspects = pictured(state, table, decision)
    plots = histograms(table, decision)
    context = {
        "summary": summary,
        "verdict": verdict(summary),
        "chance": chance(summary),
        "rule": rule_in_words(summary),
        "short": short,
        "without": [one["label"] for one in summary["detectors"] if one["threshold"] is None],
        "detectors": [{**one, "plot": asdict(plots[one["label"]])} for one in summary["detectors"]],
        "suspects": suspects,
        "more": summary["suspects"] - len(suspects),
        "rejected": rejected.slice(0, LISTED).to_pylist(),
        "rejected_more": max(0, rejected.num_rows - LISTED),
        "spec": yaml.safe_dump(summary["spec"], sort_keys=False, allow_unicode=True, width=88),
    }
    return fill("scan.html", context)


def verdict(summary: dict[str, Any]) -> str:
    """How many images are suspect, in one sentence."""
    images, suspects = summary["images"], summary["suspects"]
    if not suspects:
        return f"None of {count(images)} images is suspect."
    verb = "is" if suspects == 1 else "are"
    return f"{count(suspects)} of {count(images)} images {verb} suspect."


def chance(summary: dict[str, Any]) -> str:
    """How many suspects there would be if no image had been attacked, in one sentence."""
    rate = f"{100 * summary['expected_rate']:.3g} %"
    number = summary["expected_by_chance"]
    about = f"about {count(round(number))}" if number >= 1 else "fewer than one"
    return (
        f"Had no image been attacked, {rate} of them at most, {about} here, would be flagged "
        "by chance."
    )


def rule_in_words(summary: dict[str, Any]) -> str:
    """When an image counts as suspect."""
    deciding, least = summary["deciding"], summary["least"]
    if len(deciding) == 1:
        return f"{deciding[0]} flags it"
    if least == 1:
        return f"any of {len(deciding)} detectors flags it"
    return f"{least} or more of {len(deciding)} detectors flag it"


def short(value: float | None) -> str:
    """A score in as many digits as tell it from others."""
    if value is None:
        return "none"
    return count(round(value)) if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"
