"""Nothing that is typed or chosen in the app names code, hubs, addresses or other folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from defender.types import parameter
from tasks.app_choices import REGISTRIES, Family
from tasks.app_texts import SUBJECTS, TEXTS, check_texts, is_text, offered
from tasks.building import parameter_fields
from tasks.errors import SpecError

HOSTILE = (
    "python:os:getcwd",
    "callable:os:getcwd",
    "torchvision:resnet18",
    "diffusers:google/ddpm-cifar10-32",
    "diffusers:outside",
    "diffusers:../outside",
    "diffusers:/etc",
    "diffusers: theirs",
    "diffusers:",
    "https://example.org/weights.pt",
    "s3://bucket/weights.pt",
    "/etc/passwd",
    "../outside/weights.pt",
    "link/weights.pt",
    "~/weights.pt",
    "nowhere.pt",
    "folder",
    " weights.pt",
    "weights.pt\0",
    "1/2",
    "[",
    "",
)
PARAMETERS = sorted(
    (what, name, field.name)
    for what, registry in REGISTRIES.items()
    for name, kind in registry.items()
    for field in parameter_fields(kind).values()
    if is_text(field)
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with weights, a model of diffusers, a way out, and something beside it."""
    found = tmp_path / "data"
    for folder in ("theirs", "folder", "1", "~"):
        (found / folder).mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (found / "link").symlink_to(outside)
    for path in (found, outside, found / "~"):
        (path / "weights.pt").write_bytes(b"")
    (found / "1/2").write_bytes(b"")
    return found


def content(**more: Any) -> dict[str, Any]:
    return {"dataset": {"kind": "builtin:shapes"}, **more}


@pytest.mark.parametrize(("what", "name", "field"), PARAMETERS)
def test_no_text_parameter_of_the_registry_names_what_it_may_not(
    what: str, name: str, field: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing is looked for in the other folders of data sets either
    monkeypatch.chdir(data.parent / "outside")
    monkeypatch.setenv("IMAGE_DEFENDER_DATA", str(data.parent / "outside"))
    for word in HOSTILE:
        if field == "layer" and word in ("folder", "nowhere.pt"):
            continue  # a part of a network may be called so, and no file is
        with pytest.raises(SpecError, match=rf"{field}|expected one of"):
            check_texts(content(**{what: [{"name": name, field: word}]}), data)
    for value in (["weights.pt"], {"weights.pt": 1}, 3, b"weights.pt"):
        with pytest.raises(SpecError, match=r"expected a word|expected one of|cannot be set"):
            check_texts(content(**{what: [{"name": name, field: value}]}), data)


@pytest.mark.parametrize(("what", "name", "field"), PARAMETERS)
def test_what_is_offered_can_be_set(what: str, name: str, field: str, data: Path) -> None:
    if name not in offered(what):
        with pytest.raises(SpecError, match=rf"expected one of .*, got '{name}'"):
            check_texts(content(**{what: [{"name": name}]}), data)
        return
    good = {
        "layer": ["layers.3"],
        "network": ["denoiser-linearity", "fcn"],
        "prior": ["prior-cifar10", "small-prior", "diffusers:theirs"],
        "weights": ["weights.pt", str(data / "weights.pt"), None],
    }
    assert set(good) == set(TEXTS)
    for word in good[field]:
        check_texts(content(**{what: [{"name": name, field: word}]}), data)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learned(network=python:os:getcwd)", "line: network: expected one of denoiser-lin"),
        ("ddrm(prior=diffusers:/etc)", "line: prior: expected a path below"),
        (
            "DDRM(prior=diffusers:google/ddpm-cifar10-32) > median(3)",
            "line: prior: expected a path",
        ),
        ("median(3) + diff-pure(prior=diffusers:nowhere)", "line: prior: expected a path below"),
        ("learned(fcn, weights=/etc/passwd)", "line: weights: expected a file below"),
        ("learned(fcn, weights=5)", "line: weights: expected a word"),
        ("Defense(path=x.py)", "line: expected one of .*, got 'Defense'"),
        ("noise-gate(3)", "line: "),
        ("median(window=python:os:getcwd)", "line: window: expected a number"),
        ("median(3, padding=no)", r"line: padding: expected reflect \| symmetric, got 'no'"),
        ("", "line: .*expected a purifier"),
        ("[", "line: .*expected a purifier"),
    ],
)
def test_lines_are_read_as_they_are_built(line: str, words: str, data: Path) -> None:
    with pytest.raises(SpecError, match=words):
        check_texts(content(purifiers=[{"name": line}]), data)


