"""The image-scaling attack: a picture that a pipeline's resize turns into another one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar

import torch

from defender.objectives import ScaleTo
from defender.scaling.scaler import Scaler
from defender.scaling.solvers import SOLVERS, solver
from defender.scaling.solvers.l2 import METHODS, clips_between, solve_l2, solve_unclipped
from defender.scaling.solvers.rounding import ROUNDS, SLACK, round_to
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_LEVEL_TOLERANCE = 1e-6


def scaling_goal(attack: Any, images: Images, objective: Objective) -> tuple[Scaler, Images]:
    """The scaler and the targets of an objective that an image-scaling attack can pursue.

    Args:
        attack: the attack, for messages.
        images: (n, c, h, w), what is to be attacked.
        objective: has to be a :class:`~defender.objectives.ScaleTo`.

    Returns:
        the scaler, and the targets (n, c, height, width) in the type and on the device of
        ``images``.

    Raises:
        TypeError: another objective, or one behind a defence; names both.
        ValueError: images of another size than the scaler's source, other than one target an
            image, or targets outside [0, 1].
    """
    if not isinstance(objective, ScaleTo):
        raise TypeError(
            f"expected the objective ScaleTo for {attack!r}, which solves for the picture that a "
            f"resize makes, got {objective!r}"
        )
    scaler, target = objective.scaler, objective.target
    if images.ndim != 4 or tuple(images.shape[2:]) != scaler.source:
        raise ValueError(
            f"images: expected (n, c, {scaler.source[0]}, {scaler.source[1]}), the source size "
            f"of the scaler, got {tuple(images.shape)}"
        )
    if images.shape[:2] != target.shape[:2]:
        raise ValueError(
            f"images: expected {tuple(target.shape[:2])} images and channels as the targets "
            f"have, got {tuple(images.shape[:2])}"
        )
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError("target: expected values in [0, 1], got values outside or NaN")
    return scaler, target.to(images)


@dataclass(frozen=True)
class ImageScaling:
    """The smallest change that makes a resize produce the target, rounded to 8 bits and repaired.

    ``min ||A - S||`` subject to ``|scale(A) - T| <= epsilon`` and ``0 <= A <= 1``, both axes at
    once. Where output pixels share no input pixel, l2 has a closed form; elsewhere the dual is
    ascended. The result is rounded to 8 bits, resized by the real library in 8 bits, and repaired
    where that misses the target by more than epsilon. Where epsilon cannot be held, the image that
    misses least is the result; :func:`defender.scaling.solvers.rounding.errors` tells by how much.

    Args:
        epsilon: what each output pixel may miss the target by, in [0, 1] units. Whole grey levels
            count: 1.5 levels allow 1, and below half a level a target between two levels cannot
            be held.
        norm: what is small of the change: ``"l2"``, ``"l0"`` (number of pixels), ``"l1"`` or
            ``"linf"``.
        method: how l2 is solved: ``"exact"`` closed form, ``"dual"`` ascent, ``"auto"`` the
            first where it applies, ``"two-stage"`` one axis after the other and no repair, as
            first published, for comparison.
        steps: largest number of steps of the dual ascent.
        more_epsilons: larger epsilons, tried in order for images that miss the target by more
            than those before.

    Raises:
        TypeError: an objective other than ``ScaleTo``.
        ValueError: ``method`` with another norm than l2, ``"exact"`` where output pixels share
            input pixels, epsilons that do not increase, or images that do not fit the objective.

    Source: Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, "Seeing is Not Believing: Camouflage Attacks
    on Image Scaling Algorithms", 2019, USENIX Security; E. Quiring, D. Klein, D. Arp, M. Johns,
    K. Rieck, "Adversarial Preprocessing: Understanding and Preventing Image-Scaling Attacks in
    Machine Learning", 2020, USENIX Security.
    Differs: both axes are one problem, solved exactly; they solve one after the other, each column
    by itself with a general solver, which is not optimal and adds up what both may miss.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, Seeing is Not Believing: Camouflage Attacks on "
        "Image Scaling Algorithms, 2019, USENIX Security"
    )
    threat: ClassVar[Threat] = "oblivious"

    epsilon: float = parameter(
        1 / 255,
        doc="what an output pixel may miss the target by",
        low=0,
        high=1,
        unit="[0, 1] intensity",
    )
    norm: str = parameter("l2", doc="norm of the change that is small", choices=tuple(SOLVERS))
    method: str = parameter("auto", doc="how l2 is solved", choices=METHODS)
    steps: int = parameter(300, doc="largest number of steps of the dual ascent", low=1)
    more_epsilons: tuple[float, ...] = parameter(
        (), doc="larger epsilons, tried in order where the first cannot be held"
    )

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.method != "auto" and self.norm != "l2":
            raise ValueError(
                f"method: expected auto for norm {self.norm!r}, got {self.method!r}, which is for "
                "norm 'l2'"
            )
        more = tuple(self.more_epsilons)
        for lower, higher in zip((self.epsilon, *more), more, strict=False):
            if not (isinstance(higher, int | float) and lower < higher <= 1):
                raise ValueError(
                    f"more_epsilons: expected numbers that increase from epsilon={self.epsilon} "
                    f"to 1 at most, got {more}"
                )
        object.__setattr__(self, "more_epsilons", more)

    @property
    def budget(self) -> Budget:
        """The scaler: the change is as large as it has to be."""
        return "scaling"

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1], of the scaler's source size; left unchanged.
            objective: a :class:`~defender.objectives.ScaleTo`.
            seeds: int64 (n,); not used.

        Returns:
            (n, c, h, w) in [0, 1], multiples of 1/255.
        """
        scaler, target = scaling_goal(self, images, objective)
        result, going = torch.empty_like(images), torch.arange(len(images), device=images.device)
        worst = images.new_full((len(images),), torch.inf)
        solvers = self._solvers(scaler)
        for epsilon, solve in product((self.epsilon, *self.more_epsilons), solvers):
            if not len(going):
                break
            levels = _whole(255 * epsilon)
            source, goal = images[going], target[going]
            made = solve(source, goal, scaler, levels / 255)
            rounds = 0 if self.method == "two-stage" else ROUNDS
            made, miss = round_to(made, source, goal, scaler, levels, rounds=rounds)
            better = (miss < worst[going]).nonzero().squeeze(1)
            result[going[better]], worst[going[better]] = made[better], miss[better]
            going = going[miss > max(levels, 0.5) + SLACK]
        return result

    def _solvers(self, scaler: Scaler) -> list[Callable[..., Images]]:
        """What is tried, in order, on the images that miss by more than epsilon so far."""
        if self.norm != "l2":
            return [solver(self.norm)]
        solvers: list[Callable[..., Images]] = [
            partial(solve_l2, method=self.method, steps=self.steps)
        ]
        if self.method in ("auto", "dual") and clips_between(scaler):
            solvers += [
                partial(solve_unclipped, width_first=width_first, steps=self.steps)
                for width_first in (True, False)
            ]
        return solvers


def _whole(levels: float) -> float:
    """The part of an epsilon that 8-bit pixels can use: whole levels, or half of one."""
    return float(math.floor(levels + _LEVEL_TOLERANCE)) if levels >= 1 else min(levels, 0.5)
