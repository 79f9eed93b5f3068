"""Face encoders from public checkpoints, from trainings here, or from the user's own code.

Checkpoints are read as safetensors or with a weights-only load; nothing is ever unpickled freely.
No weights come with the package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.models.face_encoder import FaceEncoder, Normalisation
from defender.models.faces import (
    InceptionResnetV1,
    MobileFaceNet,
    iresnet18,
    iresnet34,
    iresnet50,
    iresnet100,
)
from storage.sources.paths import places
from tasks.errors import ModelError
from tasks.models import (
    attribute_of,
    check_state,
    digest_bytes,
    digest_state,
    freeze,
    load_state,
    read_bytes,
    read_pickled,
    read_safetensors,
    source_of,
    user_network,
)
from tasks.subject_specs import EncoderSpec

NESTED = ("state_dict", "model_state_dict", "model", "backbone", "encoder", "network", "net")
"""Keys under which a checkpoint may hold the state dict."""
_SLACK = 1e-3
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it are spread evenly over [0, 1) modulo 1."""


@dataclass(frozen=True)
class Architecture:
    """A network whose public checkpoints load as they are.

    Args:
        factory: makes the network for images of a height and width.
        side: height and width of the images that public weights are for.
        normalisation: how public weights were trained.
        doc: one line for listings.
        heads: tensors of public files that classify people, not part of the encoder.
    """

    factory: Callable[[int], nn.Module]
    side: int
    normalisation: Normalisation
    doc: str
    heads: tuple[str, ...] = field(default=())


ENCODERS: dict[str, Architecture] = {
    "mobilefacenet": Architecture(
        MobileFaceNet, 112, "imagenet", "foamliu/MobileFaceNet, 112 x 112, 128-d, 1.0 M parameters"
    ),
    "iresnet18": Architecture(
        iresnet18, 112, "half", "InsightFace IResNet-18, 112 x 112, 512-d, 24 M parameters"
    ),
    "iresnet34": Architecture(
        iresnet34, 112, "half", "InsightFace IResNet-34, 112 x 112, 512-d, 34 M parameters"
    ),
    "iresnet50": Architecture(
        iresnet50, 112, "half", "InsightFace IResNet-50, 112 x 112, 512-d, 44 M parameters"
    ),
    "iresnet100": Architecture(
        iresnet100, 112, "half", "InsightFace IResNet-100, 112 x 112, 512-d, 65 M parameters"
    ),
    "facenet": Architecture(
        lambda side: InceptionResnetV1(),
        160,
        "facenet",
        "facenet-pytorch InceptionResnetV1, 160 x 160, 512-d, 23 M parameters",
        ("logits.weight", "logits.bias"),
    ),
}

OTHER_ENCODERS = {
    "python:<module>:<factory>": "your own encoder, a torch module; give its state dict as weights",
}


def make_network(name: str, side: int | None = None, field: str = "encoder") -> nn.Module:
    """An architecture of :data:`ENCODERS` with fresh weights.

    Args:
        name: of the architecture.
        side: height and width of the images; none: that of public weights.
        field: what the specification calls the encoder, for messages.

    Raises:
        ModelError: for an unknown name, or a side that the architecture cannot take.
    """
    if name not in ENCODERS:
        raise ModelError(f"{field}.name: expected one of {', '.join(ENCODERS)}, got {name!r}")
    known = ENCODERS[name]
    try:
        return known.factory(side or known.side)
    except ValueError as error:
        raise ModelError(f"{field}.side: {error}") from None


def weights_path(stated: str, folder: Path) -> Path:
    """Where public weights lie: beside the specification, or where data sets are looked for.

    Args:
        stated: path as the specification states it.
        folder: folder of the specification.
    """
    tried = places(stated, folder, os.environ)
    return next((place for place in tried if place.is_file()), tried[0])


