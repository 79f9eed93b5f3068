"""Alignment: known similarities are recovered, and pixels land where they should."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from defender.face_alignment import (
    ARCFACE_TEMPLATE,
    YuNet,
    align,
    similarity_transform,
    template,
    warp_affine,
)


def known(scale: float, degrees: float, shift: tuple[float, float]) -> Tensor:
    """A similarity (2, 3)."""
    turn = math.radians(degrees)
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    rows = [[cosine, -sine, shift[0]], [sine, cosine, shift[1]]]
    return torch.tensor(rows, dtype=torch.float64)


def moved(points: Tensor, transform: Tensor) -> Tensor:
    return points @ transform[:, :2].T + transform[:, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_similarities_are_recovered(dtype: torch.dtype) -> None:
    wanted = torch.stack(
        [known(1, 0, (0, 0)), known(0.37, 30, (12, -5)), known(2.5, -170, (3, 80.5))]
    )
    generator = torch.Generator().manual_seed(0)
    source = 100 * torch.rand(3, 5, 2, generator=generator, dtype=torch.float64)
    target = torch.stack([moved(s, w) for s, w in zip(source, wanted, strict=True)])
    found = similarity_transform(source.to(dtype), target.to(dtype))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def umeyama(source: Any, target: Any) -> Any:
    """The paper's equations 38 to 43, with a singular value decomposition."""
    m, n = source.mean(0), target.mean(0)
    a, b = source - m, target - n
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    signs = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ signs @ vt
    scale = np.trace(np.diag(d) @ signs) / (a**2).sum() * len(a)
    return np.column_stack([scale * turn, n - scale * turn @ m])


def test_noisy_points_are_fitted_as_umeyama_does() -> None:
    generator = np.random.default_rng(1)
    for index in range(20):
        source, target = generator.normal(size=(2, 5, 2))
        if index % 2:
            # nearly a reflection, which must not be taken
            target = source * [-1, 1] + 0.1 * target
        found = similarity_transform(torch.tensor(source)[None], torch.tensor(target))[0]
        np.testing.assert_allclose(found.numpy(), umeyama(source, target), atol=1e-9)
        assert np.linalg.det(found[:, :2].numpy()) > 0


def test_landmarks_land_on_the_template() -> None:
    """A face with bright dots at its landmarks, turned, small and off the centre."""
    place = known(0.8, 25, (30, 10))
    landmarks = moved(template(), place)
    rows = torch.arange(160.0)[:, None, None]
    columns = torch.arange(150.0)[None, :, None]
    squares = (columns - landmarks[:, 0]) ** 2 + (rows - landmarks[:, 1]) ** 2
    picture = torch.exp(-squares / 2).amax(dim=2).float()[None, None]
    aligned = align(picture, landmarks[None].float())
    assert aligned.shape == (1, 1, 112, 112)
    for column, row in ARCFACE_TEMPLATE:
        r, c = round(row), round(column)
        near = aligned[0, 0, r - 4 : r + 5, c - 4 : c + 5]
        weights = near / near.sum()
        at_row = float((weights.sum(1) * torch.arange(r - 4.0, r + 5)).sum())
        at_column = float((weights.sum(0) * torch.arange(c - 4.0, c + 5)).sum())
        assert (at_column, at_row) == pytest.approx((column, row), abs=0.1)


def test_an_aligned_face_stays_and_another_size_scales_the_template() -> None:
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    landmarks = template().expand(2, -1, -1)
    torch.testing.assert_close(align(images, landmarks), images, atol=1e-9, rtol=0)
    torch.testing.assert_close(template((224, 224)), 2 * template())
    assert align(images, landmarks, (64, 64)).shape == (2, 3, 64, 64)


def test_whole_pixels_are_shifted_exactly_and_the_rest_is_black() -> None:
    images = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    shift = known(1, 0, (2, 1))[None]
    found = warp_affine(images, shift, (6, 7))
    wanted = torch.zeros_like(images)
    wanted[..., 1:, 2:] = images[..., :-1, :-2]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_warp_agrees_with_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    image = torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(2))
    transform = known(1.1, 20, (4, -6))
    wanted = cv2.warpAffine(image.numpy(), transform.numpy(), (32, 30), flags=cv2.INTER_LINEAR)
    found = warp_affine(image.permute(2, 0, 1)[None], transform[None], (30, 32))
    # OpenCV rounds places to 1/32 of a pixel
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), wanted, atol=0.05)


def test_gradients_pass() -> None:
    images = torch.rand(1, 1, 20, 20, requires_grad=True)
    landmarks = (template() / 6 + 1)[None]
    align(images, landmarks, (16, 16)).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert bool((images.grad > 0).any())


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"landmarks: expected \(2, 5, 2\), got \(1, 5, 2\)"):
        align(torch.zeros(2, 1, 8, 8), torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="source: expected points at several places"):
        align(torch.zeros(1, 1, 8, 8), torch.ones(1, 5, 2))
    with pytest.raises(ValueError, match="source: expected points"):
        similarity_transform(torch.zeros(5, 2), template())
    with pytest.raises(ValueError, match=r"target: expected \(1, 5, 2\) or \(5, 2\)"):
        similarity_transform(torch.rand(1, 5, 2), torch.zeros(4, 2))


def test_the_detector_needs_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights: expected an ONNX file, got .*absent.onnx"):
        YuNet(tmp_path / "absent.onnx")
    with pytest.raises(ValueError, match=r"threshold: expected \[0, 1\], got 2"):
        YuNet(tmp_path / "absent.onnx", threshold=2)
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    (tmp_path / "damaged.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"weights: .*damaged.onnx cannot be used"):
        YuNet(tmp_path / "damaged.onnx")


class Finds:
    """Stands in for OpenCV's detector: a face in images with a bright first pixel in blue."""

    def __init__(self) -> None:
        self.size = (0, 0)

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: Any) -> tuple[int, Any]:
        assert image.shape == (self.size[1], self.size[0], 3)
        if image[0, 0, 0] < 128:
            return 1, None
        small = [0, 0, 2, 2, *range(10), 0.9]
        large = [0, 0, 9, 9, *range(10, 20), 0.7]
        return 1, np.array([small, large], dtype=np.float32)


def test_the_largest_face_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    (tmp_path / "yunet.onnx").write_bytes(b"")
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *args: Finds())
    images = torch.zeros(2, 3, 8, 12)
    images[1, 2] = 1.0
    nobody, somebody = YuNet(tmp_path / "yunet.onnx")(images)
    assert nobody is None
    assert somebody is not None
    assert somebody.tolist() == [[10, 11], [12, 13], [14, 15], [16, 17], [18, 19]]
