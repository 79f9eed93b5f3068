"""Face encoders from disk: what is accepted, how it is named, and what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from defender.models.face_encoder import FaceEncoder, similarity
from tasks.encoders import load_encoder, make_network
from tasks.errors import ModelError
from tasks.subject_specs import EncoderSpec

CPU = torch.device("cpu")
SIDE = 16


def load(folder: Path, **fields: Any) -> FaceEncoder:
    """An encoder for tiny images."""
    values = {"name": "mobilefacenet", "side": SIDE, **fields}
    return load_encoder(EncoderSpec.model_validate(values), folder, CPU)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights of a MobileFaceNet for tiny images."""
    torch.manual_seed(0)
    return make_network("mobilefacenet", SIDE).state_dict()


def images() -> Tensor:
    return torch.rand(2, 1, 20, 18, generator=torch.Generator().manual_seed(1))


def test_weights_are_the_ones_of_the_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    encoder = load(tmp_path, weights="weights.safetensors")
    assert all(torch.equal(v, state[k]) for k, v in encoder.network.state_dict().items())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.training
    name, _, digest = repr(encoder).partition("@")
    assert name == "mobilefacenet"
    assert len(digest) == 12
    assert encoder(images()).shape == (2, 128)


NESTINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": {"state_dict": state}},
    "backbone": lambda state: {"backbone": state},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "nested module": lambda state: {
        "model": {f"module.{name}": value for name, value in state.items()}
    },
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_nested_state_dicts_and_prefixes(
    tmp_path: Path, state: dict[str, Tensor], nesting: str
) -> None:
    torch.save(NESTINGS[nesting](state), tmp_path / "weights.pt")
    save_file(state, tmp_path / "plain.safetensors")
    encoder = load(tmp_path, weights="weights.pt")
    assert repr(encoder) == repr(load(tmp_path, weights="plain.safetensors"))


def test_the_digest_tells_how_images_are_prepared(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "weights.pt")
    changes: list[dict[str, Any]] = [
        {},
        {"normalisation": "none"},
        {"scale": 0.85},
        {"fit": "pad"},
        {"flip": True},
    ]
    encoders = [load(tmp_path, weights="weights.pt", label="e", **c) for c in changes]
    assert len({repr(encoder) for encoder in encoders}) == len(changes)
    assert encoders[0].normalisation == "imagenet"
    assert encoders[1].normalisation == "none"
    with torch.no_grad():
        state = {**state, "conv3.bias": state["conv3.bias"] + 1}
    torch.save(state, tmp_path / "other.pt")
    assert repr(load(tmp_path, weights="other.pt", label="e")) != repr(encoders[0])


