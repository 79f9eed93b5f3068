"""What ``status --watch`` costs at 60,000 images: the first look, and each look after it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.watch import Watch
from storage.ledger import Mark
from tasks.nodes import Node
from tasks.spec_files import parse_spec
from tasks.survey import Survey
from tasks.workbench import Workbench

IMAGES, CHUNK = 60_000, 60
SPEC: dict[str, Any] = {
    "name": "watched",
    "dataset": {"kind": "builtin:shapes", "count": IMAGES, "chunk_size": CHUNK},
    "attacks": [],
    "purifiers": [{"name": "Median", "label": f"median {k}", "window": k} for k in (3, 5)],
    "metrics": ["psnr"],
}
"""No model, so that its loading is not measured; ``status`` loads it once."""


def pretend(state: Survey, node: Node, index: int) -> None:
    """Mark a chunk as made, with no files."""
    work = state.work(node, index)
    if work is None:
        raise RuntimeError(f"expected the inputs of {node.name} to be marked before it")
    receipt = {
        **{"stage": node.name, "chunk": index, "seconds": 1.5, "cpu_seconds": 1.4, "attempt": 1},
        **{"bytes": 1 << 20, "host": "a-host", "pid": 12345, "thread": "ThreadPoolExecutor-0_0"},
        **{"at": datetime.now(UTC).isoformat(timespec="seconds"), "torch": "2.12.1"},
    }
    mark = Mark(work.key, work.digests, {}, f"{node.name} {index}", CHUNK, receipt)
    state.bench.store.ledger(node.fingerprint).write(mark)
    state.record(work, mark)


def _timed(action: Callable[[], Any]) -> str:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return f"{spent[0]:.3f} s, CPU {spent[1]:.3f} s"


def run(_images: int) -> dict[str, Any]:
    """Seconds of looks at a run of 1,000 chunks in each of six stages, half and all of it made."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = Workbench(parse_spec(SPEC), folder, str(folder / "store"))
        bench.catalogue(keep=False)
        writing = Watch(bench).state
        nodes = list(writing.plan)
        chunks = range(writing.chunks)
        figures: dict[str, Any] = {"chunks": f"{len(chunks)} in each of {len(nodes)} stages"}
        for index in chunks[: len(chunks) // 2]:
            for node in nodes:
                pretend(writing, node, index)
        watch = Watch(bench)
        figures["first look, half of it made"] = _timed(watch.look)
        figures["look at nothing new"] = _timed(watch.look)
        for node in nodes:
            pretend(writing, node, len(chunks) // 2)
        figures["look at a new chunk of each stage"] = _timed(watch.look)
        for index in chunks[len(chunks) // 2 + 1 :]:
            for node in nodes:
                pretend(writing, node, index)
        watch = Watch(bench)
        figures["first look, all of it made"] = _timed(watch.look)
    return figures
