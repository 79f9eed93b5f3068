"""The report of a run: one page that needs nothing but itself."""

from __future__ import annotations

import re
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.scorecard import (
    POLICIES,
    TITLES,
    bar_groups,
    count,
    deployable,
    detector_table,
    meanings,
    policy_table,
    score_table,
    told,
)
from flows.verdict import caveat, threats, verdict
from tasks.figures import plots
from tasks.outputs import rejected_rows
from tasks.pictures import all_grids
from tasks.summary import Columns
from tasks.survey import Survey

LISTED = 50
"""Rejected files that the page names."""

CONTENTS = (
    ("overview", ("bars",), "At a glance"),
    ("scores", ("scores", "scores_told"), "Score card"),
    ("detectors", ("detectors", "detectors_told"), "Detectors"),
    ("policies", ("policies", "policies_told"), "Policies"),
    ("distributions", ("plots",), "Distributions"),
    ("examples", ("grids",), "Examples"),
    ("rejected", ("rejected",), "Rejected files"),
    ("meaning", ("summary",), "What the figures mean"),
    ("spec", ("summary",), "Specification"),
)
"""Anchor of each section, what must not be empty for it to be there, and its title."""


def render(state: Survey, summary: dict[str, Any], columns: Columns) -> str:
    """Make the page of a finished run.

    Args:
        state: a run with nothing left to compute.
        summary: what ``summary.json`` holds.
        columns: per-image columns of the run.

    Returns:
        HTML that refers to nothing outside itself; the same run gives the same text.

    Raises:
        DamagedChunk: where images or rows of the run cannot be read.
    """
    rows = summary["rows"]
    grids, omitted = all_grids(state, columns, summary["spec"]["examples"])
    metric, bars = bar_groups(rows)
    rejected = rejected_rows(state)
    context = dict(
        summary=summary,
        verdict=verdict(rows),
        caveat=caveat(rows),
        threats=threats(rows),
        bars=bars,
        bars_title=TITLES.get(metric, ""),
        bars_told=any(group.told for group in bars),
        scores=score_table(deployable(rows), ranked=True),
        scores_told=score_table(told(rows), ranked=False),
        detectors=detector_table(deployable(rows), summary["thresholds"]),
        detectors_told=detector_table(told(rows), summary["thresholds"]),
        policies=policy_table(deployable(rows)),
        policies_told=policy_table(told(rows)),
        has_psnr=any(row["metric"].startswith("psnr") for row in rows),
        policy_meanings=_policies(rows),
        plots=[
            {"title": plot.title, "alt": plot.alt, "svg": Markup(plot.svg)}
            for plot in plots(state, columns, summary["thresholds"])
        ],
        grids=grids,
        omitted=omitted,
        reduced=any(not p.crisp for grid in grids for strip in grid.strips for p in strip.pictures),
        rejected=rejected.slice(0, LISTED).to_pylist(),
        rejected_more=max(0, rejected.num_rows - LISTED),
        meanings=meanings(rows),
        spec=yaml.safe_dump(summary["spec"], sort_keys=False, allow_unicode=True, width=88),
    )
    context["contents"] = [(name, title) for name, given, title in CONTENTS if _any(context, given)]
    return fill("report.html", context)


def fill(template: str, context: dict[str, Any]) -> str:
    """Fill in a page's template; names are escaped, and a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("flows", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    environment.filters["breakable"] = breakable
    return environment.get_template(template).render(context)


def breakable(text: str) -> Markup:
    """A label, escaped, that may be broken between its words and before brackets."""
    return Markup("<wbr>").join(re.split(r"(?<=:)|(?=[(])|(?<=[a-z])(?=[A-Z])", text))


def _any(context: dict[str, Any], names: tuple[str, ...]) -> bool:
    return any(bool(context[name]) for name in names)


def _policies(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    used = dict.fromkeys(row["policy"] for row in rows)
    return [(name, POLICIES[name]) for name in used if name in POLICIES]
