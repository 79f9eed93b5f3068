"""What an attacker wants, as a score for each image.

An objective carries the data of its images (labels, targets, seeds), so that one attack serves
every model and goal. A larger score is better for the attacker. Its gradient is taken by
:func:`value_and_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from defender.gradients import (
    check_finite,
    gradient,
    mean_over_draws,
    ordinary,
    value_and_gradient,
)
from defender.noise import derive_seeds
from defender.scaling.scaler import Scaler
from defender.types import Detector, Images, Objective, Purifier, Scores, Seeds, Threat

__all__ = [
    "Classifier",
    "Classify",
    "Defended",
    "Misclassify",
    "RaiseScore",
    "ScaleTo",
    "check_finite",
    "cross_entropy",
    "gradient",
    "value_and_gradient",
]

Classifier = Callable[[Tensor], Tensor]


def _check_classes(name: str, classes: Tensor) -> None:
    if classes.ndim != 1 or classes.dtype != torch.int64:
        raise ValueError(f"{name}: expected int64 (n,), got {classes.dtype} {tuple(classes.shape)}")
    if len(classes) and int(classes.min()) < 0:
        raise ValueError(f"{name}: expected class indices >= 0, got {int(classes.min())}")


def cross_entropy(model: Classifier, images: Images, classes: Tensor) -> Scores:
    """Cross-entropy of the given class of each image, in nats, without any reduction.

    Args:
        model: maps images (n, c, h, w) in [0, 1] to logits (n, classes); in evaluation mode.
        images: (n, c, h, w).
        classes: int64 (n,).

    Returns:
        (n,), >= 0.

    Raises:
        ValueError: when there is not one class an image, or the model is in training mode, in
            which its batch statistics would mix the images.
    """
    if len(classes) != len(images):
        raise ValueError(f"expected {len(images)} labels for as many images, got {len(classes)}")
    if getattr(model, "training", False):
        raise ValueError(f"expected {model!r} in evaluation mode, got training mode")
    return functional.cross_entropy(model(images), ordinary(classes), reduction="none")


@dataclass(frozen=True, eq=False, repr=False)
class Misclassify:
    """Untargeted attack on a classifier: the cross-entropy of the true label.

    Args:
        model: maps images in [0, 1] to logits.
        labels: int64 (n,), the true label of each image.

    Raises:
        ValueError: labels that are not int64 (n,) or negative; when called, a number of images
            other than that of the labels.
    """

    model: Classifier
    labels: Tensor

    def __post_init__(self) -> None:
        _check_classes("labels", self.labels)

    def __call__(self, images: Images) -> Scores:
        """Cross-entropy (n,) of the true labels, in nats."""
        return cross_entropy(self.model, images, self.labels)

    def __repr__(self) -> str:
        return f"Misclassify(model={self.model!r}, images={len(self.labels)})"


@dataclass(frozen=True, eq=False, repr=False)
class Classify:
    """Targeted attack on a classifier: minus the cross-entropy of the wanted class.

    Args:
        model: maps images in [0, 1] to logits.
        targets: int64 (n,), the wanted class of each image.

    Raises:
        ValueError: targets that are not int64 (n,) or negative; when called, a number of images
            other than that of the targets.
    """

    model: Classifier
    targets: Tensor

    def __post_init__(self) -> None:
        _check_classes("targets", self.targets)

    def __call__(self, images: Images) -> Scores:
        """Minus the cross-entropy (n,) of the targets, in nats."""
        return -cross_entropy(self.model, images, self.targets)

    def __repr__(self) -> str:
        return f"Classify(model={self.model!r}, images={len(self.targets)})"


@dataclass(frozen=True, eq=False, repr=False)
class ScaleTo:
    """Image-scaling attack: the picture that the pipeline's resize makes should be the target.

    Args:
        scaler: the resize in question.
        target: (n, c, height, width) in [0, 1], one picture of the scaler's target size an image.

    Raises:
        ValueError: targets of another size; when called, a number or size of images that does
            not fit.
    """

    scaler: Scaler
    target: Images

    def __post_init__(self) -> None:
        height, width = self.scaler.target
        if self.target.ndim != 4 or tuple(self.target.shape[2:]) != (height, width):
            raise ValueError(
                f"target: expected (n, c, {height}, {width}), got {tuple(self.target.shape)}"
            )

    def __call__(self, images: Images) -> Scores:
        """Minus the mean squared difference (n,) of ``L X R`` from the target."""
        if images.shape[:2] != self.target.shape[:2]:
            raise ValueError(
                f"expected {tuple(self.target.shape[:2])} images and channels as the targets "
                f"have, got {tuple(images.shape[:2])}"
            )
        difference = self.scaler.linear(images) - ordinary(self.target)
        return -difference.square().mean(dim=(1, 2, 3))

    def __repr__(self) -> str:
        return f"ScaleTo(scaler={self.scaler!r}, images={len(self.target)})"


@dataclass(frozen=True, eq=False, repr=False)
class RaiseScore:
    """Attack on an image-quality metric: the score it gives, in the direction of better.

    Args:
        metric: maps images in [0, 1] to scores (n,), see
            :class:`defender.types.QualityMetric`; a plain callable counts as one without a
            reference whose larger scores are better.
        reference: (n, c, h, w) originals, for metrics that compare with them.

    Raises:
        ValueError: a metric in training mode, a reference that is missing, or, when called, a
            number of images other than that of the references.
        TypeError: when called, a metric that does not give one score an image, such as a
            classifier.
    """

    metric: Callable[..., Tensor]
    reference: Images | None = None

    def __post_init__(self) -> None:
        if getattr(self.metric, "needs_reference", False) and self.reference is None:
            raise ValueError(f"reference: {self.metric!r} expected the original images, got None")
        if getattr(self.metric, "training", False):
            raise ValueError(f"expected {self.metric!r} in evaluation mode, got training mode")

    @property
    def span(self) -> float:
        """Width of the metric's range: attacks that weigh the score against something use it."""
        low, high = getattr(self.metric, "score_range", (0.0, 1.0))
        return float(high) - float(low)

    def __call__(self, images: Images) -> Scores:
        """Score (n,) of the images, negated where lower is better."""
        if getattr(self.metric, "needs_reference", False):
            if self.reference is None or len(self.reference) != len(images):
                known = 0 if self.reference is None else len(self.reference)
                raise ValueError(
                    f"expected {known} images for as many originals, got {len(images)}"
                )
            scores = self.metric(images, ordinary(self.reference))
        else:
            scores = self.metric(images)
        if scores.shape != (len(images),):
            raise TypeError(
                f"RaiseScore expected an image-quality metric with scores ({len(images)},), "
                f"{self.metric!r} gave {tuple(scores.shape)}"
            )
        return -scores if getattr(self.metric, "lower_is_better", False) else scores

    def __repr__(self) -> str:
        images = "" if self.reference is None else f", images={len(self.reference)}"
        return f"RaiseScore(metric={self.metric!r}{images})"


