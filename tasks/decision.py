"""How detectors decide together: rules, thresholds set for them, and the rate that they keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defender.detectors import DETECTORS
from defender.metrics.joint import joint_thresholds
from defender.metrics.rates import conformal_threshold
from defender.scaling import Pipeline
from storage.files import Place
from tasks.building import build
from tasks.errors import SpecError
from tasks.names import find, suggestion
from tasks.specs import DetectorSpec
from tasks.thresholds import Threshold

ANY, MAJORITY = "any", "majority"
EVERY_IMAGE = "*"
"""Pattern of names that fits all images."""


@dataclass(frozen=True)
class Rule:
    """When an image is suspect: ``least`` or more of the deciding detectors flag it.

    Args:
        name: ``any``, ``majority``, or the label of the one detector that decides.
        deciding: labels of the detectors that count.
        least: how many of them have to flag an image.
    """

    name: str
    deciding: tuple[str, ...]
    least: int

    @classmethod
    def of(cls, name: str, labels: Sequence[str]) -> Rule:
        """The rule of a name.

        Raises:
            SpecError: for a name that is neither a rule nor the label of a detector.
        """
        everyone = tuple(labels)
        if name == ANY:
            return cls(ANY, everyone, 1)
        if name == MAJORITY:
            return cls(MAJORITY, everyone, len(everyone) // 2 + 1)
        label = find(labels, name)
        if label is None:
            known = [ANY, MAJORITY, *labels]
            raise SpecError(
                f"--rule: expected one of {', '.join(known)}, got {name!r}{suggestion(name, known)}"
            )
        return cls(label, (label,), 1)


@dataclass(frozen=True)
class Decision:
    """A rule with the thresholds that it goes by, by label of the detector."""

    rule: Rule
    thresholds: Mapping[str, Threshold]

    @property
    def expected(self) -> float:
        """Share of benign images that come out suspect, at most, whatever the detectors share.

        With rates ``f`` of k detectors, ``least`` or more of them flag an image with probability
        ``sum(f) / least`` at most (Markov); a rate that was set for all together may be lower.
        """
        deciding = [self.thresholds[label] for label in self.rule.deciding]
        active = [one for one in deciding if one.value is not None]
        bounds = [1.0, sum(one.fpr for one in active) / self.rule.least]
        joint = {(one.joint, one.least, one.dataset) for one in active}
        if len(joint) == 1:
            rate, least, _ = joint.pop()
            if rate is not None and self.rule.least >= least:
                bounds.append(rate)
        return min(bounds)

    def of_calibrated_size(self, sides: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether images are no smaller and no larger than the benign ones, bool (n,).

        Args:
            sides: heights and widths, (n, 2).
        """
        fits = np.ones(len(sides), dtype=bool)
        for label in self.rule.deciding:
            if (sizes := self.thresholds[label].sizes) is not None:
                fits &= ((sides >= sizes[0]) & (sides <= sizes[1])).all(axis=1)
        return fits

    @property
    def identity(self) -> dict[str, Any]:
        """What outputs made by this decision depend on."""
        thresholds = [asdict(one) for one in self.thresholds.values()]
        return {"rule": asdict(self.rule), "thresholds": thresholds}

    def check(self, source: str) -> None:
        """Refuse a decision in which no detector can flag enough.

        Args:
            source: where the thresholds come from, for the message.

        Raises:
            SpecError: naming the detectors without a threshold.
        """
        missing = [label for label in self.rule.deciding if self.thresholds[label].value is None]
        if len(self.rule.deciding) - len(missing) < self.rule.least:
            raise SpecError(
                f"{source}: expected thresholds to decide by, got none for {', '.join(missing)}: "
                "too few benign images for the rate"
            )


