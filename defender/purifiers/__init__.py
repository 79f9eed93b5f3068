"""Purifiers, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.purifiers.area import AreaScaling
from defender.purifiers.average import Average
from defender.purifiers.bilateral import Bilateral
from defender.purifiers.dct_shrinkage import DCTShrinkage
from defender.purifiers.ddrm import DDRM
from defender.purifiers.differentiable_jpeg import DifferentiableJPEG
from defender.purifiers.diffpure import DiffPure
from defender.purifiers.filters import JPEG, BitDepth, Gaussian, Median
from defender.purifiers.gaussian_noise import GaussianNoise
from defender.purifiers.geometric import Flip, RandomCrop, Rotate
from defender.purifiers.inpaint import MaskInpaint
from defender.purifiers.iwmf import IWMF
from defender.purifiers.iwmf_diff import IWMFDiff
from defender.purifiers.learned import Learned
from defender.purifiers.noise_gate import NoiseGate
from defender.purifiers.non_local_means import NonLocalMeans
from defender.purifiers.one_step_denoise import OneStepDenoise
from defender.purifiers.presets import PRESETS
from defender.purifiers.quantisation import ColourQuantisation
from defender.purifiers.resizing import Resize, Upscale
from defender.purifiers.selective import SelectiveMedian, SelectiveRandom
from defender.purifiers.selective_interpolation import SelectiveInterpolation
from defender.purifiers.separate_correct_combine import SeparateCorrectCombine
from defender.purifiers.sequence import Sequence
from defender.purifiers.total_variation import TotalVariation
from defender.purifiers.wavelet_shrinkage import WaveletShrinkage
from defender.purifiers.xray_filters import Minimum, PeakRemoval, Unsharp

PURIFIERS: dict[str, type[Any]] = {
    "SeparateCorrectCombine": SeparateCorrectCombine,
    "Median": Median,
    "Gaussian": Gaussian,
    "BitDepth": BitDepth,
    "JPEG": JPEG,
    "SelectiveMedian": SelectiveMedian,
    "SelectiveRandom": SelectiveRandom,
    "SelectiveInterpolation": SelectiveInterpolation,
    "AreaScaling": AreaScaling,
    "Minimum": Minimum,
    "PeakRemoval": PeakRemoval,
    "Unsharp": Unsharp,
    "DifferentiableJPEG": DifferentiableJPEG,
    "ColourQuantisation": ColourQuantisation,
    "Bilateral": Bilateral,
    "NonLocalMeans": NonLocalMeans,
    "TotalVariation": TotalVariation,
    "WaveletShrinkage": WaveletShrinkage,
    "DCTShrinkage": DCTShrinkage,
    "GaussianNoise": GaussianNoise,
    "Flip": Flip,
    "Rotate": Rotate,
    "RandomCrop": RandomCrop,
    "Resize": Resize,
    "Upscale": Upscale,
    "IWMF": IWMF,
    "DDRM": DDRM,
    "DiffPure": DiffPure,
    "OneStepDenoise": OneStepDenoise,
    "IWMFDiff": IWMFDiff,
    "Learned": Learned,
    "MaskInpaint": MaskInpaint,
    "Sequence": Sequence,
    "Average": Average,
    "NoiseGate": NoiseGate,
}

__all__ = [
    "DDRM",
    "IWMF",
    "JPEG",
    "PRESETS",
    "PURIFIERS",
    "AreaScaling",
    "Average",
    "Bilateral",
    "BitDepth",
    "ColourQuantisation",
    "DCTShrinkage",
    "DiffPure",
    "DifferentiableJPEG",
    "Flip",
    "Gaussian",
    "GaussianNoise",
    "IWMFDiff",
    "Learned",
    "MaskInpaint",
    "Median",
    "Minimum",
    "NoiseGate",
    "NonLocalMeans",
    "OneStepDenoise",
    "PeakRemoval",
    "RandomCrop",
    "Resize",
    "Rotate",
    "SelectiveInterpolation",
    "SelectiveMedian",
    "SelectiveRandom",
    "SeparateCorrectCombine",
    "Sequence",
    "TotalVariation",
    "Unsharp",
    "Upscale",
    "WaveletShrinkage",
]
