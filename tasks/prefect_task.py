"""The Prefect task that makes one chunk, and the cache policy that asks the ledger first."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.tasks import exponential_backoff

from storage.chunks import ChunkRef
from storage.errors import StoreError, StoreFault
from storage.files import store_root
from storage.ledger import Ledger, Mark
from tasks.chunk import Input
from tasks.compute import compute_chunk
from tasks.errors import ModelError, SpecError
from tasks.nodes import Node
from tasks.plan import Plan
from tasks.survey import Work
from tasks.workbench import Workbench, workbench

Call = dict[str, Any]
"""What travels to a task: plain JSON, no arrays."""


def call_of(work: Work, spec: str, folder: str, store: str) -> Call:
    """Describe a chunk to be computed in plain JSON."""

    def plain(given: Input | None) -> list[Any] | None:
        if given is None:
            return None
        return [given.ref.stage, given.ref.key, given.content, given.images]

    return {
        "bench": [spec, folder, store],
        "node": work.node.name,
        "fingerprint": work.node.fingerprint,
        "chunk": work.index,
        "key": work.key,
        "digests": work.digests,
        "inputs": {role: plain(given) for role, given in work.inputs.items()},
        "source": plain(work.source),
        # not in the plan of the specification, which says nothing of the folder
        **({"stage": dataclasses.asdict(work.node)} if work.node.kind == "export" else {}),
    }


def _input(plain: list[Any]) -> Input:
    stage, key, content, images = plain
    return Input(ChunkRef(stage, key), content, images)


class LedgerPolicy(CachePolicy):
    """A cache that holds only while the ledger vouches for the stored bytes."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Name the chunk; forget what was recorded of it unless the ledger vouches for it now."""
        call: Call = inputs["call"]
        key = f"image-defender/{call['fingerprint']}/{call['key']}"
        folder = store_root(call["bench"][2]) / "data" / call["fingerprint"]
        if Ledger(folder).vouches(call["key"], call["digests"]) is None:
            results = get_current_settings().results.local_storage_path
            (Path(results) / key).unlink(missing_ok=True)
        return key


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failure may pass: not where the specification, weights or disk are at fault."""
    try:
        state.result()
    except StoreFault:
        return True
    except (SpecError, ModelError, StoreError, TypeError, ValueError, ArithmeticError):
        return False
    except Exception:
        return True
    return False


@task(
    name="chunk",
    task_run_name="{call[node]}/{call[chunk]}",
    cache_policy=LedgerPolicy(),
    persist_result=True,
    result_serializer="json",
    cache_result_in_memory=False,
    retry_delay_seconds=exponential_backoff(2),
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
)
def make_chunk(call: Call) -> dict[str, Any]:
    """Compute one chunk of one stage and return its receipt."""
    bench = workbench(*call["bench"])
    if not bench.dataset.opened:
        bench.catalogue(keep=False)
    node = Node(**call["stage"]) if "stage" in call else plan_of(bench).nodes[call["node"]]
    inputs = {role: _input(given) for role, given in call["inputs"].items()}
    source = None if call["source"] is None else _input(call["source"])
    mark = compute_chunk(bench, node, call["chunk"], inputs, source)
    return receipt_of(mark)


def receipt_of(mark: Mark) -> dict[str, Any]:
    """What is told of a chunk that was made."""
    return {"seconds": 0.0, **mark.receipt, "key": mark.key, "images": mark.images}


@lru_cache(maxsize=4)
def plan_of(bench: Workbench) -> Plan:
    """The plan of a workbench, made once a process."""
    return Plan(bench)
