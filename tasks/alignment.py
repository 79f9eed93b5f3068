"""Faces of a data set moved to where encoders expect them, while the images are decoded."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defender.face_alignment import YuNet, align
from defender.norms import to_uint8
from storage.decode import Rejected
from storage.images import Pixels
from storage.ledger import sha256_file
from storage.sources.paths import places
from tasks.errors import SpecError
from tasks.subject_specs import AlignSpec


class Alignment:
    """Finds the largest face on an image and moves it to its place.

    What is stored, attacked and purified afterwards is the aligned image.

    Args:
        spec: the detector's weights, and the size of the result.
        folder: folder of the specification; paths are relative to it, or to where data sets are
            looked for.

    Raises:
        SpecError: where the weights are absent or cannot be used, or without OpenCV.
    """

    def __init__(self, spec: AlignSpec, folder: Path) -> None:
        tried = places(spec.weights, folder, os.environ)
        path = next((place for place in tried if place.is_file()), None)
        if path is None:
            looked = ", ".join(map(str, tried))
            raise SpecError(
                "dataset.align.weights: expected the ONNX file of OpenCV's face detector, such as "
                f"face_detection_yunet_2023mar.onnx, found none at {looked}"
            )
        try:
            self._detector = YuNet(path, spec.threshold)
        except (ValueError, ImportError) as error:
            raise SpecError(f"dataset.align.{error}") from None
        self._spec = spec
        self._digest = sha256_file(path)
        # a detector keeps the size of the image it is at
        self._lock = threading.Lock()

    def identity(self) -> dict[str, Any]:
        """What aligned images depend on besides the images."""
        return {"weights": self._digest, **self._spec.model_dump(exclude={"weights"})}

    def __call__(self, pixels: Pixels) -> Pixels | Rejected:
        """The aligned image, or why there is none.

        Args:
            pixels: uint8 (c, h, w).

        Returns:
            uint8 (c, *size); black where the image does not reach.
        """
        images = torch.from_numpy(pixels)[None].float() / 255
        with self._lock:
            [landmarks] = self._detector(images)
        if landmarks is None:
            return Rejected(f"shows no face that is found at confidence {self._spec.threshold:g}")
        try:
            made = align(images, landmarks[None], self._spec.size)
        except ValueError as error:
            return Rejected(f"shows a face that cannot be aligned: {error}")
        return np.ascontiguousarray(to_uint8(made)[0].numpy())
