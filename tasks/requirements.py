"""Requirements of a run: checked against its specification, then against its figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from defender.metrics import METRICS
from tasks.errors import SpecError
from tasks.names import suggestion
from tasks.requirement_specs import ANY, NONE, SELECTORS, RequirementSpec
from tasks.specs import Policy, Spec, label_of

Row = dict[str, Any]

DETECTION = (
    *("false_positive_rate", "true_positive_rate", "roc_auc"),
    *("tpr_at_fpr_0.001", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"),
    *("mask_precision", "mask_recall", "mask_precision_top", "located", "box_iou"),
)
"""Figures of detectors."""
OF_ATTACKS = (
    *(name for name in DETECTION if name != "false_positive_rate"),
    *("attack_success", "o1", "o2", "scaling_success", "target_agreement", "target_psnr"),
    *("similarity", "defended_gain", "defended_absolute_gain"),
)
"""Figures that attacked images alone have."""
OF_MODELS = (
    *("accuracy", "accuracy_mean", "accuracy_worst", "accuracy_majority", "balanced_accuracy"),
    *("attack_success", "label_recovery", "target_agreement"),
)
WITH_POLICIES = ("accuracy", "balanced_accuracy", "attack_success", "label_recovery")
"""Figures of what comes of acting on a detector."""
DRAWN = ("_mean", "_worst", "_majority")
FLAGGED = "purify-if-flagged"
SLACK = 1e-9
"""Numbers that differ by no more than this part are equal: 0.07 is 0.02 more than 0.05."""


def chosen(required: RequirementSpec) -> dict[str, tuple[str, ...]]:
    """What every field of a requirement asks for, those left out included.

    Left out, ``attack`` and ``purifier`` are ``none``, and no detector acts: the plain figure. But
    where a figure exists of attacked images only, ``attack`` is ``any``; a figure of detectors is
    that of ``any`` of them; a stated ``detector`` goes with ``any`` policy and the other way round,
    and ``purify-if-flagged`` with ``any`` purifier.
    """
    detection = required.metric in DETECTION
    detector, policy = required.detector, required.policy
    if policy is None:
        policy = ("observe",) if detection else (NONE,) if detector in (None, (NONE,)) else (ANY,)
    if detector is None:
        detector = (ANY,) if detection or policy != (NONE,) else (NONE,)
    return {
        "attack": required.attack or ((ANY,) if required.metric in OF_ATTACKS else (NONE,)),
        "purifier": required.purifier or ((ANY,) if policy == (FLAGGED,) else (NONE,)),
        "detector": detector,
        "policy": policy,
    }


def matching(required: RequirementSpec, rows: Iterable[Row]) -> list[Row]:
    """The rows of a summary that a requirement is about."""
    wanted = chosen(required)
    return [
        row
        for row in rows
        if row["metric"] == required.metric
        and all(_fits(row[name], wanted[name]) for name in SELECTORS)
    ]


def _fits(label: str, wanted: tuple[str, ...]) -> bool:
    return label in wanted or (ANY in wanted and label != NONE)


def check_requirements(spec: Spec) -> None:
    """Check that every requirement of a run can be met and is stated once.

    Raises:
        SpecError: naming ``require[i].field`` and what was expected.
    """
    seen: dict[Any, int] = {}
    for i, one in enumerate(spec.require):
        where = f"require[{i}]"
        _check_metric(spec, one, where)
        _check_labels(spec, one, where)
        _check_limits(one, where)
        wanted = {name: tuple(sorted(labels)) for name, labels in chosen(one).items()}
        key = (one.metric, *wanted.values(), one.bound)
        if key in seen:
            raise SpecError(
                f"{where}: expected limits of the same figures in one place, got those of "
                f"require[{seen[key]}] again: {sentence(one)}"
            )
        seen[key] = i


def _check_metric(spec: Spec, one: RequirementSpec, where: str) -> None:
    name, where = one.metric, f"{where}.metric"
    if name in DETECTION and name not in METRICS:
        if not spec.detectors:
            raise SpecError(f"{where}: {name} is a figure of detectors; expected detectors")
        return
    if name not in METRICS:
        known = sorted({*METRICS, *DETECTION})
        raise SpecError(
            f"{where}: expected one of {', '.join(known)}, got {name!r}{suggestion(name, known)}"
        )
    base = name
    if name.endswith(DRAWN):
        base = name.rpartition("_")[0]
        if not any(one.draws > 1 for one in spec.purifiers):
            raise SpecError(
                f"{where}: {name} is over draws; expected a purifier with draws above 1"
            )
    if base not in spec.metrics:
        raise SpecError(
            f"{where}: expected one of the metrics that the run measures "
            f"({', '.join(spec.metrics)}), got {name!r}: add {base!r} to metrics"
        )
    kind = METRICS[name].kind
    needed = {"score": "metric", "verification": "encoder"}.get(kind)
    if name in OF_MODELS:
        needed = "model"
    if name in DETECTION:
        needed = "detectors"
    if needed is not None and not getattr(spec, needed):
        raise SpecError(f"{where}: {name} is measured with {needed} only, got none")


def _check_labels(spec: Spec, one: RequirementSpec, where: str) -> None:
    known = {
        "attack": [label_of(attack) for attack in spec.attacks],
        "purifier": [label_of(purifier) for purifier in spec.purifiers],
        "detector": [label_of(detector) for detector in spec.detectors],
        "policy": list(get_args(Policy)),
    }
    for name, labels in known.items():
        for label in getattr(one, name) or ():
            if label not in (*labels, ANY, NONE):
                raise SpecError(
                    f"{where}.{name}: expected {', '.join((*labels, ANY))} or {NONE}, "
                    f"got {label!r}{suggestion(label, labels)}"
                )
    wanted = chosen(one)
    if ANY in wanted["attack"] and not spec.attacks:
        raise SpecError(f"{where}.attack: {one.metric} is of attacked images; expected attacks")
    if one.metric in DETECTION and (wanted["policy"] != ("observe",) or NONE in wanted["detector"]):
        raise SpecError(
            f"{where}.policy: {one.metric} is a figure of a detector that observes; "
            f"expected policy observe and a detector, got {', '.join(wanted['policy'])}"
        )
    if one.metric in DETECTION and wanted["purifier"] != (NONE,):
        raise SpecError(f"{where}.purifier: detectors look at images as they are; expected none")
    if one.metric not in DETECTION and "observe" in wanted["policy"]:
        raise SpecError(f"{where}.policy: expected reject or {FLAGGED}, got observe")
    if wanted["policy"] != (NONE,) and one.metric not in (*WITH_POLICIES, *DETECTION):
        raise SpecError(
            f"{where}.metric: expected one of {', '.join(WITH_POLICIES)} for what comes of a "
            f"detector's policy, got {one.metric!r}"
        )
    if one.metric in OF_ATTACKS and NONE in wanted["attack"]:
        raise SpecError(f"{where}.attack: expected an attack for {one.metric}, got none")


def _check_limits(one: RequirementSpec, where: str) -> None:
    if one.min is None and one.max is None and one.drift is None:
        raise SpecError(f"{where}: expected min, max or drift, got none of them")
    if one.min is not None and one.max is not None and one.min > one.max:
        raise SpecError(f"{where}.min: expected no more than max, {one.max:g}, got {one.min:g}")
    if one.bound == "ci" and one.min is None and one.max is None:
        raise SpecError(f"{where}.bound: expected min or max beside it; drift compares values")
    metric = METRICS.get(one.metric)
    if metric is not None and metric.kind not in ("rate", "class", "mask"):
        return
    for name in ("min", "max", "drift"):
        limit = getattr(one, name)
        if limit is not None and not 0 <= limit <= 1:
            raise SpecError(f"{where}.{name}: expected a share in [0, 1], got {limit:g}")


def sentence(one: RequirementSpec) -> str:
    """A requirement in words."""
    stated = [one.metric]
    for name in SELECTORS:
        labels = getattr(one, name)
        if labels is not None:
            stated.append(f"{name} {' and '.join(labels)}")
    limits = []
    if one.min is not None:
        limits.append(f"at least {one.min:g}")
    if one.max is not None:
        limits.append(f"at most {one.max:g}")
    if one.bound == "ci":
        limits = [f"{' and '.join(limits)} with its 95 % interval"]
    if one.drift is not None:
        limits.append(f"within {one.drift:g} of the last run")
    return f"{', '.join(stated)}: {' and '.join(limits)}"


def judged(
    require: Sequence[RequirementSpec], rows: Sequence[Row], last: Sequence[Row] | None
) -> list[dict[str, Any]]:
    """Hold the rows of a run against its requirements.

    Args:
        require: of its specification, checked.
        rows: of its summary.
        last: rows of the last run that came to other results, None where there is none.

    Returns:
        For each requirement ``requirement`` (its fields), ``text``, ``passed``, ``problem`` (why no
        row was looked at, or None) and ``rows``: where each comes from, its figures, ``last``,
        ``difference``, ``passed``, ``misses`` and ``notes``.
    """
    before = None if last is None else {place_of(row): row for row in last}
    found = []
    for one in require:
        rows_of = matching(one, rows)
        problem = _absent(one, rows_of)
        held = [_held(one, row, before) for row in rows_of]
        found.append(
            {
                "requirement": one.model_dump(mode="json", exclude_none=True),
                "text": sentence(one),
                "passed": problem is None and all(row["passed"] for row in held),
                "problem": problem,
                "rows": held,
            }
        )
    return found


def place_of(row: Row) -> tuple[str, ...]:
    """What tells a row from the others of its run."""
    return tuple(row[name] for name in (*SELECTORS, "metric"))


def _absent(one: RequirementSpec, rows: Sequence[Row]) -> str | None:
    """Why the rows are not all that a requirement asks for, None where they are."""
    wanted = chosen(one)
    if not rows:
        asked = ", ".join(f"{name} {' or '.join(labels)}" for name, labels in wanted.items())
        return f"the run has no {one.metric} of {asked}"
    for name, labels in wanted.items():
        for label in labels:
            if not any(_fits(row[name], (label,)) for row in rows):
                return f"the run has no such {one.metric} of {name} {label}"
    return None


def _held(
    one: RequirementSpec, row: Row, before: dict[tuple[str, ...], Row] | None
) -> dict[str, Any]:
    """One row held against one requirement."""
    misses = [text for text in (_below(one, row), _above(one, row)) if text]
    notes = []
    value, last = row["value"], (before or {}).get(place_of(row), {}).get("value")
    difference = None if value is None or last is None else value - last
    if one.drift is not None:
        if before is None:
            notes.append("no earlier run to compare with")
        elif place_of(row) not in before:
            notes.append("not in the last run")
        elif difference is None or last is None:
            misses.append("no value to compare with the last run's")
        elif abs(difference) > one.drift + SLACK:
            misses.append(f"drift {_number(abs(difference))}, expected at most {one.drift:g}")
    fields = (*SELECTORS, "knowledge", "metric", "value", "ci_low", "ci_high", "n")
    return {
        **{name: row[name] for name in fields},
        "last": last,
        "difference": difference,
        "passed": not misses,
        "misses": misses,
        "notes": notes,
    }


def _below(one: RequirementSpec, row: Row) -> str:
    if one.min is None:
        return ""
    value, name = _compared(one, row, "ci_low")
    if value is None:
        return f"no {name}, expected at least {one.min:g}"
    if value >= one.min - SLACK * max(1.0, abs(one.min)):
        return ""
    return f"{name} {_number(value)}, expected at least {one.min:g}"


def _above(one: RequirementSpec, row: Row) -> str:
    if one.max is None:
        return ""
    value, name = _compared(one, row, "ci_high")
    if value is None:
        return f"no {name}, expected at most {one.max:g}"
    if value <= one.max + SLACK * max(1.0, abs(one.max)):
        return ""
    return f"{name} {_number(value)}, expected at most {one.max:g}"


def _compared(one: RequirementSpec, row: Row, end: str) -> tuple[float | None, str]:
    """What a limit is compared with, and what it is called."""
    if one.bound == "value":
        return row["value"], "value"
    return row[end], f"{'lower' if end == 'ci_low' else 'upper'} end of its interval"


def missed(results: Sequence[dict[str, Any]]) -> list[str]:
    """Every requirement that is not met, row by row: name, value, limit, and the last run."""
    said = []
    for number, one in enumerate(results):
        if one["problem"] is not None:
            said.append(f"require[{number}] ({one['text']}): {one['problem']}")
        for row in one["rows"]:
            if not row["passed"]:
                text = f"require[{number}]: {title(row)}: {'; '.join(row['misses'])}"
                said.append(text + since(row))
    return said


def title(row: Row) -> str:
    """A row in words: its metric and where it was measured."""
    parts = [f"{name} {row[name]}" for name in SELECTORS if row[name] != NONE]
    return " of ".join(filter(None, (row["metric"], ", ".join(parts) or "clean images")))


def where(row: Row) -> str:
    """Where a row was measured: attack, purifier, and the detector with what it does."""
    attack = "no attack" if row["attack"] == NONE else row["attack"]
    parts = [attack, "no purifier" if row["purifier"] == NONE else row["purifier"]]
    if row["policy"] == "observe":
        parts = [row["detector"], attack]
    elif row["detector"] != NONE:
        parts.append(f"{row['policy']} by {row['detector']}")
    return " · ".join(parts)


def since(row: Row) -> str:
    """The last run's value and the difference to it, in brackets; empty without a last run."""
    if row["difference"] is None:
        return ""
    return f" (last run {_number(row['last'])}, difference {row['difference']:+.4g})"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
