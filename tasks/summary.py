"""Dataset figures from per-image columns: one row a metric, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defender.metrics.rates import (
    conformal_threshold,
    mean_interval,
    roc_auc,
    tpr_at_fpr,
    wilson,
)
from storage.scores import concatenate, read_rows
from tasks.plan import Node
from tasks.survey import Survey
from tasks.workbench import DISTORTIONS

Row = dict[str, Any]
Column = NDArray[Any]
MASKS = ("mask_precision", "mask_recall", "mask_precision_top")


class Columns:
    """The per-image columns of a finished run, by node, all in the order of the dataset."""

    def __init__(self, state: Survey) -> None:
        self.state = state
        self._tables: dict[str, pa.Table] = {}

    def table(self, name: str) -> pa.Table:
        """All rows of a node."""
        if name not in self._tables:
            parts = [
                read_rows(self.state.bench.store.rows(given.ref))
                for index in range(self.state.chunks)
                if (given := self.state.done[(name, index)]).images
            ]
            if not parts:
                raise ValueError("expected at least one usable image in the dataset, got none")
            schema = max((part.schema for part in parts), key=len)
            self._tables[name] = concatenate((_complete(p, schema) for p in parts), schema)
        return self._tables[name]

    def column(self, name: str, column: str) -> Column:
        """One column of a node as numpy; missing labels are -1."""
        values = self.table(name).column(column)
        if pa.types.is_integer(values.type):
            values = pc.fill_null(values, -1)
        return np.asarray(values.to_numpy())


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


class Summary:
    """Computes the rows of a run's summary.

    Args:
        state: a finished run.
    """

    def __init__(self, state: Survey) -> None:
        self.state = state
        self.bench = state.bench
        self.columns = Columns(state)
        self.labels = self.columns.column("ingest", "label")
        self.clean_prediction = self.columns.column("score/none/none", "prediction")
        self.thresholds: dict[str, float] = {}

    def rows(self) -> list[Row]:
        """Every row, in the order of the plan."""
        result: list[Row] = []
        for node in self.state.plan:
            if node.kind == "score":
                result += self._scores(node)
            elif node.kind == "detect":
                result += self._detection(node)
        for node in self.state.plan:
            if node.kind == "score":
                result += self._policies(node)
        return result

    def _threat(self, attack: str) -> str:
        if attack == "none":
            return "none"
        node = self.state.plan.nodes[f"attack/{attack}"]
        spec = self.bench.spec.attacks[node.position]
        if spec.through is not None:
            if spec.draws > 1:
                return "eot"
            return "bpda" if spec.backward == "identity" else "full-gradient"
        return str(self.bench.attacks[node.position].threat)

    def _knowledge(self, node: Node, detector: str = "none") -> str:
        known = []
        if node.purifier != "none":
            source = self.state.plan.nodes[f"purify/{node.attack}/{node.purifier}"]
            known.append(self.bench.purifiers[source.position].knowledge)
        if detector != "none":
            source = self.state.plan.nodes[f"detect/{node.attack}/{detector}"]
            known.append(self.bench.detectors[source.position].knowledge)
        order = ["blind", "pipeline", "model", "reference"]
        return max(known, key=order.index) if known else "none"

    def _row(
        self,
        node: Node,
        metric: str,
        value: float,
        low: float,
        high: float,
        n: int,
        detector: str = "none",
        policy: str = "none",
    ) -> Row:
        spec = self.bench.spec
        draws = 1
        if node.attack != "none":
            position = self.state.plan.nodes[f"attack/{node.attack}"].position
            draws = spec.attacks[position].draws
        return {
            "model": spec.model.label or spec.model.name,
            "attack": node.attack,
            "threat": self._threat(node.attack),
            "detector": detector,
            "policy": policy,
            "purifier": node.purifier,
            "knowledge": self._knowledge(node, detector),
            "draws": draws,
            "metric": metric,
            "value": _number(value),
            "ci_low": _number(low),
            "ci_high": _number(high),
            "n": n,
        }

    def _rate(self, node: Node, metric: str, hits: Column, **more: str) -> Row:
        n, k = len(hits), int(np.count_nonzero(hits))
        low, high = wilson(k, n) if n else (math.nan, math.nan)
        return self._row(node, metric, k / n if n else math.nan, low, high, n, **more)

    def _mean(self, node: Node, metric: str, values: Column, **more: str) -> Row:
        finite = values[np.isfinite(values)]
        value = float(finite.mean()) if len(finite) else math.nan
        low, high = mean_interval(finite, seed=self.bench.spec.seed)
        return self._row(node, metric, value, low, high, len(finite), **more)

    def _wanted(self, metric: str) -> bool:
        return metric in self.bench.spec.metrics

    def _rates(
        self, node: Node, prediction: Column, accepted: Column, among: Column, **more: str
    ) -> Iterator[Row]:
        labelled = among & (self.labels >= 0)
        truth = np.where(labelled, self.labels, self.clean_prediction)
        if self._wanted("accuracy") and labelled.any():
            right = (prediction == self.labels) & accepted
            yield self._rate(node, "accuracy", right[labelled], **more)
        if self._wanted("attack_success") and node.attack != "none":
            position = self.state.plan.nodes[f"attack/{node.attack}"].position
            target = self.bench.spec.attacks[position].target
            if target is None:
                open_to = self.clean_prediction == truth
                hits = (prediction != truth) & accepted
            else:
                open_to = truth != target
                hits = (prediction == target) & accepted
            yield self._rate(node, "attack_success", hits[open_to & among], **more)
        if self._wanted("label_recovery"):
            same = (prediction == self.clean_prediction) & accepted
            yield self._rate(node, "label_recovery", same[among], **more)

    def _scores(self, node: Node) -> Iterator[Row]:
        prediction = self.columns.column(node.name, "prediction")
        everything = np.ones(len(prediction), dtype=bool)
        yield from self._rates(node, prediction, everything, everything)
        if node.attack == "none" and node.purifier == "none":
            return
        for metric in DISTORTIONS:
            if self._wanted(metric):
                values = self.columns.column(node.name, metric)
                yield self._mean(node, metric, values)

    def _detection(self, node: Node) -> Iterator[Row]:
        spec = self.bench.spec.detectors[node.position]
        benign = self.columns.column(f"detect/none/{node.detector}", "score")
        calibration, held_out = self._halves()
        threshold = conformal_threshold(benign[calibration], spec.fpr)
        self.thresholds[node.detector] = threshold
        more = {"detector": node.detector, "policy": "observe"}
        scores = self.columns.column(node.name, "score")
        if node.attack == "none":
            yield self._rate(node, "false_positive_rate", scores[held_out] > threshold, **more)
            return
        auc = roc_auc(benign, scores)
        low, high = _auc_interval(auc, len(benign), len(scores))
        yield self._row(node, "roc_auc", auc, low, high, len(scores), **more)
        for rate in (0.01, 0.05):
            share = tpr_at_fpr(benign, scores, rate)
            low, high = wilson(round(share * len(scores)), len(scores))
            metric = f"tpr_at_fpr_{rate:g}"
            yield self._row(node, metric, share, low, high, len(scores), **more)
        for metric in MASKS:
            if self._wanted(metric) and metric in self.columns.table(node.name).schema.names:
                yield self._mean(node, metric, self.columns.column(node.name, metric), **more)

    def _halves(self) -> tuple[Column, Column]:
        """Calibration and held-out images, split by their ids."""
        ids = self.columns.table("ingest").column("id").to_pylist()
        calibration = np.array([int(name[:8], 16) % 2 == 0 for name in ids])
        return calibration, ~calibration

    def _policies(self, node: Node) -> Iterator[Row]:
        """What comes of rejecting, or purifying only, what a detector flags."""
        _, held_out = self._halves()
        for spec, label in zip(self.bench.spec.detectors, self.thresholds, strict=True):
            scores = self.columns.column(f"detect/{node.attack}/{label}", "score")
            flagged = scores > self.thresholds[label]
            plain = self.columns.column(f"score/{node.attack}/none", "prediction")
            final = self.columns.column(node.name, "prediction")
            everything = np.ones(len(flagged), dtype=bool)
            for policy in spec.policy:
                if policy == "reject":
                    prediction, accepted = final, ~flagged
                elif policy == "purify-if-flagged" and node.purifier != "none":
                    prediction, accepted = np.where(flagged, final, plain), everything
                else:
                    continue
                more = {"detector": label, "policy": policy}
                yield from self._rates(node, prediction, accepted, held_out, **more)


def _auc_interval(auc: float, benign: int, attacked: int) -> tuple[float, float]:
    """Hanley and McNeil's 95 % interval of an area under the ROC curve (Radiology 143, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (attacked - 1) * (q1 - auc**2) + (benign - 1) * (q2 - auc**2)
    spread = 1.96 * math.sqrt(max(0.0, variance) / (benign * attacked))
    return max(0.0, auc - spread), min(1.0, auc + spread)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
