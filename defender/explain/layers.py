"""Which module of a network shows where it sees a class, and which part of an image it looks at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from defender.gradients import ordinary
from defender.models.xray import XrayNet
from defender.types import Images

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""

_POOLS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
)
"""Not a stage by themselves: the pooling before a classifier may blow one value up to 7 x 7."""

_found: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], str]] = WeakKeyDictionary()
"""The layer of each model that is alive, for the size of images it was last asked with."""


def called(model: object) -> str:
    """What a message calls a model: its text, or its class where the text lists every layer."""
    text = repr(model)
    return type(model).__name__ if "\n" in text else text


@contextmanager
def hooked(
    modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any], Tensor | None]
) -> Iterator[None]:
    """Forward hooks that this thread alone notices, and that are gone afterwards.

    Args:
        modules: where the hooks are.
        hook: given a module and its output; what it returns, if anything, takes the output's place.
    """
    owner = threading.get_ident()

    def ours(module: nn.Module, _: Any, output: Any) -> Tensor | None:
        # another thread may be asking the same model
        return hook(module, output) if threading.get_ident() == owner else None

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(ours))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_layer(model: nn.Module, images: Images) -> str:
    """The last stage of a model that still has a picture's layout.

    This is the last module in the order of the forward pass that puts out (n, c, h, w) with more
    than one place and is no pooling: ``layer4`` of a ResNet, ``features`` of VGG, DenseNet,
    MobileNet, EfficientNet and ConvNeXt, ``permute`` of Swin, ``stages`` of the networks shipped
    here. It is found by asking the model once with one image, and remembered until the model is
    asked with images of another size.

    Args:
        model: a module whose last stages are modules of their own.
        images: (n, c, h, w) in [0, 1], at least one.

    Returns:
        Dotted name of the module.

    Raises:
        TypeError: naming a model that has no such stage, or that goes on with tokens after it, as
            vision transformers do.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch module, got {called(model)}")
    size = tuple(images.shape[1:])
    known = _found.get(model)
    if known is None or known[0] != size:
        known = _found[model] = size, _last_stage(model, images[:1])
    return known[1]


def _last_stage(model: nn.Module, image: Images) -> str:
    names: dict[nn.Module, str] = {part: name for name, part in model.named_modules() if name}
    last, tokens = "", False

    def look(module: nn.Module, output: Any) -> None:
        nonlocal last, tokens
        if not isinstance(output, Tensor) or len(output) != 1:
            return
        if output.ndim == 4 and output.shape[2:].numel() > 1 and not isinstance(module, _POOLS):
            last, tokens = names[module], False
        elif output.ndim == 3 and not isinstance(module, nn.Flatten):
            tokens = True

    with torch.inference_mode(False), torch.no_grad(), hooked(names, look):
        model(ordinary(image))
    if not last:
        raise TypeError(
            "expected a model with gradients and a stage that puts out (n, c, h, w), "
            f"got {called(model)}"
        )
    if tokens:
        raise TypeError(
            f"expected a model whose last stage puts out (n, c, h, w), got {called(model)}, which "
            f"goes on with tokens after {last}; name as layer a module that puts out (n, tokens, "
            "c), such as the first normalisation of the last block"
        )
    return last


def module_named(model: nn.Module, layer: str) -> nn.Module:
    """The module that a name means, the names of wrappers left out or not.

    Args:
        model: the module that it is part of.
        layer: dotted name, or what is left of it inside wrappers: ``layer4`` for
            ``network.layer4``.

    Raises:
        ValueError: a name of no module, or of several.
    """
    modules: dict[str, nn.Module] = {name: part for name, part in model.named_modules() if name}
    if layer in modules:
        return modules[layer]
    fitting = [name for name in modules if name.endswith(f".{layer}")]
    if len(fitting) != 1:
        known = f"one of {', '.join(fitting)}" if fitting else f"a module of {called(model)}"
        raise ValueError(f"layer: expected {known}, got {layer!r}")
    return modules[fitting[0]]


def seen_region(model: nn.Module, size: tuple[int, int]) -> Box:
    """The part of an image that a model looks at, which a heat map of it covers.

    Args:
        model: ``xray-cnn``, wrapped or not, leaves the border of an image out; every other model is
            taken to look at the whole image.
        size: height and width of the images.

    Returns:
        Top, left, height and width in pixels, inside the image.
    """
    height, width = size
    top = left = 0
    for module in model.modules():
        if isinstance(module, XrayNet):
            top, left = round(module.margin * height), round(module.margin * width)
    return top, left, height - 2 * top, width - 2 * left
