"""Attacks, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.attacks.adaptive_scaling import AdaptiveScaling
from defender.attacks.amifgsm import AMIFGSM
from defender.attacks.corruption import Corruption
from defender.attacks.fgsm import FGSM
from defender.attacks.ifgsm import IFGSM
from defender.attacks.image_scaling import ImageScaling
from defender.attacks.korhonen import Korhonen
from defender.attacks.madc import MADC
from defender.attacks.mifgsm import MIFGSM
from defender.attacks.pgd import PGD
from defender.attacks.square import Square
from defender.attacks.zhang import Zhang

ATTACKS: dict[str, type[Any]] = {
    "AdaptiveScaling": AdaptiveScaling,
    "AMIFGSM": AMIFGSM,
    "Corruption": Corruption,
    "FGSM": FGSM,
    "IFGSM": IFGSM,
    "ImageScaling": ImageScaling,
    "Korhonen": Korhonen,
    "MADC": MADC,
    "MIFGSM": MIFGSM,
    "PGD": PGD,
    "Square": Square,
    "Zhang": Zhang,
}

__all__ = [
    "AMIFGSM",
    "ATTACKS",
    "FGSM",
    "IFGSM",
    "MADC",
    "MIFGSM",
    "PGD",
    "AdaptiveScaling",
    "Corruption",
    "ImageScaling",
    "Korhonen",
    "Square",
    "Zhang",
]
