"""Image-quality metrics of the packages piq and pyiqa behind one contract."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.nn import functional


class _FiniteGradient(torch.autograd.Function):
    """Forward: the images. Backward: the gradient with 0 in place of what is not finite."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.nan_to_num(gradients[0], nan=0.0, posinf=0.0, neginf=0.0)


def finite_gradient(images: Tensor) -> Tensor:
    """The images (n, c, h, w), whose gradient is 0 where it would be NaN or infinite."""
    passed: Tensor = _FiniteGradient.apply(images)
    return passed


@dataclass(frozen=True)
class Facts:
    """What a package does not say of its metric, or says in its documentation only.

    Args:
        needs_reference: whether it compares with the original.
        lower_is_better: whether smaller scores mean better images.
        score_range: scores of the worst and the best images in practice, the smaller first.
        options: arguments for one score an image, with gradients.
    """

    needs_reference: bool
    lower_is_better: bool
    score_range: tuple[float, float]
    options: dict[str, Any]


_EACH = {"reduction": "none"}

PIQ: dict[str, Facts] = {
    "psnr": Facts(True, False, (0.0, 80.0), _EACH),
    "ssim": Facts(True, False, (0.0, 1.0), _EACH),
    "multi_scale_ssim": Facts(True, False, (0.0, 1.0), _EACH),
    "information_weighted_ssim": Facts(True, False, (0.0, 1.0), _EACH),
    "vif_p": Facts(True, False, (0.0, 1.0), _EACH),
    "fsim": Facts(True, False, (0.0, 1.0), _EACH),
    "gmsd": Facts(True, True, (0.0, 0.35), _EACH),
    "multi_scale_gmsd": Facts(True, True, (0.0, 0.35), _EACH),
    "vsi": Facts(True, False, (0.0, 1.0), _EACH),
    "mdsi": Facts(True, True, (0.0, 0.7), _EACH),
    "haarpsi": Facts(True, False, (0.0, 1.0), _EACH),
    "srsim": Facts(True, False, (0.0, 1.0), _EACH),
    "dss": Facts(True, False, (0.0, 1.0), _EACH),
    "LPIPS": Facts(True, True, (0.0, 1.0), _EACH),
    "DISTS": Facts(True, True, (0.0, 1.0), _EACH),
    "PieAPP": Facts(True, True, (0.0, 5.0), {**_EACH, "enable_grad": True}),
    "brisque": Facts(False, True, (0.0, 100.0), _EACH),
    "CLIPIQA": Facts(False, False, (0.0, 1.0), {}),
}
"""The metrics of piq 0.8 that judge single images, by their names there.

Networks (capital letters) and brisque fetch weights when they are first used; CLIPIQA gives no
gradients.
"""