class _Identity(torch.autograd.Function):
    """Forward: the purified images, to the bit. Backward: the gradient as it comes."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, purified: Tensor) -> Tensor:
        return purified.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def threat_through(backward: str, draws: int) -> Threat:
    """The threat of an attack through a defence, by its gradient and the draws that a step sees."""
    if backward == "exact":
        return "full-gradient"
    return "eot" if draws > 1 else "bpda"


@dataclass(frozen=True, eq=False, repr=False)
class Defended:
    """An objective seen through a defence, for attackers who know it.

    The score is the mean over ``draws`` of ``objective(purifier(x))``, minus
    ``weight * max(0, detector(x) - threshold)`` when there is a detector to stay below.

    Args:
        objective: the goal behind the defence.
        purifier: the defence; None attacks the detector alone.
        seeds: int64 (n,), one an image; the defence's draws are derived from them.
        draws: independent draws of the defence to average (expectation over transformation).
        backward: ``"identity"`` passes gradients through the purifier unchanged (BPDA);
            ``"exact"`` differentiates the purifier.
        detector: detector whose score must stay below ``threshold``.
        threshold: score above which the detector rejects.
        weight: price of one unit of score above the threshold, in units of the objective.
        reference: (n, c, h, w) clean images, for defences that are given them.
        known: the seeds are those that the defence itself will use, for the only draw there is.

    Raises:
        ValueError: parameters out of range, several draws of a known one, or a number of images
            other than that of the seeds.
        TypeError: where a gradient is wanted and the purifier (``"exact"``) or the detector has
            none.

    Source: A. Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of
    Security", 2018, arXiv 1802.00420.
    Differs: the draws are the same at every step of an attack, so that a score is a function of
    the images; more draws, not more steps, make the average better.
    """

    objective: Objective
    purifier: Purifier | None
    seeds: Seeds
    draws: int = 1
    backward: Literal["identity", "exact"] = "identity"
    detector: Detector | None = None
    threshold: float = 0.0
    weight: float = 1.0
    reference: Images | None = None
    known: bool = False

    def __post_init__(self) -> None:
        if self.known and self.draws > 1:
            raise ValueError(f"draws: expected 1 where it is known, got {self.draws}")
        if self.purifier is None and self.detector is None:
            raise ValueError("expected a purifier or a detector, got neither")
        if self.draws < 1:
            raise ValueError(f"draws: expected >= 1, got {self.draws}")
        if self.backward not in ("identity", "exact"):
            raise ValueError(f"backward: expected identity | exact, got {self.backward!r}")
        if self.weight < 0:
            raise ValueError(f"weight: expected >= 0, got {self.weight}")

    @property
    def threat(self) -> Threat:
        """The threat that an attack on this objective is."""
        return threat_through(self.backward, self.draws)

    @property
    def span(self) -> float:
        """The span of the goal behind the defence, 1 where it has none."""
        return float(getattr(self.objective, "span", 1.0))

    def __call__(self, images: Images) -> Scores:
        """Mean score (n,) over the draws."""
        return mean_over_draws(self, images)

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Score (n,) of one draw of the defence."""
        if len(self.seeds) != len(images):
            raise ValueError(
                f"seeds: expected {len(images)} for as many images, got {len(self.seeds)}"
            )
        seeds = self.seeds if self.known else derive_seeds(self.seeds, f"draw {draw}")
        scores = self.objective(self._purify(images, seeds))
        if self.detector is None:
            return scores
        suspicion = self.detector(images, seeds=seeds, reference=self.reference)
        if images.requires_grad and not suspicion.requires_grad:
            raise TypeError(
                f"expected a detector with a gradient, got {self.detector!r}; "
                "an attack that needs scores only, such as Square, can use it"
            )
        return scores - self.weight * (suspicion - self.threshold).clamp_min(0.0)

    def _purify(self, images: Images, seeds: Seeds) -> Images:
        if self.purifier is None:
            return images
        if self.backward == "exact":
            purified = self.purifier(images, seeds=seeds, reference=self.reference)
            if images.requires_grad and not purified.requires_grad:
                raise TypeError(f"expected a purifier with a gradient, got {self.purifier!r}")
            return purified
        with torch.no_grad():
            purified = self.purifier(images.detach(), seeds=seeds, reference=self.reference)
        through: Images = _Identity.apply(images, purified)
        return through

    def __repr__(self) -> str:
        parts = [repr(self.objective), f"purifier={self.purifier!r}"]
        if self.detector is not None:
            parts.append(
                f"detector={self.detector!r}, threshold={self.threshold}, weight={self.weight}"
            )
        return f"Defended({', '.join(parts)}, draws={self.draws}, backward={self.backward!r})"
