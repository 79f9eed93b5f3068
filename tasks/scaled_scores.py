"""What the model's pipeline makes of an image: close to the clean one, or to a hidden picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from defender import metrics
from defender.models.scaled import scaled_files
from storage.images import Pixels
from tasks.batches import Batch
from tasks.chunk import Chunk

REACHED = 20.0
"""PSNR in dB above which the scaled image looks like the hidden picture (goal O1)."""
HIDDEN = 15.0
"""PSNR in dB from which the attack image looks like the clean one (goal O2, Quiring 2020)."""


class ScaledScores:
    """Columns that judge images behind the pipeline's resize.

    Args:
        chunk: of a score stage; its input ``target`` holds the hidden pictures, if there are any.
        clean: the clean images of the chunk.
    """

    def __init__(self, chunk: Chunk, clean: Sequence[Pixels]) -> None:
        self.bench = chunk.bench
        self.clean = clean
        self.hidden = chunk.images("target") if "target" in chunk.inputs else None

    @torch.no_grad()
    def columns(self, batch: Batch, images: Tensor) -> dict[str, Tensor]:
        """Columns (b,) of one batch of stored images (b, c, h, w) in [0, 1].

        ``scaled_psnr`` compares with the scaled clean image; ``target_psnr``, ``target_linf`` and
        ``target_prediction`` with the hidden picture. ``o1``: the scaled image has a PSNR of 20 dB
        or more to the hidden picture and is closer to it than to the scaled clean image; ``o2``:
        the PSNR to the clean image is 15 dB or more.
        """
        seen = self._scale(images)
        original = self._originals(batch)
        columns = {"scaled_psnr": metrics.psnr(original, seen)}
        if self.hidden is None:
            return columns
        picture = batch.stack(self.hidden, self.bench.device)
        reached = metrics.psnr(picture, seen)
        closer = metrics.l2(picture, seen) < metrics.l2(original, seen)
        columns |= {
            "target_psnr": reached,
            "target_linf": metrics.linf(picture, seen),
            "o1": ((reached >= REACHED) & closer).double(),
        }
        if self.bench.has_model:
            columns["target_prediction"] = self.bench.model(picture).argmax(1)
        if all(self.clean[i].shape[1:] == images.shape[2:] for i in batch.index):
            whole = batch.stack(self.clean, self.bench.device)
            columns["o2"] = (metrics.psnr(whole, images) >= HIDDEN).double()
        return columns

    def _scale(self, images: Tensor) -> Tensor:
        pipeline = self.bench.pipeline
        if pipeline is None or tuple(images.shape[2:]) == pipeline.target:
            return images
        return scaled_files(images, pipeline.of(images))

    def _originals(self, batch: Batch) -> Tensor:
        """The scaled clean images; images of one size may stem from clean ones of several."""
        made = [
            self._scale(torch.from_numpy(self.clean[i])[None].to(self.bench.device) / 255)
            for i in batch.padded
        ]
        return torch.cat(made)
