"""The documentation says what is there: links, commands, specifications, names."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from defender.attacks import ATTACKS
from defender.detectors import DETECTORS
from defender.metrics import METRICS
from defender.purifiers import PURIFIERS
from defender.scaling import Pipeline
from defender.types import check_parameters
from flows.cli import DEFAULT_STORE, Exit, app
from storage.sources import SOURCES
from tasks import specs
from tasks.building import build
from tasks.defences import DefenceFile
from tasks.names import find
from tasks.precomputed import Precomputed
from tasks.spec_files import parse, parse_spec
from tasks.specs import AlgorithmSpec, DatasetSpec, Spec
from tasks.sweep_specs import SearchSpec, SweepSpec
from tasks.train_specs import PurifyTrainSpec, QualityTrainSpec, TrainSpec, load_train_spec
from tasks.workbench import Workbench
from tests.cases import MODEL

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BASE = {
    "name": "base",
    "dataset": {"kind": "builtin:shapes"},
    "model": {"name": "shapes-cnn"},
}

PIPELINE = Pipeline(target=(8, 8))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def prose(text: str) -> str:
    return FENCE.sub("", text)


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text()) if language in languages]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as code hosts make them."""
    titles = re.findall(r"^#+ +(.*)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def command_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "", "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith("image-defender "):
                yield shlex.split(line, comments=True)[1:]


def options(command: Any) -> dict[str, bool]:
    """Every option of a command, and whether it takes a value."""
    return {
        name: not parameter.is_flag
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in [*parameter.opts, *parameter.secondary_opts]
    }


@pages
def test_commands_exist(page: Path) -> None:
    commands = get_command(app).commands
    for words in command_lines(page):
        name, *rest = words
        if name.isupper():
            continue
        assert name in commands, words
        known = options(commands[name])
        positional = []
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                positional.append(word)
            elif word.partition("=")[0] != "--help":
                assert word.partition("=")[0] in known, words
                if known[word.partition("=")[0]] and "=" not in word:
                    rest.pop(0)
        expected = [one for one in commands[name].params if one.param_type_name == "argument"]
        assert len(positional) == len(expected), words
        for word in positional:
            assert not word.startswith("examples/") or (ROOT / word).is_file(), words


def test_every_command_option_and_exit_code_is_described() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for name, command in get_command(app).commands.items():
        section = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section, name
        shared = text.partition("## Options that several commands share")[2].partition("\n## ")[0]
        for option in options(command):
            listed = re.findall(rf"^\| `{option}\b.*$", shared, re.MULTILINE)
            in_shared = any(f"`{name}`" in line for line in listed)
            assert in_shared or f"`{option}`" in section[1], (name, option)
    for page in ("README.md", "docs/cli.md"):
        table = (ROOT / page).read_text()
        assert all(f"\n| {code.value} |" in table for code in Exit), page
        assert f"`{DEFAULT_STORE}`" in table


@dataclasses.dataclass(frozen=True)
class Named(DefenceFile):
    """A defence whose file is not there."""

    def __post_init__(self) -> None:
        check_parameters(self)


def check_spec(spec: Spec) -> None:
    """Check everything that can be checked without data, weights and network."""
    bench = Workbench(spec, ROOT, "unused")
    assert bench.spec is spec
    check_dataset(spec.dataset)
    registries = {
        "attacks": {**ATTACKS, "Precomputed": Precomputed},
        "detectors": DETECTORS,
        "purifiers": {**PURIFIERS, "Defense": Named},
    }
    for kind, registry in registries.items():
        for position, entry in enumerate(getattr(spec, kind)):
            build(registry, entry, f"{kind}[{position}]", model=MODEL, pipeline=PIPELINE)
    for attack in spec.attacks:
        if attack.through is not None:
            bench.purifier_position(attack.through)


def check_dataset(spec: DatasetSpec) -> None:
    kind = find(SOURCES, spec.kind)
    assert kind is not None, spec.kind
    assert set(spec.options) <= {field.name for field in dataclasses.fields(SOURCES[kind])}


def check_sweep(spec: SweepSpec) -> None:
    """Check the run of a sweep, and that its purifiers can be built."""
    check_spec(spec.run())
    for template in spec.sweep.space:
        for probe in spec.sweep.probes(template):
            build(PURIFIERS, AlgorithmSpec(name=probe.text), template, model=MODEL)


def check_content(content: Any, source: str, folder: Path) -> None:
    """Check a specification of any kind."""
    if "sweep" in content:
        check_sweep(parse(SweepSpec, content, source))
    elif "held_out" in content or "training" in content:
        path = folder / "training.yaml"
        path.write_text(yaml.safe_dump({"held_out": BASE["dataset"], **BASE, **content}))
        training = load_train_spec(path)
        check_dataset(training.dataset)
        check_dataset(training.held_out)
        training.training.recipe()
        for position, attack in enumerate(getattr(training, "attacks", ())):
            build(ATTACKS, attack, f"attacks[{position}]", model=MODEL)
    else:
        check_spec(parse_spec(content, source))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert {"name", "dataset"} <= set(content)
    check_content(content, path.name, tmp_path)


@pages
def test_specifications_in_pages_are_valid(page: Path, tmp_path: Path) -> None:
    kinds: list[type[BaseModel]] = [Spec, TrainSpec, QualityTrainSpec, PurifyTrainSpec, SweepSpec]
    fields = {field for kind in kinds for field in kind.model_fields}
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if isinstance(content, dict) and set(content) <= fields:
            check_content({**BASE, **content}, f"{page.name}: {block}", tmp_path)


def test_every_field_of_a_specification_is_described() -> None:
    text = (ROOT / "docs/specs.md").read_text()
    described = {
        "The whole": specs.Spec,
        "`dataset`": specs.DatasetSpec,
        "`model`": specs.ModelSpec,
        "`metric`": specs.MetricSpec,
        "`encoder`": specs.EncoderSpec,
        "`faces`": specs.FacesSpec,
        "`pipeline`": specs.PipelineSpec,
        "`attacks`": specs.AttackSpec,
        "`detectors`": specs.DetectorSpec,
        "`purifiers`": specs.PurifierSpec,
        "`compute`": specs.ComputeSpec,
    }
    for title, kind in described.items():
        section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert sorted(rows) == sorted(kind.model_fields), title


def test_every_field_of_a_search_is_described() -> None:
    text = (ROOT / "docs/sweep.md").read_text()
    section = text.partition("## `sweep`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(SearchSpec.model_fields)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("algorithms.md", [*ATTACKS, "Precomputed", *DETECTORS, *PURIFIERS]),
        ("algorithms.md", list(METRICS)),
        ("datasets.md", list(SOURCES)),
        ("specs.md", [*ATTACKS, "Precomputed", *DETECTORS, *PURIFIERS, *SOURCES]),
    ],
    ids=["algorithms", "metrics", "datasets", "specs"],
)
def test_every_registered_name_is_described(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [name for name in names if f"`{name}`" not in text] == []


def test_files_named_in_the_table_of_algorithms_exist() -> None:
    text = (ROOT / "docs/algorithms.md").read_text()
    files = re.findall(r"`((?:defender|tasks|storage|flows)/[\w/]+\.py)`", text)
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_modules_named_in_pages_exist() -> None:
    for page in PAGES:
        named = re.findall(
            r"`((?:defender|tasks|storage|flows|tests)/[\w/]+\.py)`", page.read_text()
        )
        missing = {name for name in named if not (ROOT / name).is_file()}
        assert missing <= {"defender/purifiers/my_filter.py"}, page.name
