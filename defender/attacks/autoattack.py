"""AutoAttack: several attacks of different kinds without parameters to tune, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from defender.attacks.apgd import APGD
from defender.attacks.fab import FAB
from defender.attacks.norm_ball import NormBall
from defender.attacks.square import Square
from defender.margins import Margin, margin
from defender.noise import derive_seeds
from defender.norms import from_uint8, quantise_within
from defender.objectives import Classify, Misclassify
from defender.objectives_logits import goal_of
from defender.types import Attack, Images, Objective, Seeds, Threat, parameter


@dataclass(frozen=True)
class AutoAttack(NormBall):
    """The first of several attacks that reaches the aim, for each image.

    ``"standard"`` has APGD on the cross-entropy, targeted APGD on the difference of logits ratio
    (DLR) towards ``target_classes``, targeted FAB, and Square on the margin. ``"rand"``, for
    defences that are random, has APGD on the cross-entropy and on the DLR, each with ``eot`` draws
    of the defence a step that no other step has. An image that a member breaks is left to it; one
    that is misclassified from the start stays as it is; one that none breaks has the result of
    largest margin.

    What is not defined is left out or replaced: where DLR has too few classes (below 4 towards a
    class, below 3 otherwise), APGD climbs the untargeted DLR, or with 2 classes the margin.
    Classification as a target has its one class. Objectives that are not about a classifier but
    have a margin, such as impersonation with a threshold, have one APGD on their score, FAB and
    Square. There is no Square in the l2 ball.

    Whether the aim is reached is judged by the margin, which for a random defence is the mean over
    the objective's own draws: give ``through`` several, or one unlucky draw counts as a success.

    Args:
        epsilon: radius of the ball in the norm, in [0, 1] units; an l2 radius may exceed 1.
        norm: ``"linf"`` or ``"l2"``.
        variant: ``"standard"`` or ``"rand"``.
        steps: gradient steps of each APGD and FAB.
        target_classes: classes that targeted APGD and FAB try.
        queries: scores that Square asks for.
        eot: draws of the defence in each step of ``"rand"``, for each draw of the objective.
        stored: judge results as they are stored with 8 bits, which takes short changes away.

    Raises:
        TypeError: an objective without a gradient or without a notion of success.
        FloatingPointError: a gradient that is not finite.
        ValueError: images that are not multiples of 1/255 where results are to be stored.

    Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", 2020, arXiv 2003.01690.
    Differs: a member runs on the whole batch while any of its images is left, since a smaller
    batch has other roundings, and an image's result would depend on its batch mates; APGD keeps
    the point of largest loss, not any that is misclassified; results are judged as stored; Square
    uses all queries; images that stay unbroken are not given back clean; no Square in the l2 ball.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of "
        "diverse parameter-free attacks, 2020, arXiv 2003.01690"
    )
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"
    needs: ClassVar[str] = "margin"

    epsilon: float = parameter(doc="radius of the ball in the norm", low=0, unit="[0, 1] intensity")
    norm: str = parameter("linf", doc="norm of the ball", choices=("linf", "l2"))
    variant: str = parameter("standard", doc="which attacks", choices=("standard", "rand"))
    steps: int = parameter(100, doc="gradient steps of each APGD and FAB", low=0)
    target_classes: int = parameter(9, doc="classes that targeted APGD and FAB try", low=1)
    queries: int = parameter(5000, doc="scores that Square asks for", low=0)
    eot: int = parameter(20, doc="new draws of a random defence in each step of rand", low=1)
    stored: bool = parameter(True, doc="results are judged as stored with 8 bits")

    @property
    def draws_per_step(self) -> int:
        """Draws of a random defence that a step averages over, for each of the objective's own."""
        return self.eot if self.variant == "rand" else 1

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: whose aim to reach.
            seeds: int64 (n,); all randomness is drawn from them.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        best, margins = images.clone(), margin(objective, images)
        for name, member, target in self.members(images, objective):
            if (margins > 0).all():
                break
            found = member(images, target, seeds=derive_seeds(seeds, name))
            reached = margin(objective, self._kept(found, images))
            better = (margins <= 0) & (reached > margins)
            best = torch.where(better.view(-1, 1, 1, 1), found, best)
            margins = torch.where(better, reached, margins)
        return best

    def _kept(self, found: Images, images: Images) -> Images:
        """What is left of a result when it is stored."""
        if not self.stored:
            return found
        pixels = quantise_within(found, images, norm=self.norm, epsilon=self.epsilon)
        return from_uint8(pixels).to(images)

    def members(
        self, images: Images, objective: Objective
    ) -> Iterator[tuple[str, Attack, Objective]]:
        """The attacks in order: a name, the attack, and what it is to climb.

        Args:
            images: (n, c, h, w) in [0, 1], n >= 1, of which the classifier is asked how many
                classes it has.
            objective: whose aim to reach.
        """
        goal = goal_of(objective)
        eot = self.draws_per_step
        yield "apgd", APGD(self.epsilon, self.steps, self.norm, eot=eot), objective
        if isinstance(goal, (Misclassify, Classify)):
            classes = goal.model(images[:1]).shape[1]
            loss = "dlr"
            if self.variant == "standard" and isinstance(goal, Misclassify) and classes >= 4:
                loss = "dlr-targeted"
            if classes < (3 if isinstance(goal, Misclassify) else 4):
                climber = APGD(self.epsilon, self.steps, self.norm, eot=eot)
                yield "apgd-margin", climber, Margin(objective)
            else:
                climber = APGD(
                    self.epsilon,
                    self.steps,
                    self.norm,
                    1,
                    loss,
                    target_classes=self.target_classes,
                    eot=eot,
                )
                yield f"apgd-{loss}", climber, objective
        if self.variant == "rand":
            return
        fab = FAB(
            self.epsilon,
            self.norm,
            self.steps,
            target_classes=self.target_classes,
            stored=self.stored,
        )
        yield "fab", fab, objective
        if self.norm == "linf":
            yield "square", Square(self.epsilon, self.queries), Margin(objective)
