"""The purify flow: the images of any folder through purifiers, as files of another folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from flows.artifacts import LISTED, artifact_key, publish_page, publish_rejected
from flows.evaluate import Prepared, compute, prepare_root
from flows.names import BEGUN, begun_now
from flows.parameters import Count, PurifyOptions, Seed
from storage.files import exclusive
from tasks.budget import check_budget
from tasks.purify_folder import FolderState, look
from tasks.purify_folder_outputs import done, outlook, refused, write_log
from tasks.purify_folder_specs import PurifyRequest, bench_of, parse_request

DEFAULT_STORE = "image-defender-store"
SHOWN = 10
"""Files that could not be used of which an outcome has the names."""


@dataclass(frozen=True)
class PurifyOutcome:
    """What purifying a folder came to.

    Args:
        folder: where the purified images and their log are.
        summary: what ``purify.json`` holds.
        refused: names and reasons of files that could not be used, the first ones.
        restored: files that had been changed or deleted and were made again.
        chunk_tasks: chunks that were computed now.
        chunks: chunks of all stages together.
        seconds: spent in chunks that were computed now, by kind of stage.
    """

    folder: Path
    summary: dict[str, Any]
    refused: list[dict[str, Any]]
    restored: int
    chunk_tasks: int
    chunks: int
    seconds: dict[str, float]


_prepared: dict[tuple[str, str], tuple[FolderState, Prepared]] = {}


def run_purify(
    request: PurifyRequest,
    store: str,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> PurifyOutcome:
    """Purify every image of a folder into another; what is already done is not done again.

    A run with nothing left to do does not start Prefect.

    Args:
        request: what is asked for.
        store: folder or URL of the store.
        wait: wait while another run writes to the store.
        on_wait: called before another run is waited for.

    Raises:
        SpecError, ModelError, StorageError, BudgetError: saying what is wrong, in one sentence.
    """
    bench_of(request, store)
    with exclusive(prepare_root(store), wait=wait, on_wait=on_wait):
        found = _look(request, store, keep=True)
        summary = done(found)
        if summary is not None:
            state = found.state
            return PurifyOutcome(
                found.folder, summary, refused(found, SHOWN), 0, 0, state.total, {}
            )
        _check_fits(found)
        ready = _ready(found, store)
        _prepared[(request.model_dump_json(), store)] = found, ready
        ready.start()
        given = request.model_dump(mode="json", exclude_unset=True)
        main = {name: given.pop(name) for name in ("source", "purifiers", "out")}
        counted = {name: given.pop(name) for name in ("limit", "seed") if name in given}
        outcome: PurifyOutcome = purify(
            **main, store=store, **counted, options=cast(PurifyOptions, given)
        )
        return outcome


def plan_purify(request: PurifyRequest, store: str) -> dict[str, Any]:
    """What :func:`run_purify` would do; nothing is written.

    Raises:
        SpecError, ModelError, StorageError: saying what is wrong, in one sentence.
    """
    return outlook(_look(request, store, keep=False))


def _look(request: PurifyRequest, store: str, *, keep: bool) -> FolderState:
    """See what is there, and check that the rest may be written."""
    found = look(request, bench_of(request, store), keep=keep)
    found.check_folder()
    return found


def _check_fits(found: FolderState) -> None:
    check_budget(found.bench, found.state)
    found.check_room()


def _run_name() -> str:
    source = Path(str(flow_run.get_parameters()["source"]))
    return begun_now("purify", source.stem)


@flow(name="purify", flow_run_name=_run_name, on_running=BEGUN, validate_parameters=True)
def purify(
    source: str,
    purifiers: list[Any],
    out: str,
    store: str = DEFAULT_STORE,
    limit: Count | None = None,
    seed: Seed = 0,
    options: PurifyOptions | None = None,
) -> PurifyOutcome:
    """Purify every image of a folder into another folder; resumable at any moment.

    Args:
        source: folder, zip or Parquet file of images, or YAML file that states a dataset.
        purifiers: each a line such as ``median(3) > unsharp(1)``, or a mapping.
        out: folder of the purified images.
        store: folder or URL of the store.
        limit: use the first images only.
        seed: of purifiers that draw.
        options: ``name``, ``include``, ``colour``, ``chunk_size``, ``suffix``, ``model``,
            ``pipeline``, ``overwrite``.
    """
    main = {"source": source, "purifiers": purifiers, "out": out, "limit": limit, "seed": seed}
    request = parse_request({**main, **(options or {})})
    prepared = _prepared.pop((request.model_dump_json(), store), None)
    if prepared is not None:
        return _purify(*prepared)
    with exclusive(prepare_root(store)):
        found = _look(request, store, keep=True)
        _check_fits(found)
        return _purify(found, _ready(found, store))


def _ready(found: FolderState, store: str) -> Prepared:
    bench = found.bench
    return Prepared(bench.spec.model_dump_json(), str(bench.folder), store, bench, found.state)


def _purify(found: FolderState, ready: Prepared) -> PurifyOutcome:
    bench = found.bench
    found.begin()
    outcome = compute(ready, lambda state: write_log(found))
    summary = outcome.summary or {}
    create_table_artifact(
        table=[
            {name: value for name, value in one.items() if name != "purifier"}
            for one in summary["purifiers"]
        ],
        key=f"{artifact_key(bench.spec.name)}-purified",
        description=f"{summary['images']} images of {summary['source']} in {summary['out']}",
    )
    publish_page(bench.spec.name, Path(summary["log"]), "log")
    publish_rejected(bench.spec.name, refused(found, LISTED))
    return PurifyOutcome(
        folder=found.folder,
        summary=summary,
        refused=refused(found, SHOWN),
        restored=len(found.changed),
        chunk_tasks=outcome.chunk_tasks,
        chunks=outcome.chunks,
        seconds=outcome.seconds,
    )
