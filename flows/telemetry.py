"""The figures of a run, stage by stage: what was made, how fast, and at what cost."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tasks import telemetry
from tasks.survey import Survey, Work


@dataclass
class StageFigures:
    """What the chunks of one stage came to.

    Args:
        kind: of the stage.
        total: chunks in all.
        done: chunks that are finished, whenever that was.
        counted: finished chunks that the sums are of.
        images: their images.
        seconds: it took to make them, one worker after the other.
        cpu_seconds: of the threads that made them.
        bytes: they hold in the store.
        failures: attempts at chunks that went wrong.
        measured: seconds of the chunks whose ``cpu_seconds`` are known.
        gpu_seconds: seconds in which the GPU computed while they were made.
        gpu_measured: seconds of the chunks of which that is known.
    """

    kind: str
    total: int = 0
    done: int = 0
    counted: int = 0
    images: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes: int = 0
    failures: int = 0
    measured: float = 0.0
    gpu_seconds: float = 0.0
    gpu_measured: float = 0.0

    def add(self, receipt: dict[str, Any], images: int, sign: int = 1) -> None:
        """Count a chunk by the receipt it was given; with ``sign`` -1 take it back.

        What an older receipt does not say counts as nothing.
        """
        seconds = float(receipt.get("seconds", 0.0))
        self.counted += sign
        self.images += sign * images
        self.seconds += sign * seconds
        self.bytes += sign * int(receipt.get("bytes", 0))
        if "cpu_seconds" in receipt:
            self.cpu_seconds += sign * float(receipt["cpu_seconds"])
            self.measured += sign * seconds
        if "gpu_share" in receipt:
            self.gpu_seconds += sign * float(receipt["gpu_share"]) * seconds
            self.gpu_measured += sign * seconds

    @property
    def left_seconds(self) -> float | None:
        """Seconds that one worker needs for the rest; None where no chunk was made yet."""
        if self.done == self.total:
            return 0.0
        return self.seconds / self.counted * (self.total - self.done) if self.counted else None

    def plain(self) -> dict[str, Any]:
        """Everything as plain values, with the rates."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "done": self.done,
            "total": self.total,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images / self.seconds, 3) if self.seconds else None,
            "bytes": self.bytes,
            "cpu_share": round(self.cpu_seconds / self.measured, 4) if self.measured else None,
            "failures": self.failures,
        }
        if self.gpu_measured:
            told["gpu_share"] = round(self.gpu_seconds / self.gpu_measured, 4)
        return told


def earlier_failures(receipt: dict[str, Any]) -> int:
    """Attempts that went wrong before the one that made a chunk."""
    return max(0, int(receipt.get("attempt", 1)) - 1)


class RunFigures:
    """The figures of a run while it works; what it made before counts as done and no more.

    Entered, it tells of the run in the log.

    Args:
        state: the run, brought up to date by whoever drives it.
        workers: chunks computed at a time.
    """

    def __init__(self, state: Survey, workers: int) -> None:
        self.name = state.bench.spec.name
        self.began = time.time()
        self.workers = workers
        self.stages = {node.name: StageFigures(node.kind) for node in state.plan}
        for node, done in state.counts():
            self.stages[node.name].total = len(state.indices(node))
            self.stages[node.name].done = done
        self._lock = threading.Lock()
        self._clocks = time.perf_counter(), time.process_time()
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        telemetry.listen()
        self._entered.enter_context(telemetry.about(run=self.name))
        self._entered.enter_context(telemetry.told_of_failures(self.failed))
        live[self.name] = self
        done, total = self.done_and_total()
        telemetry.event(
            logging.INFO,
            "run begun",
            f"{self.name}: {total - done} of {total} chunks to be made, {self.workers} at a time",
            done=done,
            total=total,
            workers=self.workers,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done, total = self.done_and_total()
        seconds = round(time.perf_counter() - self._clocks[0], 3)
        fields = {"done": done, "total": total, "seconds": seconds}
        if error is None:
            text = f"{self.name}: finished after {seconds:.1f} s"
            stages = {name: one.plain() for name, one in self.stages.items() if one.counted}
            telemetry.event(logging.INFO, "run finished", text, **fields, stages=stages)
        else:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            text = f"{self.name}: ended after {done} of {total} chunks: {reason}"
            # the command says it on the terminal; here it is for the log alone
            telemetry.event(logging.INFO, "run failed", text, **fields, reason=reason)
        self._entered.close()

    def finished(self, work: Work, receipt: dict[str, Any]) -> None:
        """Note a finished chunk; an empty receipt says that it had been made before."""
        stage = self.stages[work.node.name]
        with self._lock:
            stage.done += 1
            if not receipt:
                return
            stage.add(receipt, int(receipt.get("images", 0)))
            elsewhere = (receipt.get("host"), receipt.get("pid")) != (telemetry.HOST, os.getpid())
            if elsewhere:
                stage.failures += earlier_failures(receipt)
        seconds, images = float(receipt.get("seconds", 0.0)), int(receipt.get("images", 0))
        known = ("attempt", "images", "seconds", "cpu_seconds", "gpu_share", "bytes")
        fields = {name: receipt[name] for name in known if name in receipt}
        worker = "/".join(str(receipt[n]) for n in ("host", "pid", "thread") if n in receipt)
        done, total = self.done_and_total()
        telemetry.event(
            logging.INFO,
            "chunk finished",
            f"{work.node.name} chunk {work.index}: {images} images in {seconds:.2f} s",
            stage=work.node.name,
            chunk=work.index,
            **fields,
            worker=worker or None,
            done=done,
            total=total,
        )

    def failed(self, stage: str, chunk: int) -> None:
        """Note an attempt that went wrong."""
        with self._lock:
            if stage in self.stages:
                self.stages[stage].failures += 1

    def done_and_total(self) -> tuple[int, int]:
        """Chunks of all stages together."""
        stages = self.stages.values()
        return sum(one.done for one in stages), sum(one.total for one in stages)

    def seconds(self) -> dict[str, float]:
        """How long it took to make what this run made, by kind of stage."""
        spent: dict[str, float] = {}
        for one in self.stages.values():
            if one.counted:
                spent[one.kind] = spent.get(one.kind, 0.0) + one.seconds
        return spent

    def plain(self) -> dict[str, Any]:
        """What was made by this run, stage by stage, as plain values."""
        return {name: one.plain() for name, one in self.stages.items()}


live: dict[str, RunFigures] = {}
"""The last run of each name in this process."""


def left_seconds(stages: Iterable[StageFigures]) -> float | None:
    """Seconds one worker needs for the rest, stages that were not seen yet like the others.

    None where no chunk was made yet.
    """
    stages = list(stages)
    means = [one.seconds / one.counted for one in stages if one.counted]
    if not means:
        return None
    typical = sum(means) / len(means)
    return sum(
        typical * (one.total - one.done) if one.left_seconds is None else one.left_seconds
        for one in stages
    )


def sums(stages: Iterable[StageFigures]) -> StageFigures:
    """Stages together."""
    whole = StageFigures("all")
    for stage in stages:
        for name, value in vars(stage).items():
            if name != "kind":
                setattr(whole, name, getattr(whole, name) + value)
    return whole
