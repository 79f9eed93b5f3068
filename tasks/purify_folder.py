"""Purified images as files of a folder: the plan, what is there, and what may be replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import remove, sweep, write_atomic
from storage.ledger import sha256_file
from storage.scores import read_rows
from tasks.chunk import Input
from tasks.errors import BudgetError, SpecError
from tasks.nodes import RULES, Node
from tasks.outputs import safe_name
from tasks.plan import Plan
from tasks.purify_folder_specs import PurifyRequest
from tasks.result_files import name_problem, result_name, shared_names
from tasks.survey import Survey, survey
from tasks.workbench import Workbench

LOG, MARKER = "purified.parquet", "purified.json"
"""What lies beside the purified images: a row an image, and what the folder is."""
STAGES = ("ingest", "purify", "export")
"""Kinds of stages of such a run."""


class PurifyPlan(Plan):
    """Decoding and purifying as in every run, and then files in place of scores.

    Args:
        bench: a run without attacks.
        folder: where the files go.
        suffix: of the files.
    """

    def __init__(self, bench: Workbench, folder: Path, suffix: str) -> None:
        self.folder = folder
        self.suffix = suffix
        super().__init__(bench)
        # further draws and the like are of use to figures only
        self.nodes = {one.name: one for one in self if one.kind in STAGES}

    def _add_scores(self, bench: Workbench, common: dict[str, Any]) -> None:
        shared = shared_names(names_of(bench), self.suffix)
        for node in self._of("purify"):
            config = {
                "kind": "export",
                "rules": RULES["export"],
                "folder": str(self.folder),
                "inside": inside(bench, node.purifier),
                "suffix": self.suffix,
                "shared": shared,
                **{name: common[name] for name in ("batch", "device")},
            }
            self._add(
                Node(
                    f"export/{node.purifier}",
                    "export",
                    {"images": node.name, "clean": "ingest"},
                    node.position,
                    purifier=node.purifier,
                    config=config,
                )
            )


def names_of(bench: Workbench) -> list[str]:
    """Names of all images of a run whose dataset has been listed."""
    return [item.name for chunk in bench.dataset.chunks for item in chunk.items]


def inside(bench: Workbench, label: str) -> str:
    """Sub-folder of a purifier's images with a slash at its end; empty where there is one only."""
    return "" if len(bench.spec.purifiers) == 1 else f"{safe_name(label)}/"


