"""Attacks, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.attacks.adaptive_scaling import AdaptiveScaling
from defender.attacks.amifgsm import AMIFGSM
from defender.attacks.apgd import APGD
from defender.attacks.autoattack import AutoAttack
from defender.attacks.carlini_wagner import CarliniWagner
from defender.attacks.colour_filter import AdvCF
from defender.attacks.control_patch import ControlPatch
from defender.attacks.corruption import Corruption
from defender.attacks.di2fgsm import DI2FGSM
from defender.attacks.fab import FAB
from defender.attacks.fgsm import FGSM
from defender.attacks.grid_patch import GridPatch
from defender.attacks.ifgsm import IFGSM
from defender.attacks.image_scaling import ImageScaling
from defender.attacks.korhonen import Korhonen
from defender.attacks.madc import MADC
from defender.attacks.mifgsm import MIFGSM
from defender.attacks.nes import NES
from defender.attacks.pgd import PGD
from defender.attacks.random_noise import RandomNoise
from defender.attacks.sgadv import SGADV
from defender.attacks.square import Square
from defender.attacks.ssah import SSAH
from defender.attacks.tifgsm import TIFGSM
from defender.attacks.uap import UAP
from defender.attacks.zhang import Zhang

ATTACKS: dict[str, type[Any]] = {
    "AdaptiveScaling": AdaptiveScaling,
    "AdvCF": AdvCF,
    "AMIFGSM": AMIFGSM,
    "APGD": APGD,
    "AutoAttack": AutoAttack,
    "CarliniWagner": CarliniWagner,
    "ControlPatch": ControlPatch,
    "Corruption": Corruption,
    "DI2FGSM": DI2FGSM,
    "FAB": FAB,
    "FGSM": FGSM,
    "GridPatch": GridPatch,
    "IFGSM": IFGSM,
    "ImageScaling": ImageScaling,
    "Korhonen": Korhonen,
    "MADC": MADC,
    "MIFGSM": MIFGSM,
    "NES": NES,
    "PGD": PGD,
    "RandomNoise": RandomNoise,
    "SGADV": SGADV,
    "SSAH": SSAH,
    "Square": Square,
    "TIFGSM": TIFGSM,
    "UAP": UAP,
    "Zhang": Zhang,
}

__all__ = [
    "AMIFGSM",
    "APGD",
    "ATTACKS",
    "DI2FGSM",
    "FAB",
    "FGSM",
    "IFGSM",
    "MADC",
    "MIFGSM",
    "NES",
    "PGD",
    "SGADV",
    "SSAH",
    "TIFGSM",
    "UAP",
    "AdaptiveScaling",
    "AdvCF",
    "AutoAttack",
    "CarliniWagner",
    "ControlPatch",
    "Corruption",
    "GridPatch",
    "ImageScaling",
    "Korhonen",
    "RandomNoise",
    "Square",
    "Zhang",
]
