"""By which tags runs are found on a dashboard."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import names

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("flow", "given", "expected"),
    [
        ("scan", {"path": "incoming", "target": "12x12"}, ("scaling",)),
        ("verify-faces", {"pairs": "pairs.csv", "dataset": "faces"}, ("face",)),
        ("purify", {"source": "photos", "options": {"pipeline": {"target": "8x8"}}}, ("scaling",)),
        ("purify", {"source": "photos", "options": None}, ()),
        ("evaluate", {"spec": str(ROOT / "examples/iqa.yaml")}, ("quality",)),
    ],
)
def test_runs_are_tagged_by_flow_and_family(
    flow: str, given: dict[str, Any], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(names, "add_tags", lambda run, found: made.append(found))
    names.tag_run(SimpleNamespace(name=flow), SimpleNamespace(parameters=given), None)
    assert made == [(flow, *expected)]
