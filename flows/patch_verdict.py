"""What the patches of a run did, in a few sentences made from the rows of its summary."""

from __future__ import annotations

from collections.abc import Sequence

from flows.patch_page import found_row, place_title
from flows.scorecard import PERCENT, Row, deployable, number
from flows.verdict import clean, shown, under
from tasks.patch_facts import PatchAttack


def patch_verdict(
    rows: Sequence[Row], patches: Sequence[PatchAttack], certified: Sequence[Row]
) -> list[str]:
    """Sentences on the strongest patch and its best control, where it is found, and what helps.

    Args:
        rows: of a summary.
        patches: of the run, one of them fitted.
        certified: rows of certified defences.

    Returns:
        One paragraph an entry; other attacks of the run have one each.
    """
    plain = [row for row in rows if row["policy"] == "none"]
    accuracy = [row for row in plain if row["metric"] == "accuracy" and row["value"] is not None]
    fitted = [one for one in patches if not one.control]
    strongest = max(fitted, key=lambda one: _strength(rows, one))
    said = [clean(accuracy, "accuracy") if accuracy else ""]
    said.append(_done(rows, strongest, patches))
    said.append(f"{_found(rows, strongest)} {_removed(accuracy, strongest)}".strip())
    said.append(_proven(certified))
    known = {one.label for one in patches}
    for attack in dict.fromkeys(row["attack"] for row in accuracy):
        if attack != "none" and attack not in known:
            said.append(under(attack, accuracy, "accuracy"))
    return [text for text in said if text]


def _strength(rows: Sequence[Row], one: PatchAttack) -> float:
    """What patches are ranked by: success, or what the model still gets right."""
    success = found_row(rows, attack=one.label, metric="attack_success")
    if success is not None:
        return float(success["value"])
    right = found_row(rows, attack=one.label, metric="accuracy")
    return 0.0 if right is None else -float(right["value"])


def _done(rows: Sequence[Row], one: PatchAttack, patches: Sequence[PatchAttack]) -> str:
    """What a patch does beside the best control at its place."""
    many = sum(not other.control for other in patches)
    text = f"The strongest of {many} patches, {one.label}" if many > 1 else f"The patch {one.label}"
    text += f", {place_title(one)}, "
    success = found_row(rows, attack=one.label, metric="attack_success")
    before = found_row(rows, attack="none", metric="accuracy")
    after = found_row(rows, attack=one.label, metric="accuracy")
    parts = []
    if before is not None and after is not None:
        was = number("accuracy", before["value"])
        parts.append(f"takes accuracy from {was} to {shown(after, 'accuracy')}")
    if success is not None:
        rate = shown(success, "attack_success")
        parts.append(
            f"makes the model answer {one.target} for {rate} of the images of other classes"
            if one.target
            else f"makes the model wrong on {rate} of the images that it got right"
        )
    if not parts:
        return ""
    text += " and ".join(parts)
    control = _best_control(rows, one, patches)
    if success is None or control is None:
        return f"{text}."
    text += f"; the best control there, {control['attack']}, on {shown(control, 'attack_success')}"
    if success["ci_low"] > control["ci_high"]:
        return f"{text}. So it is not the covering that does it."
    return f"{text}. The intervals do not tell the two apart."


def _best_control(
    rows: Sequence[Row], one: PatchAttack, patches: Sequence[PatchAttack]
) -> Row | None:
    """Success of the control that does most at the same place, with the same target."""
    same = [
        other.label
        for other in patches
        if other.control
        and (other.size, other.place, other.target) == (one.size, one.place, one.target)
    ]
    found = [found_row(rows, attack=label, metric="attack_success") for label in same]
    known = [row for row in found if row is not None]
    return max(known, key=lambda row: float(row["value"]), default=None)


def _found(rows: Sequence[Row], one: PatchAttack) -> str:
    """Whether a detector tells where the patch is."""
    mine = [
        row
        for row in deployable(rows)
        if row["attack"] == one.label
        and row["policy"] == "observe"
        and row["metric"] in ("located", "true_positive_rate")
        and row["value"] is not None
    ]
    placed = [row for row in mine if row["metric"] == "located"]
    if not mine:
        return ""
    best = max(placed or mine, key=lambda row: float(row["value"]))
    what = "finds its place on" if placed else "flags"
    text = f"The detector {best['detector']} {what} {shown(best, best['metric'])} of the images"
    false = found_row(
        rows,
        attack="none",
        metric="false_positive_rate",
        detector=best["detector"],
        policy="observe",
    )
    if false is None:
        return f"{text}."
    return f"{text} and flags {number('false_positive_rate', false['value'])} of the clean ones."


def _removed(accuracy: Sequence[Row], one: PatchAttack) -> str:
    """What the best purifier that could be deployed leaves of the patch."""
    before = found_row(accuracy, attack="none")
    after = found_row(accuracy, attack=one.label)
    purified = [
        row
        for row in deployable(accuracy)
        if row["attack"] == one.label and row["purifier"] != "none"
    ]
    if before is None or after is None or not purified:
        return ""
    best = max(purified, key=lambda row: float(row["value"]))
    text = f"With {best['purifier']}, accuracy under it is {shown(best, 'accuracy')}"
    lost, won = before["value"] - after["value"], best["value"] - after["value"]
    if lost <= 0:
        return f"{text}."
    if won <= 0:
        return f"{text}: nothing of the loss comes back."
    return f"{text}: {min(100.0, 100 * won / lost):.0f}{PERCENT} of the loss comes back."


def _proven(certified: Sequence[Row]) -> str:
    """What the best certified defence proves of clean images."""
    found = [
        row
        for row in certified
        if row["metric"] == "certified_accuracy"
        and row["attack"] == "none"
        and row["value"] is not None
    ]
    if not found:
        return ""
    best = max(found, key=lambda row: float(row["value"]))
    return (
        f"{best['certifier']} gives {shown(best, 'certified_accuracy')} of the images their true "
        "class whatever a patch of the size that it is made for shows, wherever it lies."
    )
