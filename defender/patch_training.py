"""How a patch of cells is fitted: what is kept of it, its steps, and how success is counted."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from defender.adam import Adam
from defender.ensembles import Ensemble
from defender.objectives import Classify, Defended, Misclassify
from defender.patch_penalties import non_printability, total_variation
from defender.types import Images, Objective
from defender.universal import Perturbation

OPTIMIZERS = ("adam", "gradient", "sign")


class Patch(Perturbation):
    """The fitted colours of a patch, known by what they are.

    Args:
        values: theta (c, G, G) in [0, 1]; copied.

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__(values)
        check_theta(self.values, "values")

    def __repr__(self) -> str:
        return f"patch@{self.digest[:12]}"


def check_theta(theta: Tensor, name: str, grid: int | None = None) -> None:
    """Refuse what are no colours of cells.

    Raises:
        ValueError: a shape other than (c, G, G), G other than ``grid``, values outside [0, 1].
    """
    side = theta.shape[-1] if grid is None and theta.ndim else grid
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (side, side):
        raise ValueError(f"{name}: expected (c, {side}, {side}), got {tuple(theta.shape)}")
    if not bool(((theta >= 0) & (theta <= 1)).all()):
        raise ValueError(
            f"{name}: expected values in [0, 1], got [{theta.min():g}, {theta.max():g}]"
        )


