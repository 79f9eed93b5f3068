"""Face encoders: the layouts of public checkpoints, and what happens to images before them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from defender.models.face_encoder import NORMALISATIONS, FaceEncoder, similarity, unit
from defender.models.faces import (
    InceptionResnetV1,
    MobileFaceNet,
    iresnet18,
    iresnet34,
    iresnet50,
    iresnet100,
)
from defender.models.inception_resnet_v1 import Residual
from defender.models.iresnet import IBasicBlock

LAYOUTS = Path(__file__).resolve().parents[2] / "../shared/layouts"

# number of tensors, and digest of the sorted lines "name shape"
KNOWN: list[tuple[Callable[[], nn.Module], str, int, str]] = [
    (MobileFaceNet, "mobilefacenet", 307, "b793367e25bd3f78"),
    (iresnet18, "iresnet18", 187, "186f8718f47124c9"),
    (iresnet34, "iresnet34", 331, "03662115d9e7544e"),
    (iresnet50, "iresnet50", 475, "68db6bf4e3c7fb42"),
    (iresnet100, "iresnet100", 925, "ccee0674135a88e2"),
    (InceptionResnetV1, "facenet_inception_resnet_v1", 714, "ed257185796d0b5e"),
]
NAMES = [name for _, name, _, _ in KNOWN]
WITH_LAYOUT = [(make, name) for make, name, _, _ in KNOWN if name not in ("iresnet18", "iresnet50")]


def lines(network: nn.Module) -> list[str]:
    """Names and shapes of a network's tensors, as the layout files write them."""
    state = network.state_dict()
    return [f"{k} {'x'.join(map(str, v.shape)) or 'scalar'}" for k, v in state.items()]


@pytest.mark.parametrize(("make", "name", "count", "digest"), KNOWN, ids=NAMES)
def test_names_and_shapes(
    make: Callable[[], nn.Module], name: str, count: int, digest: str
) -> None:
    with torch.device("meta"):
        stated = lines(make())
    assert len(stated) == count
    assert hashlib.sha256("\n".join(sorted(stated)).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(("make", "name"), WITH_LAYOUT, ids=[name for _, name in WITH_LAYOUT])
def test_layout_of_public_checkpoints(make: Callable[[], nn.Module], name: str) -> None:
    path = LAYOUTS / f"{name}.txt"
    if not path.is_file():
        pytest.skip(f"no {path.name}: the layouts belong at ../shared/layouts")
    with torch.device("meta"):
        stated = lines(make())
    wanted = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert stated == [line.strip() for line in wanted]


@pytest.mark.parametrize(
    ("make", "side", "width"),
    [
        (lambda: MobileFaceNet(32), 32, 128),
        (lambda: iresnet18(32), 32, 512),
        (InceptionResnetV1, 80, 512),
    ],
    ids=["mobilefacenet", "iresnet18", "facenet"],
)
def test_random_weights_embed_and_pass_gradients(
    make: Callable[[], nn.Module], side: int, width: int
) -> None:
    torch.manual_seed(0)
    encoder = FaceEncoder(make(), (side, side)).eval().requires_grad_(False)
    images = torch.rand(2, 3, 20, 24).requires_grad_()
    embeddings = encoder(images)
    assert embeddings.shape == (2, width)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    (slope,) = torch.autograd.grad(embeddings[:, 0].sum(), images)
    assert bool(slope.isfinite().all())
    assert (slope.abs().sum(dim=(1, 2, 3)) > 0).all()
    torch.testing.assert_close(encoder(images.detach()[1:]), embeddings.detach()[1:])


def fresh_embeddings(make: Callable[[], nn.Module], side: int, seed: int) -> Tensor:
    """What a network of public size gives for two pictures before any training, (2, d)."""
    torch.manual_seed(seed)
    encoder = FaceEncoder(make(), (side, side)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    raw: Tensor = encoder.network(encoder.prepared(torch.rand(2, 3, side, side)))
    assert 0.1 < float(raw.norm(dim=1).max()) < 100
    return encoder(torch.rand(2, 3, 125, 125, generator=generator))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "side", "seeds"),
    [
        (MobileFaceNet, 112, 2),
        (iresnet18, 112, 1),
        pytest.param(iresnet34, 112, 2, marks=pytest.mark.slow),
        pytest.param(iresnet50, 112, 2, marks=pytest.mark.slow),
        pytest.param(iresnet100, 112, 1, marks=pytest.mark.slow),
        pytest.param(InceptionResnetV1, 160, 2, marks=pytest.mark.slow),
    ],
    ids=["mobilefacenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "facenet"],
)
def test_fresh_weights_of_public_size_give_embeddings_of_length_one(
    make: Callable[[], nn.Module], side: int, seeds: int
) -> None:
    for seed in range(seeds):
        embeddings = fresh_embeddings(make, side, seed)
        assert bool(embeddings.isfinite().all())
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)


