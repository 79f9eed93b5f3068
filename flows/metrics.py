"""Figures of the runs of this process for Prometheus, on a port of the loopback interface."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from flows.telemetry import RunFigures, StageFigures, live
from tasks import telemetry
from tasks.errors import SpecError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

VARIABLE = "IMAGE_DEFENDER_METRICS_PORT"
HOST = "127.0.0.1"
PREFIX = "image_defender"
LABELS = ("run", "stage", "kind")
COUNTERS = {
    "chunks_computed": ("Chunks made since this process began.", "counted"),
    "images": ("Images of the chunks made since this process began.", "images"),
    "chunk_seconds": ("Seconds spent on these chunks, summed over workers.", "seconds"),
    "chunk_cpu_seconds": ("CPU seconds of the threads that made them.", "cpu_seconds"),
    "stored_bytes": ("Bytes they hold in the store.", "bytes"),
    "failed_attempts": ("Attempts at chunks that went wrong.", "failures"),
}
"""Names of counters without ``_total``, with their meaning and where they come from."""
GAUGES = {
    "chunks_done": ("Chunks that are finished, whenever they were made.", "done"),
    "chunks": ("Chunks in all.", "total"),
}
_serving: set[int] = set()


class RunCollector:
    """Reads the figures of every run of this process when asked."""

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus knows them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs = list(live.values())
        kinds = ((COUNTERS, CounterMetricFamily), (GAUGES, GaugeMetricFamily))
        for told, family in kinds:
            for name, (meaning, source) in told.items():
                metric = family(f"{PREFIX}_{name}", meaning, labels=LABELS)
                for run, stage, figures in _stages(runs):
                    metric.add_metric([run, stage, figures.kind], getattr(figures, source))
                yield metric
        began = GaugeMetricFamily(
            f"{PREFIX}_run_begun_timestamp_seconds", "When the run began.", labels=["run"]
        )
        for one in runs:
            began.add_metric([one.name], one.began)
        yield began


def _stages(runs: list[RunFigures]) -> Iterator[tuple[str, str, StageFigures]]:
    for run in runs:
        for stage, figures in run.stages.items():
            yield run.name, stage, figures


@contextmanager
def serving(port: int | None) -> Iterator[None]:
    """Answer Prometheus on ``http://127.0.0.1:<port>/metrics`` while this is entered.

    Args:
        port: None for not at all.

    Raises:
        SpecError: where the port is taken.
    """
    if port is None or port in _serving:
        yield
        return
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry()
    registry.register(RunCollector())
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, addr=HOST, registry=registry)
    except OSError as error:
        raise SpecError(
            f"metrics-port: expected a free port, got {port}: {error.strerror}"
        ) from None
    _serving.add(port)
    try:
        yield
    finally:
        _serving.discard(port)
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving_as_told() -> Iterator[None]:
    """The same on the port that the environment names; one that is taken does not stop a run."""
    stated = os.environ.get(VARIABLE, "")
    with ExitStack() as entered:
        try:
            entered.enter_context(serving(int(stated) if stated else None))
        except (SpecError, ValueError) as error:
            telemetry.event(logging.WARNING, "no metrics", f"{VARIABLE}={stated}: {error}")
        yield