@dataclass
class PatchState:
    """Everything that continues the fitting of a patch exactly: plain numbers and tensors only.

    ``first``, ``second`` and ``steps`` are Adam's. ``history`` holds one record an epoch:
    ``loss``, minus the mean objective of the images with the patch of the moment, before the
    step; ``success``, the share of them that were classified as wanted; ``total_variation`` and,
    of 1 or 3 channels, ``non_printability`` of theta after the epoch. ``snapshots`` holds theta
    after the epochs ``snapshot_epochs``, of which 0 is the start. ``rivals`` holds the states, as
    plain containers and the better ones first, of what was begun from other starts and is still
    in the running; this one had the lowest loss.
    """

    epoch: int = 0
    theta: Tensor = field(default_factory=lambda: torch.zeros(0))
    first: Tensor = field(default_factory=lambda: torch.zeros(0))
    second: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: list[Tensor] = field(default_factory=list)
    snapshot_epochs: list[int] = field(default_factory=list)
    rivals: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, fit for ``torch.save`` and a weights-only load."""
        return dict(vars(self))

    @classmethod
    def beginning(cls, theta: Tensor) -> PatchState:
        """The state before the first epoch."""
        nought = torch.zeros_like(theta)
        return cls(0, theta, nought, nought.clone(), 0, [], [theta.clone()], [0])

    @property
    def result(self) -> dict[str, Tensor]:
        """What the fitting is for."""
        return {"theta": self.theta}

    @property
    def patch(self) -> Patch:
        """Theta as an artefact."""
        return Patch(self.theta)


def is_snapshot(epoch: int) -> bool:
    """Whether theta is kept after so many epochs: 0, and powers of the root of 2, rounded."""
    return epoch == 0 or any(
        round(2 ** (k / 2)) == epoch for k in range(2 * epoch.bit_length() + 1)
    )


STEPS_OF_ROUND = 50
"""Steps after which the worse half of what was begun from several starts is given up."""


def survivors(starts: int, steps: int) -> int:
    """How many of several starts are still in the running after so many steps of each."""
    return max(1, math.ceil(starts / (1 << steps // STEPS_OF_ROUND)))


class Ascent:
    """An epoch of steps of theta upwards along gradients, clipped to [0, 1]; continues a state.

    * ``adam``: Adam's step.
    * ``gradient``: ``step_size * gradient``.
    * ``sign``: ``step_size * sign(gradient)``.
    """

    def __init__(self, optimizer: str, step_size: float, state: PatchState) -> None:
        self.optimizer = optimizer
        self.step_size = step_size
        self.state = state
        self.theta = state.theta.clone()
        self.adam = Adam(self.theta, step_size)
        self.adam.first, self.adam.second = state.first.clone(), state.second.clone()
        self.adam.steps = state.steps
        self._losses: list[float] = []
        self._met = 0.0

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Change theta in place; a gradient that is not finite counts as 0."""
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        if self.optimizer == "adam":
            self.theta.sub_(self.adam.step(-gradient))
        else:
            self.adam.steps += 1
            way = gradient.sign() if self.optimizer == "sign" else gradient
            self.theta.add_(way, alpha=self.step_size)
        self.theta.clamp_(0.0, 1.0)

    def note(self, scores: Tensor, met: float) -> None:
        """Keep the scores (n,) of a batch, and how many of its images met the objective."""
        self._losses += [-score for score in scores.tolist()]
        self._met += met

    @property
    def late_loss(self) -> float:
        """Mean loss over the second half of the images, by which starts are compared."""
        late = self._losses[len(self._losses) // 2 :]
        mean = math.fsum(late) / len(late)
        return mean if math.isfinite(mean) else math.inf

    def after(self) -> PatchState:
        """The state after the epoch, without rivals."""
        state, epoch, theta = self.state, self.state.epoch + 1, self.theta
        record = {
            "loss": math.fsum(self._losses) / len(self._losses),
            "success": self._met / len(self._losses),
            "total_variation": float(total_variation(theta)),
        }
        if len(theta) in (1, 3):
            record["non_printability"] = float(non_printability(theta))
        kept = [theta.clone()] if is_snapshot(epoch) else []
        return PatchState(
            epoch,
            theta,
            self.adam.first,
            self.adam.second,
            self.adam.steps,
            [*state.history, record],
            [*state.snapshots, *kept],
            [*state.snapshot_epochs, *([epoch] if kept else [])],
        )


def selected(ascents: list[Ascent], starts: int) -> PatchState:
    """The state of the best of several starts after an epoch, the others of the better half in it.

    Args:
        ascents: the epoch of each of those in the running, at least one.
        starts: how many there were at the beginning.
    """
    ranked = [one.after() for one in sorted(ascents, key=lambda one: one.late_loss)]
    best, *others = ranked[: survivors(starts, ranked[0].steps)]
    return dataclasses.replace(best, rivals=[other.as_dict() for other in others])


class _Watched:
    """A classifier whose last answer is kept, so that success is counted without asking again."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.training = bool(getattr(model, "training", False))
        self.predicted = torch.zeros(0, dtype=torch.int64)

    def __call__(self, images: Images) -> Tensor:
        logits: Tensor = self.model(images)
        self.predicted = logits.detach().argmax(dim=1)
        return logits

    def __repr__(self) -> str:
        return repr(self.model)


class Watch:
    """An objective, and how many images met it the last time that it was asked.

    Of :class:`Misclassify` and :class:`Classify`, also behind a defence, an image meets it whose
    predicted class is another than its label, or the wanted one; of an ensemble of them the
    counts are averaged; of any other objective, an image meets it whose score is above 0.

    Args:
        objective: what an attack on images should raise.
    """

    def __init__(self, objective: Objective) -> None:
        self._members: list[tuple[_Watched, Tensor, bool]] = []
        self.objective = self._watched(objective)

    def _watched(self, objective: Any) -> Any:
        if isinstance(objective, Defended):
            return dataclasses.replace(objective, objective=self._watched(objective.objective))
        if isinstance(objective, Ensemble):
            return Ensemble(tuple(map(self._watched, objective.objectives)))
        if isinstance(objective, Misclassify | Classify):
            model, targeted = _Watched(objective.model), isinstance(objective, Classify)
            classes = objective.targets if isinstance(objective, Classify) else objective.labels
            self._members.append((model, classes, targeted))
            return dataclasses.replace(objective, model=model)
        return objective

    def successes(self, scores: Tensor) -> float:
        """Number of images that met the objective, whose scores (n,) were the last ones."""
        if not self._members:
            return float((scores > 0).sum())
        met = [
            float(((model.predicted == classes) == targeted).sum())
            for model, classes, targeted in self._members
        ]
        return math.fsum(met) / len(met)
