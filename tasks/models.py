"""Models from disk, from torchvision, from the user's own code, or behind a query.

Weights are read as safetensors or with a weights-only load; nothing is ever unpickled freely.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from defender.models.classifiers import Normalised, cifar_resnet, shapes_cnn
from defender.models.linearity import IMAGENET_MEAN, IMAGENET_STD
from defender.models.whitened import cifar_resnet_wide
from defender.models.xray import xray_cnn
from tasks.errors import ModelError
from tasks.query_models import QueryModel, http_endpoint, python_callable
from tasks.subject_specs import ModelSpec


@dataclass(frozen=True)
class Shipped:
    """A model that comes with the package."""

    factory: Callable[[], nn.Module]
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    doc: str


MODELS: dict[str, Shipped] = {
    "cifar-resnet": Shipped(
        cifar_resnet,
        "cifar-resnet.safetensors",
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "CIFAR-10 classifier, 32 x 32, 1.12 M parameters",
    ),
    "cifar-resnet-wide": Shipped(
        cifar_resnet_wide,
        "cifar-resnet-wide.safetensors",
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "CIFAR-10 classifier, 32 x 32, 1.97 M parameters, 1.8 times the work",
    ),
    "shapes-cnn": Shipped(
        shapes_cnn,
        "shapes-cnn.safetensors",
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
        "classifier of builtin:shapes, 32 x 32, 0.03 M parameters",
    ),
    "xray-cnn": Shipped(
        xray_cnn,
        "xray-cnn.safetensors",
        (0.482,),
        (0.236,),
        "chest X-rays, normal or pneumonia, 64 x 64 grey, 0.47 M parameters",
    ),
}

OTHER_MODELS = {
    "torchvision:<architecture>": "any torchvision classifier with its public weights",
    "python:<module>:<factory>": "your own model; give its state dict as weights",
    "callable:<module>:<function>": "a Python callable without gradients, for query attacks",
    "http(s)://...": "an endpoint that answers queries, for query attacks",
}


def digest_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_state(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_bytes(path: Path, field: str = "model.weights") -> bytes:
    """The content of a file.

    Raises:
        ModelError: naming the field, where the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{field}: expected a file, got {path}: {error.strerror}") from None


def read_safetensors(
    data: bytes, source: object, field: str = "model.weights"
) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file.

    Raises:
        ModelError: naming the field and the source, for anything else.
    """
    try:
        return dict(load_safetensors(data))
    except SafetensorError as error:
        raise ModelError(f"{field}: {source} is not safetensors: {error}") from None


def read_pickled(data: bytes, source: object, expected: str, field: str = "model.weights") -> Any:
    """What torch saved, read without unpickling code.

    Args:
        data: content of the file.
        source: what the file is called in messages.
        expected: what should be in it, for messages.
        field: the field of the specification that names it.

    Raises:
        ModelError: where the file is damaged or holds what is not allowed.
    """
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelError(f"{field}: {source}: expected {expected}, got {reason}") from None


def read_state(path: Path, field: str = "model.weights") -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pt file without unpickling code.

    Raises:
        ModelError: where the file is absent, damaged, or holds anything but tensors.
    """
    data = read_bytes(path, field)
    if path.suffix == ".safetensors":
        return read_safetensors(data, path, field)
    state = read_pickled(data, path, "a state dict of tensors only", field)
    for nested in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(nested), dict):
            state = state[nested]
    return check_state(state, path, field)


def check_state(state: Any, source: object, field: str = "model.weights") -> dict[str, Tensor]:
    """The state dict itself.

    Raises:
        ModelError: where it is no dict of tensors.
    """
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{field}: {source}: expected a dict of tensors")
    return state


