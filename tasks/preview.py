"""One picture through everything that a run does with it: for the app, without Prefect.

What is stated is a specification like any other, so what is seen here is what a run over a whole
dataset makes, and the specification can be saved and run.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import SpecError
from tasks.preview_trial import Told, Trial
from tasks.spec_files import parse_spec
from tasks.specs import Spec
from tasks.try_pictures import Album, Picture
from tasks.workbench import Workbench


@dataclass
class Subjects:
    """Models that stay loaded between the pictures of one user, the last few that were used.

    They are not shared between users: heat maps are made with hooks on a model.
    """

    kept: dict[str, Any] = field(default_factory=dict)
    most: int = 3

    def give(self, bench: Workbench) -> None:
        """Have a workbench use a model that is loaded already, or keep the one it loads."""
        spec = bench.spec
        for name in ("model", "metric", "encoder"):
            stated = getattr(spec, name)
            if stated is None:
                continue
            pipeline = "" if spec.pipeline is None else spec.pipeline.model_dump_json()
            key = f"{name} {stated.model_dump_json()} {pipeline} {_changed(bench, stated)}"
            if key in self.kept:
                bench.__dict__[name] = self.kept[key]
            made = getattr(bench, name)
            self.kept.pop(key, None)
            self.kept[key] = made
            while len(self.kept) > self.most:
                del self.kept[next(iter(self.kept))]


def _changed(bench: Workbench, stated: Any) -> float:
    if stated.weights is None:
        return 0.0
    try:
        return Path(bench.folder / stated.weights).stat().st_mtime
    except OSError:
        return 0.0


class Preview:
    """Tries the attack, detectors and purifiers of a specification on one picture.

    Args:
        content: the specification; its dataset is replaced by the picture.
        folder: folder against which the paths in it are resolved.
        picture: the picture.
        other: the picture that an attack hides or impersonates, where there is one.
        calibration: clean pictures of which detectors' thresholds are set; none: no thresholds.
        subjects: models that are loaded already.

    Raises:
        SpecError: naming the field and what was expected.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        folder: Path,
        picture: Picture,
        *,
        other: Picture | None = None,
        calibration: Album | None = None,
        subjects: Subjects | None = None,
    ) -> None:
        self.content = {**content, "compute": {"batch": 1, "workers": 1}}
        self.folder = folder
        self.picture = picture
        self.other = other
        self.calibration = calibration
        self.subjects = subjects or Subjects()
        self.spec: Spec = parse_spec(self.content, "app")
        if len(self.spec.attacks) > 1:
            raise SpecError("attacks: expected one at most")

    def run(self, told: Told, stop: threading.Event) -> None:
        """Compute everything and tell of it as it comes.

        Raises:
            Stopped: soon after ``stop`` was set, from another thread.
            SpecError, ModelError, StorageError: saying what is wrong, in one sentence.
        """
        with tempfile.TemporaryDirectory(prefix="image-defender-") as store:
            Trial(self, store, told, stop).run()

    def as_yaml(self) -> str:
        """The specification that does this to a whole dataset."""
        content = {name: value for name, value in self.content.items() if name != "compute"}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return text
