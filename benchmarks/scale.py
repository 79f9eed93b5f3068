"""What a run costs as it grows: seconds, bytes, files, rows of Prefect's database, and requests."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.overhead import CHUNK, command, specification, with_runner
from benchmarks.requests import counted

SIZES = (1_000, 10_000, 100_000)
REQUEST_CHUNKS = (5, 25)
"""Chunks of each stage in the runs whose requests are counted."""
TABLES = ("flow_run", "task_run", "task_run_state", "events", "event_resources", "artifact", "log")


def rows(database: Path) -> dict[str, int]:
    """Rows of the larger tables of a Prefect database."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = {name for (name,) in connection.execute("select name from sqlite_master")}
        return {
            table: connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in TABLES
            if table in names
        }


def size_of(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    found = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(found), sum(found)


def requests() -> dict[str, Any]:
    """Requests to a cloud store of the same run on threads, as lines through two sizes.

    Chunks are tiny and the store is in memory: what a chunk holds does not change their number.
    """
    from flows.evaluate import run as evaluate

    seen: dict[str, list[tuple[int, Counter[str]]]] = {}
    for chunks in REQUEST_CHUNKS:
        with tempfile.TemporaryDirectory() as temporary:
            spec = Path(temporary) / "requests.yaml"
            spec.write_text(yaml.safe_dump(specification(8 * chunks, 8, "builtin:shapes")))
            for what in ("to make", "to find all of it done"):
                with counted() as counts:
                    total = evaluate(str(spec), f"memory://requests-{chunks}").chunks
                seen.setdefault(what, []).append((total, counts))
    figures = {}
    for what, ((few, less), (many, more)) in seen.items():
        slopes = {kind: (more[kind] - less[kind]) / (many - few) for kind in sorted(more)}
        start = less.total() - sum(slopes.values()) * few
        figures[f"requests {what}, line"] = (
            f"{start:.0f} + {sum(slopes.values()):.2f} a chunk: "
            + ", ".join(f"{slope:.2f} {kind}" for kind, slope in slopes.items() if slope)
        )
    return figures


def run(images: int) -> dict[str, Any]:
    """Figures of tiny images at three sizes, up to the number given, and lines fitted to them."""
    figures: dict[str, Any] = {"images a chunk": CHUNK}
    seen: list[tuple[float, ...]] = []
    for size in [one for one in SIZES if one <= images]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            spec = folder / "scale.yaml"
            spec.write_text(yaml.safe_dump(specification(size, CHUNK, "builtin:shapes")))
            spent, cpu, whole = with_runner(spec, folder / "store", "threads")
            chunks = len(list((folder / "store").glob("data/*/marks/*.json")))
            files, stored = size_of(folder / "store")
            database = folder / "home" / "prefect.db"
            told = rows(database)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            begun = time.perf_counter()
            command(spec, folder / "store", "threads")
            again = time.perf_counter() - begun
            figures[f"{size:,} images"] = (
                f"{chunks} chunks: {whole:.0f} s, {spent:.0f} s of it chunks, CPU {cpu:.0f} s; "
                f"{again:.1f} s to find all of it done; at most {peak >> 20} MiB of memory; "
                f"{files} files, {stored:,} bytes; Prefect {database.stat().st_size:,} bytes, "
                + ", ".join(f"{count} {table}" for table, count in told.items())
            )
            size_told = database.stat().st_size
            seen.append((chunks, whole, cpu, again, peak, files, size_told, sum(told.values())))
    if len(seen) > 1:
        columns = np.array(seen).T
        names = (
            *("seconds", "CPU seconds", "seconds to find all of it done", "peak memory, bytes"),
            *("files", "bytes of Prefect's database", "rows in it"),
        )
        for name, column in zip(names, columns[1:], strict=True):
            slope, start = np.polyfit(columns[0], column, 1)
            figures[f"{name}, line"] = f"{start:.4g} + {slope:.4g} a chunk"
    figures |= requests()
    figures["load of the machine"] = " ".join(map(str, os.getloadavg()))
    return figures
