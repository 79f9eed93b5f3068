"""What runs are called on the dashboard, and by which tags they are found there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prefect import get_client, runtime
from prefect.exceptions import PrefectException
from prefect.flows import FlowStateHook

from flows.lost_runs import note_process
from tasks.families import content_of, dataset_word, families


def run_name() -> str:
    """Specification and images of the flow run at hand, and when it began."""
    given = runtime.flow_run.get_parameters()
    return begun_now(Path(str(given["spec"])).stem, dataset_word(_content(given)))


def begun_now(*what: str) -> str:
    """What a flow run that begins now is called."""
    return "/".join([*what, f"{datetime.now(UTC):%Y-%m-%d %H:%M}"])


def tag_run(flow: Any, flow_run: Any, state: Any) -> None:
    """Tag a flow run that begins with its flow's name and the families that it belongs to.

    A hook: a run is never lost for want of a tag.
    """
    add_tags(flow_run, (flow.name, *families_of(flow.name, flow_run.parameters)))


def families_of(flow: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The families of a flow run: those of its flow, its options or its specification."""
    if flow in OF_FLOWS:
        return OF_FLOWS[flow]
    if "spec" in parameters:
        return families(_content(parameters))
    return families(parameters.get("options"))


OF_FLOWS = {"scan": ("scaling",), "verify-faces": ("face",)}
"""Families of flows without a specification."""


def add_tags(run: Any, found: tuple[str, ...]) -> None:
    """Add tags to those that a flow run has, where its server can be asked."""
    tags = sorted({*run.tags, *found})
    if tags == sorted(run.tags):
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, tags=tags)
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError):
        return


def _content(parameters: Mapping[str, Any]) -> Any:
    spec, assignments = str(parameters["spec"]), parameters.get("assignments") or ()
    return content_of(spec, assignments, parameters.get("limit"))


BEGUN: list[FlowStateHook[..., Any]] = [note_process, tag_run]
"""Hooks of every flow: what is noted of its run when it begins."""
