"""Networks that purify, as specifications name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from defender.models.fcn import FCN, fcn, residual_fcn
from defender.purifiers import Learned, Sequence, Unsharp
from storage.images import read_images
from tasks.building import parameter_fields
from tasks.catalogue import entries
from tasks.errors import ModelError, SpecError
from tasks.plan import Plan
from tests import toy


def mirror() -> nn.Module:
    """A network of the user's own, with a weight to load."""
    return nn.Conv2d(3, 3, 1)


def weights(folder: Path, name: str = "own.safetensors", seed: int = 0, **options: Any) -> str:
    """A file of the weights of an FCN; returns its name."""
    torch.manual_seed(seed)
    network = FCN(**options)
    nn.init.normal_(network.layers[-2].weight, std=0.05)
    save_file(network.state_dict(), folder / name)
    return name


def learned(folder: Path, *written: Any) -> list[Any]:
    return toy.bench(folder, purifiers=list(written), detectors=[], attacks=[]).purifiers


def fingerprint(folder: Path, written: Any) -> str:
    plan = Plan(toy.bench(folder, purifiers=[written], detectors=[], attacks=[]))
    (node,) = (node for node in plan if node.kind == "purify")
    return node.fingerprint


@pytest.mark.parametrize("name", ["fcn", "residual-fcn"])
def test_a_file_of_weights_becomes_the_network(tmp_path: Path, name: str) -> None:
    residual = name == "residual-fcn"
    written = {"name": "Learned", "network": name, "weights": weights(tmp_path, residual=residual)}
    (purifier,) = learned(tmp_path, written)
    assert isinstance(purifier, Learned)
    network = (residual_fcn if residual else fcn)().eval()
    torch.manual_seed(0)
    expected = FCN(residual=residual)
    nn.init.normal_(expected.layers[-2].weight, std=0.05)
    network.load_state_dict(expected.state_dict())
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = network(images)
    made = purifier(images, seeds=torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(made, wanted)
    assert not any(p.requires_grad for p in purifier.network.parameters())


def test_weights_trained_on_grey_images_take_grey_images(tmp_path: Path) -> None:
    file = weights(tmp_path, channels=1)
    (purifier,) = learned(tmp_path, {"name": "Learned", "network": "fcn", "weights": file})
    grey = torch.rand(1, 1, 9, 9)
    assert purifier(grey, seeds=torch.zeros(1, dtype=torch.int64)).shape == grey.shape


def test_stored_results_are_named_by_weights_and_architecture(tmp_path: Path) -> None:
    one, copy = weights(tmp_path), weights(tmp_path, "copy.safetensors")
    other = weights(tmp_path, "other.safetensors", seed=1)
    names = [
        fingerprint(tmp_path, {"name": "Learned", "network": network, "weights": file})
        for network, file in (("fcn", one), ("fcn", copy), ("fcn", other), ("residual-fcn", one))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    (purifier,) = learned(tmp_path, {"name": "Learned", "network": "fcn", "weights": one})
    assert repr(purifier).startswith("Learned(network=fcn@")


def test_the_digest_tells_architectures_of_one_layout_apart(tmp_path: Path) -> None:
    file = weights(tmp_path)
    plain, residual = learned(tmp_path, f"learned(fcn, {file})", f"learned(residual-fcn, {file})")
    assert plain.network.digest != residual.network.digest


def test_in_one_line_with_other_purifiers(tmp_path: Path) -> None:
    (tmp_path / "trained").mkdir()
    file = weights(tmp_path / "trained")
    line = f"learned(fcn, weights=trained/{file}) > unsharp(0.5)"
    bench = toy.bench(tmp_path, purifiers=[line], detectors=[], attacks=[])
    (purifier,) = bench.purifiers
    assert isinstance(purifier, Sequence)
    assert isinstance(purifier.steps[0], Learned)
    assert purifier.steps[1] == Unsharp(amount=0.5)
    state, _ = toy.run(bench)

    def stored(name: str) -> torch.Tensor:
        pixels = read_images(bench.store.images(state.done[(name, 0)].ref))
        return torch.stack([torch.from_numpy(image) for image in pixels]).float() / 255

    seeds = torch.zeros(16, dtype=torch.int64)
    expected = purifier.steps[1](purifier.steps[0](stored("ingest"), seeds=seeds), seeds=seeds)
    assert (stored(f"purify/none/{line}") - expected).abs().max() <= 0.5001 / 255


def test_an_attack_can_look_through_it(tmp_path: Path) -> None:
    written = {"name": "Learned", "network": "fcn", "weights": weights(tmp_path), "label": "own"}
    attack = {"name": "IFGSM", "epsilon": "8/255", "steps": 1, "step_size": "8/255"}
    through = {**attack, "through": "own", "backward": "exact", "label": "through"}
    bench = toy.bench(tmp_path, purifiers=[written], attacks=[attack, through], detectors=[])
    bench.check()
    state, _ = toy.run(bench)
    labels = [node.name for node in state.plan if node.kind == "attack"]
    first, second = (read_images(bench.store.images(state.done[(name, 0)].ref)) for name in labels)
    assert any((one != other).any() for one, other in zip(first, second, strict=True))


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = mirror()
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    name = "python:tests.tasks.test_learned:mirror"
    written = {"name": "Learned", "network": name, "weights": "own.safetensors"}
    (purifier,) = learned(tmp_path, written)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = network(images).clamp(0, 1)
    made = purifier(images, seeds=torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(made, expected)
    assert repr(purifier).startswith(f"Learned(network={name}@")


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ({}, SpecError, r"purifiers\[0\]\.network: expected a value for Learned, got nothing"),
        (
            {"network": "fcm"},
            ModelError,
            r"purifiers\[0\]\.network: expected one of .*denoiser, python:.*'fcm' \(did",
        ),
        (
            {"network": "fcn"},
            ModelError,
            r"purifiers\[0\]\.weights: expected the weights of fcn, got nothing",
        ),
        (
            {"network": "fcn", "weights": "absent.safetensors"},
            ModelError,
            r"purifiers\[0\]\.weights: expected a file, got .*absent\.safetensors",
        ),
        (
            {"network": "fcn", "weights": "text.safetensors"},
            ModelError,
            r"purifiers\[0\]\.weights: .*text\.safetensors is not safetensors",
        ),
        (
            {"network": "fcn", "weights": "narrow.safetensors"},
            ModelError,
            r"purifiers\[0\]\.weights: narrow\.safetensors: layers\.5\.weight: expected shape",
        ),
        (
            {"network": "python:tests.tasks.test_learned:absent"},
            ModelError,
            r"purifiers\[0\]\.network: tests\.tasks\.test_learned has no 'absent'",
        ),
        (
            {"network": "fcn", "wieghts": "own.safetensors"},
            SpecError,
            r"purifiers\[0\]\.wieghts: unknown parameter of Learned \(did you mean weights\?\)",
        ),
    ],
)
def test_mistakes_name_field_and_file(
    tmp_path: Path, written: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "text.safetensors").write_text("weights")
    state = {**FCN().state_dict(), "layers.5.weight": torch.zeros(3, 15, 3, 3)}
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(error, match=words):
        learned(tmp_path, {"name": "Learned", **written})


def test_mistakes_in_one_line_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"purifiers\[0\]\.weights: expected the weights of fcn"):
        learned(tmp_path, "learned(fcn) > unsharp(1)")
    words = r"purifiers\[0\]: 'learned\(3\)': .*expected one of network, weights, got '3'"
    with pytest.raises(SpecError, match=words):
        learned(tmp_path, "learned(3)")


def test_listings_show_what_a_specification_may_say() -> None:
    assert list(parameter_fields(Learned)) == ["network", "weights"]
    (entry,) = (one for one in entries("purifiers") if one["name"] == "Learned")
    assert [one["name"] for one in entry["parameters"]] == ["network", "weights"]
    assert entry["parameters"][0]["default"] == "required"
    (entry,) = (one for one in entries("attacks") if one["name"] == "UAP")
    assert [one["name"] for one in entry["parameters"]] == ["amplitude", "weights"]


def test_a_perturbation_that_is_no_file_names_the_attack(tmp_path: Path) -> None:
    attack = {"name": "UAP", "weights": "absent.safetensors"}
    bench = toy.bench(tmp_path, attacks=[attack])
    with pytest.raises(ModelError, match=r"attacks\[0\]\.weights: expected a file, got .*absent"):
        bench.check()
