"""Image-quality metrics from disk, from the packages piq and pyiqa, or from the user's own code.

Checkpoints are read as safetensors or with a weights-only load that knows tensors, numbers and
NumPy's floats; nothing is ever unpickled freely.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from defender.models.linearity import Linearity
from defender.models.quality_library import (
    LibraryMetric,
    finite_gradient,
    piq_metric,
    pyiqa_metric,
)
from tasks.errors import ModelError
from tasks.models import (
    attribute_of,
    check_state,
    digest_bytes,
    digest_state,
    freeze,
    load_state,
    packaged_weights,
    read_bytes,
    read_pickled,
    read_safetensors,
    read_state,
    source_of,
    user_network,
)
from tasks.subject_specs import MetricSpec

NAME, WEIGHTS, RANGE = "metric.name", "metric.weights", "metric.score_range"
PROBE_SIDE = 224


@dataclass(frozen=True)
class ShippedMetric:
    """A Linearity metric that comes with the package."""

    arch: str
    weights: str
    doc: str


QUALITY_MODELS: dict[str, ShippedMetric] = {
    "linearity-small": ShippedMetric(
        "small",
        "linearity-small.safetensors",
        "image quality without a reference, photographs of any size, 1.42 M parameters",
    ),
}

OTHER_METRICS = {
    "linearity:<architecture>": "Linearity on a torchvision ResNet, ResNeXt, Wide ResNet or "
    "MobileNet; give its checkpoint, such as p1q2.pth, as weights",
    "piq:<metric>": "a metric of the package piq, by its name there, such as ssim",
    "pyiqa:<metric>": "a metric of the package pyiqa, by its name there, such as topiq_nr",
    "python:<module>:<factory>": "your own metric, a torch module",
}

LIBRARIES: dict[str, tuple[str, Callable[[str, torch.device], LibraryMetric]]] = {
    "piq": ("'image-defender[quality]'", lambda name, device: piq_metric(name)),
    "pyiqa": ("pyiqa", pyiqa_metric),
}
"""What to install for a package of metrics, and what makes one of its metrics."""

_SCALAR, _RECONSTRUCT = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
# checkpoints written with NumPy 1 and 2 name the same functions differently
_NUMPY_FLOATS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
]
# torch keeps what is allowed in one list for all threads and drops it on leaving
_ALLOWING = threading.Lock()


class LinearityCheckpoint(NamedTuple):
    """What a checkpoint of :class:`defender.models.linearity.Linearity` holds."""

    state: dict[str, Tensor]
    k: float
    b: float
    score_range: tuple[float, float] | None = None


def read_linearity_checkpoint(path: Path) -> LinearityCheckpoint:
    """Read the network, k and b of a Linearity metric.

    A ``.safetensors`` file holds the state dict, and ``k``, ``b`` and perhaps ``score_range`` in
    its metadata, as JSON. Every other file is a dict that torch saved, with ``model``, ``k``, ``b``
    and perhaps ``score_range``; k and b are numbers, or one number a head, that of the final head
    first.

    Raises:
        ModelError: naming the file and what was expected in it.
    """
    return _checkpoint(read_bytes(path, WEIGHTS), path)


def linearity_metadata(k: float, b: float, score_range: tuple[float, float]) -> dict[str, str]:
    """What the metadata of a safetensors file says of a Linearity metric."""
    stated = {"k": k, "b": b, "score_range": list(score_range)}
    return {name: json.dumps(value) for name, value in stated.items()}


def _checkpoint(data: bytes, path: Path) -> LinearityCheckpoint:
    content: dict[Any, Any]
    if path.suffix == ".safetensors":
        state = read_safetensors(data, path, WEIGHTS)
        content = _metadata(data, path)
    else:
        with _ALLOWING, torch.serialization.safe_globals(_NUMPY_FLOATS):
            expected = "a dict of tensors and numbers only"
            content = read_pickled(data, path, expected, WEIGHTS)
        if not isinstance(content, dict) or "model" not in content:
            raise ModelError(f"{WEIGHTS}: {path}: expected a dict with model, k and b")
        state = check_state(content["model"], f"{path}: model", WEIGHTS)
    score_range = None
    if "score_range" in content:
        low, high = _numbers(content, "score_range", path, count=2)
        if not low < high:
            raise ModelError(f"{WEIGHTS}: {path}: score_range: expected two ascending numbers")
        score_range = (low, high)
    k, b = (_numbers(content, name, path)[0] for name in ("k", "b"))
    return LinearityCheckpoint(state, k, b, score_range)


def _metadata(data: bytes, path: Path) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    stated = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    content = {}
    for name in ("k", "b", "score_range"):
        if name in stated:
            try:
                content[name] = json.loads(stated[name])
            except ValueError:
                raise ModelError(
                    f"{WEIGHTS}: {path}: {name}: expected JSON, got {stated[name]!r}"
                ) from None
    return content


def _numbers(
    content: Mapping[Any, Any], name: str, path: Path, count: int | None = None
) -> list[float]:
    if name not in content:
        raise ModelError(f"{WEIGHTS}: {path}: expected a number {name}, found none")
    value = content[name]
    try:
        array = value.detach().double().numpy() if isinstance(value, Tensor) else np.asarray(value)
        numbers = [float(number) for number in array.ravel()] if array.dtype.kind in "fiu" else []
    except ValueError:
        numbers = []
    if not numbers or count not in (None, len(numbers)) or not all(map(math.isfinite, numbers)):
        wanted = f"{count} finite numbers" if count else "a finite number"
        raise ModelError(f"{WEIGHTS}: {path}: {name}: expected {wanted}, got {value!r}")
    return numbers


class LoadedMetric(nn.Module):
    """A metric with a name, the digest of what it is made of, and a range.

    Args:
        metric: maps images (n, c, h, w) in [0, 1], and originals where it needs them, to scores.
        name: what it is called in reports.
        digest: hexadecimal digest of what its scores depend on.
        score_range: scores of the worst and the best images in practice, the smaller first.
        lower_is_better: whether smaller scores mean better images.
    """

    def __init__(
        self,
        metric: nn.Module,
        name: str,
        digest: str,
        score_range: tuple[float, float],
        lower_is_better: bool,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.name = name
        self.digest = digest
        self.score_range = score_range
        self.lower_is_better = lower_is_better
        self.needs_reference = bool(getattr(metric, "needs_reference", False))

    def forward(self, images: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (n,) of images (n, c, h, w) in [0, 1]; gradients that are not finite are 0."""
        images = finite_gradient(images)
        scores: Tensor
        scores = self.metric(images, reference) if self.needs_reference else self.metric(images)
        return scores

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def load_metric(spec: MetricSpec, folder: Path, device: torch.device) -> LoadedMetric:
    """Make the metric that a specification names, ready to score or to be differentiated.

    Args:
        spec: which metric.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.

    Returns:
        A module in evaluation mode whose parameters ask for no gradients; see
        :class:`defender.types.QualityMetric`. Its ``repr`` is ``name@digest``.

    Raises:
        ModelError: naming the field and what was expected.
    """
    kind, _, name = spec.name.partition(":")
    source = ""
    metric: nn.Module
    if spec.name in QUALITY_MODELS or (kind == "linearity" and name):
        metric = _linearity(spec, name, folder)
    elif kind in LIBRARIES and name:
        metric = _library(spec, kind, name, device)
    elif kind == "python":
        metric = user_network(spec.name, folder, NAME)
        source = digest_bytes(source_of(attribute_of(name, folder, NAME)))
        if spec.weights is not None:
            state = read_state(folder / spec.weights, WEIGHTS)
            load_state(metric, state, spec.weights, WEIGHTS)
    else:
        known = ", ".join([*QUALITY_MODELS, *OTHER_METRICS])
        raise ModelError(f"{NAME}: expected one of {known}, got {spec.name!r}")
    score_range, lower_is_better = _range(spec, metric), _direction(spec, metric)
    facts = str((score_range, lower_is_better))
    made_of = [digest_state(metric.state_dict()), str(metric), facts, source]
    digest = digest_bytes("\n".join(made_of).encode())
    loaded = LoadedMetric(metric, spec.label or spec.name, digest, score_range, lower_is_better)
    freeze(loaded, device)
    return loaded


