"""Grad-CAM: which places of an image speak for a class, from a network's last stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.explain.layers import Box, called, find_layer, hooked, module_named
from defender.gradients import check_finite, ordinary
from defender.types import Images


def gradcam(
    model: nn.Module,
    images: Images,
    classes: Tensor | None,
    layer: str | None = None,
    *,
    region: Box | None = None,
) -> Tensor:
    """Heat map of one class an image.

    ``alpha_k = mean_ij dy_c / dA_k[ij]``, ``cam = ReLU(sum_k alpha_k A_k)``, enlarged bilinearly
    to the size of the images and divided by its maximum; a map that is zero everywhere stays so.
    One pass forwards and one backwards, the latter no further than the layer. Works under
    ``no_grad`` and ``inference_mode``, leaves no gradients and no hooks behind.

    Args:
        model: maps images (n, c, h, w) in [0, 1] to logits (n, classes); in evaluation mode.
        images: (n, c, h, w) in [0, 1]; left unchanged.
        classes: int64 (n,), the class c of each image; None for the one that the model predicts.
        layer: dotted name of the module whose output is A, wrappers left out or not; None for the
            last stage, :func:`defender.explain.find_layer`. It puts out (n, c, h, w), or tokens
            (n, t, c) of a square grid, whatever is before these left out. Of a module that is
            called several times, the last call counts.
        region: top, left, height and width of the part of the images that the layer covers, the
            map being 0 outside; None for the whole image. A network that crops its images needs
            it, :func:`defender.explain.seen_region`: otherwise its map is stretched.

    Returns:
        float32 (n, h, w) in [0, 1].

    Raises:
        TypeError: naming a model that gives no gradients or has no such layer.
        ValueError: classes, a layer or a region that do not fit, or a model in training mode.
        FloatingPointError: a map that is not finite.

    Source: R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra, "Grad-CAM: Visual
    Explanations from Deep Networks via Gradient-based Localization", 2017, arXiv 1610.02391.
    Differs: none; equal to captum's LayerGradCam with its ReLU, divided by the maximum.
    """
    return gradcams(model, images, [classes], layer, region=region)[0]


def gradcams(
    model: nn.Module,
    images: Images,
    classes: Sequence[Tensor | None],
    layer: str | None = None,
    *,
    region: Box | None = None,
) -> Tensor:
    """Heat maps of several classes an image, such as the predicted and the true one.

    One pass forwards for all of them, and for each a pass backwards from the logits to the layer.

    Args:
        model: as for :func:`gradcam`.
        images: (n, c, h, w) in [0, 1]; left unchanged.
        classes: k times int64 (n,) or None, the predicted class.
        layer: as for :func:`gradcam`.
        region: as for :func:`gradcam`.

    Returns:
        float32 (k, n, h, w) in [0, 1].

    Raises:
        TypeError: as for :func:`gradcam`.
        ValueError: as for :func:`gradcam`.
        FloatingPointError: as for :func:`gradcam`.
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected (n, c, h, w), got {tuple(images.shape)}")
    for chosen in classes:
        _check_classes(chosen, len(images))
    height, width = images.shape[2:]
    region = region or (0, 0, height, width)
    _check_region(region, height, width)
    if not len(images) or not classes:
        return images.new_zeros((len(classes), len(images), height, width))
    if getattr(model, "training", False):
        raise ValueError(f"expected {called(model)} in evaluation mode, got training mode")
    name = layer or find_layer(model, images)
    with torch.inference_mode(False), torch.enable_grad():
        coarse = _coarse(model, ordinary(images).detach(), classes, name)
    maps = _enlarged(coarse, region, height, width)
    check_finite(maps.sum(), model)
    return maps


