"""Attacks, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.attacks.adaptive_scaling import AdaptiveScaling
from defender.attacks.corruption import Corruption
from defender.attacks.fgsm import FGSM
from defender.attacks.ifgsm import IFGSM
from defender.attacks.image_scaling import ImageScaling
from defender.attacks.pgd import PGD
from defender.attacks.square import Square

ATTACKS: dict[str, type[Any]] = {
    "AdaptiveScaling": AdaptiveScaling,
    "Corruption": Corruption,
    "FGSM": FGSM,
    "IFGSM": IFGSM,
    "ImageScaling": ImageScaling,
    "PGD": PGD,
    "Square": Square,
}

__all__ = [
    "ATTACKS",
    "FGSM",
    "IFGSM",
    "PGD",
    "AdaptiveScaling",
    "Corruption",
    "ImageScaling",
    "Square",
]