class LibraryMetric(nn.Module):
    """A metric of another package, asked for one image at a time.

    Several of these metrics normalise by statistics of the whole batch, so images go in singly.
    Grey images are given to them as RGB. Where image and reference differ in size, the image is
    resized to the reference. A gradient that is not finite is 0.

    Args:
        function: maps an image (1, 3, h, w), and its reference, to one number.
        name: what it is called in ``repr``: package, version and metric.
        lower_is_better: whether smaller scores mean better images.
        score_range: scores of the worst and the best images in practice, the smaller first.
        needs_reference: whether it compares with the original.

    Raises:
        ValueError: when called, without a reference that is needed, or for images that the
            metric cannot score, such as ones too small for its windows.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        name: str,
        *,
        lower_is_better: bool,
        score_range: tuple[float, float] | None,
        needs_reference: bool,
    ) -> None:
        super().__init__()
        # a module is registered here, so that it moves and freezes with this one
        self.function = function
        self.name = name
        self.lower_is_better = lower_is_better
        self.score_range = score_range
        self.needs_reference = needs_reference

    def forward(self, images: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (n,) of images (n, 1 or 3, h, w) in [0, 1], compared with references (n, ...)."""
        singles = _singles(finite_gradient(images))
        pairs: Sequence[tuple[Tensor, ...]]
        if self.needs_reference:
            if reference is None or len(reference) != len(images):
                known = "None" if reference is None else f"{len(reference)}"
                raise ValueError(f"{self.name}: expected {len(images)} references, got {known}")
            size = reference.shape[2:]
            if images.shape[2:] != size:
                singles = [_resized(image, size) for image in singles]
            pairs = list(zip(singles, _singles(reference), strict=True))
        else:
            pairs = [(image,) for image in singles]
        # rounding may have left [0, 1] by an ulp, which these packages refuse
        scores = [self._score(*(_rgb(x).clamp(0, 1) for x in pair)) for pair in pairs]
        return torch.stack(scores) if scores else images.new_zeros(0)

    def _score(self, *pair: Tensor) -> Tensor:
        try:
            score = self.function(*pair)
        except (AssertionError, ValueError, LinAlgError) as error:
            shape = tuple(pair[0].shape)
            raise ValueError(
                f"{self.name}: expected an image that it can score, got {shape}: {error}"
            ) from error
        if not isinstance(score, Tensor) or score.numel() != 1:
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ValueError(f"{self.name}: expected one score an image, got {got}")
        return score.reshape(())

    def __repr__(self) -> str:
        return self.name


def _singles(images: Tensor) -> list[Tensor]:
    return [images[i : i + 1] for i in range(len(images))]


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _resized(images: Tensor, size: torch.Size) -> Tensor:
    resized: Tensor = functional.interpolate(
        images, size=tuple(size), mode="bilinear", antialias=True
    )
    return resized


def piq_metric(name: str) -> LibraryMetric:
    """A metric of piq by its name there, such as ``ssim``.

    Raises:
        ImportError: where piq is not installed.
        ValueError: for a name that is not in :data:`PIQ`.
        OSError: where it fetches weights and cannot.

    Differs: brisque is given the luma, not rounded, because piq's rounding has no gradient.
    """
    if name not in PIQ:
        raise ValueError(f"expected one of {', '.join(PIQ)}, got {name!r}")
    import piq

    facts, made = PIQ[name], getattr(piq, name)
    function = made(**facts.options) if isinstance(made, type) else partial(made, **facts.options)
    return LibraryMetric(
        partial(_of_luma, function) if name == "brisque" else function,
        f"piq {piq.__version__} {name}",
        lower_is_better=facts.lower_is_better,
        score_range=facts.score_range,
        needs_reference=facts.needs_reference,
    )


def _of_luma(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return function((image * weights).sum(1, keepdim=True))


def pyiqa_metric(name: str, device: torch.device | None = None) -> LibraryMetric:
    """A metric of pyiqa by its name there, such as ``topiq_nr``.

    Direction, kind and range are pyiqa's own ``lower_better``, ``metric_mode`` and ``score_range``;
    the range is None where that states no two numbers.

    Raises:
        ImportError: where pyiqa is not installed.
        ValueError: for a name that pyiqa does not list.
        OSError: where it fetches weights and cannot.
    """
    import pyiqa

    known = pyiqa.list_models()
    if name not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {name!r}")
    metric = pyiqa.create_metric(
        name, as_loss=True, loss_reduction="none", device=device or torch.device("cpu")
    )
    return LibraryMetric(
        metric,
        f"pyiqa {getattr(pyiqa, '__version__', '')} {name}",
        lower_is_better=bool(metric.lower_better),
        score_range=_stated_range(getattr(metric, "score_range", "")),
        needs_reference=metric.metric_mode == "FR",
    )


def _stated_range(text: object) -> tuple[float, float] | None:
    """Two ascending numbers in a text such as ``~0, ~1``."""
    try:
        low, high = (float(re.sub(r"[~<>=()\[\]\s]", "", part)) for part in str(text).split(","))
    except ValueError:
        return None
    return (low, high) if low < high and math.isfinite(high - low) else None