def read_encoder_state(
    path: Path, heads: tuple[str, ...] = (), field: str = "encoder.weights"
) -> dict[str, Tensor]:
    """Read the state dict of a face encoder as public checkpoints hold it.

    It may lie under a key such as ``state_dict``, and names may begin with ``module.``, as they do
    after a training on several devices.

    Args:
        path: a .safetensors file, or what torch saved.
        heads: names that are left out.
        field: what the specification calls the file, for messages.

    Raises:
        ModelError: where the file is absent, damaged, or holds no tensors.
    """
    data = read_bytes(path, field)
    content: Any
    if path.suffix == ".safetensors":
        content = read_safetensors(data, path, field)
    else:
        content = read_pickled(data, path, "a state dict of tensors only", field)
    while isinstance(content, Mapping):
        inner = next((content[k] for k in NESTED if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    state = check_state(content, path, field)
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in state.items() if name not in heads}


def load_encoder(
    spec: EncoderSpec, folder: Path, device: torch.device, field: str = "encoder"
) -> FaceEncoder:
    """Make the face encoder that a specification names, ready to be asked or differentiated.

    Args:
        spec: which encoder.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.
        field: what the specification calls the encoder, for messages.

    Returns:
        A module in evaluation mode that maps images (n, c, h, w) in [0, 1] to embeddings of length
        one; its ``repr`` is ``name@digest``; its parameters ask for no gradients.

    Raises:
        ModelError: naming the field and what was expected.
    """
    if spec.name in ENCODERS and spec.weights is None:
        raise ModelError(f"{field}.weights: expected the checkpoint of {spec.name}, got nothing")
    encoder = make_encoder(spec, folder, field)
    freeze(encoder, device)
    probe(encoder, spec.name, field, weights=spec.weights)
    return encoder


def make_encoder(spec: EncoderSpec, folder: Path, field: str = "encoder") -> FaceEncoder:
    """Make the face encoder that a specification names, as it is trained.

    Args:
        spec: which encoder; without ``weights`` an architecture has fresh ones.
        folder: folder of the specification, against which paths and modules are resolved.
        field: what the specification calls the encoder, for messages.

    Raises:
        ModelError: naming the field and what was expected.
    """
    source = ""
    heads: tuple[str, ...] = ()
    if spec.name in ENCODERS:
        known = ENCODERS[spec.name]
        network, heads = make_network(spec.name, spec.side, field), known.heads
        side = spec.side or known.side
        size, normalisation = (side, side), spec.normalisation or known.normalisation
    elif spec.name.startswith("python:"):
        network = user_network(spec.name, folder, f"{field}.name")
        size, normalisation = _stated_size(network, spec, field), spec.normalisation or "none"
        factory = attribute_of(spec.name.removeprefix("python:"), folder, f"{field}.name")
        source = digest_bytes(source_of(factory))
    else:
        expected = ", ".join([*ENCODERS, *OTHER_ENCODERS])
        raise ModelError(f"{field}.name: expected one of {expected}, got {spec.name!r}")
    if spec.weights is not None:
        path = weights_path(spec.weights, folder)
        state = read_encoder_state(path, heads, f"{field}.weights")
        load_state(network, state, spec.weights, f"{field}.weights")
    prepared = (size, normalisation, spec.fit, spec.scale, spec.flip)
    made_of = [digest_state(network.state_dict()), str(network), str(prepared), source]
    try:
        return FaceEncoder(
            network,
            size,
            normalisation,
            flip=spec.flip,
            fit=spec.fit,
            scale=spec.scale,
            name=spec.label or spec.name,
            digest=digest_bytes("\n".join(made_of).encode()),
        )
    except ValueError as error:
        raise ModelError(f"{field}: {error}") from None


def probe(
    encoder: FaceEncoder, name: str, field: str = "encoder", weights: str | None = None
) -> int:
    """Embed a picture, so that what is no encoder is refused before a run starts.

    Args:
        encoder: in evaluation mode.
        name: what it is called in messages.
        field: what the specification calls the encoder, for messages.
        weights: the file that its weights are from, for messages.

    Returns:
        The length of its embeddings.

    Raises:
        ModelError: where it gives none, or none of length one.
    """
    picture = _pattern(*encoder.input_size).to(encoder.mean.device)
    try:
        with torch.no_grad():
            embedding = encoder(picture)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelError(f"{field}.name: {name} cannot embed a picture: {reason}") from None
    if embedding.ndim != 2:
        raise ModelError(
            f"{field}.name: expected finite embeddings (n, d) of {name}, "
            f"got {tuple(embedding.shape)}"
        )
    finite = bool(torch.isfinite(embedding).all())
    if not finite or abs(float(embedding.norm()) - 1) > _SLACK:
        got = "zeros" if finite else "NaN or infinite numbers"
        where = f"{field}.name: " if weights is None else f"{field}.weights: {weights}: "
        raise ModelError(
            f"{where}expected finite embeddings that can be brought to length one, "
            f"got {got} from {name} for a test picture"
        )
    return int(embedding.shape[1])


def _pattern(height: int, width: int) -> Tensor:
    """A picture (1, 3, height, width) in [0, 1], always the same, without two pixels alike."""
    values = torch.arange(3 * height * width, dtype=torch.float64) * _GOLDEN
    return values.frac().view(1, 3, height, width).float()


def _stated_size(network: nn.Module, spec: EncoderSpec, field: str) -> tuple[int, int]:
    if spec.side is not None:
        return (spec.side, spec.side)
    stated = getattr(network, "input_size", None)
    try:
        height, width = (int(side) for side in stated)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise ModelError(
            f"{field}.side: expected the height and width that {spec.name} sees, because it "
            f"states no input_size; got {stated!r}"
        ) from None
    return (height, width)
