"""How well a quality metric ranks distorted images, or agrees with people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defender.metrics.quality import srcc
from tasks.batches import BatchRule, batches
from tasks.distorted_data import DistortedData
from tasks.training_data import TrainingData

Floats = NDArray[np.float64]

EVALUATION = BatchRule(64)
"""Compute batches of looks at versions."""

DRAWS = 1000
"""Bootstrap samples of an interval."""


Ask = Callable[[Tensor], Tensor]
"""Maps images (n, c, h, w) in [0, 1] to scores (n,)."""

Measure = Callable[[Floats, Floats], float]
"""How well scores (n,) go with labels (n,)."""


@torch.inference_mode()
def all_scores(
    ask: Ask, data: TrainingData, device: torch.device, looked_at: Tensor | None = None
) -> Tensor:
    """What a metric says of the images of a data set.

    Args:
        ask: the metric.
        data: the images, ingested.
        device: where it expects its images.
        looked_at: bool (n,), which images it is asked about; none: all.

    Returns:
        float32 (n,); NaN for images that are not looked at.
    """
    scores = torch.full((data.count,), torch.nan)
    start = 0
    for index in range(data.chunk_count):
        images = data.chunk(index)
        chosen = [i for i in range(len(images)) if looked_at is None or looked_at[start + i]]
        wanted = [images[i] for i in chosen]
        for batch in batches(wanted, EVALUATION):
            found = ask(batch.stack(wanted, device)).float().cpu()
            where = torch.tensor([start + chosen[i] for i in batch.index])
            scores[where] = found[: len(batch.index)]
        start += len(images)
    return scores


def scores_of(
    ask: Ask, data: DistortedData, device: torch.device, kinds: Sequence[str] | None = None
) -> Tensor:
    """What a metric says of the versions of a data set.

    Args:
        ask: the metric.
        data: the versions, ingested.
        device: where it expects its images.
        kinds: distortions that are looked at; none: all. The pristine version always is.

    Returns:
        float32 (images, versions); NaN for versions that are not looked at.
    """
    looked_at = data.of_kinds(data.distortions if kinds is None else kinds)
    scores = all_scores(ask, data, device, looked_at.repeat(data.images))
    return scores.view(data.images, data.versions)


def pearson(scores: Floats, labels: Floats) -> float:
    """Pearson's correlation; NaN where all scores or all labels are equal."""
    x, y = scores - scores.mean(), labels - labels.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread else math.nan


def correlation(scores: Tensor, labels: Tensor, measure: Measure = srcc) -> dict[str, Any]:
    """A correlation over all versions, with its bootstrap interval over images.

    Args:
        scores: (images, versions).
        labels: (images, versions).
        measure: the correlation; Spearman's rank correlation unless told.

    Returns:
        Value, ``ci_low`` and ``ci_high`` (95 %), and the numbers of images and versions; the
        figures are None where all scores or all labels are equal.
    """
    x: Floats = scores.double().numpy()
    y: Floats = labels.double().numpy()
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(x), (DRAWS, len(x)))
    drawn = np.array([measure(x[pick].ravel(), y[pick].ravel()) for pick in picks])
    value = measure(x.ravel(), y.ravel())
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
    figures = {"value": value, "ci_low": float(low), "ci_high": float(high)}
    sizes = {"images": len(x), "versions": x.size}
    return {name: _known(figure) for name, figure in figures.items()} | sizes


def _known(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None


def judge_opinions(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """The figures of a metric on held-out images that people have scored.

    Args:
        scores: (n,) of the metric.
        labels: (n,) of the people.

    Returns:
        ``srocc`` and ``plcc``, Spearman's and Pearson's correlation with bootstrap intervals, and
        ``rmse``, the root of the mean squared difference.
    """
    x, y = scores[:, None], labels[:, None]
    return {
        "srocc": correlation(x, y),
        "plcc": correlation(x, y, pearson),
        "rmse": float((scores.double() - labels.double()).square().mean().sqrt()),
    }


def judge(
    scores: Tensor, data: DistortedData, trained: Sequence[str], unseen: Sequence[str]
) -> dict[str, Any]:
    """The figures of a metric on held-out images.

    Args:
        scores: (images, versions), of all versions of the data.
        data: the versions.
        trained: distortions that the metric was trained on.
        unseen: distortions that it was not.

    Returns:
        ``srocc`` over the pristine images and all levels of the trained kinds (``trained``), of
        the others (``unseen``, None where there are none), and over the levels of each kind alone
        (``by_kind``); mean and standard deviation of the scores of pristine images (``clean``).
    """
    labels = data.labels.view(data.images, data.versions)

    def over(kinds: Sequence[str], *, pristine: bool) -> dict[str, Any]:
        chosen = data.of_kinds(kinds, pristine=pristine)
        return correlation(scores[:, chosen], labels[:, chosen])

    clean = scores[:, 0].double()
    return {
        "srocc": {
            "trained": over(trained, pristine=True),
            "unseen": over(unseen, pristine=True) if unseen else None,
            "by_kind": {kind: over([kind], pristine=False) for kind in (*trained, *unseen)},
        },
        "clean": {
            "images": len(clean),
            "mean": float(clean.mean()),
            "std": float(clean.std(correction=0)),
        },
    }