def _linearity(spec: MetricSpec, arch: str, folder: Path) -> Linearity:
    shipped = QUALITY_MODELS.get(spec.name)
    if spec.weights is not None:
        source = spec.weights
        checkpoint = read_linearity_checkpoint(folder / spec.weights)
    elif shipped is not None:
        source = shipped.weights
        checkpoint = _checkpoint(packaged_weights(source, NAME), Path(source))
    else:
        raise ModelError(f"{WEIGHTS}: expected the checkpoint of {spec.name}, got nothing")
    if shipped is not None:
        arch = shipped.arch
    try:
        made = Linearity(arch, checkpoint.k, checkpoint.b, checkpoint.score_range)
    except ValueError as error:
        raise ModelError(f"{NAME}: {error}") from None
    load_state(made, checkpoint.state, source, WEIGHTS)
    return made


def _library(spec: MetricSpec, package: str, name: str, device: torch.device) -> LibraryMetric:
    if spec.weights is not None:
        raise ModelError(f"{WEIGHTS}: {spec.name} brings its own weights, got {spec.weights}")
    install, make = LIBRARIES[package]
    try:
        metric = make(name, device)
        freeze(metric, device)
        _probe(metric, device)
    except ImportError as error:
        raise ModelError(
            f"{NAME}: {spec.name} needs the package {package}: {error}; pip install {install}"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{NAME}: the weights of {spec.name} cannot be fetched ({error}); "
            "run it once where there is a network, and keep its cache"
        ) from None
    except Exception as error:
        raise ModelError(f"{NAME}: {spec.name} cannot be used: {error}") from error
    return metric


def _probe(metric: LibraryMetric, device: torch.device) -> None:
    """Score a picture, because some metrics fetch their weights only then."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, PROBE_SIDE, PROBE_SIDE, generator=generator).to(device)
    with torch.no_grad():
        metric(picture.flip(3), picture)


def _range(spec: MetricSpec, metric: nn.Module) -> tuple[float, float]:
    stated = spec.score_range or getattr(metric, "score_range", None)
    if stated is None:
        raise ModelError(
            f"{RANGE}: expected the scores of the worst and the best images, "
            f"because {spec.name} does not state them; got nothing"
        )
    try:
        low, high = (float(score) for score in stated)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(f"{RANGE}: expected two finite ascending scores, got {stated!r}")
    return (low, high)


def _direction(spec: MetricSpec, metric: nn.Module) -> bool:
    known, wanted = getattr(metric, "lower_is_better", None), spec.lower_is_better
    field = "metric.lower_is_better"
    if known is None and wanted is None:
        raise ModelError(
            f"{field}: expected true or false, because {spec.name} does not state it; got nothing"
        )
    if known is not None and wanted not in (None, bool(known)):
        raise ModelError(f"{field}: {spec.name} states {bool(known)}, got {wanted}")
    return bool(wanted if known is None else known)
