"""The fixed call of `image-defender score-defense`, and each limit and option seen to act."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from flows.cli import Exit
from tests.flows.test_cli import invoke
from tests.flows.test_score_defense_options import DEFAULT
from tests.storage.pictures import png, write_tree

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/defense.py"
MEASURES = ("gain", "quality", "srcc")
ONE = "attacks=[{name: FGSM, label: fgsm, epsilon: 8/255}]"


def called(file: Path, store: Path, *words: object) -> dict[str, Any]:
    result = invoke("score-defense", file, "--store", store, "--json", *words)
    assert result.exit_code == Exit.DONE, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.slow
def test_the_example_with_all_defaults(tmp_path: Path) -> None:
    found = called(EXAMPLE, tmp_path / "store", "--limit", 3)
    assert list(found)[:4] == ["attacks", "mean", "baseline", "difference"]
    assert set(found["attacks"]) == {"clean", *DEFAULT}
    for row in found["attacks"].values():
        assert set(row) == {*MEASURES, "status"}
        assert row["status"] == "ok"
        assert all(math.isfinite(row[name]) for name in MEASURES)
    for part in ("mean", "baseline", "difference"):
        assert all(math.isfinite(found[part][name]) for name in MEASURES)
    assert found["mean"]["gain"] != found["baseline"]["gain"]
    less = found["mean"]["gain"] - found["baseline"]["gain"]
    assert found["difference"]["gain"] == pytest.approx(less, abs=1e-9)
    assert found["metric"]["name"] == "linearity-small"
    assert (found["dataset"]["kind"], found["dataset"]["images"]) == ("builtin:photos", 3)


TELLS = """
class Defense:
    def apply_defense(self, images):
        raise ValueError(f"saw {tuple(images.shape)}")
"""
SLEEPS = """
import time

class Defense:
    def apply_defense(self, images):
        time.sleep(60)
        return images
"""
EATS = """
import time

import torch

class Defense:
    def apply_defense(self, images):
        block = torch.ones(1 << 29)
        time.sleep(1)
        return images
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "words", "attacks", "told"),
    [
        (
            TELLS,
            ["--metric", "linearity-small", "--resize", "64x48", "--query-budget", 44],
            {"clean", "fgsm", "square-44", "nes-44"},
            "saw (2, 3, 64, 48)",
        ),
        (SLEEPS, ["--time-limit", 0.5], {"clean", "fgsm"}, "no answer within 1 s (0.5 s an image"),
        (EATS, ["--memory-limit", 900], {"clean", "fgsm"}, "memory"),
    ],
    ids=["metric, size and queries", "time", "memory"],
)
def test_an_option_acts(
    tmp_path: Path, source: str, words: list[object], attacks: set[str], told: str
) -> None:
    data = write_tree(tmp_path / "data", {f"{i}.png": png(i, 40, 40) for i in (1, 200)})
    file = write_tree(tmp_path / "mine", {"mine.py": source.encode()}) / "mine.py"
    found = called(file, tmp_path / "store", "--dataset", data, "--set", ONE, *words)
    assert set(found["attacks"]) == attacks
    for row in found["attacks"].values():
        assert row["status"].startswith("failed on 2 of 2 images: ")
        assert told in row["status"]
        assert row["gain"] is row["quality"] is row["srcc"] is None
    assert found["metric"]["name"] == "linearity-small"
    assert found["mean"]["gain"] is found["difference"]["gain"] is None
    assert found["baseline"]["gain"] >= 0
