"""The report of a run: one page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from defender.scaling.audit import SAFE, UNRELATED
from flows.bars import bar_groups
from flows.defence_verdict import defence_verdict, defences_table, definition
from flows.face_page import face_verdict, verification_table
from flows.patch_page import (
    CONTROL,
    CONTROL_MEANING,
    certified_table,
    control_table,
    heat_table,
    success_bars,
    transfer_table,
    wrong_lists,
)
from flows.patch_verdict import patch_verdict
from flows.quality_page import leaderboard_table, quality_verdict
from flows.requirement_words import sections
from flows.requirement_words import verdict as requirement_verdict
from flows.resize import sentence, view
from flows.scaling_verdict import scaling_verdict
from flows.scorecard import (
    POLICIES,
    TITLES,
    count,
    deployable,
    detector_table,
    meanings,
    policy_table,
    score_table,
    told,
)
from flows.strength_page import strength_table
from flows.verdict import caveat, threats, verdict
from tasks.columns import Columns
from tasks.drawing import Plot
from tasks.face_plots import det_plot
from tasks.figures import plots
from tasks.fronts import front_plot
from tasks.further_figures import SIMILARITY
from tasks.group_fronts import group_plots
from tasks.heat_strips import heat_grids
from tasks.histograms import histograms
from tasks.leaderboard import baseline_label, standing_of
from tasks.outputs import rejected_rows
from tasks.patch_facts import PatchAttack, made_on, patch_attacks
from tasks.patch_pictures import fitted_patches
from tasks.pictures import all_grids
from tasks.resize_facts import resize_facts
from tasks.roc import attack_rocs
from tasks.survey import Survey

LISTED = 50
"""Rejected files that the page names."""

CONTENTS = (
    ("requirements", ("requirements",), "Requirements"),
    ("defences", ("defences",), "Defences"),
    ("attacks", ("attacked",), "Attack by attack"),
    ("patch", ("fitted",), "Patch"),
    ("controls", ("controls",), "Patches against controls"),
    ("looked", ("heat", "wrong"), "What the model looked at"),
    ("transfer", ("transfer",), "Other models"),
    ("certified", ("certified",), "Certified defences"),
    ("overview", ("bars",), "At a glance"),
    ("resize", ("resize",), "Resize"),
    ("leaderboard", ("leaderboard",), "Leaderboard"),
    ("strengths", ("strengths",), "Strengths of the attacks"),
    ("verification", ("verification",), "Verification"),
    ("scores", ("scores", "scores_told"), "Score card"),
    ("detectors", ("detectors", "detectors_told"), "Detectors"),
    ("roc", ("rocs",), "ROC curves"),
    ("policies", ("policies", "policies_told"), "Policies"),
    ("levels", ("levels",), "Grey levels"),
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
    patches = patch_attacks(state, columns)
    rows = summary["rows"]
    grids, omitted = all_grids(state, columns, summary["spec"]["examples"])
    metric, bars = bar_groups(rows)
    rejected = rejected_rows(state)
    resize = resize_facts(state, columns)
    said: list[str] = verdict(rows)
    attacked = None
    if resize is not None:
        said, attacked = scaling_verdict(rows, summary["thresholds"], sentence(resize))
    board = [standing_of(one) for one in summary.get("leaderboard", [])]
    if state.bench.has_metric:
        said = quality_verdict(rows, board)
    systems = summary.get("verification", [])
    if systems:
        said = face_verdict(rows, systems)
    if state.bench.has_model and any(not one.control for one in patches):
        said = patch_verdict(rows, patches, summary.get("certification", []))
        said += defence_verdict(summary.get("defences", []))
    else:
        said = defence_verdict(summary.get("defences", [])) + said
    front = front_plot(board, baseline_label(state))
    drawn, left_out = plots(state, columns, summary["thresholds"])
    context = dict(
        summary=summary,
        verdict=requirement_verdict(summary.get("requirements", [])) + said,
        requirements=sections(summary.get("requirements", [])),
        attacked=attacked,
        **_defence_parts(state, summary),
        caveat=caveat(rows, resized=resize is not None),
        threats=_threats(rows, controlled=any(one.control for one in patches)),
        **_patch_parts(state, summary, columns, patches, rows),
        bars=bars,
        bars_title=TITLES.get(metric, ""),
        bars_told=any(group.told for group in bars),
        leaderboard=leaderboard_table(board),
        baseline=baseline_label(state),
        front=_inline([front] if front else []),
        by_group=_inline(group_plots(board, baseline_label(state))),
        strengths=strength_table(summary.get("strengths", [])),
        verification=verification_table(rows, systems),
        errors=_inline([det_plot(systems)] if systems else []),
        scores=score_table(deployable(rows), ranked=True),
        scores_told=score_table(told(rows), ranked=False),
        detectors=detector_table(deployable(rows), summary["thresholds"]),
        detectors_told=detector_table(told(rows), summary["thresholds"]),
        policies=policy_table(deployable(rows)),
        policies_told=policy_table(told(rows)),
        has_psnr=any(row["metric"].startswith("psnr") for row in rows),
        policy_meanings=_policies(rows),
        resize=resize and view(resize),
        safe=SAFE,
        unrelated=UNRELATED,
        rocs=_inline([] if resize is None else attack_rocs(state, columns)),
        levels=_inline(histograms(state, columns)),
        plots=_inline(drawn),
        plots_left=left_out,
        grids=grids,
        omitted=omitted,
        reduced=any(not p.crisp for grid in grids for strip in grid.strips for p in strip.pictures),
        rejected=rejected.slice(0, LISTED).to_pylist(),
        rejected_more=max(0, rejected.num_rows - LISTED),
        control=CONTROL_MEANING if any(one.control for one in patches) else "",
        meanings=meanings(rows),
        spec=yaml.safe_dump(summary["spec"], sort_keys=False, allow_unicode=True, width=88),
    )
    context["contents"] = [(name, title) for name, given, title in CONTENTS if _any(context, given)]
    return fill("report.html", context)


def _defence_parts(state: Survey, summary: dict[str, Any]) -> dict[str, Any]:
    """The table of defences with the seconds that each takes, and when one counts as broken."""
    defences = summary.get("defences", [])
    if not defences:
        return dict(defences=None)
    clean = {one["purifier"]: f"purify/none/{one['purifier']}" for one in defences}
    seconds = {
        name: state.seconds(state.plan.nodes[node])
        for name, node in clean.items()
        if node in state.plan.nodes
    }
    return dict(
        defences=defences_table(defences, seconds),
        defences_definition=definition(defences),
        defences_metric=defences[0]["metric"],
    )


def _patch_parts(
    state: Survey,
    summary: dict[str, Any],
    columns: Columns,
    patches: Sequence[PatchAttack],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the page says of patches, heat maps, other models and certified defences."""
    explain = summary["spec"]["explain"] or {}
    fitted = [{**vars(one), "plots": _inline(one.plots)} for one in fitted_patches(state)]
    heat = heat_table(summary.get("explanation", []), rows, explain.get("share", 0.0))
    classes = summary["dataset"]["classes"]
    return dict(
        fitted=fitted,
        controls=control_table(rows, patches),
        control_bars=success_bars(rows, patches),
        heat=heat,
        heat_target=heat is not None and any(name == SIMILARITY for name, _ in heat.headings),
        heat_lines=0 if heat is None else sum(len(one.lines) for one in heat.sections),
        heat_strips=heat_grids(state, columns, summary["spec"]["examples"]),
        wrong=wrong_lists(summary.get("wrong_predictions", {}), rows, classes),
        transfer=transfer_table(rows, summary.get("transfer", []), made_on(state)),
        certified=certified_table(summary.get("certification", []), rows),
    )


def _threats(rows: list[dict[str, Any]], *, controlled: bool) -> list[tuple[str, str]]:
    """Threat models of the page with their meaning; that of patches says what their control is."""
    return [(name, told) for name, told in threats(rows) if name != CONTROL or not controlled]


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


def _inline(made: Sequence[Plot]) -> list[dict[str, Any]]:
    return [{"title": plot.title, "alt": plot.alt, "svg": Markup(plot.svg)} for plot in made]


def _policies(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    used = dict.fromkeys(row["policy"] for row in rows)
    return [(name, POLICIES[name]) for name in used if name in POLICIES]