def test_lengths_that_overflow_are_settled_and_ordinary_ones_keep_their_bits() -> None:
    rows = torch.randn(6, 512, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unit(rows), functional.normalize(rows))
    scales = torch.tensor([1e-30, 1e-10, 1.0, 1e10, 1e25, 1e36])
    torch.testing.assert_close(unit(rows * scales[:, None]), functional.normalize(rows))
    # a row does not depend on its mates
    assert torch.equal(unit(rows * scales[:, None])[2], functional.normalize(rows)[2])
    assert unit(torch.zeros(1, 4)).tolist() == [[0.0] * 4]
    assert bool(unit(torch.tensor([[1.0, math.inf]])).isnan().any())
    large = (rows[:1] * 1e25).requires_grad_()
    (slope,) = torch.autograd.grad(unit(large)[0, 0], large)
    assert bool(slope.isfinite().all())


def test_no_activation_follows_the_sum_of_an_iresnet_block() -> None:
    block = IBasicBlock(4, 4, 1, 2e-5).eval()
    nn.init.zeros_(block.bn3.weight)
    nn.init.constant_(block.bn3.bias, -2.0)
    x = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x - 2)


def test_the_share_of_a_facenet_block_that_is_added() -> None:
    network = InceptionResnetV1().eval()
    x = torch.rand(1, 256, 4, 4)
    wide = torch.rand(1, 1792, 3, 3)
    for block, shape, share in (
        (network.repeat_1[0], x, 0.17),
        (network.repeat_2[0], torch.rand(1, 896, 3, 3), 0.10),
        (network.repeat_3[0], wide, 0.20),
        (network.block8, wide, 1.0),
    ):
        assert isinstance(block, Residual)
        nn.init.zeros_(block.conv2d.weight)
        nn.init.constant_(block.conv2d.bias, -3.0)  # type: ignore[arg-type]
        added = shape - share * 3
        torch.testing.assert_close(block(shape), added if share == 1.0 else added.relu())


@pytest.mark.parametrize("make", [MobileFaceNet, iresnet18])
def test_sides_that_the_strides_do_not_divide_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="side: expected a multiple of 16, got 100"):
        make(100)


class Flattened(nn.Module):
    """Embeds what it is given as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def prepared(images: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    return FaceEncoder(Flattened(), size, "none", **options).eval().prepared(images)


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("half", -1.0, 1.0),
        ("facenet", -127.5 / 128, 127.5 / 128),
        ("none", 0.0, 1.0),
        ("imagenet", -0.485 / 0.229, 0.515 / 0.229),
    ],
)
def test_normalisations(name: Any, black: float, white: float) -> None:
    assert name in NORMALISATIONS
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    given = FaceEncoder(Flattened(), (4, 4), name).prepared(images)
    assert given.shape == (2, 3, 4, 4)
    torch.testing.assert_close(given[:, 0, 0, 0], torch.tensor([black, white]))


def test_images_of_the_right_size_are_left_as_they_are() -> None:
    images = torch.rand(2, 3, 6, 5)
    assert torch.equal(prepared(images, (6, 5)), images)


def test_resize_is_antialiased_bilinear() -> None:
    images = torch.rand(1, 3, 31, 17)
    wanted = functional.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(prepared(images, (8, 8)), wanted)


@pytest.mark.parametrize(
    ("fit", "scale", "box"),
    [
        ("stretch", 1.0, (0, 20, 0, 20)),
        ("stretch", 0.5, (5, 15, 5, 15)),
        ("pad", 1.0, (0, 20, 5, 15)),
        ("pad", 0.5, (5, 15, 7, 12)),
    ],
)
def test_where_an_image_lies(fit: str, scale: float, box: tuple[int, int, int, int]) -> None:
    given = prepared(torch.ones(1, 1, 40, 20), (20, 20), fit=fit, scale=scale)
    top, bottom, left, right = box
    wanted = torch.zeros(1, 3, 20, 20)
    wanted[..., top:bottom, left:right] = 1
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (200, 3)])
def test_any_size_is_embedded(shape: tuple[int, int]) -> None:
    assert prepared(torch.ones(1, 3, *shape), (16, 16), fit="pad").shape == (1, 3, 16, 16)


def test_the_mirror_image_is_added_before_the_length_is_settled() -> None:
    images = torch.rand(2, 3, 4, 4)
    encoder = FaceEncoder(Flattened(), (4, 4), "none", flip=True)
    wanted = functional.normalize((images + images.flip(3)).flatten(1))
    torch.testing.assert_close(encoder(images), wanted)
    torch.testing.assert_close(encoder(images.flip(3)), wanted)


def test_similarity_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    second = torch.tensor([[0.0, 3.0], [-1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(similarity(first, second), torch.tensor([0.5, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"normalisation": "zscore"}, "normalisation: expected imagenet | half | facenet | none"),
        ({"fit": "crop"}, "fit: expected stretch | pad, got 'crop'"),
        ({"scale": 0.0}, r"scale: expected \(0, 1\], got 0.0"),
        ({"input_size": (0, 4)}, "input_size: expected height and width >= 1"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FaceEncoder(Flattened(), **options)


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images: expected \(n, 1 or 3, h, w\)"):
        FaceEncoder(Flattened())(torch.zeros(1, 2, 4, 4))
