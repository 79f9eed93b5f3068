"""What an attacker of an object detector wants: objects that vanish, or objects that appear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from defender.models.object_detection import ObjectDetector
from defender.types import Images, Scores, check_parameters, parameter

REDUCTIONS = ("sum", "mean", "max")

_SURE = -1e-7
"""Largest logarithm of a confidence: nearer to 0, one minus it would round to 0."""

_NONE = 1e-6
"""Confidence that stands for that of a class where no box is proposed at all."""


@dataclass(frozen=True, eq=False, repr=False)
class HideObjects:
    """No proposed box should be as sure as a detection has to be.

    With c_j the largest confidence of a class for the proposed box j, t the threshold and
    ``m_j = log(1 - c_j) - log(1 - t)``, the margin by which "it is none" holds for a box, in nats,
    the score is ``R_j min(0, m_j)``, and where that is 0, ``min_j m_j``. So it is above 0 exactly
    where nothing is left to be found at the threshold. Counted in nats, a box of confidence 0.999
    has the gradient that one of 0.6 has; that of the confidence itself would be nearly 0.

    Args:
        detector: the detector.
        threshold: confidence that boxes are pushed below. Somewhat lower than the one that
            decides what is found, as a patch meets images that it was not fitted to.
        target: label to be hidden; None: all.
        reduction: R, ``sum`` or ``mean`` over the boxes, or ``max``, the surest alone.

    Raises:
        ValueError: parameters out of range; when called, a detector in training mode or a label
            that it does not have.

    Source: C. Xie et al., "Adversarial Examples for Semantic Segmentation and Object Detection",
    2017, arXiv 1703.08603, for all proposals at once; S. Thys, W. Van Ranst, T. Goedemé, "Fooling
    automated surveillance cameras", 2019, arXiv 1904.08653, for the surest alone.
    Differs: boxes count that are above the threshold; no gradient passes through which regions a
    two-stage detector proposes.
    """

    detector: ObjectDetector
    threshold: float = parameter(0.3, doc="confidence to stay below", low=0, high=0.999)
    target: int | None = parameter(None, doc="label to hide; none: all", low=0)
    reduction: str = parameter("sum", doc="over the boxes", choices=REDUCTIONS)

    def __post_init__(self) -> None:
        check_parameters(self)

    def __call__(self, images: Images) -> Scores:
        """Score (n,) in nats of images (n, c, h, w) in [0, 1]."""
        return one_by_one(self._score, images)

    def _score(self, image: Tensor) -> Tensor:
        confidences = self.detector.log_confidences(image)
        if not len(confidences):
            return confidences.sum() - math.log1p(-self.threshold)
        if self.target is not None:
            confidences = _of_label(confidences, self.target, self.detector)[:, None]
        surest = confidences.amax(dim=1).clamp_max(_SURE)
        margins = torch.log(-torch.expm1(surest)) - math.log1p(-self.threshold)
        least = margins.amin()
        if self.reduction == "max" or float(least.detach()) > 0:
            return least
        short = margins.clamp_max(0.0)
        return short.sum() if self.reduction == "sum" else short.mean()

    def __repr__(self) -> str:
        return (
            f"HideObjects(detector={self.detector!r}, threshold={self.threshold}, "
            f"target={self.target}, reduction={self.reduction!r})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class InventObjects:
    """Boxes should be taken for objects of a class.

    The score is the mean over the ``boxes`` proposed boxes that are surest of that class of
    ``log(c_j / t)``, t being the threshold: above 0 where they are surer than it, taken together.
    Objects of the class that are there count like invented ones: take
    more boxes than they have.

    Args:
        detector: the detector.
        target: label of the objects to be invented.
        boxes: how many boxes, the surest of the class; fewer where fewer are proposed.
        threshold: confidence from which a box is an object; it moves no gradient.

    Raises:
        ValueError: parameters out of range; when called, a detector in training mode or a label
            that it does not have, such as the background.

    Source: X. Liu et al., "DPatch: An Adversarial Patch Attack on Object Detectors", 2018,
    arXiv 1806.02299, for a class that the patch is to be taken for.
    Differs: the surest boxes of the class anywhere, instead of the one that is the patch's; their
    places are not fitted.
    """

    detector: ObjectDetector
    target: int = parameter(doc="label to invent", low=0)
    boxes: int = parameter(10, doc="surest boxes of the class that count", low=1)
    threshold: float = parameter(0.5, doc="confidence of an object", low=0, high=1, open_low=True)

    def __post_init__(self) -> None:
        check_parameters(self)

    def __call__(self, images: Images) -> Scores:
        """Score (n,) in nats of images (n, c, h, w) in [0, 1]."""
        return one_by_one(self._score, images)

    def _score(self, image: Tensor) -> Tensor:
        confidences = _of_label(self.detector.log_confidences(image), self.target, self.detector)
        if not len(confidences):
            return confidences.sum() + math.log(_NONE / self.threshold)
        surest = confidences.topk(min(self.boxes, len(confidences))).values
        return surest.mean() - math.log(self.threshold)

    def __repr__(self) -> str:
        return (
            f"InventObjects(detector={self.detector!r}, target={self.target}, "
            f"boxes={self.boxes}, threshold={self.threshold})"
        )


def one_by_one(score: Callable[[Tensor], Tensor], images: Images) -> Scores:
    """Score images singly, and differentiate each at once, so that one graph exists at a time.

    Args:
        score: maps an image (c, h, w) to a scalar.
        images: (n, c, h, w).

    Returns:
        (n,), with a gradient where the images have one; it can be taken once.
    """
    if torch.is_grad_enabled() and images.requires_grad:
        scores: Scores = _OneByOne.apply(images, score)
        return scores
    with torch.no_grad():
        return _stacked([score(image) for image in images], images)


class _OneByOne(torch.autograd.Function):
    """Scores of images; their gradients are made on the way forward and kept."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        scores, gradients = [], torch.zeros_like(images)
        for image, kept in zip(images, gradients, strict=True):
            with torch.enable_grad():
                leaf = image.detach().requires_grad_(True)
                value = score(leaf)
                (found,) = torch.autograd.grad(value, leaf)
            kept.copy_(found)
            scores.append(value.detach())
        ctx.save_for_backward(gradients)
        return _stacked(scores, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * upstream.view(-1, 1, 1, 1), None


def _stacked(scores: list[Tensor], images: Images) -> Scores:
    return torch.stack(scores) if scores else images.new_zeros(0)


def _of_label(confidences: Tensor, label: int, detector: ObjectDetector) -> Tensor:
    """The column (boxes,) of a label, which must be one of an object."""
    labels = confidences.shape[1]
    first = 0 if detector.has_object_at_zero else 1
    if not first <= label < labels:
        raise ValueError(
            f"target: expected {first} to {labels - 1}, the labels of {detector!r}, got {label}"
        )
    return confidences[:, label]
