"""Calibrated thresholds as a file of their own: what they are, and from which images they came."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from storage.files import Place, write_atomic
from tasks.errors import SpecError

FILE = "thresholds.json"


@dataclass(frozen=True)
class Threshold:
    """A detector's threshold with its provenance.

    Args:
        label: what the detector is called in its run.
        detector: its repr, parameters and pipeline included.
        version: version of its algorithm.
        value: score above which an image is suspect; None where the images were too few.
        fpr: false positive rate it was set for.
        images: benign images it was set on.
        pattern: pattern of their names; None for half of the images by their ids.
        dataset: digest of the dataset they came from.
        settings: name and parameters of the detector, as a specification states them.
        joint: rate at which ``least`` or more of all detectors of the file together flag a
            benign image, at most; None where each was set by itself.
        least: see ``joint``.
        sizes: smallest and largest height and width of the images; None where not noted.
    """

    label: str
    detector: str
    version: int
    value: float | None
    fpr: float
    images: int
    pattern: str | None
    dataset: str
    settings: dict[str, Any] = field(default_factory=dict)
    joint: float | None = None
    least: int = 1
    sizes: list[list[int]] | None = None


def write_thresholds(path: Place, thresholds: list[Threshold]) -> None:
    """Write thresholds as JSON, atomically."""
    content = {"thresholds": [asdict(one) for one in thresholds]}
    write_atomic(path, json.dumps(content, indent=1, allow_nan=False).encode())


def read_thresholds(path: Place) -> list[Threshold]:
    """Read what :func:`write_thresholds` wrote.

    Raises:
        SpecError: where there is no such file or it holds something else.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        return [Threshold(**one) for one in content["thresholds"]]
    except FileNotFoundError:
        raise SpecError(f"{path}: expected a file of thresholds, found none") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path}: expected a file of thresholds: {error}") from None
