"""What a row of a summary is made of, image by image, from the score files of a finished run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defender.metrics.quality import relative_gain
from storage.errors import DamagedChunk
from storage.scores import read_rows
from tasks.columns import Split
from tasks.errors import SpecError
from tasks.outputs import file_name
from tasks.quality_scores import LIKENESSES
from tasks.specs import Spec, label_of
from tasks.summary import MASKS, SCALED
from tasks.workbench import DISTORTIONS

if TYPE_CHECKING:
    from storage.files import Place

Row = dict[str, Any]
Numbers = NDArray[np.float64]
CLOSE = 1e-9
"""Part by which a figure that is made again from its images may differ from what is stated."""


@dataclass(frozen=True)
class Sample:
    """The images behind a figure.

    Args:
        ids: of all images of the run, (n,).
        values: what each contributes, (n,); true or false as 1 and 0 in a rate.
        among: which of them the figure is the mean of, (n,).
        rate: the figure is a share of images.
    """

    ids: NDArray[np.str_]
    values: Numbers
    among: NDArray[np.bool_]
    rate: bool

    @property
    def mean(self) -> float:
        """The figure; NaN without images."""
        return float(self.values[self.among].mean()) if self.among.any() else math.nan


class Images:
    """The per-image columns of a finished run.

    Args:
        folder: of the run's outputs.
        summary: what its ``summary.json`` holds.
    """

    def __init__(self, folder: Place, summary: dict[str, Any]) -> None:
        self.folder = folder
        self.thresholds = summary.get("thresholds") or {}
        self.spec = Spec.model_validate(summary["spec"])
        self._tables: dict[str, pa.Table] = {}

    def sample(self, row: Row) -> Sample | None:
        """The images of which a row is the mean.

        Returns:
            None where the row is no mean over images, where their columns are not there, or where
            they do not give the row's value: they are then not what it was made of.
        """
        try:
            made = self._sample(row)
        except (KeyError, DamagedChunk, SpecError, pa.ArrowException):
            return None
        if made is None or row["value"] is None:
            return None
        values, among, rate = made
        sample = Sample(self.ids, np.asarray(values, dtype=np.float64), among, rate)
        scale = max(1.0, abs(row["value"]))
        agrees = abs(sample.mean - row["value"]) <= CLOSE * scale
        return sample if agrees and int(among.sum()) == row["n"] else None

    def _table(self, node: str) -> pa.Table:
        if node not in self._tables:
            self._tables[node] = read_rows(self.folder / "scores" / file_name(node))
        return self._tables[node]

    def _column(self, node: str, name: str) -> NDArray[Any]:
        values = self._table(node).column(name)
        if pa.types.is_integer(values.type):
            values = pc.fill_null(values, -1)
        return np.asarray(values.to_numpy())

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Ids of all images."""
        ids: list[str] = self._table("score/none/none").column("id").to_pylist()
        return np.array(ids, dtype=np.str_)

    @cached_property
    def split(self) -> Split:
        """Which images count for what."""
        return Split.of(self._table("score/none/none"), self.spec.calibration)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """True labels, -1 where there are none."""
        return self._column("score/none/none", "label")

    def _flagged(self, attack: str, detector: str) -> NDArray[np.bool_]:
        threshold = self.thresholds[detector]
        scores = self._column(f"detect/{attack}/{detector}", "score")
        return np.asarray(scores > (math.inf if threshold is None else threshold))

    def _sample(self, row: Row) -> tuple[NDArray[Any], NDArray[np.bool_], bool] | None:
        metric, attack, detector = row["metric"], row["attack"], row["detector"]
        counted = np.asarray(self.split.counted, dtype=bool)
        if row["policy"] == "observe":
            if metric == "false_positive_rate":
                return self._flagged(attack, detector), np.asarray(self.split.held_out), True
            if metric == "true_positive_rate":
                return self._flagged(attack, detector), counted, True
            if metric in MASKS:
                values = self._column(f"detect/{attack}/{detector}", metric)
                return values, counted & np.isfinite(values), False
            return None
        node = f"score/{attack}/{row['purifier']}"
        if metric in ("accuracy", "attack_success", "label_recovery"):
            return self._answered(row, node, counted)
        if row["policy"] != "none":
            return None
        if metric in (*DISTORTIONS, *SCALED, "score"):
            values = self._column(node, metric)
            return values, counted & np.isfinite(values), False
        if metric in LIKENESSES:
            values = self._column(node, LIKENESSES[metric])
            return values, counted & np.isfinite(values), False
        if metric in ("gain", "defended_gain"):
            own = "none" if metric == "gain" else row["purifier"]
            values = relative_gain(
                self._column(f"score/none/{own}", "score"), self._column(node, "score")
            )
            return values, counted & np.isfinite(values), False
        return self._goal(metric, node, counted)

    def _goal(
        self, metric: str, node: str, counted: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[np.bool_], bool] | None:
        """The goals of a scaling attack."""
        if metric in ("o1", "o2"):
            return self._column(node, metric) == 1, counted, True
        if metric == "scaling_success":
            both = (self._column(node, "o1") == 1) & (self._column(node, "o2") == 1)
            return both, counted, True
        if metric == "target_agreement":
            same = self._column(node, "prediction") == self._column(node, "target_prediction")
            return same, counted, True
        return None

    def _answered(
        self, row: Row, node: str, among: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[np.bool_], bool]:
        """What a model says, alone or after a detector's policy."""
        clean = self._column("score/none/none", "prediction")
        prediction = self._column(node, "prediction")
        accepted = np.ones(len(prediction), dtype=bool)
        if row["policy"] != "none":
            among = np.asarray(self.split.held_out, dtype=bool)
            flagged = self._flagged(row["attack"], row["detector"])
            if row["policy"] == "reject":
                accepted = ~flagged
            else:
                plain = self._column(f"score/{row['attack']}/none", "prediction")
                prediction = np.where(flagged, prediction, plain)
        labelled = among & (self.labels >= 0)
        if row["metric"] == "accuracy":
            return (prediction == self.labels) & accepted, labelled, True
        if row["metric"] == "label_recovery":
            return (prediction == clean) & accepted, among, True
        truth = np.where(labelled, self.labels, clean)
        target = self._target(row["attack"])
        if target is None:
            return (prediction != truth) & accepted, among & (clean == truth), True
        return (prediction == target) & accepted, among & (truth != target), True

    def _target(self, attack: str) -> int | None:
        """The class that an attack is meant to reach."""
        found = {label_of(one): one.target for one in self.spec.attacks}
        return found[attack]
