"""The purifiers of the benchmark of defences for image-quality metrics, at its five strengths.

Plain data. The benchmark has three more, MPRNet, Real-ESRGAN and DISCO, that need weights which are
not here.

Source: A. Gushchin et al., "Guardians of Image Quality: Benchmarking Defenses Against Adversarial
Attacks on Image Quality Metrics", 2024, arXiv 2408.01541, and its code.
Differs: borders are those of our filters; rotation is bilinear, that of the benchmark nearest; the
FCN is one of ours, with other layers and trained on other attacks; DiffPure goes as many steps, of
whichever diffusion model is given.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Preset(TypedDict):
    """A purifier at the strengths that a benchmark tries.

    ``purifier`` is its registered name, ``values`` holds the parameters of each strength in the
    benchmark's order, ``default`` is the place in it of what the benchmark uses otherwise, and
    ``needs`` names parameters that whoever uses it must state.
    """

    purifier: str
    values: tuple[dict[str, Any], ...]
    default: int
    needs: tuple[str, ...]


def _preset(purifier: str, name: str, values: tuple[float, ...], default: float) -> Preset:
    return Preset(
        purifier=purifier,
        values=tuple({name: value} for value in values),
        default=values.index(default),
        needs=(),
    )


_QUALITIES = (10, 30, 50, 70, 90)
_SCALES = (0.1, 0.25, 0.5, 0.75, 0.9)
_WINDOWS = (3, 5, 7, 9, 11)

PRESETS: dict[str, Preset] = {
    "colour-quantisation": _preset("ColourQuantisation", "levels", (2, 5, 16, 20, 25), 16),
    "jpeg": _preset("JPEG", "quality", _QUALITIES, 50),
    "differentiable-jpeg": _preset("DifferentiableJPEG", "quality", _QUALITIES, 50),
    "gaussian": Preset(
        purifier="Gaussian",
        values=(
            {"sigma": 0.8, "window": 3},
            {"sigma": 1.1, "window": 5},
            {"sigma": 1.4, "window": 7},
            {"sigma": 1.7, "window": 9},
            {"sigma": 2.0, "window": 11},
        ),
        default=0,
        needs=(),
    ),
    "median": _preset("Median", "window", _WINDOWS, 3),
    "unsharp": _preset("Unsharp", "window", _WINDOWS, 3),
    "random-crop": _preset("RandomCrop", "size", (32, 64, 128, 256, 288), 128),
    "rotate": _preset("Rotate", "degrees", (10.0, 15.0, 20.0, 30.0, 50.0), 15.0),
    "resize": _preset("Resize", "scale", _SCALES, 0.5),
    "upscale": _preset("Upscale", "scale", _SCALES, 0.5),
    "gaussian-noise": _preset("GaussianNoise", "sigma", (0.01, 0.025, 0.05, 0.075, 0.1), 0.01),
    "flip": Preset(purifier="Flip", values=({"axes": "both"},), default=0, needs=()),
    "fcn": Preset(purifier="Learned", values=({"network": "fcn-linearity"},), default=0, needs=()),
    "diffpure": Preset(
        purifier="DiffPure",
        values=tuple({"t": steps / 1000} for steps in (5, 10, 20, 30, 50)),
        default=0,
        needs=("prior",),
    ),
}
