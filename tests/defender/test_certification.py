"""Certified patch defences, checked by trying every patch on images small enough for that."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defender.certification import CERTIFIERS, Certifier, CoveringMasks, PatchCleanser
from defender.certification import covering_masks as covering_module
from defender.certification import masks as masks_module
from defender.certification import patch_cleanser as cleanser_module
from defender.certification.masks import bands, rectangles
from tests import cases

SIDE, PATCH = 6, 2
PLACES = list(itertools.product(range(SIDE - PATCH + 1), repeat=2))
DARK, BRIGHT, LOUD = 0.25, 0.75, 1.0
CHOSEN = torch.arange(40, 25 * 81, 307)
"""Some of the patches of :func:`attacked`."""
CONTENTS = torch.tensor(list(itertools.product((DARK, BRIGHT, LOUD), repeat=PATCH**2)))


class Loud(nn.Module):
    """A classifier that a single pixel fools.

    It tells dark from bright images by their sum and some fixed random features, and calls an
    image with loud pixels the third class.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = torch.randn(SIDE**2, 24, generator=generator)
        self.last = torch.randn(24, 3, generator=generator)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        total = (flat - 0.5).sum(1)
        loud = 100 * (flat == LOUD).sum(1) - 4
        features = ((flat - 0.5) @ self.first).tanh() @ self.last
        logits: Tensor = torch.stack([-total, total, loud], dim=1) + 0.2 * features
        return logits


def quiet_images(count: int = 16, seed: int = 2) -> Tensor:
    """Images (n, 1, 6, 6) of dark and bright pixels, from nearly dark to nearly bright."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.linspace(0.05, 0.95, count).view(-1, 1, 1, 1)
    bright = torch.rand(count, 1, SIDE, SIDE, generator=generator) < share
    return torch.where(bright, BRIGHT, DARK)


def attacked(image: Tensor) -> Tensor:
    """Every image that differs from ``image`` (1, 6, 6) in one patch of 2 x 2."""
    copies = image.repeat(len(PLACES), len(CONTENTS), 1, 1)
    contents = CONTENTS.view(-1, PATCH, PATCH)
    for place, (top, left) in enumerate(PLACES):
        copies[place, :, top : top + PATCH, left : left + PATCH] = contents
    return copies.flatten(0, 1)[:, None]


def violations(defence: Any, images: Tensor) -> tuple[int, int, int]:
    """Certified images, those of them that a patch breaks, those whose plain label it changes."""
    labels = defence(images)
    certified = defence.certify(images, labels)
    broken = fooled = 0
    for image, label in zip(images[certified], labels[certified], strict=True):
        copies = attacked(image)
        broken += bool((defence(copies) != label).any())
        fooled += bool((defence.model(copies).argmax(1) != label).any())
    return int(certified.sum()), broken, fooled


def toy(kind: Any, masks: int) -> Any:
    return kind(Loud(), patch_pixels=PATCH, masks=masks, batch=4096)


kinds = pytest.mark.parametrize("kind", CERTIFIERS.values(), ids=list(CERTIFIERS))


@kinds
@pytest.mark.parametrize("masks", [2, 4])
def test_no_patch_at_all_changes_a_certified_label(kind: Any, masks: int) -> None:
    images = quiet_images()
    certified, broken, fooled = violations(toy(kind, masks), images)
    assert broken == 0
    assert fooled == certified
    assert 4 <= certified < len(images)


@kinds
@pytest.mark.parametrize(
    "spoil",
    [lambda found: found & found.roll(-1, 1), lambda found: found[:-1]],
    ids=["bands a pixel too narrow", "a band too few"],
)
def test_trying_every_patch_shows_a_wrong_mask_set(
    kind: Any, spoil: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks_module, "bands", lambda *axis: spoil(bands(*axis)))
    _, broken, _ = violations(toy(kind, 3), quiet_images())
    assert broken


def test_one_round_of_rectangles_certifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def grid(size: tuple[int, int], patch: tuple[int, int], count: int) -> Tensor:
        return rectangles(size, patch, count).view(count, count, *size)

    monkeypatch.setattr(covering_module, "crosses", grid)
    _, broken, _ = violations(toy(CoveringMasks, 3), quiet_images())
    assert broken


def test_agreement_under_single_masks_is_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    def agree(self: Any, labels: Tensor) -> Tensor:
        return (self.one == labels[:, None]).all(1)

    monkeypatch.setattr(cleanser_module._Pairs, "certify", agree)
    images = quiet_images(24)
    defence = toy(PatchCleanser, 3)
    assert violations(defence, images)[1]


def prediction_table(defence: PatchCleanser, image: Tensor) -> Tensor:
    """Every two-mask prediction of an image (1, c, h, w), int64 (masks, masks)."""
    height, width = image.shape[2:]
    side = defence.patch_side((height, width))
    hidden = rectangles((height, width), (side, side), defence.masks)
    copies = image.repeat(len(hidden) ** 2, 1, 1, 1)
    for copy, (first, second) in zip(copies, itertools.product(hidden, repeat=2), strict=True):
        copy[:, first | second] = defence.fill
    return defence.model(copies).argmax(1).view(len(hidden), -1)


def double_masking(table: Tensor) -> int:
    """The paper's inference, step by step on a table of two-mask predictions."""
    one = table.diagonal().tolist()
    if len(set(one)) == 1:
        return int(one[0])
    votes = Counter(one)
    chosen = min(votes, key=lambda label: (-votes[label], label))
    for i, label in enumerate(one):
        if label != chosen and all(other == label for other in table[i].tolist()):
            return int(label)
    return int(chosen)


