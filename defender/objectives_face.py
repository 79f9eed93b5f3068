"""What an attacker of face verification wants: to pass as somebody, or not to be recognised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from defender.gradients import ordinary
from defender.models.face_encoder import similarity
from defender.types import Images, Scores

__all__ = ["Dodge", "Encoder", "Impersonate"]

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class _Verification:
    """An attack on a verification system that compares an image with an enrolled embedding.

    Args:
        encoder: maps images (n, c, h, w) in [0, 1] to embeddings (n, d).
        enrolled: (n, d), one enrolled embedding an image.
        threshold: the system accepts a similarity that is not below it, in [0, 1]; None where
            only scores are wanted.
    """

    encoder: Encoder
    enrolled: Tensor
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.enrolled.ndim != 2 or not self.enrolled.is_floating_point():
            raise ValueError(
                "enrolled: expected floating-point embeddings (n, d), "
                f"got {self.enrolled.dtype} {tuple(self.enrolled.shape)}"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected [0, 1], got {self.threshold}")
        if getattr(self.encoder, "training", False):
            raise ValueError(f"expected {self.encoder!r} in evaluation mode, got training mode")

    @property
    def span(self) -> float:
        """Width of the range of similarities."""
        return 1.0

    def similarity(self, images: Images) -> Scores:
        """Similarity (n,) in [0, 1] of each image to its enrolled embedding, with gradients."""
        if len(images) != len(self.enrolled):
            raise ValueError(
                f"expected {len(self.enrolled)} images for as many enrolled embeddings, "
                f"got {len(images)}"
            )
        embeddings = self.encoder(images)
        if embeddings.shape != self.enrolled.shape:
            raise TypeError(
                f"{type(self).__name__} expected a face encoder with embeddings "
                f"{tuple(self.enrolled.shape)}, {self.encoder!r} gave {tuple(embeddings.shape)}"
            )
        return similarity(embeddings, ordinary(self.enrolled))

    def _accepted_by(self, images: Images) -> Scores:
        """Similarity minus threshold; not below 0 where the system accepts."""
        if self.threshold is None:
            raise TypeError(f"{self!r} expected a threshold for its margin, got None")
        return self.similarity(images) - self.threshold

    def __repr__(self) -> str:
        threshold = "" if self.threshold is None else f", threshold={self.threshold:g}"
        return (
            f"{type(self).__name__}(encoder={self.encoder!r}, images={len(self.enrolled)}"
            f"{threshold})"
        )


class Impersonate(_Verification):
    """Attack on face verification: to be taken for the person of an enrolled embedding.

    Args:
        encoder: maps images (n, c, h, w) in [0, 1] to embeddings (n, d); in evaluation mode.
        enrolled: (n, d), the embedding of whom each image is to pass for.
        threshold: similarity from which on the system accepts, in [0, 1], for :meth:`margin`.

    Raises:
        ValueError: embeddings that are no floats (n, d), a threshold outside [0, 1], an encoder in
            training mode; when called, a number of images other than that of the embeddings.
        TypeError: when called, an encoder with embeddings of another shape, such as a classifier.
    """

    def __call__(self, images: Images) -> Scores:
        """Similarity ``(cos + 1) / 2`` (n,) to the enrolled embeddings."""
        return self.similarity(images)

    def margin(self, images: Images) -> Scores:
        """Similarity minus threshold (n,): the system accepts where it is not below 0.

        Raises:
            TypeError: without a threshold.
        """
        return self._accepted_by(images)


class Dodge(_Verification):
    """Attack on face verification: not to be recognised as the person of an enrolled embedding.

    Args:
        encoder: maps images (n, c, h, w) in [0, 1] to embeddings (n, d); in evaluation mode.
        enrolled: (n, d), the embedding of the person that each image shows.
        threshold: similarity from which on the system accepts, in [0, 1], for :meth:`margin`.

    Raises:
        ValueError: embeddings that are no floats (n, d), a threshold outside [0, 1], an encoder in
            training mode; when called, a number of images other than that of the embeddings.
        TypeError: when called, an encoder with embeddings of another shape, such as a classifier.
    """

    def __call__(self, images: Images) -> Scores:
        """Minus the similarity ``(cos + 1) / 2`` (n,) to the enrolled embeddings."""
        return -self.similarity(images)

    def margin(self, images: Images) -> Scores:
        """Threshold minus similarity (n,): the system rejects where it is above 0.

        Raises:
            TypeError: without a threshold.
        """
        return -self._accepted_by(images)
