"""How far an attack is beyond its aim: above 0 exactly where it has reached it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from defender.gradients import mean_over_draws
from defender.objectives import Classify, Defended, Misclassify
from defender.objectives_logits import best_other, logits_of, of_class
from defender.types import Images, Objective, Scores


def margin(objective: Objective, images: Images) -> Scores:
    """How far images are beyond the aim of an attack, in units of the objective's own.

    Args:
        objective: with a notion of success. Misclassification has the margin
            ``max_{j != y} z_j - z_y``, classification as a target t ``z_t - max_{j != t} z_j``;
            another objective is asked by its method ``margin(images)``. A defended one has the
            mean over its draws of its goal's margin behind the purifier, and where the detector
            rejects minus the score in excess if that is less.
        images: (n, c, h, w) in [0, 1].

    Returns:
        (n,), > 0 iff the aim is reached; it carries gradients where the model does.

    Raises:
        TypeError: an objective without a notion of success, such as raising a score.
        ValueError: a number of images that does not fit, or a model of fewer than 2 classes.
    """
    return Margin(objective)(images)


@dataclass(frozen=True, eq=False)
class Margin:
    """An objective whose score is the :func:`margin` of another, draw by draw of its defence.

    Args:
        objective: with a notion of success.
    """

    objective: Objective

    @property
    def draws(self) -> int:
        """Number of draws of the outer defence, 1 without."""
        return self.objective.draws if isinstance(self.objective, Defended) else 1

    def __call__(self, images: Images) -> Scores:
        """Mean margin (n,) over the draws."""
        return mean_over_draws(self, images)

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Margin (n,) at one draw of the outer defence."""
        objective = self.objective
        if isinstance(objective, Defended):
            return _behind(objective, draw, images)
        own = getattr(objective, "margin", None)
        if callable(own):
            scores: Scores = own(images)
            return scores
        if isinstance(objective, Misclassify):
            logits = logits_of(objective.model, images, objective.labels)
            return best_other(logits, objective.labels) - of_class(logits, objective.labels)
        if isinstance(objective, Classify):
            logits = logits_of(objective.model, images, objective.targets)
            return of_class(logits, objective.targets) - best_other(logits, objective.targets)
        raise TypeError(
            f"margin: expected an objective with a notion of success, got {objective!r}"
        )


def _behind(defended: Defended, draw: int, images: Images) -> Scores:
    """Margin at one draw of a defence: behind its purifier, and past its detector."""
    goal = Margin(defended.objective)
    if defended.detector is None:
        return dataclasses.replace(defended, objective=goal).score_of_draw(draw, images)
    if defended.purifier is None:
        scores = goal(images)
    else:
        bare = dataclasses.replace(defended, objective=goal, detector=None)
        scores = bare.score_of_draw(draw, images)
    watch = dataclasses.replace(defended, objective=_nothing, purifier=None, weight=1.0)
    excess = -watch.score_of_draw(draw, images)
    return torch.where(excess > 0, torch.minimum(scores, -excess), scores)


def _nothing(images: Images) -> Scores:
    return images.new_zeros(len(images))
