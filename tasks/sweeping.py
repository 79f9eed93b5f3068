"""A sweep over a store: its run, the runs of its trials, and what they have in common."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.files import free_bytes, local_root
from storage.ledger import digest_of
from tasks.budget import check_budget
from tasks.building import build
from tasks.defences import PURIFIER_KINDS
from tasks.errors import BudgetError, SpecError
from tasks.leaderboard import Standing
from tasks.nodes import RULES as STAGE_RULES
from tasks.nodes import Node
from tasks.plan import Plan
from tasks.specs import AlgorithmSpec, label_of
from tasks.survey import Survey, survey
from tasks.sweep_figures import measure, value_of
from tasks.sweep_specs import CANDIDATE, CLEAN, SweepSpec, load_sweep_spec
from tasks.sweep_study import Asked, Study, open_study, require_optuna
from tasks.workbench import workbench

RULES = 1
"""Version of what a trial measures; raising it begins every search anew."""
STUDY = "study.db"
SHARED = ("device", "dataset", "pipeline", "model", "metric", "attacks", "targets")
"""What the workbenches of all trials have in common."""


class Sweep:
    """A specification of a sweep, and the run that all its trials go out from.

    Args:
        spec: the validated specification.
        folder: folder against which the paths in it are resolved.
        store: URL of the store.
    """

    def __init__(self, spec: SweepSpec, folder: Path, store: str) -> None:
        self.spec = spec
        self.where = str(folder), store
        self.bench = workbench(spec.run().model_dump_json(), *self.where)

    @property
    def folder(self) -> Path:
        """Where the study and the outputs lie."""
        return local_root(self.bench.store.run(self.spec.name), "a sweep")

    def check(self) -> None:
        """Load and check everything, so that a mistake shows before hours are spent.

        Raises:
            SpecError, ModelError, StorageError: saying what is wrong and where.
        """
        require_optuna()
        if not self.bench.has_model and not self.bench.has_metric:
            raise SpecError("metric: a sweep expected a quality metric or a model, got neither")
        stated = [("objectives", name) for name in self.spec.objectives]
        stated += [("constraints", name) for name in self.spec.sweep.constraints]
        for field, name in stated:
            if name.removeprefix(CLEAN) not in self.spec.measured:
                known = [f"{p}{one}" for p in ("", CLEAN) for one in self.spec.measured]
                raise SpecError(f"sweep.{field}: expected one of {', '.join(known)}, got {name!r}")
            if not name.startswith(CLEAN) and not self.spec.attacks:
                raise SpecError(f"attacks: expected some, because {name} is a mean over attacks")
        for i, attack in enumerate(self.spec.attacks):
            if attack.purifiers is not None:
                raise SpecError(
                    f"attacks[{i}].purifiers: a sweep tries every purifier on every attack; "
                    "expected none"
                )
        for i, one in enumerate(self.spec.purifiers):
            if label_of(one) == CANDIDATE:
                raise SpecError(f"purifiers[{i}].label: expected another label than {CANDIDATE!r}")
        self.bench.check()
        self._check_space()

    def _check_space(self) -> None:
        for i, template in enumerate(self.spec.sweep.space):
            for probe in self.spec.sweep.probes(template):
                built = self._built(probe.text, f"sweep.space[{i}]")
                if built.knowledge == "reference":
                    raise SpecError(
                        f"sweep.space[{i}]: expected a purifier that works without the clean "
                        f"original, got {template!r}"
                    )

    def _built(self, text: str, where: str) -> Any:
        bench = self.bench
        return build(
            PURIFIER_KINDS,
            AlgorithmSpec(name=text),
            where,
            model=bench.model if bench.has_model else None,
            pipeline=bench.pipeline,
            folder=bench.folder,
        )

    def look_up(self) -> tuple[str, Survey]:
        """The run without any trial, as JSON and as the store holds it."""
        self.bench.catalogue(keep=True)
        return self.bench.spec.model_dump_json(), survey(self.bench)

    def trial(self, base: Survey, purifier: str) -> tuple[str, Survey]:
        """The run of a trial, as JSON and as the store holds it.

        Args:
            base: the run without any trial; its chunks are not looked at again.
            purifier: what is tried.
        """
        spec = self.spec.run(purifier).model_dump_json()
        bench = workbench(spec, *self.where)
        for name in SHARED:
            if name in vars(self.bench):
                setattr(bench, name, vars(self.bench)[name])
        state = Survey(bench, Plan(bench), base.chunks, dict(base.done))
        for node in state.plan:
            for index in state.indices(node):
                if (node.name, index) in state.done:
                    continue
                work = state.work(node, index)
                mark = None if work is None else state.mark(work)
                if work is not None and mark is not None:
                    state.record(work, mark)
        return spec, state

    def check_budget(self, base: Survey, left: int) -> None:
        """Refuse a sweep that would not fit.

        Args:
            base: the run without any trial.
            left: trials that are to be done.

        Raises:
            BudgetError: naming what is too large and what to change.
        """
        search = self.spec.sweep
        probe = next(search.probes(search.space[0]))
        _, state = self.trial(base, probe.text)
        check_budget(state.bench, state)
        chunks = self.bench.dataset.chunks
        decoded = sum(item.size_hint for chunk in chunks for item in chunk.items)
        wanted = decoded * (len(self.spec.attacks) + 1) * int(min(left, search.size))
        free = free_bytes(self.bench.store.root)
        if search.keep_images and free is not None and wanted > free:
            raise BudgetError(
                f"disk: the purified images of {left} trials would take about "
                f"{wanted / (1 << 30):.1f} GiB, {free / (1 << 30):.1f} GiB are free at "
                f"{self.bench.store.root}; set sweep.keep_images to false, or take fewer images"
            )

    def baselines(self, base: Survey) -> list[Standing]:
        """Figures without a purifier, and of the specification's own purifiers.

        Raises:
            SpecError: where an objective has no value on these images.
        """
        labels = ["none", *(label_of(one) for one in self.spec.purifiers)]
        found = [measure(base, label) for label in labels]
        for name in (*self.spec.objectives, *self.spec.sweep.constraints):
            if not math.isfinite(value_of(found[0], name)):
                why = "labels" if name.endswith("accuracy") else "more images, or others"
                raise SpecError(
                    f"sweep.objectives: {name} has no value on these images; expected {why}"
                )
        return found

    def identity(self, base: Survey) -> str:
        """Digest of everything that values of the study depend on.

        Args:
            base: the finished run without any trial.
        """
        plan = base.plan
        contents = {
            node.name: [base.done[(node.name, i)].content for i in base.indices(node)]
            for node in plan
            if node.kind in ("ingest", "attack")
        }
        search = self.spec.sweep
        first = [next(search.probes(template)).text for template in search.space]
        built = [self._built(text, "sweep.space") for text in first]
        return digest_of(
            {
                "rules": [RULES, STAGE_RULES["purify"]],
                "chunks": contents,
                "score": plan.nodes["score/none/none"].fingerprint,
                "seed": self.spec.seed,
                "objectives": self.spec.objectives,
                "search": search.model_dump(mode="json", exclude={"trials", "keep_images"}),
                "purifiers": [[repr(one), one.version] for one in built],
            }
        )

    @contextlib.contextmanager
    def study(self, base: Survey) -> Iterator[Study]:
        """Open the study of this sweep; see :func:`tasks.sweep_study.open_study`.

        Args:
            base: the finished run without any trial.
        """
        name, path = self.identity(base)[:24], self.folder / STUDY
        with open_study(path, name, self.spec.sweep, self.spec.objectives) as opened:
            yield opened

    def begin(self, asked: Asked, state: Survey) -> None:
        """Note which images of a trial are there already, where the others are not to be kept."""
        if not self.spec.sweep.keep_images and asked.others is None:
            asked.note_others([key for key, _, _ in _purified(state)])

    def clear(self, asked: Asked, state: Survey) -> None:
        """Remove the purified images that were made for a trial, unless they are to be kept."""
        if asked.others is None:
            return
        for key, node, chunk in _purified(state):
            if key not in asked.others:
                self.bench.store.ledger(node.fingerprint).withdraw(chunk)


def _purified(state: Survey) -> Iterator[tuple[str, Node, str]]:
    """Finished chunks of a trial's purifier: name, node, and key within its stage."""
    for (name, _), given in state.done.items():
        node = state.plan.nodes[name]
        if node.kind == "purify" and node.purifier == CANDIDATE:
            yield f"{given.ref.stage}/{given.ref.key}", node, given.ref.key


def open_sweep(
    spec: str, store: str, assignments: Sequence[str] = (), limit: int | None = None
) -> Sweep:
    """The sweep of a specification file; nothing is written.

    Raises:
        SpecError: naming the file, the field and what was expected.
    """
    path = Path(spec)
    return Sweep(load_sweep_spec(path, assignments, limit), path.parent.resolve(), store)
