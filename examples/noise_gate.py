"""The best purifier that we know for image-quality metrics, as a defence of your own.

`image-defender score-defense examples/noise_gate.py`

It is the one of `iqa.yaml`: a small network purifies every image, and where it removes more than it
ever does from clean photographs, a mean of four filters works on what it made.
"""

from defender.defense import PurifierDefense, trained
from defender.models.denoiser import denoiser
from defender.purifiers import Average, DCTShrinkage, Learned, Median, NoiseGate, NonLocalMeans


class Defense(PurifierDefense):
    """Any purifier of `image-defender list purifiers` can stand here that needs no original."""

    purifier = NoiseGate(
        (
            Learned(trained(denoiser(), "denoiser-linearity")),
            Average((Median(3), DCTShrinkage(0.16), NonLocalMeans(h=0.1), NonLocalMeans(h=0.14))),
        ),
        low=1.6 / 255,
        high=2 / 255,
    )
