"""Auto-PGD: projected gradient ascent with momentum and a step size that adapts to each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.attacks.fresh_draws import redrawn
from defender.attacks.norm_ball import NormBall
from defender.gradients import check_finite, value_and_gradient
from defender.margins import margin
from defender.noise import derive_seeds
from defender.norms import ascend_, project_, random_start
from defender.objectives import Misclassify
from defender.objectives_logits import (
    TargetedDLR,
    classifying_goal,
    ranked_targets,
    with_dlr,
    with_goal,
)
from defender.types import Images, Objective, Scores, Seeds, Threat, parameter

_IMPROVING = 0.75
"""Least share of the steps of a period that must improve, or the step is halved."""
_KEPT = 0.75
"""Share of the gradient step in an update; the rest repeats the update before."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Steps after which the step size is looked at: 8, 15, 21, 26, 30, 33, 35, 37, 39 of 40.

    The first period has ``int(0.22 steps)`` steps, the next ones ``int(0.03 steps)`` fewer each,
    down to ``int(0.06 steps)``, and none of these numbers is below 1.

    Args:
        steps: number of steps, >= 0.

    Returns:
        Numbers of steps that are done, in order, all below ``steps``.
    """
    period, least, shrinking = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    places, place = list[int](), period
    while place < steps:
        places.append(place)
        period = max(period - shrinking, least)
        place += period
    return tuple(places)


@dataclass(frozen=True)
class APGD(NormBall):
    """Steepest ascent with momentum, the steps halved where they no longer improve.

    With s the steepest direction of the norm, P the projection to the ball and to [0, 1] and
    ``eta = 2 epsilon`` at the start,
    ``z = P(x_k + eta s(g_k));  x_{k+1} = P(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))``,
    the first step being ``z``. At each of the :func:`checkpoints` an image halves its eta and goes
    back to its best point if fewer than 75 % of the steps since the last one improved its score, or
    if neither its best score nor its eta changed since then. The result is the best point of all.

    Args:
        epsilon: radius of the ball in the norm, in [0, 1] units; an l2 radius is that of the
            whole image and may exceed 1.
        steps: number of steps of each start; 0 returns the images.
        norm: ``"linf"`` or ``"l2"``.
        restarts: number of starts, all of them random.
        loss: what climbs. ``"objective"``: whatever the objective is. ``"ce"``: the same, of a
            classifier only. ``"dlr"``: the difference of logits ratio with the objective's aim.
            ``"dlr-targeted"``: that ratio towards each of ``target_classes`` in turn; an image
            keeps the first result that reaches its aim, or else the one nearest to it.
        target_classes: number of classes of ``"dlr-targeted"``, those with the largest logits
            besides the label; at most as many as there are. A targeted objective has its one class.
        eot: gradient samples in each step for each draw of a defended objective, all of them new
            draws at every step. 0 keeps the objective's own draws, the same at every step. An
            objective without a defence, or whose defence is not random, has the same gradient in
            every sample: leave this at 0 or 1 then, more is time wasted.

    Raises:
        TypeError: an objective without a gradient, or one that is not about a classifier where
            the loss asks for logits.
        ValueError: fewer than 3 classes with ``"dlr"``, fewer than 4 with ``"dlr-targeted"``.
        FloatingPointError: a gradient that is not finite.

    Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", 2020, arXiv 2003.01690, algorithm 1.
    Differs: a start is uniform in the ball, where the authors' code scales it to the surface; an
    image stays at its best score also where another iterate reaches the aim; with several samples
    its score is their mean, where the code takes the last one's; classes to aim at are those of
    the undefended classifier. Halving follows the paper, from which the authors' code strays: it
    halves at exactly 75 % too, compares the first step with 0 and not with the start, and the
    first after a return with the point left behind.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of "
        "diverse parameter-free attacks, 2020, arXiv 2003.01690"
    )
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"

    epsilon: float = parameter(doc="radius of the ball in the norm", low=0, unit="[0, 1] intensity")
    steps: int = parameter(40, doc="number of gradient steps of each start", low=0)
    norm: str = parameter("linf", doc="norm of the ball", choices=("linf", "l2"))
    restarts: int = parameter(1, doc="number of random starts", low=1)
    loss: str = parameter(
        "objective", doc="what climbs", choices=("objective", "ce", "dlr", "dlr-targeted")
    )
    target_classes: int = parameter(9, doc="number of classes of dlr-targeted", low=1)
    eot: int = parameter(1, doc="new draws of a random defence in each step; 0 redraws none", low=0)

    @property
    def draws_per_step(self) -> int:
        """Draws of a random defence that a step averages over, for each of the objective's own."""
        return max(1, self.eot)

    @property
    def needs(self) -> str:
        """What it asks of an objective: a ``"score"`` with a gradient, or ``"logits"``."""
        return "score" if self.loss == "objective" else "logits"

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: what to raise.
            seeds: int64 (n,); the random starts are drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        if self.steps == 0:
            return images.clone()
        if self.loss == "objective":
            return self._best(images, objective, seeds)
        goal = classifying_goal(objective, f"APGD with loss {self.loss!r}")
        if self.loss == "ce":
            return self._best(images, objective, seeds)
        if self.loss == "dlr" or not isinstance(goal, Misclassify):
            return self._best(images, with_dlr(objective), seeds)
        return self._targeted(images, objective, goal, seeds)

    def _targeted(
        self, images: Images, objective: Objective, goal: Misclassify, seeds: Seeds
    ) -> Images:
        best, best_margins = images, margin(objective, images).new_full((len(images),), -torch.inf)
        for rank, targets in enumerate(ranked_targets(goal, images, self.target_classes)):
            towards = with_goal(objective, TargetedDLR(goal.model, targets, goal.labels))
            found = self._best(images, towards, derive_seeds(seeds, f"target {rank}"))
            margins = margin(objective, found)
            better = (best_margins <= 0) & (margins > best_margins)
            best = torch.where(better.view(-1, 1, 1, 1), found, best)
            best_margins = torch.where(better, margins, best_margins)
            if (best_margins > 0).all():
                break
        return best

    def _best(self, images: Images, objective: Objective, seeds: Seeds) -> Images:
        """The best point of all starts."""
        total = images.new_zeros(())

        def climbing(offset: int) -> Callable[[Images, int], tuple[Scores, Tensor]]:
            def evaluate(attacked: Images, done: int) -> tuple[Scores, Tensor]:
                drawn = redrawn(objective, offset + done, self.eot)
                scores, gradients = value_and_gradient(drawn, attacked, check=False)
                total.add_(gradients.sum())
                return scores, gradients

            return evaluate

        best, best_scores = images, images.new_empty(0)
        for restart in range(self.restarts):
            keys = derive_seeds(seeds, f"restart {restart}")
            start = random_start(images, self.epsilon, self.norm, keys)
            found, scores = climb(images, start, climbing(restart * (self.steps + 1)), self)
            if restart == 0:
                best, best_scores = found, scores
                continue
            better = scores > best_scores
            best = torch.where(better.view(-1, 1, 1, 1), found, best)
            best_scores = torch.where(better, scores, best_scores)
        check_finite(total, objective)
        return best