def load_state(
    network: nn.Module, state: dict[str, Tensor], source: str, field: str = "model.weights"
) -> None:
    """Load a state dict exactly, naming the first tensor that does not fit.

    Raises:
        ModelError: for a missing, unexpected or wrongly shaped tensor.
    """
    expected = network.state_dict()
    for name, value in expected.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                state = {**state, name: value}
                continue
            raise ModelError(f"{field}: {source}: expected a tensor {name}, found none")
        if state[name].shape != value.shape:
            raise ModelError(
                f"{field}: {source}: {name}: expected shape {tuple(value.shape)}, "
                f"got {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ModelError(f"{field}: {source}: unexpected tensor {name}")
    network.load_state_dict({k: state[k].to(expected[k].dtype) for k in expected})


def packaged_weights(name: str, field: str = "model.name") -> bytes:
    """The content of a file of weights that comes with the package.

    Raises:
        ModelError: where it is not installed.
    """
    packaged = resources.files("tasks").joinpath("weights", name)
    if not packaged.is_file():
        raise ModelError(f"{field}: the weights {name} are not installed")
    return packaged.read_bytes()


def source_of(function: Callable[..., Any]) -> bytes:
    """The text of the file that defines a callable, or its name where there is no such file."""
    try:
        return Path(inspect.getsourcefile(function) or "").read_bytes()
    except (TypeError, OSError):
        return repr(getattr(function, "__qualname__", type(function).__qualname__)).encode()


def attribute_of(reference: str, folder: Path, field: str = "model.name") -> Any:
    """What ``<module>:<name>`` names; the module may lie in the folder.

    Raises:
        ModelError: naming the field, where there is no such thing.
    """
    module_name, separator, attribute = reference.rpartition(":")
    if not separator or not module_name or not attribute:
        raise ModelError(f"{field}: expected <module>:<name>, got {reference!r}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ModelError(f"{field}: cannot import {module_name}: {error}") from None
    except AttributeError:
        raise ModelError(f"{field}: {module_name} has no {attribute!r}") from None


def user_network(name: str, folder: Path, field: str = "model.name") -> nn.Module:
    """The network that ``python:<module>:<factory>`` makes.

    Args:
        name: the model's name as a specification states it.
        folder: folder of the specification, where the module may lie.
        field: the field of the specification that states it.

    Raises:
        ModelError: where there is no such factory or it returns something else.
    """
    made = attribute_of(name.removeprefix("python:"), folder, field)()
    if not isinstance(made, nn.Module):
        raise ModelError(f"{field}: expected {name} to return a torch module, got {made!r}")
    return made


def _torchvision(architecture: str, weights: str | None) -> nn.Module:
    from torchvision import models

    if architecture not in models.list_models(module=models):
        raise ModelError(
            f"model.name: expected a torchvision classifier, got {architecture!r}; "
            "expected a name of torchvision.models.list_models()"
        )
    if weights is not None:
        return models.get_model(architecture, weights=None)  # type: ignore[no-any-return]
    choice = models.get_model_weights(architecture).DEFAULT
    try:
        return models.get_model(architecture, weights=choice)  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"model.name: the public weights of {architecture} cannot be fetched ({error}); "
            "give their file as model.weights"
        ) from None


def load_model(spec: ModelSpec, folder: Path, device: torch.device) -> nn.Module:
    """Make the model that a specification names, ready to be queried or differentiated.

    Args:
        spec: which model.
        folder: folder of the specification, against which paths and modules are resolved.
        device: where it runs.

    Returns:
        A module in evaluation mode that maps images (n, c, h, w) in [0, 1] to scores; its
        ``repr`` is ``name@digest``; its parameters ask for no gradients.

    Raises:
        ModelError: naming the field and what was expected.
    """
    label, name = spec.label or spec.name, spec.name
    if name.startswith(("http://", "https://")):
        ask = http_endpoint(name, spec.timeout)
        return QueryModel(ask, label, spec.classes, name.encode()).eval()
    if name.startswith("callable:"):
        function = attribute_of(name.removeprefix("callable:"), folder)
        ask = python_callable(function, label)
        return QueryModel(ask, label, spec.classes, source_of(function)).eval()
    mean, std = spec.mean, spec.std
    state: dict[str, Tensor] | None = None
    source = spec.weights or ""
    if name in MODELS:
        shipped = MODELS[name]
        network = shipped.factory()
        mean, std = mean or shipped.mean, std or shipped.std
        if spec.weights is None:
            source = shipped.weights
            state = dict(load_safetensors(packaged_weights(source)))
    elif name.startswith("torchvision:"):
        network = _torchvision(name.removeprefix("torchvision:"), spec.weights)
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    elif name.startswith("python:"):
        network = user_network(name, folder)
    else:
        known = ", ".join([*MODELS, *OTHER_MODELS])
        raise ModelError(f"model.name: expected one of {known}, got {name!r}")
    if spec.weights is not None:
        state = read_state(folder / spec.weights)
    if state is not None:
        load_state(network, state, source)
    mean, std = mean or (0.0,), std or (1.0,)
    made_of = [digest_state(network.state_dict()), str(network), str((mean, std))]
    digest = digest_bytes("\n".join(made_of).encode())
    model = Normalised(network, mean, std, name=label, digest=digest)
    return freeze(model, device)


def freeze(model: nn.Module, device: torch.device) -> nn.Module:
    """Evaluation mode, no parameter gradients, channels last, on the device."""
    model.requires_grad_(False)
    return model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
