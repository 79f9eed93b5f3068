"""What the options of `image-defender score-defense` change in the run that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import score_defense
from flows.cli import Exit
from flows.score_defense import SHIPPED, Wanted
from tasks.spec_files import load_spec
from tasks.specs import Spec
from tests.flows.test_cli import invoke, one_line
from tests.storage.pictures import png, write_tree, write_zip

DEFAULT = [
    "ifgsm",
    "mifgsm",
    "amifgsm",
    "zhang-ssim",
    "korhonen",
    "madc",
    "ssah",
    "adv-cf",
    "uap",
]
IDENTITY = "class Defense:\n    def apply_defense(self, images):\n        return images\n"


def planned(folder: Path, **wanted: Any) -> Spec:
    """The specification that a command would run."""
    (folder / "mine.py").write_text(IDENTITY)
    found = Wanted(**wanted)
    return load_spec(found.spec or SHIPPED, score_defense.changes(folder / "mine.py", found))


def labels(spec: Spec) -> list[str | None]:
    return [attack.label for attack in spec.attacks]


def test_every_attack_is_there_without_any_option(tmp_path: Path) -> None:
    spec = planned(tmp_path)
    assert labels(spec) == DEFAULT
    assert spec.metric is not None
    assert spec.metric.name == "linearity-small"
    assert spec.dataset.kind == "builtin:photos"
    assert [one.label for one in spec.purifiers] == ["half-size", "defense"]
    assert spec.baseline == "half-size"


def test_a_query_budget_adds_square_and_nes(tmp_path: Path) -> None:
    spec = planned(tmp_path, query_budget=500)
    assert labels(spec) == [*DEFAULT, "square-500", "nes-500"]
    square, nes = spec.attacks[-2:]
    assert (square.name, nes.name) == ("Square", "NES")
    assert square.parameters == {"epsilon": "10/255", "p_init": 0.05, "queries": 500}
    assert nes.parameters == {"epsilon": "10/255", "queries": 500}


def test_a_query_budget_is_that_of_the_query_attacks_there_are(tmp_path: Path) -> None:
    attacks = [
        {"name": "IFGSM", "label": "ifgsm"},
        {"name": "Square", "label": "mine", "epsilon": 0.1, "queries": 7},
    ]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(SHIPPED.read_text()), "attacks": attacks}))
    spec = planned(tmp_path, spec=path, query_budget=500)
    assert labels(spec) == ["ifgsm", "mine"]
    assert spec.attacks[1].parameters == {"epsilon": 0.1, "queries": 500}


def test_a_query_budget_comes_after_other_changes(tmp_path: Path) -> None:
    changes = ["attacks=[{name: MADC, label: madc}]"]
    spec = planned(tmp_path, query_budget=84, changes=changes)
    assert labels(spec) == ["madc", "square-84", "nes-84"]


def test_metric_and_size(tmp_path: Path) -> None:
    spec = planned(tmp_path, metric="piq:ssim", resize=(48, 64))
    assert spec.metric is not None
    assert spec.metric.name == "piq:ssim"
    assert spec.dataset.resize == (48, 64)


def test_limits_are_those_of_the_defence(tmp_path: Path) -> None:
    limits = {"time_limit": 0.5, "memory_limit": 900, "parameter_limit": 12}
    assert planned(tmp_path, **limits).purifiers[1].parameters.items() >= limits.items()


TREE = {
    f"{folder}/{i}.png": png(i, 16, 16) for folder in ("clean", "square", "zhang") for i in (1, 2)
}


@pytest.mark.parametrize("inside", ["", "archive/"])
def test_a_zip_of_attacked_images_is_scored_as_it_is(tmp_path: Path, inside: str) -> None:
    tree = {f"{inside}{name}": data for name, data in TREE.items()}
    path = write_zip(tmp_path / "all.zip", {**tree, f"{inside}notes.txt": b""})
    spec = planned(tmp_path, dataset=path)
    assert spec.dataset.kind == "paired"
    assert spec.dataset.options.get("prefix", "") == inside.strip("/")
    assert labels(spec) == ["square", "zhang"]
    assert {attack.name for attack in spec.attacks} == {"Precomputed"}


def test_a_folder_of_attacked_images_has_no_hidden_attacks(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {**TREE, ".cache/1.png": png(1)})
    assert labels(planned(tmp_path, dataset=tmp_path / "data")) == ["square", "zhang"]


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png"],
        ["cat/1.png", "dog/2.png"],
        ["train/clean/1.png", "test/clean/2.png"],
        ["clean"],
    ],
)
def test_any_other_zip_holds_clean_images_only(tmp_path: Path, names: list[str]) -> None:
    path = write_zip(tmp_path / "plain.zip", {name: png(1) for name in names})
    spec = planned(tmp_path, dataset=path)
    assert spec.dataset.kind == "zip"
    assert labels(spec) == DEFAULT


def command(folder: Path, source: str, *more: object) -> list[object]:
    (folder / "mine.py").write_text(source)
    return ["score-defense", folder / "mine.py", "--store", folder / "store", *more]


@pytest.mark.parametrize("baseline", ["jepg(50)", "jepg", "jpeg(500)", ""])
def test_a_wrong_baseline_is_named(tmp_path: Path, baseline: str) -> None:
    result = invoke(*command(tmp_path, IDENTITY, "--baseline", baseline))
    one_line(result, Exit.INPUT, "--baseline")


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    result = invoke(*command(tmp_path, IDENTITY, "--dataset", tmp_path / "broken.zip"))
    one_line(result, Exit.INPUT, "expected a zip file", "broken.zip")


NETWORK = """
import torch

class Defense:
    def __init__(self):
        self.network = torch.nn.Conv2d(3, 3, 1)

    def apply_defense(self, images):
        return images
"""


def test_more_parameters_than_allowed(tmp_path: Path) -> None:
    result = invoke(*command(tmp_path, NETWORK, "--parameter-limit", 0))
    one_line(result, Exit.INPUT, "mine.py", "12 parameters, more than the 0 allowed")
