"""Image-scaling attacks that hide from a defence, at the price of being seen or of missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from defender.attacks.image_scaling import ImageScaling, scaling_goal
from defender.norms import from_uint8, to_uint8
from defender.purifiers.filters import JPEG
from defender.purifiers.windows import Pass, padded, plan, windows
from defender.scaling.peaks import expected_peaks, peak_windows
from defender.scaling.scaler import Scaler, Size
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter

_SHARES = {"median": 0.5, "random": 0.75}
_NEAR = 2.5 / 255
"""Medians less than three grey levels from what they should be are left alone."""
_INSET = 5

Change = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdaptiveScaling:
    """An image-scaling attack, changed further so that one kind of defence does not see it.

    * ``median``: the selective median filter should give each considered pixel the value t that it
      has. In its window, the unconsidered pixels nearest in value to t, on the side of the median,
      become t until the median is t or a share of the window is used up. Windows whose median is
      within 3 grey levels of t stay.
    * ``random``: for the selective random filter, a share of the unconsidered pixels of each
      window, those nearest in value to t, become t.
    * ``jpeg``: the attack image goes through JPEG, which smooths the traces.
    * ``spectrum``: the Fourier coefficients in windows around the expected peaks are multiplied by
      ``suppression``.
    * ``peaks``: in the tile around each expected peak, a coefficient near a corner is raised to
      ``max |F| / divisor``, so that the largest of the tile is far from where it is expected.

    Args:
        epsilon: of the image-scaling attack that is made first.
        against: the defence, as above.
        share: of the unconsidered pixels of a window that may change; None: 0.5 for ``median``,
            0.75 for ``random``.
        bandwidth: divisor of the filters' window, ``b = floor(ratio / bandwidth)``.
        quality: of the JPEG encoder.
        suppression: factor of the coefficients around the expected peaks.
        radius: half side of the windows around the expected peaks.
        divisor: of the largest coefficient, for the added peaks.

    Raises:
        TypeError: an objective other than ``ScaleTo``.
        ValueError: images that do not fit the objective; with ``jpeg``, neither 1 nor 3 channels.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security
    (``median``, ``random``); E. Quiring, A. Müller, K. Rieck, "On the Detection of Image-Scaling
    Attacks in Machine Learning", 2023, DOI 10.1145/3627106.3627134 (the others).
    Differs: windows that overlap are changed in an order of their own, those that do not at once;
    the authors go row by row. Coefficients are changed together with their conjugates; added peaks
    keep their phase, so that they do not crest in one corner. What leaves [0, 1] is clipped, where
    the authors stretch the contrast.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "E. Quiring, A. Müller, K. Rieck, On the Detection of Image-Scaling Attacks in Machine "
        "Learning, 2023, DOI 10.1145/3627106.3627134"
    )
    threat: ClassVar[Threat] = "grey"

    epsilon: float = parameter(
        1 / 255,
        doc="what an output pixel may miss the target by, before hiding",
        low=0,
        high=1,
        unit="[0, 1] intensity",
    )
    against: str = parameter(
        "median",
        doc="the defence to hide from",
        choices=("median", "random", "jpeg", "spectrum", "peaks"),
    )
    share: float | None = parameter(
        None, doc="share of a window that may change (median, random)", low=0, high=1
    )
    bandwidth: int = parameter(1, doc="divisor of the window (median, random)", low=1)
    quality: int = parameter(75, doc="quality factor of the encoder (jpeg)", low=1, high=95)
    suppression: float = parameter(
        0.2, doc="factor of the coefficients at expected peaks (spectrum)", low=0, high=1
    )
    radius: int = parameter(
        5, doc="half side of the windows around peaks (spectrum)", low=1, unit="coefficients"
    )
    divisor: float = parameter(
        50.0, doc="the largest coefficient is this many times an added peak (peaks)", low=1
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def budget(self) -> Budget:
        """The scaler: the change is as large as it has to be."""
        return "scaling"

    @torch.no_grad()
    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1], of the scaler's source size; left unchanged.
            objective: a :class:`~defender.objectives.ScaleTo`.
            seeds: int64 (n,); not used.

        Returns:
            (n, c, h, w) in [0, 1], multiples of 1/255.
        """
        scaler, _ = scaling_goal(self, images, objective)
        attacked = ImageScaling(self.epsilon)(images, objective, seeds=seeds)
        return torch.empty_like(images).copy_(from_uint8(to_uint8(self._hidden(attacked, scaler))))

    def _hidden(self, attacked: Images, scaler: Scaler) -> Images:
        if self.against == "jpeg":
            return JPEG(self.quality).filtered(attacked)
        if self.against == "spectrum":
            return suppress_peaks(attacked, scaler.target, self.suppression, self.radius)
        if self.against == "peaks":
            return add_peaks(attacked, scaler.target, self.divisor)
        share = _SHARES[self.against] if self.share is None else self.share
        if self.against == "median":
            return mislead_median(attacked, scaler, share, self.bandwidth)
        return mislead_random(attacked, scaler, share, self.bandwidth)


def mislead_median(images: Images, scaler: Scaler, share: float, bandwidth: int = 1) -> Images:
    """Move the medians of windows to the considered pixels that they would replace.

    With K unconsidered values in a window, the lower median is the value of rank
    ``j = (K - 1) // 2``. It reaches t from below when no more than j values are below t, so that
    as many as are too many become t, those nearest to t first, but no more than ``ceil(share K)``.

    Args:
        images: (n, c, h, w) in [0, 1], attack images on the 8-bit grid.
        scaler: the pipeline's resize.
        share: of the unconsidered pixels of a window that may change.
        bandwidth: divisor of the filter's window.

    Returns:
        (n, c, h, w). Considered pixels are as they were, except for those of negligible weight
        where the filter has no others to take values from.
    """

    def change(values: Tensor, _: Tensor, wanted: Tensor) -> Tensor:
        count = (~values.isnan()).sum(-1, keepdim=True)
        rank = (count - 1) // 2
        low = (values < wanted - _NEAR).sum(-1, keepdim=True) > rank
        high = (values > wanted + _NEAR).sum(-1, keepdim=True) > count - 1 - rank
        side = low.to(values.dtype) - high.to(values.dtype)
        away = side * (wanted - values)
        away = torch.where(away > 0, away, torch.inf)
        allowed = torch.where(low, rank, count - 1 - rank)
        surplus = away.isfinite().sum(-1, keepdim=True) - allowed
        number = torch.minimum(surplus, (share * count).ceil().long())
        return torch.where(_nearest(away, number), wanted, values)

    return _by_window(images, scaler, bandwidth, change)


def mislead_random(images: Images, scaler: Scaler, share: float, bandwidth: int = 1) -> Images:
    """Give a share of each window the value of the considered pixel that they may replace.

    Of K unconsidered values of the attack image, the ``ceil(share K)`` nearest to t become t. A
    pixel in several windows has the value of the last one. Arguments and result as for
    :func:`mislead_median`.
    """

    def change(values: Tensor, original: Tensor, wanted: Tensor) -> Tensor:
        away = (original - wanted).abs()
        count = (~away.isnan()).sum(-1, keepdim=True)
        away = away.nan_to_num(nan=torch.inf)
        return torch.where(_nearest(away, (share * count).ceil().long()), wanted, values)

    return _by_window(images, scaler, bandwidth, change)


def suppress_peaks(images: Images, target: Size, factor: float, radius: int) -> Images:
    """Multiply the spectrum around the expected peaks by a factor.

    The windows ``[peak - radius, peak + radius)`` and their mirror images are meant, without what
    lies in the target-sized region around the constant term.

    Args:
        images: (n, c, h, w).
        target: height and width that the pipeline makes of them.
        factor: 0 removes, 1 changes nothing.
        radius: half side of a window, coefficients.

    Returns:
        (n, c, h, w), clipped to [0, 1].
    """
    height, width = images.shape[2:]
    meant = peak_windows((height, width), expected_peaks((height, width), target), radius)
    row, column = (
        slice(max(0, side // 2 - reach // 2), side // 2 + reach // 2)
        for side, reach in zip((height, width), target, strict=True)
    )
    meant[row, column] = False
    # the mirror image of place i is 2 centre - i, which for even sizes is one off a flip
    meant |= meant.flip(0, 1).roll((1 - height % 2, 1 - width % 2), (0, 1))
    factors = torch.where(meant, factor, 1.0).to(images)
    return _back(_spectrum(images) * factors)


def add_peaks(images: Images, target: Size, divisor: float) -> Images:
    """Raise a coefficient in the tile around each expected peak, far from that peak.

    It lies 5 coefficients inside the corner of the tile that is nearest to the centre, and its
    mirror image in the opposite tile.

    Args:
        images: (n, c, h, w).
        target: height and width that the pipeline makes of them, the size of a tile.
        divisor: the largest absolute value of the spectrum, divided by it, is that of the peaks.

    Returns:
        (n, c, h, w), clipped to [0, 1].
    """
    size = (images.shape[2], images.shape[3])
    centre = torch.tensor([side // 2 for side in size])
    distance = expected_peaks(size, target) - centre
    side = distance.sign()
    # on an axis both corners are equally near: opposite tiles take opposite ones
    side = torch.where(side == 0, side.flip(1), side)
    inward = torch.tensor([reach // 2 - min(_INSET, reach // 4) for reach in target])
    rows, columns = (centre + distance - side * inward).to(images.device).unbind(1)
    spectrum = _spectrum(images)
    height = spectrum.abs().amax(dim=(2, 3)).unsqueeze(2) / divisor
    spectrum[:, :, rows, columns] = torch.polar(
        height.expand(-1, -1, len(rows)).contiguous(), spectrum[:, :, rows, columns].angle()
    )
    return _back(spectrum)


def _spectrum(images: Images) -> Tensor:
    centred: Tensor = torch.fft.fftshift(torch.fft.fft2(images), dim=(2, 3))
    return centred


def _back(spectrum: Tensor) -> Images:
    images: Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3))).real
    return images.clamp(0, 1)


def _by_window(images: Images, scaler: Scaler, bandwidth: int, change: Change) -> Images:
    """Change the windows of a selective filter, wave after wave of windows that do not overlap.

    ``change`` is given the values of windows as they are and as they were in the attack image,
    (planes, windows, values), NaN where the filter does not look, and what the filter replaces,
    (planes, windows, 1); it returns the new values.
    """
    todo = plan(scaler, bandwidth)
    down, across = todo.reach
    made = images
    for step in todo.passes:
        attacked = padded(images, todo.reach, torch.nan)
        known = made.masked_fill(step.mask.to(images.device), torch.nan)
        planes = padded(known, todo.reach, torch.nan)
        original = planes.clone()
        for wave in _waves(step, todo.reach):
            for index in windows(wave, todo.reach, len(planes), images.device):
                flat = index.flatten()
                shape = (len(planes), *index.shape)
                values, old = (
                    part.index_select(1, flat).view(shape) for part in (planes, original)
                )
                wanted = attacked[:, index[:, index.shape[1] // 2]].unsqueeze(-1)
                planes.index_copy_(1, flat, change(values, old, wanted).flatten(1))
        height, width = step.mask.shape
        framed = planes.view(*images.shape[:2], height + 2 * down, width + 2 * across)
        inner = framed[:, :, down : down + height, across : across + width]
        made = torch.where(inner.isnan(), made, inner)
    return made


def _waves(step: Pass, reach: tuple[int, int]) -> Iterator[Pass]:
    """Split the windows of a pass into sets that do not overlap."""
    colours = []
    for axis, side in enumerate(reach):
        lines = step.replaced.any(1 - axis).nonzero().flatten()
        period = 1
        while period < len(lines) and int((lines[period:] - lines[:-period]).min()) <= 2 * side:
            period += 1
        colour = torch.full((step.replaced.shape[axis],), -1)
        colour[lines] = torch.arange(len(lines)) % period
        colours.append(colour)
    for row in range(int(colours[0].max()) + 1):
        for column in range(int(colours[1].max()) + 1):
            chosen = (colours[0] == row).unsqueeze(1) & (colours[1] == column)
            yield Pass(step.mask, step.replaced & chosen)


def _nearest(away: Tensor, number: Tensor) -> Tensor:
    """Which values along the last axis are the ``number`` smallest, ties in order; inf never is."""
    # numpy sorts short rows several times as fast as torch
    ranked = torch.from_numpy(np.sort(away.cpu().numpy(), axis=-1)).to(away.device)
    limit = ranked.gather(-1, (number - 1).clamp(0, away.shape[-1] - 1))
    inside, tied = away < limit, away == limit
    left = number - inside.sum(-1, keepdim=True)
    chosen = inside | (tied & (tied.cumsum(-1) <= left))
    return chosen & (number > 0) & away.isfinite()
