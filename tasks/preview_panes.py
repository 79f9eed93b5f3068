"""What the app shows of one picture: panes, with what the system says of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from defender import metrics
from defender.explain import overlay
from defender.models.face_encoder import similarity
from defender.norms import from_uint8, to_uint8
from storage.images import Pixels
from tasks.encoding import amplification, amplified, change_of
from tasks.errors import ModelError
from tasks.quality_scores import opinion
from tasks.result_files import encoded
from tasks.workbench import Workbench

SHOWN_CLASSES = 5
"""Classes whose probabilities are shown."""


@dataclass(frozen=True)
class Pane:
    """One picture on the page.

    Args:
        role: what it shows.
        pixels: uint8 (c, h, w) with one channel or three.
        mask: it is a mask or a map, no picture.
        answers: class and probability, the most likely first; empty where nothing was asked.
        figures: name and value, such as ``psnr`` (dB), ``ssim``, ``linf`` (of 255), ``score``,
            ``similarity``.
        said: what the system decides, in words.
        verdict: ``good``, ``bad`` or empty: whether that is what it says of the original.
    """

    role: str
    pixels: Pixels = field(repr=False)
    mask: bool = False
    answers: tuple[tuple[str, float], ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    said: str = ""
    verdict: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.pixels.shape[1:]
        return int(width), int(height)

    @property
    def alt(self) -> str:
        """The pane in words."""
        told = [self.said] if self.said else []
        known = ("score", "similarity") if self.said else ()
        told += [f"{n} {value:.4g}" for n, value in self.figures.items() if n not in known]
        return ", ".join([f"{self.role}, {self.size[0]} by {self.size[1]} pixels", *told])

    @property
    def png(self) -> bytes:
        """The picture as a file, without loss."""
        return encoded(self.pixels)


def as_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """A stored picture as a batch of one, float32 (1, c, h, w) in [0, 1]."""
    return from_uint8(torch.from_numpy(np.ascontiguousarray(pixels))[None].to(device))


def as_pixels(images: Tensor) -> Pixels:
    """The first of a batch as it would be stored."""
    values = images.to(torch.uint8) * 255 if images.dtype == torch.bool else to_uint8(images)
    made: Pixels = values[0].cpu().contiguous().numpy()
    return made


class Views:
    """Makes panes, comparing each with the original.

    Args:
        bench: the system that is asked.
        clean: the original, uint8 (c, h, w).
        label: its class, -1 where nobody knows.
        names: of the classes.
        enrolled: embedding (1, d) that a face is compared with, if it is one.
        threshold: similarity from which faces pass.
    """

    def __init__(
        self,
        bench: Workbench,
        clean: Pixels,
        label: int,
        names: Sequence[str],
        enrolled: Tensor | None = None,
        threshold: float | None = None,
    ) -> None:
        self.bench = bench
        self.clean = clean
        self.label = label
        self.names = names
        self.enrolled = enrolled
        self.threshold = threshold
        self.first: int | None = None
        """The class that the model gives the original."""

    @torch.no_grad()
    def answered(self, role: str, pixels: Pixels, seen: Pixels | None = None) -> Pane:
        """A pane with what the system says of it.

        Args:
            role: what it shows.
            pixels: the picture.
            seen: what is shown in its place: what the model is given of it.
        """
        bench = self.bench
        image = as_tensor(pixels, bench.device)
        figures = self._distances(pixels) if seen is None else {}
        said, verdict = "", ""
        answers: tuple[tuple[str, float], ...] = ()
        if bench.has_model:
            said, verdict, answers = self._classified(image)
        elif bench.has_metric:
            columns = opinion(bench, image, as_tensor(self.clean, bench.device))
            figures["score"] = float(columns["score"])
            said = f"score {figures['score']:.4g}"
        elif bench.has_encoder and self.enrolled is not None:
            similar = float(similarity(bench.encoder(image), self.enrolled))
            figures["similarity"] = similar
            said = f"similarity {similar:.3f}"
            if self.threshold is not None:
                passes = similar >= self.threshold
                said += f", threshold {self.threshold:.3f}: {'passes' if passes else 'is refused'}"
                verdict = "bad" if passes else "good"
        return Pane(role, pixels if seen is None else seen, False, answers, figures, said, verdict)

    def difference(self, pixels: Pixels) -> Pane | None:
        """What was changed, amplified; None where sizes differ."""
        if pixels.shape != self.clean.shape:
            return None
        change = change_of(self.clean, pixels)
        largest = int(np.abs(change).max(initial=0))
        factor = amplification([change])
        return Pane(
            f"difference \u00d7 {factor}",
            amplified(change, factor),
            figures={"linf": largest},
            said=f"at most {largest}/255",
        )

    def _classified(self, image: Tensor) -> tuple[str, str, tuple[tuple[str, float], ...]]:
        logits = self.bench.model(image)
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(f"{self.bench.model!r}: expected finite outputs, got others")
        shares = logits.softmax(1)[0]
        best = shares.topk(min(SHOWN_CLASSES, len(shares)))
        answers = tuple(
            (self.name(int(number)), float(share))
            for number, share in zip(best.indices, best.values, strict=True)
        )
        first = int(best.indices[0])
        if self.first is None:
            self.first = first
        truth = self.label if self.label >= 0 else self.first
        verdict = "good" if first == truth else "bad"
        return f"{answers[0][0]}, {100 * answers[0][1]:.0f} %", verdict, answers

    def name(self, number: int) -> str:
        """Name of a class, or its number."""
        known = 0 <= number < len(self.names)
        return self.names[number] if known else f"class {number}"

    def _distances(self, pixels: Pixels) -> dict[str, float]:
        if pixels.shape != self.clean.shape or np.array_equal(pixels, self.clean):
            return {}
        device = self.bench.device
        pair = as_tensor(self.clean, device), as_tensor(pixels, device)
        values = {"psnr": float(metrics.psnr(*pair)), "ssim": float(metrics.ssim(*pair))}
        found = {name: value for name, value in values.items() if math.isfinite(value)}
        found["linf"] = float(np.abs(change_of(self.clean, pixels)).max(initial=0))
        return found


def parts_panes(parts: Mapping[str, Tensor]) -> list[Pane]:
    """Masks and layers that a purifier makes on the way to its result."""
    panes = []
    for name, values in parts.items():
        if name == "purified" or values.ndim != 4 or values.shape[1] not in (1, 3):
            continue
        masked = values.dtype == torch.bool
        said = f"{100 * float(values.float().mean()):.0f} % of values" if masked else ""
        panes.append(Pane(name.replace("_", " "), as_pixels(values), mask=masked, said=said))
    return panes


def heat_pane(role: str, pixels: Pixels, heat: Tensor) -> Pane:
    """A picture with a heat map (h, w) in [0, 1] laid over it."""
    image = as_tensor(pixels, torch.device("cpu"))
    return Pane(role, overlay(image, heat[None].float().cpu())[0].contiguous().numpy())
