"""Several objectives at once, for attacks made on an ensemble of models."""

from __future__ import annotations

from dataclasses import dataclass

from defender.types import Images, Objective, Scores


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """The mean of objectives, such as one goal on several models.

    Gradients are taken of one after the other, so that memory does not grow with their number.

    Args:
        objectives: at least one.

    Raises:
        ValueError: when there is none.

    Source: Y. Liu, X. Chen, C. Liu, D. Song, "Delving into Transferable Adversarial Examples and
    Black-box Attacks", 2017, arXiv 1611.02770.
    Differs: losses are averaged, where the paper averages the models' probabilities.
    """

    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("objectives: expected at least one, got none")

    @property
    def draws(self) -> int:
        """Their number; see :class:`defender.gradients.Averaged`."""
        return len(self.objectives)

    def __call__(self, images: Images) -> Scores:
        """Mean score (n,) over the objectives."""
        scores = self.objectives[0](images)
        for objective in self.objectives[1:]:
            scores = scores + objective(images)
        return scores / len(self.objectives)

    def score_of_draw(self, draw: int, images: Images) -> Scores:
        """Score (n,) of one of the objectives."""
        return self.objectives[draw](images)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.objectives))})"
