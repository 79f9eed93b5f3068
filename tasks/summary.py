"""Dataset figures from per-image columns: one row a metric, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from defender.metrics.quality import absolute_gain, relative_gain, srcc, srcc_interval
from defender.metrics.rates import (
    balanced_accuracy,
    conformal_threshold,
    mean_interval,
    roc_auc,
    tpr_at_fpr,
    wilson,
)
from tasks.attackers import draws_of, threat_of
from tasks.columns import Column, Columns, Split
from tasks.face_figures import FaceFigures
from tasks.nodes import Node
from tasks.quality_scores import LIKENESSES
from tasks.redraw_figures import over_draws
from tasks.specs import AttackSpec
from tasks.survey import Survey
from tasks.thresholds import Threshold
from tasks.workbench import DISTORTIONS

Row = dict[str, Any]
SCALED = ("scaled_psnr", "target_psnr")
TPR_RATES = (0.001, 0.01, 0.05)
MASKS = ("mask_precision", "mask_recall", "mask_precision_top")
LOCATED = 0.5
"""Shared part of two boxes from which on a patch counts as found."""


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
        if self.bench.has_model:
            self.clean_prediction = self.columns.column("score/none/none", "prediction")
        self.split = Split.of(self.columns.table("ingest"), self.bench.spec.calibration)
        self.thresholds: dict[str, float] = {}

    @cached_property
    def faces(self) -> FaceFigures:
        """The figures of face verification."""
        return FaceFigures(self.bench, self.columns, self.split)

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

    def calibrated(self, dataset: str) -> list[Threshold]:
        """The thresholds with their provenance, after :meth:`rows`.

        Args:
            dataset: digest of the dataset's images.
        """
        spec = self.bench.spec
        return [
            Threshold(
                label=label,
                detector=repr(detector),
                version=detector.version,
                value=_number(self.thresholds[label]),
                fpr=one.fpr,
                images=int(self.split.calibration.sum()),
                pattern=spec.calibration,
                dataset=dataset,
                settings={"name": one.name, **one.parameters},
            )
            for label, detector, one in zip(
                self.thresholds, self.bench.detectors, spec.detectors, strict=True
            )
        ]

    def target_of(self, node: Node) -> int | None:
        """The class that a node's attack is meant to reach, None where any other will do."""
        attack = self._attack(node.attack)
        return None if attack is None else attack[0].target

    def _attack(self, label: str) -> tuple[AttackSpec, Any] | None:
        """What was asked for by a label, and the attack; None where nothing attacks."""
        if label == "none":
            return None
        position = self.state.plan.nodes[f"attack/{label}"].position
        return self.bench.spec.attacks[position], self.bench.attacks[position]

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

    def row(
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
        """A figure of a node with its interval."""
        spec = self.bench.spec
        subject = spec.model or spec.metric or spec.encoder
        attack = self._attack(node.attack)
        return {
            "model": "none" if subject is None else subject.label or subject.name,
            "attack": node.attack,
            "threat": "none" if attack is None else threat_of(*attack),
            "through": "none" if attack is None else attack[0].through or "none",
            "detector": detector,
            "policy": policy,
            "purifier": node.purifier,
            "knowledge": self._knowledge(node, detector),
            "draws": 1 if attack is None else draws_of(*attack),
            "metric": metric,
            "value": _number(value),
            "ci_low": _number(low),
            "ci_high": _number(high),
            "n": n,
        }

    def rate(self, node: Node, metric: str, hits: Column, **more: str) -> Row:
        """The share of images (bool) that are hits, with Wilson's interval."""
        n, k = len(hits), int(np.count_nonzero(hits))
        low, high = wilson(k, n) if n else (math.nan, math.nan)
        return self.row(node, metric, k / n if n else math.nan, low, high, n, **more)

    def mean(self, node: Node, metric: str, values: Column, **more: str) -> Row:
        """The mean of the values that are finite, with its interval."""
        finite = values[np.isfinite(values)]
        value = float(finite.mean()) if len(finite) else math.nan
        low, high = mean_interval(finite, seed=self.bench.spec.seed)
        return self.row(node, metric, value, low, high, len(finite), **more)

    def _wanted(self, metric: str) -> bool:
        return metric in self.bench.spec.metrics

    def _rates(
        self, node: Node, prediction: Column, accepted: Column, among: Column, **more: str
    ) -> Iterator[Row]:
        labelled = among & (self.labels >= 0)
        truth = np.where(labelled, self.labels, self.clean_prediction)
        if self._wanted("accuracy") and labelled.any():
            right = (prediction == self.labels) & accepted
            yield self.rate(node, "accuracy", right[labelled], **more)
        if self._wanted("balanced_accuracy") and labelled.any():
            right = (prediction == self.labels) & accepted
            value, low, high = balanced_accuracy(right[labelled], self.labels[labelled])
            n = int(labelled.sum())
            yield self.row(node, "balanced_accuracy", value, low, high, n, **more)
        if self._wanted("attack_success") and node.attack != "none":
            target = self.target_of(node)
            if target is None:
                open_to = self.clean_prediction == truth
                hits = (prediction != truth) & accepted
            else:
                open_to = truth != target
                hits = (prediction == target) & accepted
            yield self.rate(node, "attack_success", hits[open_to & among], **more)
        if self._wanted("label_recovery"):
            same = (prediction == self.clean_prediction) & accepted
            yield self.rate(node, "label_recovery", same[among], **more)

    def _scores(self, node: Node) -> Iterator[Row]:
        counted = self.split.counted
        if self.bench.has_model:
            prediction = self.columns.column(node.name, "prediction")
            yield from self._rates(node, prediction, np.ones(len(counted), dtype=bool), counted)
        if self.bench.has_metric:
            yield from self._quality(node)
        if self.bench.has_encoder:
            for one in self.faces.figures(node):
                if self._wanted(one.metric.partition("_")[0]):
                    found = self.row(node, one.metric, one.value, one.low, one.high, one.n)
                    yield {**found, **one.more}
        elif f"redraw/{node.attack}/{node.purifier}" in self.state.plan.nodes:
            yield from self._redrawn(node)
        if node.attack == "none" and node.purifier == "none":
            return
        there = self.columns.table(node.name).schema.names
        for metric in (*DISTORTIONS, *SCALED):
            if self._wanted(metric) and metric in there:
                values = self.columns.column(node.name, metric)[counted]
                yield self.mean(node, metric, values)
        if "o1" in there:
            yield from self._goals(node)

    def _redrawn(self, node: Node) -> Iterator[Row]:
        """What comes of drawing a randomised defence again and again."""
        kind = "model" if self.bench.has_model else "metric"
        among = self.split.counted
        if kind == "model":
            among = among & (self.labels >= 0)
        source = self.state.plan.nodes[f"purify/{node.attack}/{node.purifier}"]
        draws = self.bench.spec.purifiers[source.position].draws
        for metric, values in over_draws(self.columns, node, kind, self.labels):
            if not self._wanted(metric.rpartition("_")[0]):
                continue
            make = self.rate if values.dtype == bool else self.mean
            yield {**make(node, metric, values[among]), "draws": draws}

    def _quality(self, node: Node) -> Iterator[Row]:
        """What a quality metric says; purification is judged against the clean image."""
        spec, counted = self.bench.spec, self.split.counted
        metric: Any = self.bench.metric
        scores = self.columns.column(node.name, "score")[counted]
        clean = self.columns.column("score/none/none", "score")[counted]
        bare = node.attack == "none" and node.purifier == "none"
        found: dict[str, Column] = {"score": scores}
        if not bare:
            found["gain"] = relative_gain(clean, scores)
            found["absolute_gain"] = absolute_gain(clean, scores, metric.score_range)
            spread = float(np.std(clean, ddof=1)) if len(clean) > 1 else math.nan
            sign = -1.0 if metric.lower_is_better else 1.0
            found["score_shift"] = sign * (scores - clean) / (spread or math.nan)
        if node.attack != "none" and node.purifier != "none":
            own = self.columns.column(f"score/none/{node.purifier}", "score")[counted]
            found["defended_gain"] = relative_gain(own, scores)
            found["defended_absolute_gain"] = absolute_gain(own, scores, metric.score_range)
        there = () if bare else self.columns.table(node.name).schema.names
        for name, column in LIKENESSES.items():
            if column in there:
                found[name] = self.columns.column(node.name, column)[counted]
        for name, values in found.items():
            if self._wanted(name):
                yield self.mean(node, name, values)
        if self._wanted("srcc") and not bare:
            low, high = srcc_interval(scores, clean, seed=spec.seed)
            n = int(np.count_nonzero(np.isfinite(scores)))
            yield self.row(node, "srcc", srcc(scores, clean), low, high, n)

    def _goals(self, node: Node) -> Iterator[Row]:
        """Whether the goals of a scaling attack hold, and what the model then says."""
        counted = self.split.counted
        first = self.columns.column(node.name, "o1") == 1
        if "o2" in self.columns.table(node.name).schema.names:
            second = self.columns.column(node.name, "o2") == 1
            for metric, hits in (
                ("o1", first),
                ("o2", second),
                ("scaling_success", first & second),
            ):
                if self._wanted(metric):
                    yield self.rate(node, metric, hits[counted])
        elif self._wanted("o1"):
            yield self.rate(node, "o1", first[counted])
        if self._wanted("target_agreement") and self.bench.has_model:
            prediction = self.columns.column(node.name, "prediction")
            same = prediction == self.columns.column(node.name, "target_prediction")
            yield self.rate(node, "target_agreement", same[counted])

    def _detection(self, node: Node) -> Iterator[Row]:
        spec = self.bench.spec.detectors[node.position]
        benign = self.columns.column(f"detect/none/{node.detector}", "score")
        threshold = conformal_threshold(benign[self.split.calibration], spec.fpr)
        self.thresholds[node.detector] = threshold
        more = {"detector": node.detector, "policy": "observe"}
        scores = self.columns.column(node.name, "score")
        attack = self._attack(node.attack)
        if attack is None or threat_of(*attack) == "none":
            flagged = scores[self.split.held_out] > threshold
            yield self.rate(node, "false_positive_rate", flagged, **more)
            return
        benign, scores = benign[self.split.counted], scores[self.split.counted]
        yield self.rate(node, "true_positive_rate", scores > threshold, **more)
        auc = roc_auc(benign, scores)
        low, high = _auc_interval(auc, len(benign), len(scores))
        yield self.row(node, "roc_auc", auc, low, high, len(scores), **more)
        for rate in TPR_RATES:
            share = tpr_at_fpr(benign, scores, rate)
            low, high = wilson(round(share * len(scores)), len(scores))
            metric = f"tpr_at_fpr_{rate:g}"
            yield self.row(node, metric, share, low, high, len(scores), **more)
        there = self.columns.table(node.name).schema.names
        for metric in MASKS:
            if self._wanted(metric) and metric in there:
                values = self.columns.column(node.name, metric)[self.split.counted]
                yield self.mean(node, metric, values, **more)
        if "box_iou" in there:
            found = self.columns.column(node.name, "box_iou")[self.split.counted]
            yield self.rate(node, "located", (scores > threshold) & (found >= LOCATED), **more)
            yield self.mean(node, "box_iou", found, **more)

    def _policies(self, node: Node) -> Iterator[Row]:
        """What comes of rejecting, or purifying only, what a detector flags."""
        if not self.bench.has_model:
            return
        for spec, label in zip(self.bench.spec.detectors, self.thresholds, strict=True):
            if f"detect/{node.attack}/{label}" not in self.state.plan.nodes:
                continue
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
                yield from self._rates(node, prediction, accepted, self.split.held_out, **more)


def _auc_interval(auc: float, benign: int, attacked: int) -> tuple[float, float]:
    """Hanley and McNeil's 95 % interval of an area under the ROC curve (Radiology 143, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (attacked - 1) * (q1 - auc**2) + (benign - 1) * (q2 - auc**2)
    spread = 1.96 * math.sqrt(max(0.0, variance) / (benign * attacked))
    return max(0.0, auc - spread), min(1.0, auc + spread)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
