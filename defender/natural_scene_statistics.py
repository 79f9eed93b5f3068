"""How far an image is from the statistics of natural scenes, without a model fitted to any.

Brightness that is normalised by its neighbourhood has nearly the same distribution in all sharp
photographs. Blur, noise and compression change the width or the shape of that distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from defender.luma import luma
from defender.shifted_sums import correlate, gaussian_weights
from defender.types import Images, Scores

WINDOW = 7
_SIGMA = 7 / 6
_FLOOR = 1 / 255
_NATURAL_SHAPE = 2.0
_NATURAL_VARIANCE = 0.25
_LEAST_VARIANCE = 2.0**-10


def normalised_luma(images: Images) -> Tensor:
    """Luma minus its local mean, divided by its local standard deviation plus 1/255.

    Mean and deviation are those under a 7 x 7 Gaussian of sigma 7/6, where it lies inside the
    image (MSCN coefficients: mean subtracted, contrast normalised).

    Args:
        images: (n, c, h, w) in [0, 1], c 1 or 3, sides of 7 pixels or more.

    Returns:
        float64 (n, 1, h - 6, w - 6).

    Source: A. Mittal, R. Soundararajan, A. Bovik, "Making a 'Completely Blind' Image Quality
    Analyzer", 2013, DOI 10.1109/LSP.2012.2227726, equation 1.
    Differs: [0, 1] in the place of 8-bit levels; interior only, where the authors pad.
    """
    grey, margin = luma(images).double(), WINDOW // 2
    weights = gaussian_weights(_SIGMA, margin)
    mean = correlate(grey, weights)
    deviation = (correlate(grey.square(), weights) - mean.square()).clamp_min_(0.0).sqrt_()
    return (grey[:, :, margin:-margin, margin:-margin] - mean).div_(deviation.add_(_FLOOR))


def gaussian_shape(coefficients: Tensor) -> Tensor:
    """Shape of the generalised Gaussian with the moments of each image's coefficients.

    The density is ``exp(-|x / b|^shape)`` up to a factor: 1 is Laplace's, 2 the normal one. It
    is found from ``E|x|^2 / E[x^2] = G(2/s)^2 / (G(1/s) G(3/s))``, to 0.001.

    Args:
        coefficients: (n, ...), floats around 0.

    Returns:
        float64 (n,) in [0.2, 10]; 0.2 where all coefficients are 0.

    Source: K. Sharifi, A. Leon-Garcia, "Estimation of shape parameter for generalized Gaussian
    distributions in subband decompositions of video", 1995, DOI 10.1109/76.350779.
    Differs: none.
    """
    values = coefficients.double().flatten(1)
    energy = values.square().mean(1).clamp_min_(torch.finfo(torch.float64).tiny)
    ratios = values.abs().mean(1).square() / energy
    shapes = torch.arange(200, 10_001, dtype=torch.float64, device=values.device) / 1000
    expected = (
        2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    ).exp()
    return shapes[torch.searchsorted(expected, ratios).clamp_max_(len(shapes) - 1)]


def unnaturalness(images: Images) -> Scores:
    """How far the normalised luma is from that of a sharp photograph; larger is worse.

    ``1 + sqrt(log2(shape / 2)^2 + log2(4 variance)^2)``: one plus the distance, in octaves, of
    shape and variance of the coefficients from 2 and 1/4. Blur and compression make the
    variance small, compression the shape too, noise makes both large.

    Args:
        images: (n, c, h, w) in [0, 1], c 1 or 3.

    Returns:
        float64 (n,), >= 1; 1 for images with a side below 7 pixels, of which nothing can be said.

    Source: A. Mittal, R. Soundararajan, A. Bovik, "Making a 'Completely Blind' Image Quality
    Analyzer", 2013, DOI 10.1109/LSP.2012.2227726 (NIQE).
    Differs: two of the 36 features, on the whole image, and a distance from a point in the place
    of a Gaussian fitted to photographs. That the shape is 2 is D. Ruderman's observation (1994);
    the variance is a round number near that of photographs (0.19 to 0.49 in 14 of scikit-image
    at 299 x 299, median 0.28). It ranks images by damage, it is no measure of quality.
    """
    if min(images.shape[2:]) < WINDOW:
        return images.new_ones(len(images), dtype=torch.float64)
    coefficients = normalised_luma(images)
    variance = coefficients.square().mean(dim=(1, 2, 3)).clamp_min_(_LEAST_VARIANCE)
    shape = gaussian_shape(coefficients)
    return 1 + torch.hypot((shape / _NATURAL_SHAPE).log2(), (variance / _NATURAL_VARIANCE).log2())
