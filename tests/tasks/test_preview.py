"""What the app makes of one picture: the same that a run makes, and stoppable."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from storage.errors import SourceError
from storage.images import read_images
from tasks.errors import ModelError, SpecError
from tasks.preview import Preview, Subjects
from tasks.preview_panes import Pane, Views
from tasks.preview_trial import Suspicion, Told
from tasks.spec_files import parse_spec
from tasks.specs import DatasetSpec
from tasks.stopping import Stoppable, Stopped
from tasks.try_pictures import Album, Picture, decoded
from tests import toy

SHAPES = DatasetSpec.model_validate({"kind": "builtin:shapes", "count": 48})


class Heard:
    """Everything that was told."""

    def __init__(self) -> None:
        self.panes: dict[str, Pane] = {}
        self.suspicions: list[Suspicion] = []
        self.stages: list[tuple[str, float | None]] = []
        self.took: dict[str, float] = {}
        self.told = Told(
            lambda name, share: self.stages.append((name, share)),
            lambda pane: self.panes.__setitem__(pane.role, pane),
            self.suspicions.append,
            self.took.__setitem__,
        )


def album() -> Album:
    return Album(SHAPES, Path())


def tried(content: dict[str, Any], picture: Picture, **more: Any) -> Heard:
    heard = Heard()
    Preview(content, Path(), picture, **more).run(heard.told, threading.Event())
    return heard


def test_a_picture_comes_out_as_in_a_run(tmp_path: Path) -> None:
    content = toy.content(compute={"batch": 1, "workers": 1, "device": "cpu"})
    state, _ = toy.run(toy.bench(tmp_path, compute=content["compute"]))
    heard = tried(content, album().take(19))

    def stored(node: str) -> np.ndarray[Any, Any]:
        name = next(name for name in state.plan.nodes if name.startswith(node))
        return read_images(state.bench.store.images(state.done[(name, 1)].ref))[3]

    assert np.array_equal(heard.panes["original"].pixels, stored("ingest"))
    assert np.array_equal(heard.panes["attacked"].pixels, stored("attack/"))
    label = next(n for n in state.plan.nodes if n.startswith("purify/IFGSM") and "median" in n)
    assert np.array_equal(heard.panes["purified by median"].pixels, stored(label))
    combined = next(n for n in state.plan.nodes if n.startswith("purify/IFGSM") and "refer" in n)
    assert np.array_equal(heard.panes["combined"].pixels, stored(combined))


def test_what_is_said_of_a_picture() -> None:
    heard = tried(toy.content(purifiers=["Median"]), album().take(3))
    attacked = heard.panes["attacked"]
    with torch.no_grad():
        logits = toy.make_model().eval()(
            torch.from_numpy(attacked.pixels.copy())[None].float() / 255
        )
    best = int(logits.argmax())
    names = album().take(3).classes or ()
    assert attacked.answers[0][0] == names[best]
    assert attacked.answers[0][1] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)
    assert [share for _, share in attacked.answers] == sorted(
        (share for _, share in attacked.answers), reverse=True
    )
    change = attacked.pixels.astype(int) - heard.panes["original"].pixels
    assert attacked.figures["linf"] == np.abs(change).max() <= 8
    mse = np.mean((change / 255) ** 2)
    assert attacked.figures["psnr"] == pytest.approx(-10 * np.log10(mse), abs=1e-4)
    assert (attacked.verdict == "good") == (best == 3)
    difference = next(p for role, p in heard.panes.items() if role.startswith("difference"))
    factor = int(difference.role.split()[-1])
    assert np.array_equal(difference.pixels, np.clip(128 + factor * change, 0, 255))
    assert ("attack", 1.0) in heard.stages
    assert set(heard.took) >= {"model", "decode", "attack", "purify", "detect", "ask"}


def test_thresholds_are_set_on_clean_pictures() -> None:
    heard = tried(toy.content(purifiers=[]), album().take(3), calibration=album())
    before, after = heard.suspicions
    assert before.threshold is None
    assert after.pictures == 40
    assert (after.clean, after.attacked) == (before.clean, before.attacked)
    scores = []
    for place in range(40):
        one = tried(toy.content(purifiers=[], attacks=[]), album().take(place))
        scores.append(one.suspicions[0].clean)
    # 41 * 0.95 = 38.95: the 39th smallest of 40
    assert after.threshold == pytest.approx(sorted(scores)[38], abs=1e-6)


def test_a_stop_ends_a_long_attack_at_once() -> None:
    content = toy.content(attacks=[{"name": "IFGSM", "epsilon": 0.1, "steps": 1_000_000}])
    stop, heard, ended = threading.Event(), Heard(), threading.Event()
    seen: list[BaseException] = []

    def work() -> None:
        try:
            Preview(content, Path(), album().take(0)).run(heard.told, stop)
        except BaseException as error:
            seen.append(error)
        ended.set()

    threading.Thread(target=work).start()
    until = time.monotonic() + 60
    while not any(name == "attack" and share for name, share in heard.stages):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not ended.is_set()
    stop.set()
    assert ended.wait(10)
    assert isinstance(seen[0], Stopped)
    assert "attacked" not in heard.panes


def test_a_stop_concerns_its_own_thread_alone() -> None:
    stop = threading.Event()
    with Stoppable(stop) as mode:
        stop.set()
        made: list[float] = []
        other = threading.Thread(target=lambda: made.append(float(torch.ones(3).sum())))
        other.start()
        other.join()
        with pytest.raises(Stopped):
            torch.ones(3).sum()
    assert made == [3.0]
    assert mode.gradients == 0


def test_models_stay_loaded_and_the_oldest_goes() -> None:
    subjects = Subjects(most=1)
    tried(toy.content(), album().take(0), subjects=subjects)
    (first,) = subjects.kept.values()
    tried(toy.content(), album().take(1), subjects=subjects)
    assert next(iter(subjects.kept.values())) is first
    tried(toy.content(model={"name": "shapes-cnn"}), album().take(1), subjects=subjects)
    assert len(subjects.kept) == 1
    assert next(iter(subjects.kept.values())) is not first


def test_hidden_pictures_and_what_the_model_sees() -> None:
    content = {
        "name": "scaling",
        "dataset": {"kind": "builtin:shapes"},
        "pipeline": {"library": "pillow", "algorithm": "nearest", "target": "8x8"},
        "attacks": [{"name": "ImageScaling", "targets": "other-image"}],
        "purifiers": ["SelectiveMedian"],
    }
    heard = tried(content, album().take(0), other=album().take(7))
    hidden = heard.panes["to be hidden"].pixels
    assert hidden.shape == (3, 8, 8)
    seen = heard.panes["model sees of it"].pixels
    assert np.abs(seen.astype(int) - hidden).max() <= 1
    assert heard.panes["attacked"].pixels.shape == (3, 32, 32)
    assert np.abs(heard.panes["model sees"].pixels.astype(int) - hidden).max() > 8


@pytest.mark.parametrize(
    ("threshold", "said", "verdict"),
    [
        (0.79, "similarity 0.800, threshold 0.790: passes", "bad"),
        (0.815, "similarity 0.800, threshold 0.815: is refused", "good"),
        (None, "similarity 0.800", ""),
    ],
)
def test_a_face_is_shown_with_both_numbers(
    threshold: float | None, said: str, verdict: str
) -> None:
    bench: Any = SimpleNamespace(
        device=torch.device("cpu"),
        has_model=False,
        has_metric=False,
        has_encoder=True,
        encoder=lambda image: torch.tensor([[0.6, 0.8]], dtype=torch.float64),
    )
    enrolled = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    pixels = np.zeros((3, 4, 4), np.uint8)
    pane = Views(bench, pixels, -1, (), enrolled, threshold).answered("attacked", pixels)
    assert (pane.said, pane.verdict) == (said, verdict)
    assert pane.figures["similarity"] == pytest.approx(0.8)
    assert pane.alt == f"attacked, 4 by 4 pixels, {said}"


def test_heat_maps() -> None:
    heard = tried(toy.content(explain={}, detectors=[], purifiers=[]), album().take(0))
    shown = heard.panes["heat map, attacked"].pixels
    assert shown.shape == (3, 32, 32)
    assert not np.array_equal(shown, heard.panes["heat map, original"].pixels)


def test_the_specification_can_be_run() -> None:
    made = Preview(toy.content(), Path(), album().take(0))
    written = yaml.safe_load(made.as_yaml())
    assert "compute" not in written
    assert parse_spec(written).attacks == parse_spec(toy.content()).attacks


def test_mistakes_are_told_in_a_sentence() -> None:
    attack = {"name": "FGSM", "epsilon": 0.1}
    with pytest.raises(SpecError, match="one at most"):
        Preview(toy.content(attacks=[attack, attack]), Path(), album().take(0))
    with pytest.raises(SpecError, match="epsilon"):
        tried(toy.content(attacks=[{"name": "FGSM", "epsilon": 2}]), album().take(0))
    with pytest.raises(ModelError, match="nowhere"):
        tried(toy.content(model={"name": "shapes-cnn", "weights": "nowhere.pt"}), album().take(0))
    broken = Picture("broken.png", b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(SourceError, match=r"broken\.png"):
        decoded(broken, DatasetSpec(kind="folder"))
    with pytest.raises(SourceError, match=r"broken\.png"):
        tried(toy.content(), broken)


def test_an_album_counts_on_from_the_start() -> None:
    found = album()
    assert len(found) == 48
    assert found.take(49).name == found.take(1).name
    assert found.take(1).label == 1
    with pytest.raises(SpecError, match="found none"):
        Album(DatasetSpec.model_validate({"kind": "builtin:shapes", "count": 0}), Path())