def examples(channels: int) -> tuple[PatchCleanser, Tensor]:
    """A defence and images on which its second round decides in every way."""
    if channels == 3:
        return PatchCleanser(cases.classifier(), patch_pixels=3, masks=3, fill=0.3), cases.images(
            12
        )
    clean = quiet_images()
    loud = torch.cat([attacked(image)[CHOSEN] for image in clean[::4]])
    return PatchCleanser(Loud(), patch_pixels=PATCH, masks=3), torch.cat([clean, loud])


@pytest.mark.parametrize("channels", [1, 3])
def test_double_masking_equals_the_full_table(channels: int) -> None:
    defence, images = examples(channels)
    tables = [prediction_table(defence, image[None]) for image in images]
    expected = torch.tensor([double_masking(table) for table in tables])
    for labels in (expected, expected.clamp(min=1) - 1):
        columns = defence.judge(images, labels)
        full = [bool((table == label).all()) for table, label in zip(tables, labels, strict=True)]
        assert torch.equal(columns["prediction"], expected)
        assert columns["certified"].tolist() == full
        assert torch.equal(defence(images), expected)
        assert defence.certify(images, labels).tolist() == full
    votes = [Counter(table.diagonal().tolist()).most_common() for table in tables]
    share = [found[0][1] / len(table) for found, table in zip(votes, tables, strict=True)]
    torch.testing.assert_close(columns["one_mask_agreement"], torch.tensor(share))
    if channels == 1:
        minority = [found[0][0] != label for found, label in zip(votes, expected, strict=True)]
        assert 5 <= sum(minority) < sum(len(found) > 1 for found in votes)


@kinds
def test_results_do_not_depend_on_how_images_are_batched(kind: Any) -> None:
    defence, images = kind(cases.classifier(), patch_pixels=2, masks=4), cases.images()
    labels = defence(images)
    together = defence.judge(images, labels)
    single = [
        defence.judge(image[None], label[None]) for image, label in zip(images, labels, strict=True)
    ]
    for name, column in together.items():
        assert torch.equal(column, torch.cat([columns[name] for columns in single])), name