def test_the_head_of_public_facenet_files_is_left_out(tmp_path: Path) -> None:
    state = make_network("facenet").state_dict()
    heads = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    torch.save({**state, **heads}, tmp_path / "vggface2.pt")
    encoder = load(tmp_path, name="facenet", side=None, weights="vggface2.pt")
    assert encoder.input_size == (160, 160)
    assert encoder.normalisation == "facenet"
    torch.save({**state, "logits.scale": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match=r"odd.pt: unexpected tensor logits.scale"):
        load(tmp_path, name="facenet", side=None, weights="odd.pt")


def test_wrong_weights_name_the_first_tensor(tmp_path: Path, state: dict[str, Tensor]) -> None:
    less = {name: value for name, value in state.items() if name != "conv1.0.weight"}
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(ModelError, match=r"encoder.weights: less.pt: .* conv1.0.weight, found"):
        load(tmp_path, weights="less.pt")
    torch.save({**state, "gdconv.depthwise.weight": torch.zeros(512, 1, 7, 7)}, tmp_path / "big.pt")
    with pytest.raises(ModelError, match=r"gdconv.depthwise.weight: expected shape \(512, 1, 1"):
        load(tmp_path, weights="big.pt")
    with pytest.raises(ModelError, match=r"conv1.weight, found none"):
        load(tmp_path, name="iresnet18", weights="big.pt")


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder.name: expected one of mobilefacenet, .*'vgg'"):
        load(tmp_path, name="vgg")
    with pytest.raises(ModelError, match=r"encoder.weights: expected the checkpoint of iresnet34"):
        load(tmp_path, name="iresnet34")
    with pytest.raises(ModelError, match=r"encoder.weights: expected a file, got .*absent.pt"):
        load(tmp_path, weights="absent.pt")
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    with pytest.raises(ModelError, match="expected a dict of tensors"):
        load(tmp_path, weights="number.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(ModelError, match=r"damaged.pt: expected a state dict of tensors only"):
        load(tmp_path, weights="damaged.pt")
    with pytest.raises(ModelError, match=r"encoder.side: side: expected a multiple of 16, got 20"):
        load(tmp_path, side=20, weights="number.pt")
    with pytest.raises(ValidationError, match="fit"):
        EncoderSpec.model_validate({"name": "facenet", "fit": "crop"})
    assert EncoderSpec.model_validate("facenet") == EncoderSpec(name="facenet")


@pytest.mark.parametrize(
    ("changed", "got"),
    [
        ({"bn.running_var": -1.0}, "NaN or infinite numbers"),
        ({"conv3.bias": float("inf")}, "NaN or infinite numbers"),
        ({"bn.weight": 0.0, "bn.bias": 0.0}, "zeros"),
    ],
)
def test_weights_that_give_no_embeddings_are_refused(
    tmp_path: Path, state: dict[str, Tensor], changed: dict[str, float], got: str
) -> None:
    values = {name: torch.full_like(state[name], value) for name, value in changed.items()}
    torch.save({**state, **values}, tmp_path / "wild.pt")
    message = rf"encoder.weights: wild.pt: expected finite embeddings .* got {got} from mobilefacen"
    with pytest.raises(ModelError, match=message):
        load(tmp_path, weights="wild.pt")


def test_weights_of_any_size_that_can_be_brought_to_length_one_are_taken(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save({**state, "bn.weight": state["bn.weight"] * 1e25}, tmp_path / "large.pt")
    lengths = load(tmp_path, weights="large.pt")(images()).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(2))


class Own(nn.Module):
    """Embeds an image as its channel means and one more number."""

    input_size = (8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x.mean(dim=(2, 3)), (0, 1), value=1.0)


class Maps(nn.Module):
    """No encoder: gives images back."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    own = "python:tests.tasks.test_encoders:Own"
    encoder = load(tmp_path, name=own, side=None, label="own")
    assert encoder.input_size == (8, 6)
    assert encoder.normalisation == "none"
    torch.testing.assert_close(
        encoder(torch.zeros(1, 1, 4, 4)), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    )
    assert load(tmp_path, name=own, side=8).input_size == (8, 8)
    maps = "python:tests.tasks.test_encoders:Maps"
    with pytest.raises(ModelError, match=r"encoder.side: expected the height and width"):
        load(tmp_path, name=maps, side=None)
    with pytest.raises(ModelError, match=r"expected finite embeddings \(n, d\) .*, got \(1, 3, 4"):
        load(tmp_path, name=maps, side=4)


def test_public_weights_tell_people_apart(data: Path) -> None:
    """The checkpoint of foamliu/MobileFaceNet on three pictures of each of the AT&T people."""
    pictures, people = [], []
    with zipfile.ZipFile(data / "att_faces.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(("/1.pgm", "/2.pgm", "/3.pgm")):
                with archive.open(name) as file:
                    pictures.append(torch.from_numpy(np.array(Image.open(file))))
                people.append(name.split("/")[-2])
    spec = EncoderSpec(name="mobilefacenet", weights="weights/mobilefacenet.pt", scale=0.85)
    encoder = load_encoder(spec, data, CPU)
    with torch.inference_mode():
        embeddings = encoder(torch.stack(pictures)[:, None].float() / 255)
    first, second = torch.triu_indices(len(people), len(people), 1)
    scores = similarity(embeddings[first], embeddings[second])
    same = torch.tensor([people[i] == people[j] for i, j in zip(first, second, strict=True)])
    assert same.sum() == 3 * len(set(people))
    above = (scores[same][:, None] > scores[~same]).double().mean()
    assert above > 0.95
