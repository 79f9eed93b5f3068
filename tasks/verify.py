"""What a face verification leaves in the store: pairs, their figures, and the curves."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from defender.metrics.verification import Pairs, paired_similarities
from defender.metrics.verification_protocols import Templates, folds_in_order
from storage.files import write_atomic
from storage.ledger import digest_of
from storage.scores import write_rows
from tasks.columns import Columns
from tasks.errors import SpecError
from tasks.faces import people
from tasks.outputs import begin_outputs, end_outputs, references, rejected_rows, write_json
from tasks.survey import Survey
from tasks.verify_figures import figures
from tasks.verify_lists import (
    PairList,
    TemplateList,
    find_names,
    read_pairs,
    read_templates,
    refuse,
)
from tasks.verify_plot import curves
from tasks.verify_specs import VerifyRequest
from tasks.workbench import Workbench

RULES = 1
"""Version of what the outputs hold; raising it rewrites them."""
VERIFY = "verify.json"
OUTPUTS = (VERIFY, "pairs.parquet", "roc.svg", "det.svg")

Whole = NDArray[np.int64]


class Verification:
    """The lists of a request, and what a finished run says of them.

    Args:
        request: what was asked for.

    Raises:
        SpecError: where a list cannot be used, naming the line.
    """

    def __init__(self, request: VerifyRequest) -> None:
        self.request = request
        self.list: PairList = read_pairs(request.pairs, request.protocol)
        self.templates: TemplateList | None = None
        if request.protocol == "ijb":
            self.templates = read_templates(request.templates)
            self._check_templates(self.templates)

    @property
    def identity(self) -> dict[str, Any]:
        """What the outputs are made from besides chunks and specification."""
        return {
            "verify": RULES,
            "protocol": self.request.protocol,
            "pairs": self.list.digest,
            "templates": None if self.templates is None else self.templates.digest,
        }

    def check(self, bench: Workbench) -> None:
        """Refuse a run whose dataset lacks images of the lists.

        Args:
            bench: the run, its dataset listed.

        Raises:
            SpecError: listing the names.
        """
        self._named(bench)
        for i, purifier in enumerate(bench.purifiers):
            if purifier.knowledge == "reference":
                raise SpecError(
                    f"--purifier: expected purifiers that work without the clean original, got "
                    f"{bench.spec.purifiers[i].name!r}"
                )

    def write(self, state: Survey) -> dict[str, Any]:
        """Write the outputs of a finished run; the index comes last.

        Args:
            state: a run with nothing left to compute.

        Returns:
            What ``verify.json`` holds.

        Raises:
            StoreError: where the store cannot be written.
            SpecError: where images of the lists cannot be used, or all pairs are of one kind.
        """
        bench = state.bench
        folder = bench.store.run(bench.spec.name)
        names = [*OUTPUTS, "rejected.parquet", "stages.json"]
        begin_outputs(folder, names)
        rejected = rejected_rows(state)
        columns = Columns(state)
        rows = columns.table("ingest")
        places = self._places(bench, rows, rejected)
        whose, source = self._people(bench, rows, places)
        systems, similarities = [], {}
        for node in state.plan:
            if node.kind != "score":
                continue
            pairs = self._pairs(columns, node.name, places, whose)
            similarities[node.purifier] = pairs.similarity
            systems.append({"purifier": node.purifier, **self._figures(bench, pairs)})
        content = {
            "name": bench.spec.name,
            "version": version("image-defender"),
            "protocol": self.request.protocol,
            "pairs": {"path": str(self.list.path), "sha256": self.list.digest},
            "templates": self._about_templates(),
            "dataset": {
                "path": bench.spec.dataset.options["path"],
                "images": rows.num_rows,
                "compared": len(np.unique(places)),
                "rejected": rejected.num_rows,
                "digest": digest_of(
                    [state.done[("ingest", i)].content for i in range(state.chunks)]
                ),
            },
            "encoder": repr(bench.encoder),
            "device": bench.device.type,
            "people_from": source,
            "far": bench.spec.faces.far,
            "fixed_threshold": bench.spec.faces.threshold,
            "systems": systems,
            "spec": bench.spec.model_dump(mode="json"),
        }
        write_rows(folder / "pairs.parquet", self._rows(similarities, pairs.same))
        write_rows(folder / "rejected.parquet", rejected)
        for kind in ("roc", "det"):
            write_atomic(folder / f"{kind}.svg", curves(systems, kind).encode())
        write_json(folder / "stages.json", references(state))
        write_json(folder / VERIFY, content)
        end_outputs(state, names, self.identity)
        return content

    @property
    def _wanted(self) -> list[str]:
        return list(self.list.names) if self.templates is None else self.templates.names

    def _named(self, bench: Workbench) -> list[str]:
        """The dataset's own name of each wanted image."""
        there = [item.name for chunk in bench.dataset.chunks for item in chunk.items]
        source = ", ".join(map(str, self.request.templates)) or str(self.list.path)
        return [there[place] for place in find_names(self._wanted, there, source)]

    def _places(self, bench: Workbench, rows: pa.Table, rejected: pa.Table) -> Whole:
        """Place of each wanted image among the rows.

        Raises:
            SpecError: listing those that could not be used; figures of fewer pairs than the list
                has would be those of another list.
        """
        named = self._named(bench)
        listed = zip(rejected["name"].to_pylist(), rejected["reason"].to_pylist(), strict=True)
        wanted = set(named)
        refuse(
            [f"{name} ({reason})" for name, reason in listed if name in wanted],
            f"{self.list.path}: {{}} images cannot be used",
        )
        index = {name: place for place, name in enumerate(rows["name"].to_pylist())}
        return np.array([index[name] for name in named], dtype=np.int64)

    def _check_templates(self, templates: TemplateList) -> None:
        known = templates.templates
        refuse(
            [name for name in self.list.names if known.known(name) < 0],
            f"{self.list.path}: {{}} of {len(self.list.names)} templates that --templates lacks",
        )

    def _people(self, bench: Workbench, rows: pa.Table, places: Whole) -> tuple[Whole, str]:
        """Who is on each wanted image, and where that is known from."""
        if self.templates is not None:
            return self.templates.people, "templates"
        one, other, same = self.list.first, self.list.second, self.list.same == 1
        whose = people(bench, rows)[places]
        wrong = ((whose[one] == whose[other]) != same) | (whose[one] < 0) | (whose[other] < 0)
        if not wrong.any():
            return whose, "folders" if bench.spec.faces.identity is None else "identity"
        if bench.spec.faces.identity is not None:
            raise SpecError(
                f"{self.list.where(int(np.argmax(wrong)))}: --identity: expected people as the "
                "pairs have them, got others"
            )
        count = len(places)
        graph = coo_array((np.ones(same.sum()), (one[same], other[same])), shape=(count, count))
        _, joined = connected_components(graph, directed=False)
        whose = joined.astype(np.int64)
        wrong = (whose[one] == whose[other]) & ~same
        if wrong.any():
            raise SpecError(
                f"{self.list.where(int(np.argmax(wrong)))}: same: expected 1, because other pairs "
                "say that both show one person, got 0"
            )
        return whose, "pairs"

    def _pairs(self, columns: Columns, node: str, places: Whole, whose: Whole) -> Pairs:
        """The pairs of the list: probes of a node, enrolled images as they are."""
        probes = columns.vectors(node, "embedding")[places]
        enrolled = columns.vectors("score/none/none", "embedding")[places]
        if self.templates is not None:
            return self._template_pairs(self.templates, probes, enrolled)
        first, second = self.list.first, self.list.second
        similarity = np.empty(len(first), dtype=np.float32)
        for start in range(0, len(first), 65_536):
            part = slice(start, start + 65_536)
            similarity[part] = paired_similarities(probes[first[part]], enrolled[second[part]])
        return Pairs(similarity, self.list.same == 1, whose[first], whose[second])

    def _template_pairs(
        self, given: TemplateList, probes: NDArray[np.float32], enrolled: NDArray[np.float32]
    ) -> Pairs:
        numbers = np.array([given.templates.known(name) for name in self.list.names])
        described = given.template, given.media, given.people
        try:
            one, other = Templates.of(probes, *described), Templates.of(enrolled, *described)
        except ValueError as error:
            raise SpecError(f"--templates: {error}") from None
        pairs = one.pairs(numbers[self.list.first], numbers[self.list.second], other)
        stated = self.list.same
        wrong = (stated >= 0) & ((stated == 1) != pairs.same)
        if wrong.any():
            place = int(np.argmax(wrong))
            raise SpecError(
                f"{self.list.where(place)}: same: expected {int(pairs.same[place])}, as the "
                f"templates' people are, got {stated[place]}"
            )
        return pairs

    def _figures(self, bench: Workbench, pairs: Pairs) -> dict[str, Any]:
        for kind, count in (("one person", pairs.same.sum()), ("two people", (~pairs.same).sum())):
            if not count:
                raise SpecError(f"{self.list.path}: expected pairs of {kind} as well, got none")
        folds = None
        try:
            if self.request.protocol == "lfw":
                folds = self.list.folds
                folds = folds_in_order(len(pairs.same)) if folds is None else folds
            faces = bench.spec.faces
            return figures(
                pairs, far=faces.far, threshold=faces.threshold, folds=folds, seed=bench.spec.seed
            )
        except ValueError as error:
            raise SpecError(f"{self.list.path}: {error}") from None

    def _about_templates(self) -> dict[str, Any] | None:
        if self.templates is None:
            return None
        return {
            "paths": [str(path) for path in self.request.templates],
            "templates": len(self.templates.templates),
            "images": len(self.templates.names),
            "sha256": self.templates.digest,
        }

    def _rows(
        self, similarities: dict[str, NDArray[np.float32]], same: NDArray[np.bool_]
    ) -> pa.Table:
        """A row a pair: what it compares, and its similarity behind each purifier."""
        names = pa.array(list(self.list.names), pa.string())
        made = {
            "first": names.take(pa.array(self.list.first)),
            "second": names.take(pa.array(self.list.second)),
            "same": pa.array(same),
            **({} if self.list.folds is None else {"fold": pa.array(self.list.folds)}),
            **{f"similarity_{label}": pa.array(values) for label, values in similarities.items()},
        }
        return pa.table(made)