def calibrate(
    scores: Mapping[str, NDArray[np.float64]],
    detectors: Sequence[tuple[DetectorSpec, Any]],
    rule: Rule,
    fpr: float,
    dataset: str,
    sizes: list[list[int]],
) -> list[Threshold]:
    """Thresholds at which a rule keeps a false positive rate, set on all of some benign images.

    Args:
        scores: of the benign images, (n,), by label.
        detectors: each with its entry of the specification, in the order of ``scores``.
        rule: detectors that do not decide get the rate each for itself.
        fpr: rate at which a benign image comes out suspect, at most.
        dataset: digest of the images.
        sizes: their smallest and largest height and width.

    Raises:
        SpecError: where the images are too few.
    """
    images = len(next(iter(scores.values())))
    together = joint_thresholds(
        np.stack([scores[label] for label in rule.deciding], axis=1), fpr, rule.least
    )
    if not together.level:
        raise SpecError(_too_few(rule, fpr, images, together.needed))
    alone = len(rule.deciding) == 1
    made = []
    for (entry, detector), (label, column) in zip(detectors, scores.items(), strict=True):
        decides = label in rule.deciding
        value = (
            float(together.values[rule.deciding.index(label)])
            if decides
            else conformal_threshold(column, fpr)
        )
        jointly = decides and not alone
        made.append(
            Threshold(
                label=label,
                detector=repr(detector),
                version=detector.version,
                value=value if math.isfinite(value) else None,
                fpr=together.level if jointly else fpr,
                images=len(column),
                pattern=EVERY_IMAGE,
                dataset=dataset,
                settings={"name": entry.name, **entry.parameters},
                joint=fpr if jointly else None,
                least=rule.least if jointly else 1,
                sizes=sizes,
            )
        )
    return made


def _too_few(rule: Rule, fpr: float, images: int, needed: int) -> str:
    count = len(rule.deciding)
    text = f"calibration: expected {needed} benign images or more for a rate of {fpr:g}"
    if count > 1:
        text += f" with the rule {rule.name} over {count} detectors"
    text += f", got {images}; take more"
    lowest = (needed + 1) * fpr / (images + 1)
    if lowest < 1:
        text += f", a rate of {math.ceil(1000 * lowest - 1e-6) / 1000:g} or more (--fpr)"
    if count > 1:
        text += ", fewer detectors (--detector), or one of them to decide (--rule)"
    return text


def calibrated_detectors(
    thresholds: Sequence[Threshold], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The detectors of a file of thresholds, as a specification lists them.

    Args:
        thresholds: what the file holds.
        names: labels or names of those that are wanted; none for all.

    Raises:
        SpecError: for a name that the file does not have.
    """
    entries = {one.label: {**_settings(one), "label": one.label} for one in thresholds}
    if not names:
        return list(entries.values())
    wanted: dict[str, dict[str, Any]] = {}
    for name in names:
        label = find(entries, name)
        same = [one for one, entry in entries.items() if find([entry["name"]], name)]
        for one in same if label is None else [label]:
            wanted[one] = entries[one]
        if label is None and not same:
            raise SpecError(
                f"--detector: expected one that was calibrated: {', '.join(entries)}; "
                f"got {name!r}{suggestion(name, entries)}"
            )
    return list(wanted.values())


def _settings(threshold: Threshold) -> dict[str, Any]:
    return threshold.settings or {"name": threshold.detector.partition("(")[0]}


def matched(
    thresholds: Sequence[Threshold],
    detectors: Sequence[Mapping[str, Any]],
    pipeline: Pipeline,
    source: Place,
) -> dict[str, Threshold]:
    """The thresholds of detectors, which have to be those that the thresholds were set for.

    Args:
        thresholds: what a file holds.
        detectors: those of a scan, from :func:`calibrated_detectors`.
        pipeline: resize of the scan.
        source: the file.

    Raises:
        SpecError: where parameters, version or pipeline differ, or a detector needs a model.
    """
    known = {one.label: one for one in thresholds}
    found: dict[str, Threshold] = {}
    for entry in detectors:
        stated = known[entry["label"]]
        spec = DetectorSpec(**entry)
        try:
            detector = build(DETECTORS, spec, stated.label, pipeline=pipeline)
        except SpecError as error:
            raise SpecError(
                f"{source}: {error}; choose detectors for the scan with --detector"
            ) from None
        if detector.knowledge not in ("blind", "pipeline"):
            raise SpecError(
                f"{source}: {stated.label} is given the {detector.knowledge}, which a scan has "
                "not; choose others with --detector"
            )
        now = (repr(detector), detector.version)
        if now != (stated.detector, stated.version):
            raise SpecError(
                f"{source}: {stated.label} was calibrated as {stated.detector}, version "
                f"{stated.version}; this scan has {now[0]}, version {now[1]}; calibrate for this "
                "scan, or scan with what was calibrated"
            )
        found[stated.label] = stated
    return found
