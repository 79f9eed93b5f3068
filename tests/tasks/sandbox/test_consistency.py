"""Defences that look at more than the image are found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.sandbox.consistency import check_consistency
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.limits import Limits
from tests.tasks.sandbox.hostile import batch, defense_file

AGAIN = "the same batch again (it draws random numbers or keeps state): "
TURNED = "the batch in another order: "
ALONE = "one image at a time instead of 8: "
FRESH = "the same batch in a fresh process: "


def body(text: str) -> str:
    """A file with this body of ``apply_defense``."""
    return f"""
import os, torch
class Defense:
    calls = 0
    def apply_defense(self, images):
        self.calls += 1
        {text}
"""


CASES = {
    "blameless": ("return images.sqrt()", []),
    "rounding": ("return (images + 2e-5 * (len(images) > 1)).clamp(0, 1)", []),
    "batch": ("return images * (0.5 if len(images) > 1 else 0.25)", [ALONE]),
    "mean": ("return (images + images.mean(0)) / 2", [ALONE]),
    "place": ("images[0] *= 0.5; return images", [TURNED, ALONE]),
    "state": ("return images * (1 if self.calls == 1 else 0.5)", [AGAIN, TURNED, ALONE]),
    "random": ("return images * torch.rand(())", [AGAIN, TURNED, ALONE]),
    "unseeded": (
        "return images * (int.from_bytes(os.urandom(4), 'big') / 2**32)",
        [AGAIN, TURNED, ALONE, FRESH],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_depends_on_more_than_the_image_is_noted(tmp_path: Path, name: str) -> None:
    text, ways = CASES[name]
    with SandboxedDefense(defense_file(tmp_path / "own", body(text)), Limits()) as defense:
        notes = check_consistency(defense, batch(9))
    if name == "place":
        assert "changes the batch" in notes.pop(0)
    assert len(notes) == len(ways)
    for note, way in zip(notes, ways, strict=True):
        assert note.startswith(f"{way}values differ by up to 0.")


def test_the_note_says_by_how_much(tmp_path: Path) -> None:
    text = "return images * 0 + (0.25 if len(images) > 1 else 0.75)"
    with SandboxedDefense(defense_file(tmp_path / "own", body(text)), Limits()) as defense:
        assert check_consistency(defense, batch(3), batch=3) == [
            "one image at a time instead of 3: values differ by up to 0.5 in 3 of 3 images"
        ]


def test_failures_and_sizes_are_noted(tmp_path: Path) -> None:
    text = "return images[:, :, : 12 // len(images)] if len(images) > 1 else images[0]"
    with SandboxedDefense(defense_file(tmp_path / "own", body(text)), Limits()) as defense:
        notes = check_consistency(defense, batch(2), batch=2)
    assert notes == [
        "one image at a time instead of 2: answered with 3 dimensions, expected 4 (n, c, h, w)"
    ]
    text = "return images[:, :, : 12 // len(images)]"
    with SandboxedDefense(defense_file(tmp_path / "own", body(text)), Limits()) as defense:
        notes = check_consistency(defense, batch(2), batch=2)
        assert notes == [
            "one image at a time instead of 2: answers with 12 x 12 instead of 6 x 12 pixels"
        ]
    text = "raise ValueError('no')"
    with SandboxedDefense(defense_file(tmp_path / "own", body(text)), Limits()) as defense:
        notes = check_consistency(defense, batch(2))
        assert notes == ["a batch of 2: raised ValueError: no"]
        with pytest.raises(ValueError, match="batch: expected at least 1, got 0"):
            check_consistency(defense, batch(2), batch=0)
