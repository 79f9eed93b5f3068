"""The attack of Carlini and Wagner: a small l2 change by Adam, behind a change of variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.adam import Adam
from defender.attacks.storing import lasting
from defender.gradients import check_finite, value_and_gradient
from defender.margins import Margin, margin
from defender.norms import lengths, project_
from defender.types import (
    Budget,
    Images,
    Objective,
    Scores,
    Seeds,
    Threat,
    check_parameters,
    parameter,
)

_INSIDE = 1 - 1e-6
"""Share of [-1, 1] in which the variables begin, so that they are finite."""


@dataclass(frozen=True)
class CarliniWagner:
    """Adam on the squared length of the change plus a multiple of what the margin lacks.

    Minimises ``||x' - x||_2^2 + c max(confidence - margin(x'), 0)`` over w with
    ``x' = (tanh(w) + 1) / 2``. The multiple c of each image is searched for: ten times as large
    after a failure until one succeeds, then halfway between the largest that failed and the
    smallest that did not. The result is the shortest change of all that reached the aim with the
    confidence. Images that have reached their aim already stay as they are.

    Args:
        epsilon: largest l2 change of an image, in [0, 1] units. A shortest change that is longer
            is cut to it and misses its aim.
        steps: Adam steps for each c; 0 returns the images.
        searches: number of values of c.
        step_size: of Adam, in units of w.
        constant: the first c.
        confidence: margin that a result must have, in units of the objective's margin: of logits
            for a classifier, of similarity for a face.
        stored: lengthen results, if need be, until they reach the aim also when they are stored
            with 8 bits, which takes short changes away.

    Raises:
        TypeError: an objective without a gradient or without a notion of success.
        FloatingPointError: a gradient that is not finite.
        ValueError: images that are not multiples of 1/255 where results are to be stored.

    Source: N. Carlini, D. Wagner, "Towards Evaluating the Robustness of Neural Networks", 2017,
    arXiv 1608.04644, section V.
    Differs: the margin takes the place of f_6, which is its negative; no search for c is given up
    early; fewer steps than the paper's 10,000; rounding to 8 bits is answered by a longer change
    and not by a search over values.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "N. Carlini, D. Wagner, Towards Evaluating the Robustness of Neural Networks, 2017, "
        "arXiv 1608.04644"
    )
    budget: ClassVar[Budget] = "l2"
    threat: ClassVar[Threat] = "oblivious"
    strength: ClassVar[str] = "epsilon"
    needs: ClassVar[str] = "margin"

    epsilon: float = parameter(doc="largest l2 change of an image", low=0, unit="[0, 1] intensity")
    steps: int = parameter(100, doc="Adam steps for each multiple", low=0)
    searches: int = parameter(6, doc="number of multiples tried", low=1)
    step_size: float = parameter(0.01, doc="step size of Adam", low=0)
    constant: float = parameter(1.0, doc="first multiple of the margin", low=0, open_low=True)
    confidence: float = parameter(0.0, doc="margin that a result must have", low=0)
    stored: bool = parameter(True, doc="results reach the aim when stored with 8 bits")

    def __post_init__(self) -> None:
        check_parameters(self)

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: whose aim to reach.
            seeds: unused, the attack is deterministic.

        Returns:
            (n, c, h, w) in [0, 1], within ``epsilon`` of ``images``.
        """
        if self.steps == 0:
            return images.clone()
        done = margin(objective, images) > 0
        best, shortest = images.clone(), images.new_full((len(images),), torch.inf)
        multiple = torch.full_like(shortest, self.constant)
        low, high = torch.zeros_like(shortest), torch.full_like(shortest, torch.inf)
        total = images.new_zeros(())
        for _ in range(self.searches):
            found = self._descend(images, objective, multiple, best, shortest, total)
            high = torch.where(found, torch.minimum(high, multiple), high)
            low = torch.where(found, low, torch.maximum(low, multiple))
            multiple = torch.where(torch.isinf(high), 10 * multiple, (low + high) / 2)
        check_finite(total, objective)
        best = torch.where(done.view(-1, 1, 1, 1), images, best)
        project_(best, images, self.epsilon, "l2")
        return lasting(best, images, objective, "l2", self.epsilon) if self.stored else best

    def _descend(
        self,
        images: Images,
        objective: Objective,
        multiple: Tensor,
        best: Images,
        shortest: Scores,
        total: Tensor,
    ) -> Tensor:
        """One multiple c an image; tells where it succeeded, bool (n,), and keeps the best."""
        w = torch.atanh((2 * images - 1) * _INSIDE)
        adam, aim = Adam(w, self.step_size), Margin(objective)
        found = torch.zeros_like(shortest, dtype=torch.bool)
        for _ in range(self.steps):
            bent = w.tanh()
            x = (bent + 1) / 2
            margins, slopes = value_and_gradient(aim, x, check=False)
            total += slopes.sum()
            change = x - images
            length = lengths(change)
            reached = (margins > 0) & (margins >= self.confidence)
            better = reached & (length < shortest)
            best.copy_(torch.where(better.view(-1, 1, 1, 1), x, best))
            shortest.copy_(torch.where(better, length, shortest))
            found |= reached
            price = torch.where(reached, 0.0, multiple).view(-1, 1, 1, 1)
            downhill = (2 * change - price * slopes) * (1 - bent.square()) / 2
            w -= adam.step(downhill)
        return found
