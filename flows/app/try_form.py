"""What is to be tried: the fields of the page, and the specification they come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.sources.cifar10 import ARCHIVE_FOLDER
from tasks import app_choices
from tasks.app_choices import COMPOSITION, NONE, Choice, Family
from tasks.app_texts import TORCHVISION, below, check_texts
from tasks.errors import SpecError
from tasks.specs import DatasetSpec
from tasks.try_pictures import Album, Picture

SHAPES, PHOTOS, DROPPED, DATASET = "built-in shapes", "built-in photographs", "dropped", "dataset"
LARGEST_SIDE = 1024
"""Pixels of a side that pictures are worked at, at most."""
OTHER = 3
"""Places between a picture and the second one, where none was given."""
FPR = 0.1
"""False-positive rate of thresholds: the built-in photographs are too few for a smaller one."""
KINDS = {"attack": "attacks", "detector": "detectors", "purifier": "purifiers"}


@dataclass
class Algorithm:
    """One of the algorithms, and its parameters as the page shows them.

    Args:
        what: ``attack``, ``detector`` or ``purifier``.
        name: of the algorithm, or ``none``.
    """

    what: str
    name: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def choice(self) -> Choice | None:
        """The algorithm, None for none."""
        return None if self.name == NONE else app_choices.choice(KINDS[self.what], self.name)

    def choose(self, name: str) -> None:
        """Take another algorithm, with its first values."""
        self.name = name
        chosen = self.choice
        controls = () if chosen is None else chosen.controls
        self.values = {control.name: control.show(control.first) for control in controls}

    def content(self) -> dict[str, Any] | None:
        """What a specification says of it.

        Raises:
            ValueError: naming the parameter and what was expected.
        """
        chosen = self.choice
        if chosen is None:
            return None
        if self.name == COMPOSITION:
            return {"name": str(self.values["line"]).strip()}
        read = {c.name: c.read(self.values[c.name]) for c in chosen.controls}
        return {"name": self.name, **{name: v for name, v in read.items() if v is not None}}


class Form:
    """The fields of the page.

    Args:
        data: folder below which typed paths lie.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.families = app_choices.families()
        self.attack = Algorithm("attack", NONE)
        self.detector = Algorithm("detector", NONE)
        self.purifier = Algorithm("purifier", NONE)
        self.source = SHAPES
        self.path = ""
        self.place = 0
        self.dropped: Picture | None = None
        self.second: Picture | None = None
        self.model = app_choices.models()[0]
        self.architecture = ""
        self.weights = ""
        self.metric = app_choices.quality_metrics()[0]
        self.encoder = app_choices.encoders()[0]
        self.threshold = 0.8
        self.scale = 1.0
        self.library, self.algorithm = "torch", "linear"
        self.target = 64 if app_choices.has_photos() else 8
        self.side = 0
        self.calibrate = True
        self._albums: dict[str, Album] = {}
        self.choose_family("classifier")

    def choose_family(self, name: str) -> None:
        """Take another kind of system, with what is usual for it."""
        self.family: Family = self.families[name]
        self.attack.choose(self.family.attacks[0])
        self.detector.choose(next((n for n in self.family.detectors if n != NONE), NONE))
        self.purifier.choose(next((n for n in self.family.purifiers if n != NONE), NONE))
        if name == "patch":
            self.detector.choose("CamEnergy")
            self.purifier.choose("MaskInpaint")
        self.model = NONE if name == "scaling" else "shapes-cnn"
        photos = name in ("scaling", "quality") and app_choices.has_photos()
        if self.source in (SHAPES, PHOTOS):
            self.source = PHOTOS if photos else SHAPES
            self.place = 0
        self.side = self.usual_side

    @property
    def sources(self) -> list[str]:
        """Where pictures can come from."""
        return [SHAPES, *([PHOTOS] if app_choices.has_photos() else []), DROPPED, DATASET]

    @property
    def needs_second(self) -> bool:
        """Whether a second picture is part of it: one to be hidden, or a face to be taken for."""
        return self.family.name in ("scaling", "face")

    @property
    def usual_side(self) -> int:
        """Pixels of a side that suit what is attacked; 0: as the picture is."""
        name = self.family.name
        if name == "scaling":
            return 0
        if name == "quality":
            return 256
        if name == "face":
            return 112
        return app_choices.SIDES.get(self.model, 224)

    @property
    def model_name(self) -> str:
        """The model as a specification names it."""
        return (
            f"{TORCHVISION}{self.architecture.strip()}"
            if self.model == "torchvision"
            else self.model
        )

    def album(self, source: str | None = None) -> Album:
        """The pictures of a source.

        Raises:
            SpecError, StorageError: where there are none.
        """
        stated = self._dataset(source or self.source)
        key = repr(stated)
        if key not in self._albums:
            self._albums[key] = Album(DatasetSpec.model_validate(stated), self.data)
        return self._albums[key]

    def picture(self) -> Picture:
        """The picture to be tried.

        Raises:
            SpecError, StorageError: where there is none.
        """
        if self.source == DROPPED:
            if self.dropped is None:
                raise SpecError("picture: expected one to be dropped here, got none")
            return self._named(self.dropped)
        return self._named(self.album().take(self.place))

    def other(self) -> Picture | None:
        """The second picture, where one is part of it.

        Raises:
            SpecError: where there is none.
        """
        if not self.needs_second:
            return None
        if self.second is not None:
            return self.second
        if self.source == DROPPED:
            what = "the person to be taken for" if self.family.name == "face" else "to be hidden"
            raise SpecError(f"second picture: expected one, {what}; got none")
        return self.album().take(self.place + OTHER)

    def calibration(self) -> Album | None:
        """Clean pictures for the thresholds of detectors, None where there are none."""
        if not self.calibrate or self.detector.name == NONE:
            return None
        if self.source in (SHAPES, PHOTOS, DATASET):
            return self.album()
        if self.model == "shapes-cnn" and self.family.name != "scaling":
            return self.album(SHAPES)
        return self.album(PHOTOS) if app_choices.has_photos() else None

    def content(self) -> dict[str, Any]:
        """The specification.

        Raises:
            SpecError: naming the field and what was expected.
        """
        try:
            parts = [one.content() for one in (self.attack, self.detector, self.purifier)]
        except ValueError as error:
            raise SpecError(str(error)) from None
        attack, detector, purifier = parts
        content: dict[str, Any] = {"name": f"try-{self.family.name}", "dataset": self.stated()}
        content |= self._subject()
        for part in parts:
            if part is not None:
                part["label"] = part["name"]
        if attack is not None:
            if self.family.name == "scaling":
                attack["targets"] = "other-image"
            content["attacks"] = [attack]
        if detector is not None:
            detector["fpr"] = FPR
            content["detectors"] = [detector]
        if purifier is not None:
            content["purifiers"] = [purifier]
        check_texts(content, self.data)
        return content

    def stated(self) -> dict[str, Any]:
        """The dataset that the picture stands for, as a specification states it."""
        found = dict(self._dataset(self.source))
        if self.side:
            if not 8 <= self.side <= LARGEST_SIDE:
                raise SpecError(f"side: expected 8 to {LARGEST_SIDE} pixels, got {self.side}")
            found["resize"] = [self.side, self.side]
        if self.model == "xray-cnn":
            found["colour"] = "grey"
        return found

    def _subject(self) -> dict[str, Any]:
        name, weights = self.family.name, {"weights": self.weights.strip() or None}
        if name == "quality":
            return {"metric": self.metric}
        if name == "face":
            encoder = {"name": self.encoder, "scale": self.scale, **weights}
            return {"encoder": encoder, "faces": {"threshold": self.threshold}}
        found: dict[str, Any] = {}
        if self.model != NONE:
            found["model"] = {"name": self.model_name}
            if self.model == "torchvision":
                found["model"] |= weights
        if name == "scaling":
            found["pipeline"] = {
                "library": self.library,
                "algorithm": self.algorithm,
                "target": [self.target, self.target],
            }
        if name == "patch":
            found["explain"] = {}
        return found

    def _dataset(self, source: str) -> dict[str, Any]:
        if source == SHAPES:
            return {"kind": "builtin:shapes"}
        if source == PHOTOS:
            return {"kind": "builtin:photos"}
        if source == DROPPED:
            return {"kind": "folder", "path": "."}
        path = self.path.strip()
        if not path:
            raise SpecError("dataset: expected a folder, zip or Parquet file, got nothing")
        if path.lower() == "cifar10":
            return {"kind": "cifar10", "path": below(self._cifar10(), self.data, "dataset")}
        below(path, self.data, "dataset")
        kind = {".zip": "zip", ".parquet": "parquet"}.get(Path(path).suffix.lower(), "folder")
        return {"kind": kind, "path": path}

    def _cifar10(self) -> str:
        """Where CIFAR-10 lies below the data folder, of the folders that it usually lies in."""
        names = ("cifar10", ARCHIVE_FOLDER)
        return next((name for name in names if (self.data / name).exists()), names[0])

    def _named(self, picture: Picture) -> Picture:
        """The picture with the names of the model's classes, where it has none of its own."""
        if picture.classes is not None or self.family.name in ("quality", "face"):
            return picture
        return Picture(
            picture.name,
            picture.content,
            picture.label,
            app_choices.classes_of(self.model_name),
            picture.origin,
        )
