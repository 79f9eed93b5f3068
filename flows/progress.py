"""Progress of a run: a bar a stage on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from rich import progress as bars
from rich.console import Console

from flows.metrics import serving_as_told
from flows.telemetry import RunFigures, left_seconds
from tasks.nodes import RULES
from tasks.survey import Survey, Work

KINDS = tuple(RULES)


def in_words(seconds: float) -> str:
    """A duration as a person would say it: seconds, minutes or hours."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


class OnTerminal:
    """Bars that are shown while this is entered, where there is a terminal."""

    _console: Console
    _bars: bars.Progress

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()


class Progress(OnTerminal):
    """Shows how far a run is and how long it will take, and keeps its figures.

    Args:
        state: the run, brought up to date by whoever drives it.
        workers: chunks computed at a time.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, state: Survey, workers: int, every: float = 15.0) -> None:
        self.state = state
        self.workers = workers
        self.every = every
        self.figures = RunFigures(state, workers)
        self._recording = ExitStack()
        self._console = Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<8}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[left]:>12}"),
            console=self._console,
        )
        self._ids: dict[str, bars.TaskID] = {}
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        for kind in KINDS:
            nodes = [node for node in self.state.plan if node.kind == kind]
            if nodes:
                names = {node.name for node in nodes}
                done = sum(1 for name, _ in self.state.done if name in names)
                total = sum(len(self.state.indices(node)) for node in nodes)
                self._ids[kind] = self._bars.add_task(kind, total=total, completed=done, left="")
        self._recording.enter_context(serving_as_told())
        self._recording.enter_context(self.figures)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._recording.__exit__(kind, error, trace)

    def finished(self, work: Work, receipt: dict[str, Any]) -> None:
        """Note a finished chunk and the seconds it took."""
        self.figures.finished(work, receipt)
        kind = work.node.kind
        seconds = left_seconds(self.figures.stages.values())
        left = "" if seconds is None else in_words(seconds / self.workers)
        self._bars.update(self._ids[kind], advance=1, left=f"{left} left" if left else "")
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last > self.every:
            self._last = now
            done, total = len(self.state.done), self.state.total
            self._console.print(f"{done}/{total} chunks, {left or 'unknown time'} left")

    def within(self, stage: str, done: int, total: int) -> None:
        """Show how far a chunk is that takes long, such as the fitting of a patch."""
        if self._console.is_terminal:
            if stage not in self._ids:
                self._ids[stage] = self._bars.add_task(f"  {stage}", total=total, left="")
            self._bars.update(self._ids[stage], completed=done, visible=done < total)
        elif time.monotonic() - self._last > self.every:
            self._last = time.monotonic()
            self._console.print(f"{stage}: {done}/{total} images")

    def say(self, text: str) -> None:
        """Show what happens outside chunk tasks."""
        if self._console.is_terminal:
            self._console.print(text, style="dim")
