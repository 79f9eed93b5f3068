"""What the page on image-quality metrics offers is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from flows.score_defense import QUERY_ATTACKS, SHIPPED
from tasks.quality_models import QUALITY_MODELS, load_metric
from tasks.subject_specs import MetricSpec

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/iqa.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w<>:-]+)` \| (.*)$", PAGE, re.MULTILINE))
NAMES = re.findall(r"`(\w+)`", ROWS["piq:<metric>"].partition(":")[2])
WORDS = {9: "nine", 11: "eleven"}


def test_metrics_that_ship_are_offered() -> None:
    assert set(QUALITY_MODELS) <= set(ROWS)


@pytest.mark.parametrize("name", [*QUALITY_MODELS, *(f"piq:{name}" for name in NAMES)])
def test_a_metric_that_is_offered_can_be_loaded(name: str) -> None:
    assert len(NAMES) >= 6
    if name.startswith("piq:"):
        pytest.importorskip("piq", reason="piq is not installed")
    loaded = load_metric(MetricSpec(name=name), ROOT, torch.device("cpu"))
    assert loaded.name == name


@pytest.mark.parametrize("page", ["README.md", "docs/iqa.md"])
def test_attacks_and_purifiers_of_the_example_are_counted(page: str) -> None:
    content = yaml.safe_load((ROOT / "examples/iqa.yaml").read_text())
    attacks, purifiers = WORDS[len(content["attacks"])], len(content["purifiers"])
    text = (ROOT / page).read_text()
    assert re.search(rf"{attacks} attacks(,| and) {purifiers} purifiers", text)


def test_the_attacks_of_a_scored_defence_are_named() -> None:
    attacks = [attack["name"] for attack in yaml.safe_load(SHIPPED.read_text())["attacks"]]
    added = [attack["name"] for attack in QUERY_ATTACKS.values()]
    for name in ("docs/iqa.md", "docs/cli.md"):
        told = (ROOT / name).read_text().partition("image-defender score-defense examples")[2]
        assert [one for one in [*attacks, *added] if f"`{one}`" not in told[:1500]] == []
    assert f"against {WORDS[len(attacks)]} types of attack" in (ROOT / "README.md").read_text()
