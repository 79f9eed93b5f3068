"""A small run with a fitted patch, its controls, heat maps, another model and a certificate."""

from __future__ import annotations

from typing import Any

IMAGES = 12
EPOCHS = 3
PATCH = "patch <i>25 %</i>"


def changes(**more: Any) -> dict[str, Any]:
    """What turns the specification of :mod:`tests.toy` into this one."""
    square = {"grid": 2, "size": 0.25}
    wanted = {**square, "target": 1}
    made = {
        "dataset": {"kind": "builtin:shapes", "count": IMAGES, "chunk_size": 8},
        "attacks": [
            {"name": "GridPatch", "label": PATCH, "epochs": EPOCHS, "step_size": 0.2, **wanted},
            {"name": "GridPatch", "label": "corner", "place": "upper-left", "fitted": PATCH,
             **wanted},
            {"name": "ControlPatch", "label": "random", "kind": "random", **wanted},
            {"name": "ControlPatch", "label": "mean", "kind": "mean", "fitted": PATCH, **wanted},
        ],
        "purifiers": [{"name": "Median", "label": "median"}],
        "others": [{"name": "python:tests.toy:make_model", "label": "twin"}],
        "certifiers": [{"name": "PatchCleanser", "label": "cleanser", "patch": 0.25, "masks": 2}],
        "explain": {},
        "examples": 2,
    }  # fmt: skip
    return {**made, **more}
