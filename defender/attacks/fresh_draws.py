"""A defended objective with other draws of its defence at every step of an attack."""

from __future__ import annotations

from dataclasses import dataclass

from defender.gradients import Averaged, mean_over_draws
from defender.types import Images, Objective, Scores


@dataclass(frozen=True, eq=False)
class FreshDraws:
    """The mean over some later draws of an averaged objective.

    Args:
        objective: whose draws have numbers.
        first: number of the first draw.
        draws: how many draws to average.
    """

    objective: Averaged
    first: int
    draws: int

    def __call__(self, images: Images) -> Scores:
        """Mean score (n,) over the draws."""
        return mean_over_draws(self, images)

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Score (n,) of one draw."""
        return self.objective.score_of_draw(self.first + draw, images)


def redrawn(objective: Objective, step: int, samples: int) -> Objective:
    """The objective as a step of an attack should see it.

    Args:
        objective: anything; only one with draws, such as a defended one, changes.
        step: number of the step, >= 0; every step has draws that no other one has.
        samples: draws for each draw that the objective averages, >= 0; 0 changes nothing.

    Returns:
        The mean over the draws ``step * count .. step * count + count - 1`` with
        ``count = samples * objective.draws``, or the objective itself where it has no draws.

    Source: A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing Robust Adversarial Examples",
    2018, arXiv 1707.07397 (expectation over transformation).
    Differs: none.
    """
    if samples == 0 or not isinstance(objective, Averaged):
        return objective
    count = samples * objective.draws
    return FreshDraws(objective, step * count, count)