def test_lines_of_filters_and_files_pass(data: Path) -> None:
    for line in (
        "median(3) > unsharp(1)",
        "jpeg(50) + median(3)",
        "learned(fcn, weights=weights.pt)",
        "ddrm(prior=diffusers:theirs, sigma=0.1)",
    ):
        check_texts(content(purifiers=[{"name": line}]), data)


def test_a_new_algorithm_with_a_text_is_refused_until_it_is_known_here(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FOLDER: Any = parameter(None, doc="where it looks")

    @dataclass(frozen=True)
    class Scripted:
        paper: ClassVar[str] = ""
        script: str = parameter(doc="what it runs")
        folder: Path | None = FOLDER

    monkeypatch.setitem(REGISTRIES["purifiers"], "Scripted", Scripted)
    family = Family("new", "New", (), (), ("Scripted",))
    monkeypatch.setattr("tasks.app_texts.families", lambda: {"new": family})
    check_texts(content(purifiers=[{"name": "Scripted"}]), data)
    for name in ("script", "folder"):
        with pytest.raises(SpecError, match=f"{name}: expected nothing, it cannot be set here"):
            check_texts(content(purifiers=[{"name": "Scripted", name: "weights.pt"}]), data)


@pytest.mark.parametrize("part", sorted(SUBJECTS))
def test_systems_come_with_the_package(part: str, data: Path) -> None:
    known = next(iter(SUBJECTS[part]))
    check_texts(content(**{part: known}), data)
    check_texts(content(**{part: {"name": known, "weights": "weights.pt"}}), data)
    for name in (*HOSTILE, "piq:brisque", "linearity:resnet18"):
        with pytest.raises(SpecError, match=f"{part}: expected one of|weights: expected a file"):
            check_texts(content(**{part: {"name": name}}), data)
        with pytest.raises(SpecError, match=f"{part}: expected one of|weights: expected a file"):
            check_texts(content(**{part: name}), data)
    for path in (word for word in HOSTILE if word != "1/2"):
        with pytest.raises(SpecError, match="weights: expected a file below the data folder"):
            check_texts(content(**{part: {"name": known, "weights": path}}), data)


def test_public_weights_are_not_fetched(data: Path) -> None:
    model = {"name": "torchvision:resnet18", "weights": None}
    with pytest.raises(SpecError, match=r"weights: expected a file below .* the app fetches none"):
        check_texts(content(model=model), data)
    check_texts(content(model={**model, "weights": "weights.pt"}), data)


def test_data_sets_lie_below_the_folder(data: Path) -> None:
    for kind in ("folder", "zip", "parquet", "cifar10"):
        check_texts({"dataset": {"kind": kind, "path": "folder"}}, data)
        for path in (word for word in HOSTILE if word not in ("folder", "1/2")):
            with pytest.raises(SpecError, match="dataset: expected a path below"):
                check_texts({"dataset": {"kind": kind, "path": path}}, data)
        with pytest.raises(SpecError, match="dataset: expected a path below"):
            check_texts({"dataset": {"kind": kind}}, data)
    with pytest.raises(SpecError, match="dataset: expected one of builtin:shapes"):
        check_texts({"dataset": {"kind": "paired", "path": "folder"}}, data)
    with pytest.raises(SpecError, match="targets: expected other-image"):
        check_texts(content(attacks=[{"name": "ImageScaling", "targets": {"kind": "x"}}]), data)
