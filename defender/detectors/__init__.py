"""Detectors, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.detectors.cam_energy import CamEnergy
from defender.detectors.clean_filter import (
    CleanFilter,
    PatchCleanFilter,
    TargetedPatchCleanFilter,
)
from defender.detectors.decamouflage import DecamouflageFiltering, DecamouflageSteganalysis
from defender.detectors.down_up import ColourScattering, DecamouflageScaling, HistogramCosine
from defender.detectors.gradient_mask import GradientMask
from defender.detectors.lattice_residual import LatticeResidual
from defender.detectors.mask_entropy import MaskEntropy
from defender.detectors.patch_energy import PatchEnergy
from defender.detectors.spectrum import PeakDistance, PeakSpectrum

DETECTORS: dict[str, type[Any]] = {
    "GradientMask": GradientMask,
    "HistogramCosine": HistogramCosine,
    "ColourScattering": ColourScattering,
    "DecamouflageScaling": DecamouflageScaling,
    "DecamouflageFiltering": DecamouflageFiltering,
    "DecamouflageSteganalysis": DecamouflageSteganalysis,
    "PeakSpectrum": PeakSpectrum,
    "PeakDistance": PeakDistance,
    "CleanFilter": CleanFilter,
    "PatchCleanFilter": PatchCleanFilter,
    "TargetedPatchCleanFilter": TargetedPatchCleanFilter,
    "LatticeResidual": LatticeResidual,
    "PatchEnergy": PatchEnergy,
    "CamEnergy": CamEnergy,
    "MaskEntropy": MaskEntropy,
}

__all__ = [
    "DETECTORS",
    "CamEnergy",
    "CleanFilter",
    "ColourScattering",
    "DecamouflageFiltering",
    "DecamouflageScaling",
    "DecamouflageSteganalysis",
    "GradientMask",
    "HistogramCosine",
    "LatticeResidual",
    "MaskEntropy",
    "PatchCleanFilter",
    "PatchEnergy",
    "PeakDistance",
    "PeakSpectrum",
    "TargetedPatchCleanFilter",
]
