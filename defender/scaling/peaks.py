"""Where a scaling attack shows in the spectrum of an image.

What a resize skips repeats with its period, so that an attack image, which differs from its
surroundings at the considered pixels only, carries copies of the target's spectrum around the
multiples of the target size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from defender.scaling.scaler import Size


def expected_peaks(source_size: Size, target_size: Size) -> Tensor:
    """Centres of the copies of the target's spectrum, in the centred spectrum of the image.

    The centred spectrum is ``fftshift(fft2(image))``, whose constant term lies at
    ``(N // 2, M // 2)``. The peaks are ``centre +- (a n, b m)`` with whole
    ``a <= floor(N / (2 n) - 0.001)`` and ``b <= floor(M / (2 m) - 0.001)``, without the centre.

    Args:
        source_size: height N and width M of the image, pixels, >= 1.
        target_size: height n and width m that the pipeline makes of it, pixels, >= 1.

    Returns:
        int64 (peaks, 2), row and column of each, in reading order, all inside the spectrum;
        (0, 2) where the image is less than twice the target size or exactly that on both axes.

    Source: E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling Attacks in
    Machine Learning", 2023, DOI 10.1145/3627106.3627134.
    Differs: none.
    """
    rows, columns = (
        torch.arange(-reach, reach + 1) * target + source // 2
        for source, target in zip(source_size, target_size, strict=True)
        for reach in [max(0, int(source / (2 * target) - 0.001))]
    )
    peaks = torch.cartesian_prod(rows, columns)
    centre = torch.tensor([source_size[0] // 2, source_size[1] // 2])
    return peaks[(peaks != centre).any(1)]


def peak_windows(source_size: Size, peaks: Tensor, radius: int) -> Tensor:
    """Union of the windows ``[row - radius, row + radius)`` around peaks, cut at the border.

    Args:
        source_size: height N and width M of the centred spectrum.
        peaks: int64 (peaks, 2), as :func:`expected_peaks` returns them.
        radius: half side of a window, coefficients.

    Returns:
        bool (N, M).
    """
    near = []
    for axis, size in enumerate(source_size):
        away = torch.arange(size) - peaks[:, axis].unsqueeze(1)
        near.append((away >= -radius) & (away < radius))
    return (near[0].unsqueeze(2) & near[1].unsqueeze(1)).any(0)
