"""Our Auto-PGD and Square beside those of torchattacks, on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import conformance
from defender import noise
from defender.objectives import Misclassify

pytest.importorskip("torchattacks", reason="torchattacks is not installed")

from benchmarks import references

pytestmark = [pytest.mark.slow, pytest.mark.data]
NUMBER = 128


@pytest.fixture(scope="module")
def subject(data: Path) -> conformance.Subject:
    folder = data / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10 at {folder}")
    return conformance.read(folder, NUMBER)


def share(robust: torch.Tensor) -> float:
    return float(robust.sum()) / NUMBER


def test_a_pair_starts_at_one_point(subject: conformance.Subject) -> None:
    few = subject.first(8)
    numbers = noise.uniform(few.places, tuple(few.images.shape[1:]))
    start = conformance.start_at(few.images, 0.1, numbers)
    assert ((start - few.images).abs().amax(dim=(1, 2, 3)) <= 0.1 + 1e-6).all()
    assert (start - few.images).abs().mean() > 0.03
    reference = references.APGD(few.model, eps=0.1, steps=0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "rand", lambda *_: numbers)
        reference(few.images, few.labels)
    assert torch.equal(reference.found[0], start)
    seen: list[torch.Tensor] = []

    def model(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach().clone())
        return few.model(images)

    conformance.our_apgd(Misclassify(model, few.labels), few.images, 0.1, 1, start)
    assert torch.equal(seen[0], start)


def test_auto_pgd_as_published_is_ours_to_the_bit(subject: conformance.Subject) -> None:
    pair = conformance.apgd_pair(subject, 1 / 255, 20, references.PublishedAPGD)
    assert 0.3 < share(pair.ours) < 0.7
    assert torch.equal(pair.ours, pair.theirs_best)
    assert (pair.our_score - pair.their_score).abs().max() < 1e-4


def test_auto_pgd_is_as_strong_as_theirs(subject: conformance.Subject) -> None:
    pair = conformance.apgd_pair(subject, 1 / 255, 20, references.APGD)
    assert abs(share(pair.ours) - share(pair.theirs)) < 0.01
    assert (pair.ours == pair.theirs).float().mean() > 0.98
    assert pair.our_score.mean() == pytest.approx(float(pair.their_score.mean()), rel=0.01)


def test_square_breaks_what_theirs_breaks_with_the_same_squares(
    subject: conformance.Subject,
) -> None:
    pair = conformance.square_pair(subject, 8 / 255, 50, same_squares=True)
    assert 0.3 < share(pair.ours) < 0.75
    assert (pair.ours == pair.theirs).float().mean() > 0.98
    unbroken = pair.ours & pair.theirs
    assert (pair.our_score - pair.their_score)[unbroken].abs().median() < 1e-4