def climb(
    images: Images,
    start: Images,
    evaluate: Callable[[Images, int], tuple[Scores, Tensor]],
    attack: APGD,
) -> tuple[Images, Scores]:
    """One start of :class:`APGD`.

    Args:
        images: (n, c, h, w) in [0, 1], the centres of the balls.
        start: (n, c, h, w) inside of the balls; overwritten.
        evaluate: gives scores (n,) and gradients (n, c, h, w) of images; it is also told how many
            steps are done, 0 to ``attack.steps``.
        attack: with its epsilon, norm and steps.

    Returns:
        The points (n, c, h, w) that scored most, and their scores (n,).
    """
    places, last = set(checkpoints(attack.steps)), 0
    x, before = start, start
    scores, gradients = evaluate(x, 0)
    best, best_scores, best_gradients = x.clone(), scores.clone(), gradients.clone()
    steps = scores.new_full((len(images), 1, 1, 1), 2 * attack.epsilon)
    rises, record = torch.zeros_like(scores), best_scores.clone()
    halved = torch.zeros_like(scores, dtype=torch.bool)
    for done in range(1, attack.steps + 1):
        direction = ascend_(torch.zeros_like(x), gradients, 1.0, attack.norm)
        target = project_(x + steps.to(x) * direction, images, attack.epsilon, attack.norm)
        if done > 1:
            target = x + _KEPT * (target - x) + (1 - _KEPT) * (x - before)
            project_(target, images, attack.epsilon, attack.norm)
        before, x, previous = x, target, scores
        scores, gradients = evaluate(x, done)
        rises += scores > previous
        better = scores > best_scores
        at = better.view(-1, 1, 1, 1)
        best, best_gradients = torch.where(at, x, best), torch.where(at, gradients, best_gradients)
        best_scores = torch.where(better, scores, best_scores)
        if done in places:
            halved = (rises < _IMPROVING * (done - last)) | (~halved & (best_scores == record))
            at = halved.view(-1, 1, 1, 1)
            steps = torch.where(at, steps / 2, steps)
            x, gradients = torch.where(at, best, x), torch.where(at, best_gradients, gradients)
            scores = torch.where(halved, best_scores, scores)
            rises, record, last = torch.zeros_like(rises), best_scores.clone(), done
    return best, best_scores
