from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tasks import object_detectors
from tasks.errors import ModelError
from tasks.object_detectors import load_object_detector
from tasks.subject_specs import ModelSpec
from tests.defender.object_detectors import FAMILIES, detector, images

CPU = torch.device("cpu")
SSDLITE = "torchvision:ssdlite320_mobilenet_v3_large"


def retinanet() -> nn.Module:
    """A factory of the user's own, its weights to be read from a file."""
    return FAMILIES["RetinaNet"]()


def linear() -> nn.Module:
    """A factory of something else."""
    return nn.Linear(1, 1)


def test_own_network_with_weights_finds_the_same_objects(tmp_path: Path) -> None:
    original = detector("RetinaNet")
    torch.save(original.network.state_dict(), tmp_path / "weights.pt")
    name = "python:tests.tasks.test_object_detectors:retinanet"
    loaded = load_object_detector(
        ModelSpec(name=name, weights="weights.pt", label="own"), tmp_path, CPU
    )
    for one, other in zip(original(images()), loaded(images()), strict=True):
        assert len(one) > 20
        torch.testing.assert_close(one.boxes, other.boxes)
        assert torch.equal(one.labels, other.labels)
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    again = load_object_detector(
        ModelSpec(name=name, weights="weights.pt", label="own"), tmp_path, CPU
    )
    assert repr(loaded) == repr(again)
    assert repr(loaded).startswith("own@")
    other = load_object_detector(ModelSpec(name=name, label="own"), tmp_path, CPU)
    assert repr(other) != repr(loaded)


def test_torchvision_architecture_with_weights_of_the_users_own(tmp_path: Path) -> None:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    network = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    ).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    spec = ModelSpec(name=SSDLITE, weights="weights.safetensors", classes=3)
    loaded = load_object_detector(spec, tmp_path, CPU)
    with torch.no_grad():
        (expected,) = network(list(images(1)))
    (found,) = loaded(images(1))
    assert torch.equal(found.confidences, expected["scores"])
    assert torch.equal(found.labels, expected["labels"])
    with pytest.raises(ModelError, match=r"detector.weights: .* expected shape \(546,"):
        load_object_detector(
            ModelSpec(name=SSDLITE, weights="weights.safetensors"), tmp_path, CPU, "detector"
        )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "cifar-resnet"}, "model.name: expected an object detector, .*'cifar-resnet'"),
        ({"name": "torchvision:resnet50"}, "model: architecture: expected one of .*'resnet50'"),
        ({"name": SSDLITE, "weights": "none.pt"}, "model.weights: expected a file"),
        ({"name": SSDLITE, "classes": 3}, "labels: expected none beside public weights, got 3"),
        ({"name": SSDLITE, "mean": (0.5,)}, "expected no mean and std"),
        (
            {"name": "python:tests.tasks.test_object_detectors:linear"},
            "model.name: network: expected an object detector of torchvision .* got Linear",
        ),
        (
            {"name": "python:tests.tasks.test_object_detectors:retinanet", "classes": 3},
            "model.classes: expected none",
        ),
    ],
)
def test_errors(spec: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        load_object_detector(ModelSpec(**spec), tmp_path, CPU)  # type: ignore[arg-type]


def test_public_weights_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> nn.Module:
        raise URLError("no network")

    monkeypatch.setattr(object_detectors, "torchvision_detector", unreachable)
    with pytest.raises(ModelError, match=r"cannot be fetched .* give their file as model\.weights"):
        load_object_detector(ModelSpec(name=SSDLITE), tmp_path, CPU)
