"""What purifiers that draw at random share."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from defender.types import Images, Knowledge, Seeds, check_parameters


class Randomised:
    """Blind purifiers whose result follows from the image and its seed alone."""

    version: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def knowledge(self) -> Knowledge:
        """``"blind"``: only the image."""
        return "blind"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Change images at random.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: int64 (n,), from which each image's draw is derived.
            reference: unused.

        Returns:
            (n, c, height, width) in [0, 1]; h and w unless the purifier does not keep the size.
        """
        return self.drawn(images, seeds)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The purified images under ``"purified"``; arguments as for the call."""
        return {"purified": self(images, seeds=seeds, reference=reference)}

    @abstractmethod
    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """The change itself: images (n, c, h, w) in [0, 1] and seeds (n,) to such images."""
