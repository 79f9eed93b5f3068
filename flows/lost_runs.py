"""Flow runs whose process died without a word: found again, and marked as crashed.

A server that stays up notices by itself; the one that a run starts for itself ends with that run.
So each such run leaves a note of its process beside Prefect's database, and the next one asks after
those whose process is gone.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings
from prefect.states import Crashed

from flows import embedded
from flows.processes import note, noted, process_of

NOTES = "image-defender-runs"
UNENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
AT_ONCE = 200
"""Runs that a server is asked about at a time, at most: it lists no more."""
PATIENCE = 10.0
"""Seconds that the end of a run may wait for others to be marked."""
GONE = "Its process is gone. Run it again: what is done is kept."


def note_process(flow: Any, flow_run: Any, state: Any) -> None:
    """Note whose run it is that begins without a server of its own, and ask after earlier ones.

    A hook. The work is done beside the run, which does not wait for it.
    """
    if not embedded.alone():
        return
    process = process_of(os.getpid())
    if process is None:
        return
    folder = notes_of_this_machine()
    folder.mkdir(parents=True, exist_ok=True)
    note(folder / f"{flow_run.id}.json", process)
    lost = left_behind(folder)
    if lost and embedded.running():
        context = contextvars.copy_context()
        marking = threading.Thread(target=context.run, args=(_mark, lost), daemon=True)
        marking.start()
        atexit.register(marking.join, PATIENCE)


def notes_of_this_machine() -> Path:
    """The folder of the notes; the processes of another machine cannot be seen from here."""
    return Path(get_current_settings().home) / NOTES / socket.gethostname()


def left_behind(folder: Path) -> dict[UUID, Path]:
    """Flow runs whose process is gone, each with its note."""
    paths = [path for path in folder.glob("*.json") if path.name[0] != "."]  # being written
    return {UUID(path.stem): path for path in paths if noted(path) is None}


def unended(**chosen: Any) -> FlowRunFilter:
    """Flow runs that have begun and not ended, narrowed down further."""
    return FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNENDED)), **chosen
    )


def crash(client: SyncPrefectClient, runs: Iterable[FlowRun], message: str) -> None:
    """Mark flow runs, and what they had begun, as crashed."""
    state: State[Any] = Crashed(message=message)
    left = TaskRunFilterStateType(any_=[*UNENDED, StateType.SCHEDULED])
    for run in runs:
        begun = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=left)),
            limit=AT_ONCE,
        )
        for task in begun:
            client.set_task_run_state(task.id, state, force=True)
        client.set_flow_run_state(run.id, state, force=True)


def mark(lost: dict[UUID, Path]) -> list[str]:
    """Mark those that did not come to an end themselves, and take the notes of all of them back.

    Returns:
        Names of the flow runs that were marked.
    """
    ids, names = list(lost), []
    with get_client(sync_client=True) as client:
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            found = client.read_flow_runs(
                flow_run_filter=unended(id=FlowRunFilterId(any_=part)), limit=AT_ONCE
            )
            crash(client, found, GONE)
            names += [run.name for run in found]
            for one in part:
                lost[one].unlink(missing_ok=True)
    return names


def _mark(lost: dict[UUID, Path]) -> None:
    """Mark them, unless the server is gone before that: then the next run does."""
    try:
        mark(lost)
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError):
        return