@dataclass
class FolderState:
    """A run whose results are files, as far as it is.

    Args:
        request: what was asked for.
        state: the run; exports of which a file is gone or changed do not count as done.
        changed: files that were changed or deleted since they were written.
    """

    request: PurifyRequest
    state: Survey
    changed: list[Path]

    @property
    def bench(self) -> Workbench:
        """The run's models and algorithms."""
        return self.state.bench

    @property
    def folder(self) -> Path:
        """Where the purified images go."""
        return self.request.folder

    def exports(self) -> Iterator[Node]:
        """The stages that write files, one a purifier."""
        return (node for node in self.state.plan if node.kind == "export")

    def identity(self) -> dict[str, Any]:
        """What the folder holds, in words: of which images, made by what."""
        bench = self.bench
        # which of the images there are, and how they are cut, may differ from call to call
        varies = {"limit", "include", "exclude", "chunk_size", "chunk_bytes"}
        dataset = bench.spec.dataset.model_dump(mode="json", exclude=varies, exclude_none=True)
        return {
            "made_by": "image-defender purify",
            "dataset": dataset,
            "seed": bench.spec.seed,
            "suffix": self.request.suffix,
            "purifiers": {
                node.purifier: repr(bench.purifiers[node.position]) for node in self.exports()
            },
        }

    def check_folder(self) -> None:
        """See that nothing in the folder will be replaced that is not of this making.

        Raises:
            SpecError: naming what is in the way.
        """
        names = names_of(self.bench)
        shared = frozenset(shared_names(names, self.request.suffix))
        files = {name: result_name(name, self.request.suffix, shared) for name in names}
        if (problem := name_problem(files)) is not None:
            raise SpecError(f"purify: {problem}")
        results = [
            node.config["inside"] + file for node in self.exports() for file in files.values()
        ]
        self._check_links(results)
        if self.request.overwrite:
            return
        if (stated := read_marker(self.folder)) is not None:
            if stated != self.identity():
                raise SpecError(
                    f"--out: {self.folder} holds what purify made otherwise ({_told(stated)}); "
                    "expected another folder, or --overwrite"
                )
            return
        there = [one for one in (LOG, *results) if (self.folder / one).exists()]
        if there:
            raise SpecError(
                f"--out: {self.folder / there[0]} is there and was not made by purify"
                + (f", and so are {len(there) - 1} others" if len(there) > 1 else "")
                + "; expected another folder, or --overwrite"
            )

    def _check_links(self, results: list[str]) -> None:
        """Refuse results that would come to lie among the images they are made of."""
        stated = self.bench.spec.dataset.options.get("path")
        source = None if stated is None else Path(str(stated)).resolve()
        if source is None or not source.is_dir():
            return
        for parent in dict.fromkeys((self.folder / one).parent for one in results):
            if parent.resolve().is_relative_to(source):
                raise SpecError(
                    f"--out: expected a folder that is not among the images of {source}, "
                    f"got {parent}"
                )

    def check_room(self) -> None:
        """Refuse a run whose files would not fit.

        Raises:
            BudgetError: saying how much they may need.
        """
        state = self.state
        hints = [sum(one.size_hint for one in chunk.items) for chunk in self.bench.dataset.chunks]
        needed = sum(
            hints[index]
            for node in self.exports()
            for index in state.indices(node)
            if (node.name, index) not in state.done
        )
        place = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise BudgetError(
                f"disk: the purified images may need {needed >> 20:,} MiB, {free >> 20:,} MiB are "
                f"free at {place}"
            )

    def begin(self) -> None:
        """Say whose the folder is, and withdraw the log until it is true again."""
        for name in (LOG, MARKER):
            sweep(self.folder, name)
        remove(self.folder / LOG)
        if read_marker(self.folder) != self.identity():
            write_atomic(self.folder / MARKER, json.dumps(self.identity(), indent=1).encode())


def look(request: PurifyRequest, bench: Workbench, *, keep: bool) -> FolderState:
    """List the images, and see what the store holds and which files are as they were written.

    Args:
        request: what is asked for.
        bench: its workbench, checked.
        keep: remember which image belongs to which chunk, and forget the exports of which a file
            is not as it was written, so that they are made again.

    Raises:
        StorageError: where the images cannot be listed.
    """
    bench.catalogue(keep=keep)
    state = survey(bench, plan=PurifyPlan(bench, request.folder, request.suffix))
    found = FolderState(request, state, [])
    for node in found.exports():
        ledger = bench.store.ledger(node.fingerprint)
        for index in state.indices(node):
            given = state.done.get((node.name, index))
            if given is None:
                continue
            changed = list(_changed(state, node, given))
            if changed:
                found.changed += changed
                del state.done[(node.name, index)]
                if keep:
                    ledger.withdraw(given.ref.key)
    return found


def _changed(state: Survey, node: Node, given: Input) -> Iterator[Path]:
    """Files of an exported chunk that are gone or have other bytes."""
    if not given.images:
        return
    rows = read_rows(state.bench.store.rows(given.ref)).select(["file", "sha256"]).to_pylist()
    for row in rows:
        if row["file"] is None:
            continue
        path = Path(node.config["folder"]) / row["file"]
        if not path.is_file() or sha256_file(path) != row["sha256"]:
            yield path


def read_marker(folder: Path) -> dict[str, Any] | None:
    """What a folder says that it holds, or None where it says nothing."""
    try:
        content = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _told(stated: dict[str, Any]) -> str:
    """A marker in a few words."""
    purifiers = stated.get("purifiers")
    names = ", ".join(purifiers) if isinstance(purifiers, dict) else "unknown purifiers"
    dataset = stated.get("dataset")
    of = dataset.get("path", dataset.get("kind")) if isinstance(dataset, dict) else "unknown images"
    return f"{names} of {of}"
