"""The Image-Defender chain: separate an attacked image into layers, correct one, combine both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.gradients import check_finite, gradient, ordinary
from defender.norms import box
from defender.objectives import Classifier
from defender.separation import gradient_magnitude, layers, predict, suspected
from defender.smoothing import median_filter
from defender.types import Images, Knowledge, Scores, Seeds, check_parameters, parameter


@dataclass(frozen=True)
class SeparateCorrectCombine:
    """Splits an image by its gradient mask, corrects one layer by descent, and adds them up.

    With the attacked image x' and a reference image r:

    * separate: ``y0 = argmax f(r)``, ``G = |d/dx' CE(f(x'), y0)|``,
      ``M = [G > mean(G) + k std(G)]``, ``A = M x' + (1 - M) r``, ``U = (1 - M) x' + M r``;
    * correct: z starts at A and takes ``steps`` steps of Adam on the loss below;
    * combine: ``y = clip(U + z - r, 0, 1)``.

    The loss is ``mean((f(z) - f(r))^2)`` over the logits, ``mean((z - r)^2)`` over the pixels, or
    the first plus ``pixel_weight`` times the second. The variants:

    * ``"blind"``: r is the median-smoothed x'. ``tv_weight`` times the mean total variation of z
      is added to the loss, and z is clamped to [0, 1] and to within ``epsilon_hat`` of x' at the
      start and after every step. As z is held near the whole image, it is the result: ``y = z``.
      (Adding the layers would add the detail that the smoothing took away a second time.)
    * ``"reference"``: r is the clean image; z is clamped to [0, 1] after every step. The sum is
      ``x' + (z - A)``.
    * ``"code"``: r is the clean image and the arithmetic is the repository's, to the letter:
      ``A = U = M r + (1 - M) x'``, logits loss, z not clamped. Outside the mask the combination
      doubles the perturbation.

    Args:
        model: maps images in [0, 1] to logits.
        variant: ``"blind"``, ``"reference"`` or ``"code"``.
        correction: ``"logits"``, ``"pixels"`` or ``"both"``; ``"code"`` allows logits only.
        k: standard deviations above the mean gradient.
        steps: steps of Adam (betas 0.9 and 0.999, 1e-8).
        learning_rate: step length of Adam, in [0, 1] intensity.
        pixel_weight: weight of the pixel loss in ``"both"``.
        tv_weight: weight of the total variation, blind only.
        epsilon_hat: largest change of a value, in [0, 1] units, blind only.
        window: side of the median window in pixels, blind only.

    Raises:
        ValueError: parameters out of range; when called, no reference where one is needed.
        TypeError: a model without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: XuanZhao777, Image-Defender (repository: README and code).
    Differs: ``"code"`` in batches only, in which every image has its own loss and its own Adam;
    ``"reference"`` in the two layers, which are the README's and which the code makes identical,
    and in the clamping; ``"blind"`` is ours.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "XuanZhao777, Image-Defender, GitHub repository"
    keeps_size: ClassVar[bool] = True

    model: Classifier
    variant: str = parameter(
        "blind", doc="which reading of the chain", choices=("blind", "reference", "code")
    )
    correction: str = parameter(
        "logits", doc="what the correction brings together", choices=("logits", "pixels", "both")
    )
    k: float = parameter(1.0, doc="standard deviations above the mean gradient")
    steps: int = parameter(100, doc="steps of Adam", low=0)
    learning_rate: float = parameter(
        0.01, doc="step length of Adam", low=0, open_low=True, unit="[0, 1] intensity"
    )
    pixel_weight: float = parameter(1.0, doc="weight of the pixel loss in correction=both", low=0)
    tv_weight: float = parameter(0.1, doc="weight of the total variation (blind)", low=0)
    epsilon_hat: float = parameter(
        8 / 255, doc="largest change of a value (blind)", low=0, high=1, unit="[0, 1] intensity"
    )
    window: int = parameter(3, doc="odd side of the median window (blind)", low=1, unit="pixels")

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")
        if self.variant == "code" and self.correction != "logits":
            raise ValueError(
                f"correction: expected 'logits' for variant 'code', got {self.correction!r}"
            )

    @property
    def knowledge(self) -> Knowledge:
        """``"model"`` for the blind variant, ``"reference"`` for the others."""
        return "model" if self.variant == "blind" else "reference"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Purify images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, the chain is deterministic.
            reference: (n, c, h, w) clean images, for the variants that need them.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        return self.parts(images, seeds=seeds, reference=reference)["purified"]

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """Mask, layers, corrected layer (clamped to [0, 1]) and purified images.

        Arguments as for the call.

        Returns:
            ``mask`` bool, ``attacked_layer``, ``unattacked_layer``, ``corrected``, ``purified``
            float in [0, 1], all (n, c, h, w).
        """
        if self.variant == "blind":
            reference = median_filter(images, self.window)
        elif reference is None:
            raise ValueError(
                f"reference: expected clean images for variant {self.variant!r}, got None"
            )
        with torch.inference_mode(False), torch.no_grad():
            return self._parts(ordinary(images), ordinary(reference))

    def _parts(self, images: Images, reference: Images) -> dict[str, Tensor]:
        classes = predict(self.model, reference)
        mask = suspected(gradient_magnitude(self.model, images, classes), self.k)
        attacked_layer, unattacked_layer = layers(images, reference, mask)
        if self.variant == "code":
            attacked_layer = unattacked_layer
        start, low, high = attacked_layer, None, None
        if self.variant == "blind":
            low, high = box(images, self.epsilon_hat)
            start = torch.clamp(start, low, high)
        elif self.variant == "reference":
            low, high = torch.zeros_like(start), torch.ones_like(start)
        corrected = self.correct(start, reference, low, high)
        blind = self.variant == "blind"
        combined = corrected if blind else unattacked_layer + corrected - reference
        return {
            "mask": mask,
            "attacked_layer": attacked_layer,
            "unattacked_layer": unattacked_layer,
            "corrected": corrected.clamp(0.0, 1.0),
            "purified": combined.clamp(0.0, 1.0),
        }

    @torch.no_grad()
    def correct(
        self, start: Images, reference: Images, low: Tensor | None, high: Tensor | None
    ) -> Images:
        """Descend from a layer on the loss of the class description, with Adam.

        Args:
            start: (n, c, h, w), z before the first step; left unchanged.
            reference: (n, c, h, w), r.
            low: (n, c, h, w), smallest values after a step, or None.
            high: (n, c, h, w), largest values after a step, or None.

        Returns:
            (n, c, h, w), z after the last step.
        """
        wanted = self.model(reference)

        def minus_loss(images: Images) -> Scores:
            return -self._loss(images, reference, wanted)

        corrected = start.clone()
        mean, square = torch.zeros_like(corrected), torch.zeros_like(corrected)
        total = corrected.new_zeros(())
        for step in range(1, self.steps + 1):
            ascent = gradient(minus_loss, corrected, check=False)
            if step == 1 and not ascent.any():
                break  # Adam's moments stay zero: no later step would move anything
            total += ascent.sum()
            mean.lerp_(ascent, 1 - 0.9)
            square.mul_(0.999).addcmul_(ascent, ascent, value=1 - 0.999)
            scale = (square.sqrt() / (1 - 0.999**step) ** 0.5).add_(1e-8)
            corrected.addcdiv_(mean, scale, value=self.learning_rate / (1 - 0.9**step))
            if low is not None:
                torch.clamp(corrected, low, high, out=corrected)
        check_finite(total, self)
        return corrected

    def _loss(self, images: Images, reference: Images, wanted: Tensor) -> Scores:
        """Loss (n,) of the correction, each image by itself."""
        loss = images.new_zeros(len(images))
        if self.correction != "pixels":
            loss = loss + (self.model(images) - wanted).square().flatten(1).mean(1)
        if self.correction != "logits":
            weight = self.pixel_weight if self.correction == "both" else 1.0
            loss = loss + weight * (images - reference).square().mean(dim=(1, 2, 3))
        if self.variant == "blind" and self.tv_weight:
            loss = loss + self.tv_weight * total_variation(images)
        return loss


def total_variation(images: Images) -> Scores:
    """Anisotropic total variation: mean absolute difference of neighbours, down plus across.

    Args:
        images: (n, c, h, w) in [0, 1].

    Returns:
        (n,) in [0, 2]; each direction's sum is divided by all c h w values.

    Source: L. Rudin, S. Osher, E. Fatemi, "Nonlinear total variation based noise removal
    algorithms", 1992, DOI 10.1016/0167-2789(92)90242-F.
    Differs: anisotropic, and a mean rather than a sum.
    """
    vertical = images.diff(dim=2).abs().sum(dim=(1, 2, 3))
    horizontal = images.diff(dim=3).abs().sum(dim=(1, 2, 3))
    return (vertical + horizontal) / math.prod(images.shape[1:])
