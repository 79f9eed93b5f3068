"""What has to hold between the parts of a specification before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.defences import DefenceFile
from tasks.errors import SpecError
from tasks.nodes import CALM
from tasks.precomputed import Precomputed
from tasks.specs import AttackSpec, DatasetSpec, label_of
from tasks.targets import is_apart

if TYPE_CHECKING:
    from tasks.workbench import Workbench


def check_attacks(bench: Workbench) -> None:
    """Check that every attack suits what it attacks and what is tried on it.

    Raises:
        SpecError, StorageError: naming the field and what was expected.
    """
    for i, (spec, attack) in enumerate(zip(bench.spec.attacks, bench.attacks, strict=True)):
        if spec.through is not None:
            purifier = bench.purifiers[bench.purifier_position(spec.through)]
            if purifier.knowledge == "reference":
                raise SpecError(
                    f"attacks[{i}].through: expected a purifier that works without the clean "
                    f"original, got {spec.through!r}"
                )
        if spec.randomness == "known":
            _check_known(bench, i, spec, attack)
        _check_needs(bench, i, spec, attack)
        if isinstance(attack, Precomputed):
            attack.check(bench.dataset, f"attacks[{i}]")
        _check_targets(bench, i, spec, attack)
        _check_tried(bench, i, spec)
        _check_sources(bench, i, spec)


def _check_known(bench: Workbench, i: int, spec: AttackSpec, attack: Any) -> None:
    field = f"attacks[{i}].randomness"
    if spec.through is None or spec.draws > 1:
        raise SpecError(f"{field}: known is of the one draw of a purifier; expected through")
    if spec.strength is not None or attack.budget == "patch" or bench.must_fit(i):
        raise SpecError(
            f"{field}: known needs an attack on each image by itself; expected one that is not "
            f"fitted, no patch and without strength, got {spec.name}"
        )


def check_purifiers(bench: Workbench) -> None:
    """Check that defences in a process of their own are not to be drawn again.

    Raises:
        SpecError: naming the field and what was expected.
    """
    for i, (spec, purifier) in enumerate(zip(bench.spec.purifiers, bench.purifiers, strict=True)):
        if spec.draws > 1 and isinstance(purifier, DefenceFile):
            raise SpecError(
                f"purifiers[{i}].draws: {spec.name} is asked once; expected 1, got {spec.draws}"
            )


def check_subject(bench: Workbench) -> None:
    """Check that one system at most is attacked, and that what is beside it suits it.

    Raises:
        SpecError, ModelError: naming the field and what was expected.
    """
    stated = [
        name for name in ("model", "metric", "encoder") if getattr(bench.spec, name) is not None
    ]
    if len(stated) > 1:
        raise SpecError(f"{stated[1]}: expected one of model, metric and encoder, got both")
    for field in ("others", "certifiers", "explain"):
        if getattr(bench.spec, field) and not bench.has_model:
            raise SpecError(f"{field}: expected a model of classes beside it, got none")
    if bench.has_model:
        _ = bench.model
    if not bench.has_metric and not bench.has_encoder:
        return
    _ = bench.subject
    if bench.pipeline is not None:
        raise SpecError(
            f"pipeline: {_subject(bench)} sees images as they are; expected none, or dataset.resize"
        )


def _subject(bench: Workbench) -> str:
    return "a quality metric" if bench.has_metric else "a face encoder"


def _check_needs(bench: Workbench, i: int, spec: AttackSpec, attack: Any) -> None:
    """Attacks that look at logits need classes, those that stop at a boundary need one."""
    needs = getattr(attack, "needs", "score")
    if needs == "score" or bench.has_model or bench.subject is None:
        return
    if needs == "margin" and bench.has_encoder:
        if calibrates(bench, i):
            _check_calibrates(bench, i)
        return
    raise SpecError(
        f"attacks[{i}]: {spec.name} attacks a model of classes, {_subject(bench)} has none"
    )


def calibrates(bench: Workbench, position: int) -> bool:
    """Whether an attack on a face encoder needs a threshold that the specification leaves open."""
    needs = getattr(bench.attacks[position], "needs", "score")
    return bench.has_encoder and needs == "margin" and bench.spec.faces.threshold is None


def _check_calibrates(bench: Workbench, position: int) -> None:
    """Refuse an attack whose threshold is not that of the run's own images.

    Raises:
        SpecError: where victims come from another data set, whose pictures set the threshold.
    """
    if any(is_apart(pool, bench.dataset) for pool in bench.targets):
        raise SpecError(
            f"attacks[{position}]: {bench.spec.attacks[position].name} goes to a boundary, and "
            "victims of another data set set it; expected faces.threshold, got none"
        )


def _check_sources(bench: Workbench, i: int, spec: AttackSpec) -> None:
    for label in spec.surrogates or ():
        if label not in bench.others:
            raise SpecError(
                f"attacks[{i}].surrogates: expected labels of others: "
                f"{', '.join(bench.others) or 'there are none'}; got {label!r}"
            )
    if spec.surrogates is not None and not (spec.surrogates and bench.has_model):
        raise SpecError(f"attacks[{i}].surrogates: expected models of classes, got none")
    if spec.fit_dataset is not None and (spec.fitted is not None or not bench.must_fit(i)):
        raise SpecError(f"attacks[{i}].fit_dataset: {spec.name} is not fitted; expected none")
    if spec.fitted is None:
        if bench.must_fit(i) and bench.attacks[i].threat in CALM:
            raise SpecError(
                f"attacks[{i}].fitted: expected the label of the patch that this {spec.name} "
                "is a control of, got none"
            )
        return
    labels = [label_of(one) for one in bench.spec.attacks]
    known = [labels[k] for k in range(i) if bench.must_fit(k) and not bench.spec.attacks[k].fitted]
    if spec.fitted not in known or not bench.must_fit(i):
        raise SpecError(
            f"attacks[{i}].fitted: expected the label of an attack above that is fitted: "
            f"{', '.join(known) or 'there is none'}; got {spec.fitted!r}"
        )


def _check_tried(bench: Workbench, i: int, spec: AttackSpec) -> None:
    for field in ("detectors", "purifiers", "certifiers"):
        known = [label_of(one) for one in getattr(bench.spec, field)]
        for label in getattr(spec, field) or ():
            if label not in known:
                raise SpecError(
                    f"attacks[{i}].{field}: expected labels of {field}: "
                    f"{', '.join(known) or 'there are none'}; got {label!r}"
                )


def _check_targets(bench: Workbench, i: int, spec: AttackSpec, attack: Any) -> None:
    hides = attack.budget == "scaling"
    if hides and bench.pipeline is None:
        raise SpecError(
            f"attacks[{i}]: {spec.name} expected the resize it attacks; add the field pipeline "
            "to the specification, such as {target: 64x64}"
        )
    if hides and spec.targets is None:
        raise SpecError(
            f"attacks[{i}].targets: expected the pictures that {spec.name} hides: other-class, "
            "other-image or a dataset, got nothing"
        )
    asks = attack.threat not in (*CALM, "precomputed")
    if not hides and bench.subject is None and asks:
        raise SpecError(f"attacks[{i}]: {spec.name} attacks a model; expected the field model")
    if spec.target is not None and not bench.has_model and bench.subject is not None:
        raise SpecError(f"attacks[{i}].target: {_subject(bench)} has no classes; expected none")
    if bench.has_encoder:
        _check_face_attack(bench, i, spec, attack)
    if spec.strength is not None and (not asks or hides or not hasattr(attack, "strength")):
        raise SpecError(
            f"attacks[{i}].strength: {spec.name} has no strength that could be searched; "
            "expected none"
        )
    if not hides and spec.targets is not None and not bench.has_encoder:
        raise SpecError(f"attacks[{i}].targets: {spec.name} hides no picture; expected none")
    if hides and spec.through is not None:
        raise SpecError(
            f"attacks[{i}].through: {spec.name} cannot see through a purifier; AdaptiveScaling "
            "names the filter it is made against"
        )


def _check_face_attack(bench: Workbench, i: int, spec: AttackSpec, attack: Any) -> None:
    for field, stated in (("strength", spec.strength is not None), ("fit", bench.must_fit(i))):
        if stated:
            raise SpecError(
                f"attacks[{i}].{field}: {spec.name} cannot be fitted to faces; expected another"
            )
    if spec.targets is not None and not bench.impersonates(spec, attack):
        raise SpecError(
            f"attacks[{i}].targets: {spec.name} is about no other person; expected none"
        )
    if spec.pairing == "in-order" and not isinstance(spec.targets, DatasetSpec):
        raise SpecError(f"attacks[{i}].pairing: expected targets in a data set of their own")
