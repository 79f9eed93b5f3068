"""What orchestration costs a chunk, by what runs the chunks; paired with the same work without it.

The work is as little as a run can do: decode, a purifier that changes nothing, and one distance.
So what a runner adds to the same chunks computed by a pool of threads is its price. Results and
stores are those of ordinary runs.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pipeline import real_images
from tasks.spec_files import load_spec
from tasks.survey import survey
from tasks.without_prefect import compute_left
from tasks.workbench import Workbench

ROOT = Path(__file__).resolve().parents[1]
RUNNERS = ("threads", "processes", "dask")
CHUNK = 256


def specification(images: int, chunk: int, kind: str) -> dict[str, Any]:
    """A purifier that changes nothing, and the largest change it makes."""
    dataset: dict[str, Any] = {"kind": "builtin:shapes", "count": images}
    if kind == "cifar10":
        # both splits: 60,000 images
        dataset = {"kind": "parquet", "path": "cifar10", "limit": images}
    return {
        "name": "overhead",
        "dataset": {**dataset, "chunk_size": chunk},
        "purifiers": [{"name": "BitDepth", "bits": 8}],
        "metrics": ["linf"],
        "compute": {"device": "cpu", "workers": 2},
        "examples": 0,
    }


def alone(spec: Path, store: Path) -> tuple[float, float, int]:
    """Wall and CPU seconds without Prefect, and how many chunks there are."""
    begun, used = time.perf_counter(), time.process_time()
    bench = Workbench(load_spec(spec), spec.parent, str(store))
    bench.check()
    bench.catalogue(keep=True)
    state = survey(bench)
    compute_left(state)
    return time.perf_counter() - begun, time.process_time() - used, state.total


def command(spec: Path, store: Path, runner: str) -> None:
    """Run a specification in a process of its own, with a Prefect home beside the store."""
    words = ["run", str(spec), "--store", str(store), "--runner", runner]
    subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PREFECT_HOME": str(store.parent / "home")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def with_runner(spec: Path, store: Path, runner: str) -> tuple[float, float, float]:
    """Seconds from the first chunk's start to the last mark; CPU seconds of all; all seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    command(spec, store, runner)
    whole = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    marks = list(store.glob("data/*/marks/*.json"))
    ends = [mark.stat().st_mtime for mark in marks]
    spent = [json.loads(mark.read_bytes())["receipt"]["seconds"] for mark in marks]
    starts = [end - float(one) for end, one in zip(ends, spent, strict=True)]
    return max(ends) - min(starts), cpu, whole


def run(images: int) -> dict[str, Any]:
    """Milliseconds that each runner adds to a chunk, on the wall and of CPU."""
    kind = "builtin:shapes" if real_images() is None else "cifar10"
    figures: dict[str, Any] = {"images": images, "dataset": kind, "images a chunk": CHUNK}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = folder / "overhead.yaml"
        spec.write_text(yaml.safe_dump(specification(images, CHUNK, kind)))
        wall, cpu, chunks = alone(spec, folder / "alone")
        figures["chunks"] = chunks
        figures["without Prefect"] = f"{wall:.1f} s, CPU {cpu:.1f} s"
        for runner in RUNNERS:
            spent, used, whole = with_runner(spec, folder / runner, runner)
            figures[runner] = (
                f"{spent:.1f} s and {whole - spent:.1f} s around it, CPU {used:.1f} s: "
                f"{1000 * (spent - wall) / chunks:+.1f} ms a chunk, "
                f"CPU {1000 * (used - cpu) / chunks:+.1f} ms with start-up and report"
            )
    figures["load of the machine"] = " ".join(map(str, os.getloadavg()))
    return figures
