"""The fast adaptive boundary attack: the smallest change that reaches the aim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.attacks.norm_ball import NormBall
from defender.attacks.storing import lasting
from defender.gradients import check_finite, value_and_gradient
from defender.hyperplane import step_to_plane
from defender.margins import Margin, margin
from defender.noise import derive_seeds
from defender.norms import lengths, project_, random_start
from defender.objectives import Misclassify
from defender.objectives_logits import LogitDifference, goal_of, ranked_targets, with_goal
from defender.types import Images, Objective, Scores, Seeds, Threat, parameter

_LEAST = 1e-8
"""Length of a step below which its share is not told from the other's."""


@dataclass(frozen=True)
class FAB(NormBall):
    """Steps onto the linearised decision boundary, drawn towards the clean image.

    At a point x the boundaries ``f_j = 0`` are linear with the gradients g_j, and the nearest one
    counts, that of least ``|f_j| / ||g_j||_dual``. With d and d0 the smallest changes that bring x
    and the clean image x0 onto it within [0, 1], ``a = min(|d| / (|d| + |d0|), alpha)``,
    ``x <- clip((1 - a) (x + overshoot d) + a (x0 + overshoot d0))``. A point that reaches the aim
    is kept if its change is the smallest so far, and the next step begins at
    ``x0 + back (x - x0)``. Images that have reached their aim already stay as they are.

    Args:
        epsilon: largest change in the norm, in [0, 1] units. A smallest change that is longer is
            cut to the ball and misses its aim. An l2 radius may exceed 1.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps of each start; 0 returns the images.
        restarts: number of starts: the image itself, then random points within half the radius.
        target_classes: number of classes to try one after the other in misclassification (FAB-T),
            those with the largest logits besides the label, at most as many as there are; 0 has the
            boundaries to all other classes at once, a gradient for each class and step. Other
            objectives have one boundary, where their margin is 0.
        alpha: largest share of the step from the clean image.
        overshoot: how far beyond the boundary steps go, relative to their length.
        back: share of a change that is kept after a success.
        stored: lengthen results, if need be, until they reach the aim also when they are stored
            with 8 bits, which takes short changes away.

    Raises:
        TypeError: an objective without a gradient or without a notion of success.
        FloatingPointError: a gradient that is not finite.
        ValueError: images that are not multiples of 1/255 where results are to be stored.

    Source: F. Croce, M. Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack", 2020, arXiv 1907.02044, algorithm 1; the targeted version and defaults as in
    their "Reliable evaluation of adversarial robustness", 2020, arXiv 2003.01690.
    Differs: random starts are uniform in the ball, whose radius is half of epsilon also where a
    smaller change is known; no search between the result and the image at the end, but a
    longer change where rounding would take it back.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce, M. Hein, Minimally distorted Adversarial Examples with a Fast Adaptive "
        "Boundary Attack, 2020, arXiv 1907.02044"
    )
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"
    needs: ClassVar[str] = "margin"

    epsilon: float = parameter(doc="largest change in the norm", low=0, unit="[0, 1] intensity")
    norm: str = parameter("linf", doc="norm of the change", choices=("linf", "l2"))
    steps: int = parameter(100, doc="number of gradient steps of each start", low=0)
    restarts: int = parameter(1, doc="number of starts", low=1)
    target_classes: int = parameter(
        9, doc="number of classes tried in turn; 0 for all at once", low=0
    )
    alpha: float = parameter(
        0.1, doc="largest share of the step from the clean image", low=0, high=1
    )
    overshoot: float = parameter(1.05, doc="length of a step to the boundary", low=1)
    back: float = parameter(0.9, doc="share of a change kept after a success", low=0, high=1)
    stored: bool = parameter(True, doc="results reach the aim when stored with 8 bits")

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: whose aim to reach.
            seeds: int64 (n,); random starts are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        if self.steps == 0:
            return images.clone()
        done = margin(objective, images) > 0
        best, shortest = images.clone(), images.new_full((len(images),), torch.inf)
        total = images.new_zeros(())
        for number, boundaries in enumerate(self._boundaries(images, objective)):
            for restart in range(self.restarts):
                start = images.clone()
                if restart:
                    keys = derive_seeds(seeds, f"boundary {number}, restart {restart}")
                    start = random_start(images, self.epsilon / 2, self.norm, keys)
                self._search(images, start, objective, boundaries, best, shortest, total)
        check_finite(total, objective)
        best = torch.where(done.view(-1, 1, 1, 1), images, best)
        project_(best, images, self.epsilon, self.norm)
        return lasting(best, images, objective, self.norm, self.epsilon) if self.stored else best

    def _boundaries(self, images: Images, objective: Objective) -> list[list[Objective]]:
        """Objectives that are 0 on the boundaries of each search, and above 0 behind them."""
        goal = goal_of(objective)
        if not isinstance(goal, Misclassify):
            return [[Margin(objective)]]
        classes = goal.model(images[:1]).shape[1] if len(images) else 0
        ranked = ranked_targets(goal, images, self.target_classes or classes)
        to_each = [
            with_goal(objective, LogitDifference(goal.model, targets, goal.labels))
            for targets in ranked
        ]
        return [[boundary] for boundary in to_each] if self.target_classes else [to_each]

    def _search(
        self,
        images: Images,
        x: Images,
        objective: Objective,
        boundaries: Sequence[Objective],
        best: Images,
        shortest: Scores,
        total: Tensor,
    ) -> None:
        """One start x; changes ``best`` and ``shortest`` in place, adds gradients to ``total``."""
        for _ in range(self.steps):
            values, slopes = self._nearest(x, boundaries)
            total += slopes.sum()
            change = step_to_plane(x, slopes, values, self.norm)
            from_clean = values + (slopes * (images - x)).sum(dim=(1, 2, 3))
            clean_change = step_to_plane(images, slopes, from_clean, self.norm)
            near = self.length(change).clamp_min_(_LEAST)
            far = self.length(clean_change).clamp_min_(_LEAST)
            share = (near / (near + far)).clamp_max_(self.alpha).view(-1, 1, 1, 1)
            x = (x + self.overshoot * change) * (1 - share)
            x = x + (images + self.overshoot * clean_change) * share
            x = x.clamp_(0.0, 1.0)
            reached, length = margin(objective, x) > 0, self.length(x - images)
            better = reached & (length < shortest)
            best.copy_(torch.where(better.view(-1, 1, 1, 1), x, best))
            shortest.copy_(torch.where(better, length, shortest))
            x = torch.where(reached.view(-1, 1, 1, 1), images + self.back * (x - images), x)

    def _nearest(self, x: Images, boundaries: Sequence[Objective]) -> tuple[Scores, Tensor]:
        """Value (n,) and gradient (n, c, h, w) of the boundary that is nearest to each image."""
        values, slopes = value_and_gradient(boundaries[0], x, check=False)
        if len(boundaries) == 1:
            return values, slopes
        least = self._distance(values, slopes)
        for boundary in boundaries[1:]:
            value, slope = value_and_gradient(boundary, x, check=False)
            distance = self._distance(value, slope)
            # also where it is not a number, so that it is noticed
            nearer = ~(distance >= least)
            values, least = torch.where(nearer, value, values), torch.where(nearer, distance, least)
            slopes = torch.where(nearer.view(-1, 1, 1, 1), slope, slopes)
        return values, slopes

    def _distance(self, values: Scores, slopes: Tensor) -> Scores:
        """Distance (n,) to the plane where a linear function is 0, bounds left aside."""
        dual = slopes.abs().sum(dim=(1, 2, 3)) if self.norm == "linf" else lengths(slopes)
        return values.abs() / dual.clamp_min(torch.finfo(dual.dtype).tiny)

    def length(self, change: Tensor) -> Scores:
        """Norm (n,) of changes (n, c, h, w)."""
        return change.abs().amax(dim=(1, 2, 3)) if self.norm == "linf" else lengths(change)
