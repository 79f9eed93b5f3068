"""Faces are moved to their place while a data set is decoded; a stand-in says where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from defender.face_alignment import align, template
from defender.norms import to_uint8
from storage.images import read_images
from tasks import alignment
from tasks.alignment import Alignment
from tasks.columns import Columns
from tasks.datasets import Dataset
from tasks.errors import SpecError
from tasks.outputs import rejected_rows
from tasks.plan import Plan
from tasks.spec_files import parse_spec
from tasks.specs import DatasetSpec
from tasks.subject_specs import AlignSpec
from tasks.verify_specs import parse_verification
from tests import toy
from tests.tasks.test_face_runs import faces

PLACE = 0.5 * template() + torch.tensor([7.0, 4.0])
"""Landmarks of a face of half the size, off the centre."""


class Finds:
    """Stands in for OpenCV's detector: there is a face on images whose first pixel is bright."""

    def __init__(self, weights: Path, threshold: float) -> None:
        assert weights.is_file()
        self.threshold = threshold

    def __call__(self, images: Tensor) -> list[Tensor | None]:
        return [PLACE.double() if float(image[0, 0, 0]) > 0.5 else None for image in images]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "YuNet", Finds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures of two people; nobody is found on one of them."""
    generator = np.random.default_rng(0)
    for number in range(8):
        picture = generator.integers(0, 256, (70, 80, 3), dtype=np.uint8)
        picture[0, 0, 0] = 0 if number == 5 else 255
        path = tmp_path / "people" / f"p{number // 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (tmp_path / "yunet.onnx").write_bytes(b"a detector")
    return tmp_path


def pictured(**changes: Any) -> dict[str, Any]:
    dataset = {
        "kind": "folder",
        "path": "people",
        "chunk_size": 4,
        "align": {"weights": "yunet.onnx", "size": [32, 40], **changes},
    }
    return faces(dataset=dataset, purifiers=[], faces={"far": 0.3})


def test_a_run_attacks_aligned_images_and_lists_those_without_a_face(folder: Path) -> None:
    state, _ = toy.run(toy.bench(folder, **pictured()))
    rows = Columns(state).table("ingest")
    assert len(rows) == 7
    assert set(zip(rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True)) == {
        (32, 40)
    }
    [rejected] = rejected_rows(state).to_pylist()
    assert rejected == {
        "name": "p1/5.png",
        "reason": "shows no face that is found at confidence 0.6",
    }
    stored = read_images(state.bench.store.images(state.done[("ingest", 0)].ref))
    picture = np.asarray(Image.open(folder / "people" / rows["name"][1].as_py()))
    given = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    wanted = to_uint8(align(given, PLACE[None], (32, 40)))[0].numpy()
    np.testing.assert_array_equal(stored[1], wanted)
    # victims are chosen from the aligned images, and attacks start from these
    for node in ("target/ifgsm", "attack/ifgsm"):
        images = read_images(state.bench.store.images(state.done[(node, 1)].ref))
        assert {image.shape for image in images} == {(3, 32, 40)}


def test_another_detector_makes_other_images(folder: Path) -> None:
    def ingest(**changes: Any) -> str:
        bench = toy.bench(folder, **pictured(**changes))
        bench.catalogue(keep=False)
        return Plan(bench).nodes["ingest"].fingerprint

    first = ingest()
    assert ingest() == first
    assert ingest(threshold=0.9) != first
    (folder / "yunet.onnx").write_bytes(b"another detector")
    assert ingest() != first


def test_without_alignment_nothing_is_added_to_what_names_a_data_set(folder: Path) -> None:
    plain = Dataset(DatasetSpec.model_validate({"kind": "builtin:shapes"}), folder)
    assert "align" not in plain.identity()["decode"]


def test_weights_that_are_not_there(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"dataset.align.weights: expected the ONNX file .*absent"):
        Alignment(AlignSpec(weights="absent.onnx"), folder)


def test_weights_that_are_no_detector(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise ValueError("weights: yunet.onnx cannot be used: no network")

    monkeypatch.setattr(alignment, "YuNet", refuse)
    with pytest.raises(SpecError, match=r"dataset.align.weights: yunet.onnx cannot be used"):
        Alignment(AlignSpec(weights="yunet.onnx"), folder)


def test_landmarks_at_one_place_are_no_face(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Finds, "__call__", lambda self, images: [torch.ones(5, 2).double()])
    made = Alignment(AlignSpec(weights="yunet.onnx"), folder)(np.zeros((3, 8, 8), np.uint8))
    assert "shows a face that cannot be aligned" in made.reason  # type: ignore[union-attr]


def test_aligned_images_have_a_size_of_their_own(folder: Path) -> None:
    content = toy.content(**pictured())
    content["dataset"]["resize"] = [32, 32]
    with pytest.raises(SpecError, match="align: aligned images have a size of their own"):
        parse_spec(content)
    assert AlignSpec.model_validate("yunet.onnx").size == (112, 112)


def test_a_verification_takes_a_detector(folder: Path) -> None:
    asked = {
        "pairs": folder / "pairs.csv",
        "dataset": folder / "people",
        "encoder": {"name": "facenet", "weights": str(folder / "yunet.onnx")},
        "align": folder / "yunet.onnx",
        "resize": None,
    }
    aligned = parse_verification(asked).spec().dataset.align
    assert aligned is not None
    assert aligned.weights == str(folder / "yunet.onnx")
    with pytest.raises(SpecError, match="--align: expected the file"):
        parse_verification({**asked, "align": folder / "absent.onnx"}).spec()
