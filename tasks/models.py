"""Models from disk, from torchvision, from the user's own code, or behind a query.

Weights are read as safetensors or with a weights-only load; nothing is ever unpickled freely.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib
import inspect
import io
import json
import sys
import urllib.error
import urllib.request
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
from defender.models.xray import xray_cnn
from tasks.errors import ModelError
from tasks.specs import ModelSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pt file without unpickling code.

    Raises:
        ModelError: where the file is absent, damaged, or holds anything but tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model.weights: expected a file, got {path}: {error.strerror}") from None
    try:
        if path.suffix == ".safetensors":
            return dict(load_safetensors(data))
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"model.weights: {path} is not safetensors: {error}") from None
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelError(
            f"model.weights: {path}: expected a state dict of tensors only, got {reason}"
        ) from None
    for nested in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(nested), dict):
            state = state[nested]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"model.weights: {path}: expected a dict of tensors")
    return state


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
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
            raise ModelError(f"model.weights: {source}: expected a tensor {name}, found none")
        if state[name].shape != value.shape:
            raise ModelError(
                f"model.weights: {source}: {name}: expected shape {tuple(value.shape)}, "
                f"got {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in expected:
            raise ModelError(f"model.weights: {source}: unexpected tensor {name}")
    network.load_state_dict({k: state[k].to(expected[k].dtype) for k in expected})


class QueryModel(nn.Module):
    """A model that answers with scores and gives no gradients.

    Args:
        ask: maps uint8 pixels as float images (n, c, h, w) in [0, 1] to scores (n, classes).
        name: what it is called in reports.
        classes: number of scores an image, where it is known.
        origin: what stands for the model in ``repr``: an address, or the source of a callable.
    """

    def __init__(
        self,
        ask: Callable[[Tensor], Tensor],
        name: str,
        classes: int | None,
        origin: bytes = b"",
    ) -> None:
        super().__init__()
        self.ask = ask
        self.name = name
        self.classes = classes
        self.digest = digest_bytes(origin)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Query the model; the answer carries no gradients.

        Raises:
            ModelError: where the answer is not one finite row of scores an image.
            ConnectionError: where an endpoint gives no answer, which may pass.
        """
        scores = self.ask(images.detach().cpu())
        shape = (len(images), self.classes) if self.classes else (len(images), -1)
        fits = scores.ndim == 2 and len(scores) == len(images)
        if not fits or self.classes not in (None, scores.shape[1]):
            raise ModelError(f"{self.name}: expected scores {shape}, got {tuple(scores.shape)}")
        if not torch.isfinite(scores).all():
            raise ModelError(f"{self.name}: expected finite scores")
        return scores.to(images.device, torch.float32)

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def _http(url: str, timeout: float) -> Callable[[Tensor], Tensor]:
    def ask(images: Tensor) -> Tensor:
        body = json.dumps({"images": images.tolist()}).encode()
        request = urllib.request.Request(
            url, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                answer = json.loads(reply.read())
            return torch.tensor(answer["logits"], dtype=torch.float32)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise ModelError(f"{url}: expected scores, got HTTP status {error.code}") from None
            raise ConnectionError(f"{url}: no answer: HTTP status {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ConnectionError(f"{url}: no answer: {reason}") from None
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ModelError(f'{url}: expected {{"logits": [[...], ...]}}, got {reason}') from None

    return ask


def _callable(function: Callable[[Any], Any], name: str) -> Callable[[Tensor], Tensor]:
    def ask(images: Tensor) -> Tensor:
        # a copy, because what is asked must not be changed by who answers
        answer = function(images.numpy().copy())
        try:
            return torch.as_tensor(answer)
        except (TypeError, ValueError, RuntimeError):
            kind = type(answer).__name__
            raise ModelError(f"{name}: expected an array of scores, got {kind}") from None

    return ask


def _source(function: Callable[..., Any]) -> bytes:
    """The text of the file that defines a callable, or its name where there is no such file."""
    try:
        return Path(inspect.getsourcefile(function) or "").read_bytes()
    except (TypeError, OSError):
        return repr(getattr(function, "__qualname__", type(function).__qualname__)).encode()


def _attribute(reference: str, folder: Path) -> Any:
    module_name, separator, attribute = reference.rpartition(":")
    if not separator or not module_name or not attribute:
        raise ModelError(f"model.name: expected <module>:<name>, got {reference!r}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ModelError(f"model.name: cannot import {module_name}: {error}") from None
    except AttributeError:
        raise ModelError(f"model.name: {module_name} has no {attribute!r}") from None


def user_network(name: str, folder: Path) -> nn.Module:
    """The network that ``python:<module>:<factory>`` makes.

    Args:
        name: the model's name as a specification states it.
        folder: folder of the specification, where the module may lie.

    Raises:
        ModelError: where there is no such factory or it returns something else.
    """
    made = _attribute(name.removeprefix("python:"), folder)()
    if not isinstance(made, nn.Module):
        raise ModelError(f"model.name: expected {name} to return a torch module, got {made!r}")
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
        ask = _http(name, spec.timeout)
        return QueryModel(ask, label, spec.classes, name.encode()).eval()
    if name.startswith("callable:"):
        function = _attribute(name.removeprefix("callable:"), folder)
        ask = _callable(function, label)
        return QueryModel(ask, label, spec.classes, _source(function)).eval()
    mean, std = spec.mean, spec.std
    state: dict[str, Tensor] | None = None
    source = spec.weights or ""
    if name in MODELS:
        shipped = MODELS[name]
        network = shipped.factory()
        mean, std = mean or shipped.mean, std or shipped.std
        if spec.weights is None:
            packaged = resources.files("tasks").joinpath("weights", shipped.weights)
            source = shipped.weights
            if not packaged.is_file():
                raise ModelError(f"model.name: the weights {source} are not installed")
            state = dict(load_safetensors(packaged.read_bytes()))
    elif name.startswith("torchvision:"):
        network = _torchvision(name.removeprefix("torchvision:"), spec.weights)
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    elif name.startswith("python:"):
        network = user_network(name, folder)
    else:
        known = ", ".join([*MODELS, *OTHER_MODELS])
        raise ModelError(f"model.name: expected one of {known}, got {name!r}")
    if spec.weights is not None:
        path = Path(spec.weights)
        state = read_state(path if path.is_absolute() else folder / path)
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
