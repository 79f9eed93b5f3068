"""Which values of an image a classifier reacts to most: the mask of the Image-Defender chain."""

from __future__ import annotations

import torch
from torch import Tensor

from defender.gradients import gradient
from defender.objectives import Classifier, Misclassify
from defender.types import Images


def predict(model: Classifier, images: Images) -> Tensor:
    """Predicted class int64 (n,) of images (n, c, h, w) in [0, 1]."""
    with torch.no_grad():
        return model(images).argmax(1)


def gradient_magnitude(model: Classifier, images: Images, classes: Tensor) -> Tensor:
    """``G = |d/dx CE(f(x), y0)|``, the absolute input gradient of the cross-entropy.

    Args:
        model: maps images in [0, 1] to logits.
        images: (n, c, h, w) in [0, 1].
        classes: int64 (n,), the class y0 of each image.

    Returns:
        (n, c, h, w), >= 0.

    Raises:
        TypeError: a model without a gradient.
        FloatingPointError: a gradient that is not finite.
    """
    return gradient(Misclassify(model, classes), images).abs_()


def suspected(magnitude: Tensor, k: float) -> Tensor:
    """``M = [G > mean(G) + k * std(G)]``, each image by its own statistics.

    Args:
        magnitude: (n, c, h, w), see :func:`gradient_magnitude`.
        k: standard deviations above the mean; the mean and the deviation (with N - 1) are over
            all channels and pixels of an image together.

    Returns:
        bool (n, c, h, w), by channel and pixel.

    Source: XuanZhao777, Image-Defender (repository), separation step.
    """
    flat = magnitude.flatten(1)
    threshold = flat.mean(1) + k * flat.std(1, correction=1)
    return magnitude > threshold.view(-1, 1, 1, 1)


def layers(attacked: Images, reference: Images, mask: Tensor) -> tuple[Images, Images]:
    """Split an attacked image into the part inside the mask and the part outside it.

    ``A = M x' + (1 - M) x`` and ``U = (1 - M) x' + M x``, so that ``A + U - x = x'``.

    Args:
        attacked: (n, c, h, w), x'.
        reference: (n, c, h, w), x.
        mask: bool (n, c, h, w), M.

    Returns:
        attacked layer A and unattacked layer U, both (n, c, h, w).

    Source: XuanZhao777, Image-Defender (repository), as its README words it.
    Differs: the repository's code returns ``M x + (1 - M) x'`` twice.
    """
    return torch.where(mask, attacked, reference), torch.where(mask, reference, attacked)