class Counting(nn.Module):
    """Counts what it is asked, and always answers with the same logits."""

    def __init__(self, favour: int = 1) -> None:
        super().__init__()
        self.favour = favour
        self.sizes: list[int] = []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        logits = torch.zeros(len(images), 3)
        logits[:, self.favour] = 1.0
        return logits


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    # 3 x 3 masks: 9 of them, 9 * 10 / 2 = 45 pairs with themselves; a wrong label needs no pairs
    [(PatchCleanser, 1, 45), (PatchCleanser, 0, 9), (CoveringMasks, 1, 9), (CoveringMasks, 0, 9)],
)
def test_each_masked_copy_is_evaluated_once(kind: Any, label: int, expected: int) -> None:
    model = Counting()
    defence = kind(model, patch_pixels=2, masks=3, batch=16)
    columns = defence.judge(cases.images(), torch.full((8,), label))
    assert columns["evaluations"].tolist() == [expected] * 8
    assert columns["certified"].tolist() == [label == 1] * 8
    assert columns["prediction"].tolist() == [1] * 8
    assert columns["one_mask_agreement"].tolist() == [1.0] * 8
    assert set(model.sizes) == {16}
    # 72 copies in the first round, then 8 x 16 and 8 x 20
    assert len(model.sizes) == (5 if expected == 9 else 5 + 8 + 10)


@kinds
def test_a_certifier_is_what_the_registry_says(kind: Any) -> None:
    defence = kind(cases.classifier())
    assert isinstance(defence, Certifier)
    assert defence.version >= 1
    assert defence.paper
    assert "tensor" not in repr(defence)
    assert "\n" not in repr(defence)
    assert all(name == registered.__name__ for name, registered in CERTIFIERS.items())


@kinds
def test_leaves_images_and_model_as_they_were(kind: Any) -> None:
    defence, images = kind(cases.classifier(), masks=2), cases.images()
    columns = defence.judge(images, torch.zeros(len(images), dtype=torch.int64))
    assert torch.equal(images, cases.images())
    assert not any(column.requires_grad for column in columns.values())
    assert all(weight.grad is None for weight in defence.model.parameters())


def test_the_patch_is_a_share_or_pixels() -> None:
    model = cases.classifier()
    assert PatchCleanser(model).patch_side((224, 300)) == 33
    assert PatchCleanser(model, patch=0.29).patch_side((100, 100)) == 29
    assert PatchCleanser(model, patch=0.125).patch_side((32, 32)) == 4
    assert PatchCleanser(model, patch=0.01).patch_side((32, 32)) == 1
    assert PatchCleanser(model, patch_pixels=30).patch_side((224, 224)) == 30
    assert PatchCleanser(model, patch_pixels=30).patch_side((8, 224)) == 8


@kinds
def test_a_patch_of_the_whole_image_leaves_one_mask(kind: Any) -> None:
    defence, images = kind(Counting(), patch=1.0), cases.images()
    assert defence.judge(images, defence(images))["evaluations"].tolist() == [1] * 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"patch": 0.0}, "patch: expected"),
        ({"patch": 1.5}, "patch: expected"),
        ({"patch_pixels": 0}, "patch_pixels: expected >= 1, got 0"),
        ({"masks": 0}, "masks: expected >= 1, got 0"),
        ({"fill": 2.0}, "fill: expected"),
        ({"batch": 0}, "batch: expected >= 1, got 0"),
    ],
)
def test_refuses_parameters_out_of_range(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchCleanser(cases.classifier(), **parameters)


def test_refuses_what_it_cannot_judge() -> None:
    defence, images = PatchCleanser(cases.classifier(), masks=2), cases.images()
    with pytest.raises(ValueError, match=r"labels: expected int64 \(8,\)"):
        defence.judge(images, torch.zeros(8))
    with pytest.raises(ValueError, match=r"labels: expected int64 \(8,\)"):
        defence.certify(images, torch.zeros(7, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"images: expected \(n, c, h, w\)"):
        defence(images[0])
    with pytest.raises(ValueError, match=r"model: expected .* in evaluation mode"):
        CoveringMasks(cases.classifier().train())(images)
