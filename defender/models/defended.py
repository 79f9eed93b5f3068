"""A model behind a purifier as one module, to put in the place of the model in other code."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from defender.noise import derive_seeds
from defender.objectives import Defended
from defender.types import Images, Purifier, Seeds


def content_seeds(images: Images, seed: int = 0) -> Seeds:
    """One seed an image, from a number and the image's own values.

    The same image has the same seed in every batch, at every place in it, on every device, and
    in float64 as in float32; an image that differs in one value has another one.

    Args:
        images: (n, c, h, w).
        seed: any whole number of 64 bits; another one gives other seeds.

    Returns:
        int64 (n,) on the device of the images.
    """
    # adding zero makes one of the two zeros, which are equal and would differ in their bytes
    values = (images.detach().to(torch.float32) + 0.0).cpu().contiguous()
    shape = str(tuple(values.shape[1:])).encode()
    digests = [
        hashlib.blake2b(shape + image.numpy().tobytes(), digest_size=8).digest() for image in values
    ]
    keys = [int.from_bytes(one, "big", signed=True) for one in digests]
    seeds = torch.tensor(keys, dtype=torch.int64, device=images.device)
    return derive_seeds(seeds, seed)


class DefendedModel(nn.Module):
    """Purifies images, asks the model, and answers as the model does.

    Each image is purified ``draws`` times with randomness of its own, derived from ``seed`` and
    the image's values (:func:`content_seeds`): an answer depends on the image and on nothing else,
    is the same whenever it is asked for, and does not change with the batch. Whoever changes an
    image, as an attack does at every step, meets other draws.

    ``vote`` says how the draws become one answer:

    * ``"mean"``: the mean of the model's outputs, logits where it gives logits. Any output that is
      a tensor (n, ...) will do; embeddings are averaged and not normalised again.
    * ``"majority"``: for outputs (n, classes), the share of draws that each class wins, in [0, 1]
      and 1 in sum: probabilities, not logits. The largest is the class of the majority; of equal
      ones ``argmax`` takes the first. Shares are steps, so their gradient is that of the mean of
      the softmax.

    Parameters and buffers are those of the model; networks that the purifier holds move along with
    ``to``, ``cuda`` and the like, but are not trained and not in the state dict.

    Args:
        model: maps images (n, c, h, w) in [0, 1] to outputs (n, ...); in evaluation mode, unless
            images may depend on each other.
        purifier: the defence; it must work without the clean original.
        seed: of the purifier's randomness.
        draws: how often each image is purified, 1 or more.
        vote: ``"mean"`` or ``"majority"``.
        backward: ``"exact"`` differentiates the purifier, ``"identity"`` passes gradients through
            it unchanged (BPDA).

    Raises:
        TypeError: a purifier that is none, or, when a gradient is wanted with ``"exact"``, one
            that has none.
        ValueError: a value out of range; a purifier that is given the clean original; when called,
            images that are not (n, c, h, w), or a vote over outputs that are not (n, classes).
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        purifier: Purifier,
        *,
        seed: int = 0,
        draws: int = 1,
        vote: Literal["mean", "majority"] = "mean",
        backward: Literal["exact", "identity"] = "exact",
    ) -> None:
        super().__init__()
        if isinstance(purifier, type) or not isinstance(purifier, Purifier):
            raise TypeError(f"purifier: expected a purifier such as Median(3), got {purifier!r}")
        if purifier.knowledge == "reference":
            raise ValueError(
                f"purifier: expected one that works without the clean original, got {purifier!r}"
            )
        if draws < 1:
            raise ValueError(f"draws: expected >= 1, got {draws}")
        if vote not in ("mean", "majority"):
            raise ValueError(f"vote: expected mean | majority, got {vote!r}")
        if backward not in ("exact", "identity"):
            raise ValueError(f"backward: expected exact | identity, got {backward!r}")
        self.model = model
        self.purifier = purifier
        self.seed = seed
        self.draws = draws
        self.vote = vote
        self.backward: Literal["exact", "identity"] = backward
        self.training = bool(getattr(model, "training", False))

    def forward(self, images: Images) -> Tensor:
        """Map images (n, c, h, w) in [0, 1] to outputs (n, ...), or to shares (n, classes)."""
        if images.ndim != 4:
            raise ValueError(f"expected images (n, c, h, w), got {tuple(images.shape)}")
        behind = Defended(
            self._asked,
            self.purifier,
            content_seeds(images, self.seed),
            draws=self.draws,
            backward=self.backward,
        )
        answers = (behind.score_of_draw(draw, images) for draw in range(self.draws))
        if self.vote == "mean":
            return _mean(answers, self.draws)
        shares, chances = zip(*(self._ballot(outputs) for outputs in answers), strict=True)
        share, chance = _mean(iter(shares), self.draws), _mean(iter(chances), self.draws)
        # the values are the shares to the bit, the gradient is that of the mean softmax
        return share + (chance - chance.detach())

    def _asked(self, images: Images) -> Tensor:
        outputs: Tensor = self.model(images)
        return outputs

    def _ballot(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The class that a draw votes for as one-hot rows, and the softmax: (n, classes) both."""
        if outputs.ndim != 2:
            raise ValueError(
                f"vote: majority expected outputs (n, classes), {self.model!r} gave "
                f"{tuple(outputs.shape)}"
            )
        chances = outputs.softmax(1)
        ballot = nn.functional.one_hot(outputs.detach().argmax(1), outputs.shape[1])
        return ballot.to(chances.dtype), chances

    def _apply(self, fn: Callable[..., Any], *more: Any, **options: Any) -> DefendedModel:
        """Move the purifier's networks along; they are no submodules, as they are not trained."""
        super()._apply(fn, *more, **options)  # type: ignore[no-untyped-call]
        for network in networks_of(self.purifier):
            network._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def __repr__(self) -> str:
        return (
            f"DefendedModel(model={self.model!r}, purifier={self.purifier!r}, seed={self.seed}, "
            f"draws={self.draws}, vote={self.vote!r}, backward={self.backward!r})"
        )


def _mean(parts: Iterator[Tensor], count: int) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total / count


def networks_of(algorithm: Any) -> Iterator[nn.Module]:
    """The modules that an algorithm or the algorithms within it hold in their fields."""
    if isinstance(algorithm, nn.Module):
        yield algorithm
    elif isinstance(algorithm, tuple | list):
        for part in algorithm:
            yield from networks_of(part)
    elif dataclasses.is_dataclass(algorithm) and not isinstance(algorithm, type):
        for field in dataclasses.fields(algorithm):
            yield from networks_of(getattr(algorithm, field.name))
