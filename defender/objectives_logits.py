"""Other losses on the logits of a classifier, and putting one in the place of the goal's own.

They have the same aim as :class:`defender.objectives.Misclassify` and
:class:`defender.objectives.Classify`, and other gradients: the cross-entropy's vanishes where a
model is sure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from defender.gradients import ordinary
from defender.objectives import Classifier, Classify, Defended, Misclassify
from defender.types import Images, Objective, Scores


def logits_of(model: Classifier, images: Images, classes: Tensor) -> Tensor:
    """Logits of images whose classes are to be looked up in them.

    Args:
        model: maps images (n, c, h, w) in [0, 1] to logits (n, k); in evaluation mode.
        images: (n, c, h, w).
        classes: int64 (n,), each below k.

    Returns:
        (n, k).

    Raises:
        ValueError: when there is not one class an image, a class that the model does not have,
            or a model in training mode, whose batch statistics would mix the images.
    """
    if len(classes) != len(images):
        raise ValueError(f"expected {len(images)} labels for as many images, got {len(classes)}")
    if getattr(model, "training", False):
        raise ValueError(f"expected {model!r} in evaluation mode, got training mode")
    logits = model(images)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"expected logits ({len(images)}, classes), got {tuple(logits.shape)} from {model!r}"
        )
    if len(classes) and int(classes.max()) >= logits.shape[1]:
        raise ValueError(
            f"expected classes below {logits.shape[1]} of {model!r}, got {int(classes.max())}"
        )
    return logits


def of_class(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit (n,) of one class an image."""
    return logits.gather(1, ordinary(classes).unsqueeze(1)).squeeze(1)


