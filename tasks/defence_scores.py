"""What came of a user's defence: its line of the leaderboard, the baseline's, and its failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from storage.files import Place
from storage.images import read_images
from storage.scores import read_rows
from tasks.defences import DefenceFile
from tasks.defending import BATCH
from tasks.leaderboard import MEASURES
from tasks.sandbox.consistency import check_consistency
from tasks.sandbox.contents import Unseen
from tasks.survey import Survey
from tasks.unseen import nothing_named

CLEAN = "clean"
"""What the row of images that nobody attacked is called."""


def failures(state: Survey, label: str) -> dict[str, str]:
    """For each attack that a defence failed under, on how many images and mostly why."""
    found: dict[str, str] = {}
    for node in state.plan:
        if node.kind != "purify" or node.purifier != label:
            continue
        reasons: list[str | None] = []
        for index in range(state.chunks):
            given = state.done[(node.name, index)]
            if given.images:
                rows = read_rows(state.bench.store.rows(given.ref))
                reasons += rows["failure"].to_pylist()
        counted = Counter(reason for reason in reasons if reason is not None)
        if counted:
            (most, _), count = counted.most_common(1)[0], sum(counted.values())
            found[node.attack] = f"failed on {count} of {len(reasons)} images: {most}"
    return found


def spent(state: Survey, label: str) -> dict[str, Any]:
    """Seconds an image, largest memory, and notes of a defence, from the receipts of its chunks."""
    seconds, images, peak, notes = 0.0, 0, 0, dict[str, None]()
    for node in state.plan:
        if node.kind != "purify" or node.purifier != label:
            continue
        ledger = state.bench.store.ledger(node.fingerprint)
        for index in range(state.chunks):
            given = state.done[(node.name, index)]
            mark = ledger.read(given.ref.key)
            told = {} if mark is None else mark.receipt.get("defence", {})
            seconds, images = seconds + told.get("seconds", 0.0), images + given.images
            peak = max(peak, told.get("peak_memory", 0))
            notes |= dict.fromkeys(told.get("notes", ()))
    return {
        "seconds_per_image": round(seconds / max(1, images), 4),
        "peak_memory": peak,
        "notes": list(notes),
    }


def result(summary: dict[str, Any], label: str, baseline: str, failed: dict[str, str]) -> Any:
    """Gain, quality and SRCC by attack, their means, the baseline's, and the difference.

    Where the defence failed under any attack, there are no means.

    Args:
        summary: of a finished run.
        label: of the defence.
        baseline: label of the purifier that it is compared with.
        failed: what :func:`failures` found.
    """
    lines = {one["purifier"]: one for one in summary["leaderboard"]}
    own, base = lines[label], lines[baseline]
    attacks = {}
    for name, values in own["attacks"].items():
        status = failed.get(name, "ok")
        shown = {k: values[k] if status == "ok" else None for k in MEASURES}
        attacks[CLEAN if name == "none" else name] = {**shown, "status": status}
    whole = not any(name != "none" for name in failed)
    return {
        "attacks": attacks,
        "mean": _estimates(own["mean"] if whole else {}),
        "baseline": {
            **_estimates(base["mean"]),
            "name": baseline,
            "attacks": {
                CLEAN if name == "none" else name: values
                for name, values in base["attacks"].items()
            },
        },
        "difference": _estimates(own["difference"] if whole else {}),
    }


def _estimates(part: dict[str, Any]) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None}
    found: dict[str, Any] = {name: part.get(name, empty)["value"] for name in MEASURES}
    for name in MEASURES:
        one = part.get(name, empty)
        found[f"{name}_interval"] = [one["low"], one["high"]]
    return found


def consistency(state: Survey, defence: DefenceFile) -> list[str]:
    """What a defence does differently for the same images in another batch or another process."""
    given = next(
        state.done[("ingest", i)] for i in range(state.chunks) if state.done[("ingest", i)].images
    )
    images = read_images(state.bench.store.images(given.ref))
    alike = [image for image in images if image.shape == images[0].shape][:BATCH]
    batch = torch.from_numpy(np.stack(alike)).float() / 255
    with replace(defence, unseen=lambda: state.bench.unseen).sandbox() as box:
        return check_consistency(box, batch, batch=BATCH)


def started(defence: DefenceFile, store: Place) -> dict[str, Any]:
    """Start a defence once, and say what it holds and how it is locked up.

    Args:
        defence: the user's file.
        store: what it must not see, where it does not know itself what it must not.

    Raises:
        DefenseError: where the file cannot be loaded or holds more than is allowed.
        SandboxError: on a system on which no process can be locked up.
    """
    if defence.unseen is Unseen:
        defence = replace(defence, unseen=lambda: nothing_named(store))
    with defence.sandbox() as box:
        ready = box.start()
    return {
        "file": str(defence.file.name),
        "digest": defence.digest,
        "parameters": ready.parameters,
        "start_seconds": round(ready.seconds, 3),
        "enforcement": {
            name: str(value) for name, value in vars(ready.enforcement).items() if value
        },
    }