def _coarse(
    model: nn.Module, images: Images, classes: Sequence[Tensor | None], layer: str
) -> Tensor:
    """``ReLU(sum_k alpha_k A_k)`` as large as the layer's output, (classes, n, rows, columns)."""
    features: Tensor | None = None

    def cut(_: nn.Module, output: Any) -> Tensor:
        nonlocal features
        if not isinstance(output, Tensor) or output.ndim not in (3, 4):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"layer: expected a module that puts out (n, c, h, w) or (n, tokens, c), "
                f"got {layer!r}, which puts out {shape}"
            )
        # gradients are wanted from here on only; a copy goes on, as what follows may write into it
        features = output.detach().requires_grad_(True)
        return features.clone()

    with hooked([module_named(model, layer)], cut):
        logits = model(images)
    if features is None:
        raise ValueError(f"layer: expected a module that {called(model)} calls, got {layer!r}")
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"expected logits ({len(images)}, classes), got {tuple(logits.shape)} "
            f"from {called(model)}"
        )
    found = []
    for index, chosen in enumerate(classes):
        last = index == len(classes) - 1
        scores = _scores(logits, chosen)
        slope = _slope(scores, features, keep=not last, model=model)
        found.append(_weighted(slope, features.detach()))
    return torch.stack(found)


def _scores(logits: Tensor, classes: Tensor | None) -> Tensor:
    """The logit of one class an image."""
    picked = logits.detach().argmax(1) if classes is None else ordinary(classes).to(logits.device)
    if int(picked.max()) >= logits.shape[1]:
        raise ValueError(f"classes: expected below {logits.shape[1]}, got {int(picked.max())}")
    return logits.gather(1, picked[:, None])


def _slope(scores: Tensor, features: Tensor, *, keep: bool, model: nn.Module) -> Tensor:
    """``dy_c / dA``; images do not share anything, so that their sum gives each its own."""
    slope = None
    if scores.requires_grad:
        (slope,) = torch.autograd.grad(scores.sum(), features, retain_graph=keep, allow_unused=True)
    if slope is None:
        raise TypeError(
            f"expected a model with a gradient, got {called(model)}, whose logits have none"
        )
    return slope


def _weighted(slope: Tensor, features: Tensor) -> Tensor:
    """Channels weighted by their mean slope and added, the positive part; (n, rows, columns)."""
    if features.ndim == 3:
        slope, features = _grid(slope), _grid(features)
    alpha = slope.float().mean(dim=(2, 3), keepdim=True)
    return torch.relu((alpha * features.float()).sum(dim=1))


def _grid(tokens: Tensor) -> Tensor:
    """Tokens (n, t, c) as (n, c, side, side): the last ones, class tokens coming first."""
    side = math.isqrt(tokens.shape[1])
    placed = tokens[:, -side * side :].transpose(1, 2)
    return placed.reshape(*placed.shape[:2], side, side)


def _enlarged(coarse: Tensor, region: Box, height: int, width: int) -> Tensor:
    """Maps at the size of the images, each divided by its maximum."""
    top, left, rows, columns = region
    maps = functional.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=False)
    peak = maps.amax(dim=(2, 3), keepdim=True)
    # a comparison that lets NaN through, to be noticed
    maps = maps / torch.where(peak == 0, 1.0, peak)
    below, right = height - top - rows, width - left - columns
    return functional.pad(maps, (left, right, top, below))


def _check_classes(classes: Tensor | None, images: int) -> None:
    if classes is None:
        return
    if classes.dtype != torch.int64 or classes.shape != (images,):
        raise ValueError(
            f"classes: expected int64 ({images},), got {classes.dtype} {tuple(classes.shape)}"
        )
    if images and int(classes.min()) < 0:
        raise ValueError(f"classes: expected >= 0, got {int(classes.min())}")


def _check_region(region: Box, height: int, width: int) -> None:
    top, left, rows, columns = region
    inside = top >= 0 and left >= 0 and top + rows <= height and left + columns <= width
    if not inside or min(rows, columns) < 1:
        raise ValueError(
            f"region: expected top, left, height, width inside {height} x {width}, got {region}"
        )