def best_other(logits: Tensor, classes: Tensor) -> Tensor:
    """The largest logit (n,) among all classes but the given one of each image.

    Raises:
        ValueError: fewer than 2 classes.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"expected >= 2 classes, got {logits.shape[1]}")
    left_out = torch.zeros_like(logits, dtype=torch.bool)
    left_out.scatter_(1, ordinary(classes).unsqueeze(1), True)
    return logits.masked_fill(left_out, -torch.inf).amax(dim=1)


def _ratio(difference: Tensor, scale: Tensor) -> Tensor:
    """Difference over scale; 0 / 0, where the leading classes are equal, is 0."""
    return difference / scale.clamp_min(torch.finfo(scale.dtype).tiny)


@dataclass(frozen=True, eq=False)
class DLR:
    """Difference of logits ratio: the margin to misclassification, free of the logits' scale.

    ``(max_{j != y} z_j - z_y) / (z_(1) - z_(3))`` with ``z_(1) >= z_(2) >= ...`` the sorted logits;
    above 0 exactly where the image is misclassified, and at most 1.

    Args:
        model: maps images in [0, 1] to at least 3 logits.
        labels: int64 (n,), the true label of each image.

    Raises:
        ValueError: when called, a model of fewer than 3 classes, or a number of images other than
            that of the labels.

    Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", 2020, arXiv 2003.01690, equation 6.
    Differs: where the three leading classes are equal the ratio is 0 and not 0 / 0.
    """

    model: Classifier
    labels: Tensor = dataclasses.field(repr=False)

    def __call__(self, images: Images) -> Scores:
        """The ratio (n,), <= 1."""
        logits = logits_of(self.model, images, self.labels)
        if logits.shape[1] < 3:
            raise ValueError(
                f"DLR: expected a model of >= 3 classes, got {logits.shape[1]} of {self.model!r}"
            )
        leading = logits.topk(3, dim=1).values
        difference = best_other(logits, self.labels) - of_class(logits, self.labels)
        return _ratio(difference, leading[:, 0] - leading[:, 2])


@dataclass(frozen=True, eq=False)
class TargetedDLR:
    """Difference of logits ratio towards a class: ``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)``.

    Args:
        model: maps images in [0, 1] to at least 4 logits.
        targets: int64 (n,), the wanted class t of each image.
        labels: int64 (n,), the class y to leave; None for the best class other than t, with
            which the ratio is above 0 exactly where t is predicted.

    Raises:
        ValueError: when called, a model of fewer than 4 classes, or a number of images other than
            that of the targets.

    Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", 2020, arXiv 2003.01690, equation 7.
    Differs: may be asked without a class to leave; where the four leading classes are equal the
    ratio is 0 and not 0 / 0.
    """

    model: Classifier
    targets: Tensor = dataclasses.field(repr=False)
    labels: Tensor | None = dataclasses.field(default=None, repr=False)

    def __call__(self, images: Images) -> Scores:
        """The ratio (n,)."""
        logits = logits_of(self.model, images, self.targets)
        if logits.shape[1] < 4:
            raise ValueError(
                f"TargetedDLR: expected a model of >= 4 classes, got {logits.shape[1]} of "
                f"{self.model!r}"
            )
        leading = logits.topk(4, dim=1).values
        left = (
            best_other(logits, self.targets)
            if self.labels is None
            else of_class(logits, self.labels)
        )
        scale = leading[:, 0] - (leading[:, 2] + leading[:, 3]) / 2
        return _ratio(of_class(logits, self.targets) - left, scale)


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """How far one class is ahead of another: ``z_t - z_y``.

    Args:
        model: maps images in [0, 1] to logits.
        targets: int64 (n,), the class t of each image.
        labels: int64 (n,), the class y of each image.

    Raises:
        ValueError: when called, a number of images other than that of the labels.
    """

    model: Classifier
    targets: Tensor = dataclasses.field(repr=False)
    labels: Tensor = dataclasses.field(repr=False)

    def __call__(self, images: Images) -> Scores:
        """The difference (n,)."""
        logits = logits_of(self.model, images, self.labels)
        return of_class(logits, self.targets) - of_class(logits, self.labels)


def goal_of(objective: Objective) -> Objective:
    """What is wanted behind all defences: the objective itself where there are none."""
    while isinstance(objective, Defended):
        objective = objective.objective
    return objective


def with_goal(objective: Objective, goal: Objective) -> Objective:
    """Another goal behind the same defences.

    Args:
        objective: with or without defences around its goal.
        goal: what takes the place of the goal.

    Returns:
        ``goal``, inside copies of the :class:`defender.objectives.Defended` around the old one.
    """
    if isinstance(objective, Defended):
        return dataclasses.replace(objective, objective=with_goal(objective.objective, goal))
    return goal


def classifying_goal(objective: Objective, asker: str) -> Misclassify | Classify:
    """The goal behind all defences, which must be about the logits of a classifier.

    Args:
        objective: what an attack was given.
        asker: what needs logits, for the message.

    Raises:
        TypeError: where the goal is another one, naming both.
    """
    goal = goal_of(objective)
    if not isinstance(goal, (Misclassify, Classify)):
        raise TypeError(f"{asker}: expected an objective on a classifier, got {objective!r}")
    return goal


def with_dlr(objective: Objective, asker: str = "DLR") -> Objective:
    """The same aim with the difference of logits ratio as its loss, behind the same defences.

    Args:
        objective: misclassification, which becomes :class:`DLR`, or classification as a target,
            which becomes :class:`TargetedDLR`.
        asker: what needs the loss, for the message.

    Raises:
        TypeError: an objective that is not about a classifier.
    """
    goal = classifying_goal(objective, asker)
    if isinstance(goal, Misclassify):
        return with_goal(objective, DLR(goal.model, goal.labels))
    return with_goal(objective, TargetedDLR(goal.model, goal.targets))


@torch.no_grad()
def ranked_targets(goal: Misclassify, images: Images, count: int) -> Tensor:
    """The classes other than the label that the classifier likes most, best first.

    Args:
        goal: whose classifier is asked, without any defence before it.
        images: (n, c, h, w) in [0, 1].
        count: number of classes wanted, at most.

    Returns:
        int64 (count, n) or, where the model has fewer other classes, (classes - 1, n).

    Raises:
        ValueError: a number of images other than that of the labels.
    """
    logits = logits_of(goal.model, images, goal.labels).clone()
    logits.scatter_(1, goal.labels.unsqueeze(1), -torch.inf)
    # stable, so that equal logits have one order on every machine
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :-1]
    return order[:, :count].T.contiguous()
