"""Backbones of quality metrics: which can be trained, and what they start from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.errors import ModelError
from tasks.quality_task import architecture
from tests.tasks.rated_training import ARCH, begun, prepare, trainer


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a table with a column of sets; nothing is trained."""
    return prepare(tmp_path_factory.mktemp("rated"))


def classifier(arch: str = ARCH) -> nn.Module:
    from torchvision import models

    torch.manual_seed(4)
    return models.get_model(arch, weights=None)  # type: ignore[no-any-return]


def test_a_training_starts_from_the_weights_of_a_classifier(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "public.pth"
    state = classifier().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    started, fresh = trainer(drawn, initial=str(path)), trainer(drawn)
    found, random = started.task.network().state_dict(), fresh.task.network().state_dict()
    names = [name for name in state if name.startswith("features.")]
    assert len(names) > 200
    assert all(torch.equal(found[name], state[name]) for name in names)
    heads = [name for name in found if not name.startswith("features.")]
    assert all(torch.equal(found[name], random[name]) for name in heads)
    assert started.fingerprint != fresh.fingerprint
    (tmp_path / "copy.pth").write_bytes(path.read_bytes())
    assert trainer(drawn, initial=str(tmp_path / "copy.pth")).fingerprint == started.fingerprint


def test_children_of_a_residual_network_get_their_layers(drawn: Path, tmp_path: Path) -> None:
    state = classifier("resnet18").state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    training = begun(drawn, model="linearity:resnet18", initial=str(tmp_path / "resnet18.pth"))
    network = training.task.network()
    for ours, public in (
        ("0.weight", "conv1.weight"),
        ("1.running_var", "bn1.running_var"),
        ("4.0.conv1.weight", "layer1.0.conv1.weight"),
        ("7.1.bn2.bias", "layer4.1.bn2.bias"),
    ):
        assert torch.equal(network.state_dict()[f"features.{ours}"], state[public])


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_a_wrong_start_is_refused(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "start.pth"
    state = classifier().state_dict()

    def refused(expected: str, **changes: Any) -> None:
        with pytest.raises(ModelError, match=expected):
            begun(drawn, initial=str(path), **changes).check()

    torch.save({k: v for k, v in state.items() if k != "features.1.block.0.0.weight"}, path)
    refused(r"initial: .*start.pth: expected a tensor features.1.block.0.0.weight, found none")
    torch.save({**state, "features.0.0.weight": torch.zeros(16, 1, 3, 3)}, path)
    refused(r"initial: .* features.0.0.weight: expected shape \(16, 3, 3, 3\), got \(16, 1, 3, 3\)")
    torch.save({**state, "head.weight": torch.zeros(1)}, path)
    refused("initial: .* unexpected tensor head.weight")
    torch.save(state, path)
    refused("initial: .* expected a tensor conv1.weight, found none", model="linearity:resnet18")
    path.write_bytes(pickle.dumps({"features.0.0.weight": Hostile()}))
    refused("initial: .* expected a state dict of tensors only")


def test_every_architecture_that_can_be_scored_with_can_be_trained() -> None:
    from torchvision import models

    families = ("resnet", "resnext", "wide_resnet", "mobilenet")
    known = [name for name in models.list_models(module=models) if name.startswith(families)]
    assert {"resnext101_32x8d", "resnet50", "mobilenet_v2"} <= set(known)
    assert [architecture(f"linearity:{name}") for name in known] == known
    assert architecture("linearity-small") == architecture("linearity:small") == "small"
    with pytest.raises(ModelError) as error:
        architecture("linearity:vgg16")
    assert all(f"linearity:{name}" in str(error.value) for name in known)
