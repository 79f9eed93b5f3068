"""Everything a run computes with, made once a process: dataset, model, algorithms, device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defender.certification import CERTIFIERS
from defender.detectors import DETECTORS
from defender.metrics import METRICS
from defender.models.face_encoder import FaceEncoder
from defender.models.scaled import Scaled
from defender.scaling import Pipeline
from storage.chunks import Store
from storage.files import store_root
from storage.ledger import digest_of
from tasks.batches import BatchRule
from tasks.building import build
from tasks.datasets import Dataset
from tasks.defences import PURIFIER_KINDS
from tasks.devices import choose_device, prepare
from tasks.encoders import load_encoder
from tasks.errors import ModelError, SpecError
from tasks.models import load_model
from tasks.nodes import CALM
from tasks.precomputed import ATTACK_KINDS
from tasks.quality_models import load_metric
from tasks.requirements import check_requirements
from tasks.run_checks import check_attacks, check_purifiers, check_subject
from tasks.sandbox.contents import Unseen
from tasks.specs import AlgorithmSpec, AttackSpec, DatasetSpec, Spec, label_of
from tasks.targets import TargetPool
from tasks.unseen import unseen_by_defences

DISTORTIONS = ("psnr", "psnr_legacy", "ssim", "ms_ssim", "l2", "linf")


class Workbench:
    """The specification of a run and what it names, loaded when first asked for.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    def __init__(self, spec: Spec, folder: Path, store: str) -> None:
        self.spec = spec
        self.folder = folder
        self.store = Store(store_root(store))
        self.rule = BatchRule(spec.compute.batch, spec.compute.pixels)
        self._classes: dict[int, int] = {}
        self._check_labels()
        self._check_metrics()
        check_requirements(spec)

    @cached_property
    def device(self) -> torch.device:
        """Where the run computes."""
        device = choose_device(self.spec.compute.device)
        prepare(device)
        return device

    @cached_property
    def dataset(self) -> Dataset:
        """The images; :meth:`catalogue` lists them."""
        return Dataset(self.spec.dataset, self.folder)

    def catalogue(self, *, keep: bool) -> None:
        """List the dataset's items; what was listed before keeps its place.

        Args:
            keep: write the places to the store, for the next time.
        """
        place = digest_of({"kind": "catalogue", **self.dataset.identity()})[:24]
        path = self.store.root / "data" / place / "catalogue.parquet"
        self.dataset.open(path, keep=keep)
        for pool in self.targets:
            if pool is not None and not pool.pool.opened:
                pool.pool.open(path.with_name("targets.parquet"), keep=False)
        for images in self.fit_sets:
            if images is not None and not images.opened:
                images.open(path.with_name("fit.parquet"), keep=False)

    @cached_property
    def model(self) -> nn.Module:
        """The model that is attacked and defended, behind the resize of its pipeline.

        Raises:
            SpecError: where the specification names none.
        """
        if self.spec.model is None:
            raise SpecError("model: expected a model, got nothing")
        model = load_model(self.spec.model, self.folder, self.device)
        return model if self.pipeline is None else Scaled(model, self.pipeline).eval()

    @cached_property
    def others(self) -> dict[str, nn.Module]:
        """Further models by label, behind the same pipeline.

        Raises:
            SpecError: where labels do not tell them apart.
        """
        made: dict[str, nn.Module] = {}
        for i, spec in enumerate(self.spec.others):
            label = spec.label or spec.name
            if label in made or label == "none":
                raise SpecError(f"others[{i}].label: expected a label of its own, got {label!r}")
            model = load_model(spec, self.folder, self.device)
            made[label] = model if self.pipeline is None else Scaled(model, self.pipeline).eval()
        return made

    @cached_property
    def metric(self) -> nn.Module:
        """The image-quality metric that is attacked and defended.

        Raises:
            SpecError: where the specification names none.
        """
        if self.spec.metric is None:
            raise SpecError("metric: expected an image-quality metric, got nothing")
        return load_metric(self.spec.metric, self.folder, self.device)

    @cached_property
    def encoder(self) -> FaceEncoder:
        """The face encoder that is attacked and defended.

        Raises:
            SpecError: where the specification names none.
        """
        if self.spec.encoder is None:
            raise SpecError("encoder: expected a face encoder, got nothing")
        return load_encoder(self.spec.encoder, self.folder, self.device)

    @property
    def has_encoder(self) -> bool:
        """Whether the specification names a face encoder."""
        return self.spec.encoder is not None

    @property
    def subject(self) -> nn.Module | None:
        """What is attacked and defended: the model, the metric, the encoder, or nothing."""
        if self.has_model:
            return self.model
        if self.has_metric:
            return self.metric
        return self.encoder if self.has_encoder else None

    @property
    def has_metric(self) -> bool:
        """Whether the specification names an image-quality metric."""
        return self.spec.metric is not None

    @property
    def has_model(self) -> bool:
        """Whether the specification names a model."""
        return self.spec.model is not None

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """The resize in front of the model, or None."""
        return None if self.spec.pipeline is None else self.spec.pipeline.pipeline()

    @cached_property
    def unseen(self) -> Unseen:
        """What a user's own defence must not see."""
        return unseen_by_defences(self.spec, self.folder, self.store.root)

    def _build(self, registry: Mapping[str, type], spec: AlgorithmSpec, where: str) -> Any:
        model = self.model if self.has_model else None
        given = {"model": model, "pipeline": self.pipeline, "unseen": lambda: self.unseen}
        return build(registry, spec, where, **given, home=self.folder, device=self.device)

    @cached_property
    def attacks(self) -> list[Any]:
        """The attacks, in the order of the specification."""
        made = []
        for i, spec in enumerate(self.spec.attacks):
            attack = self._build(ATTACK_KINDS, spec, f"attacks[{i}]")
            if spec.target is not None and hasattr(attack, "target"):
                attack = dataclasses.replace(attack, target=spec.target)
            made.append(attack)
        return made

    def must_fit(self, position: int) -> bool:
        """Whether an attack has to be fitted to the data set before it can start."""
        return bool(getattr(self.attacks[position], "must_fit", False))

    @cached_property
    def fit_sets(self) -> list[Dataset | None]:
        """For each attack the images that it is fitted on, None where they are those it attacks."""
        stated = [spec.fit_dataset for spec in self.spec.attacks]
        return [None if spec is None else Dataset(spec, self.folder) for spec in stated]

    @cached_property
    def targets(self) -> list[TargetPool | None]:
        """For each attack the pictures that it hides, or None where it hides none."""
        made: dict[str, TargetPool] = {}
        pools: list[TargetPool | None] = []
        for i, spec in enumerate(self.spec.attacks):
            stated = spec.targets
            # attacks are built where they must be: that takes the model
            if stated is None and self.has_encoder and self.impersonates(spec, self.attacks[i]):
                stated = "other-class"
            if stated is None:
                pools.append(None)
                continue
            key = repr((stated, spec.pairing))
            if key not in made:
                made[key] = self._target_pool(stated, in_order=spec.pairing == "in-order")
            pools.append(made[key])
        return pools

    @staticmethod
    def impersonates(spec: AttackSpec, attack: Any) -> bool:
        """Whether an attack on a face encoder needs a picture of somebody else."""
        return spec.aim == "impersonate" and attack.threat not in (*CALM, "precomputed")

    def _target_pool(self, stated: str | DatasetSpec, *, in_order: bool) -> TargetPool:
        if isinstance(stated, str):
            pool, other_class = self.dataset, stated == "other-class"
        else:
            pool, other_class = Dataset(stated, self.folder), False
        identity = self.spec.faces.identity if self.has_encoder else None
        return TargetPool(
            self.dataset,
            pool,
            self.spec.seed,
            other_class=other_class,
            identity=identity,
            in_order=in_order,
        )

    @cached_property
    def detectors(self) -> list[Any]:
        """The detectors, in the order of the specification."""
        return [
            self._build(DETECTORS, spec, f"detectors[{i}]")
            for i, spec in enumerate(self.spec.detectors)
        ]

    @cached_property
    def purifiers(self) -> list[Any]:
        """The purifiers, in the order of the specification."""
        return [
            self._build(PURIFIER_KINDS, spec, f"purifiers[{i}]")
            for i, spec in enumerate(self.spec.purifiers)
        ]

    @cached_property
    def certifiers(self) -> list[Any]:
        """The certified defences, in the order of the specification."""
        return [
            self._build(CERTIFIERS, spec, f"certifiers[{i}]")
            for i, spec in enumerate(self.spec.certifiers)
        ]

    def classes(self, images: Tensor, model: nn.Module | None = None) -> int:
        """Number of a model's outputs, found by asking it once about one image.

        Args:
            images: (n, c, h, w).
            model: one of the others; none: the model.

        Raises:
            ModelError: where it does not answer with scores (n, classes).
        """
        asked = self.model if model is None else model
        if id(asked) not in self._classes:
            with torch.no_grad():
                scores = asked(images[:1])
            if scores.ndim != 2 or len(scores) != 1:
                raise ModelError(
                    f"{asked!r}: expected scores (n, classes), got {tuple(scores.shape)}"
                )
            self._classes[id(asked)] = int(scores.shape[1])
        return self._classes[id(asked)]

    @property
    def distortions(self) -> list[str]:
        """The distortion columns that the wanted metrics need."""
        return [name for name in DISTORTIONS if name in self.spec.metrics]

    def purifier_position(self, label: str, field: str = "attacks.through") -> int:
        """Index of the purifier with a label.

        Raises:
            SpecError: where there is none.
        """
        labels = [label_of(spec) for spec in self.spec.purifiers]
        if label not in labels:
            raise SpecError(f"{field}: expected the label of a purifier, got {label!r}")
        return labels.index(label)

    def check(self) -> None:
        """Load and check everything, so that a mistake shows before hours are spent.

        Raises:
            SpecError, ModelError, StorageError: saying what is wrong and where.
        """
        _ = self.dataset, self.device, self.attacks, self.detectors, self.purifiers
        _ = self.others, self.certifiers, self.fit_sets
        check_subject(self)
        check_purifiers(self)
        if self.spec.baseline is not None:
            self.purifier_position(self.spec.baseline, "baseline")
        check_attacks(self)

    def _check_labels(self) -> None:
        for field in ("attacks", "detectors", "purifiers", "certifiers"):
            seen = {"none"}
            for i, spec in enumerate(getattr(self.spec, field)):
                label = label_of(spec)
                if label in seen:
                    raise SpecError(f"{field}[{i}].label: expected a label of its own: {label!r}")
                seen.add(label)

    def _check_metrics(self) -> None:
        for i, name in enumerate(self.spec.metrics):
            if name not in METRICS:
                raise SpecError(
                    f"metrics[{i}]: expected one of {', '.join(sorted(METRICS))}, got {name!r}"
                )


@lru_cache(maxsize=4)
def workbench(spec: str, folder: str, store: str) -> Workbench:
    """The workbench of a specification given as JSON; one a process."""
    return Workbench(Spec.model_validate_json(spec), Path(folder), store)
