"""Ten hostile defences in one run: it ends, says what each did, and all other rows are intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.columns import Columns
from tasks.defence_scores import failures
from tasks.leaderboard import standings
from tasks.summary import Summary
from tasks.survey import Survey
from tests import toy

BODY = """
import os, time
from pathlib import Path

import torch


class Defense:
    def apply_defense(self, images):
"""
HOSTILE = {
    "infinite loop": "while True: pass",
    "20 GB": "blocks = [torch.ones(2**26) for _ in range(80)]; return images",
    "exit": "os._exit(3)",
    "50 children": "\n".join(
        (
            "for _ in range(50):",
            "    if os.fork() == 0:",
            "        os.setsid(); time.sleep(600); os._exit(0)",
            "return images",
        )
    ),
    "writes outside": 'Path("OUTSIDE").write_text("here"); return images',
    "NaN": 'return images * float("nan")',
    "half precision": "return images.half()",
    "bigger size": "return torch.nn.functional.interpolate(images, scale_factor=2)",
    "raises": 'raise ValueError("no")',
    "mutates": "images.mul_(0); return images + 0.5",
}
"""What each does in ``apply_defense``."""
FINE = {"bigger size", "mutates", "50 children"}
"""Those that answer all the same."""


def finished(folder: Path, purifiers: list[dict[str, Any]]) -> Survey:
    changes: dict[str, Any] = {
        "model": None,
        "metric": "python:tests.tasks.test_quality_runs:make_metric",
        "dataset": {"kind": "builtin:shapes", "count": 8, "chunk_size": 8},
        "attacks": [{"name": "IFGSM", "epsilon": "8/255", "steps": 2, "label": "ifgsm"}],
        "detectors": [],
        "purifiers": [*purifiers, {"name": "Median", "label": "median"}],
    }
    return toy.run(toy.bench(folder, **changes))[0]


def hostile(folder: Path, name: str, outside: Path) -> dict[str, Any]:
    """A specification of one defence, its file in a folder of its own."""
    own = folder / name.replace(" ", "-")
    own.mkdir(parents=True)
    lines = HOSTILE[name].replace("OUTSIDE", str(outside)).splitlines()
    (own / "defense.py").write_text(BODY + "".join(f"        {line}\n" for line in lines))
    return {
        "name": "Defense",
        "label": name,
        "path": str(own / "defense.py"),
        "time_limit": 0.5,
        "memory_limit": 1500,
    }


@pytest.mark.slow
def test_ten_hostile_defences_leave_every_other_row(tmp_path: Path) -> None:
    plain = finished(tmp_path / "plain", [])
    outside = tmp_path / "outside.txt"
    files = [hostile(tmp_path / "files", name, outside) for name in HOSTILE]
    state = finished(tmp_path, files)
    assert not outside.exists()

    def median(of: Survey) -> dict[tuple[str, str], Any]:
        rows = Summary(of).rows()
        return {(r["attack"], r["metric"]): r["value"] for r in rows if r["purifier"] == "median"}

    assert median(state) == median(plain)
    for name in HOSTILE:
        found = failures(state, name)
        if name in FINE:
            assert found == {}, name
        elif name != "writes outside":  # refused, or written where nothing is kept
            assert set(found) == {"none", "ifgsm"}, name
            assert all("of 8 images" in text for text in found.values())
    assert "no answer within" in failures(state, "infinite loop")["ifgsm"]
    assert "memory" in failures(state, "20 GB")["ifgsm"]
    assert "status 3" in failures(state, "exit")["ifgsm"]
    assert "float16" in failures(state, "half precision")["ifgsm"]
    assert "raised ValueError: no" in failures(state, "raises")["ifgsm"]
    board = {one.purifier: one for one in standings(state, Columns(state))}
    assert torch.tensor(board["NaN"].mean["gain"].value).isnan()
    assert board["bigger size"].mean["gain"].value >= 0
