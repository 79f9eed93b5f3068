"""Progress of a sweep: a line a trial, and how long the rest will take."""

from __future__ import annotations

import time
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.markup import escape

from flows.progress import OnTerminal, in_words
from tasks.sweep_figures import feasible, value_of
from tasks.sweep_specs import SweepSpec
from tasks.sweep_study import Tried


class SweepProgress(OnTerminal):
    """Shows each finished trial and estimates the time that is left.

    Args:
        spec: the sweep.
        done: trials that were finished before.
    """

    def __init__(self, spec: SweepSpec, done: int) -> None:
        self.spec = spec
        self.done = done
        self.total = max(done, spec.sweep.trials)
        self._spent: list[float] = []
        self._began = time.monotonic()
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<8}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[left]:>12}"),
            console=self._console,
        )
        self._trials = self._bars.add_task("trials", total=self.total, completed=done, left="")
        self._chunks = self._bars.add_task("chunks", total=None, left="")

    def begin(self, chunks: int) -> None:
        """Note that a trial begins, and how many chunks it takes."""
        self._began = time.monotonic()
        self._bars.reset(self._chunks, total=chunks, completed=0)

    def chunk(self, work: Any, receipt: dict[str, Any]) -> None:
        """Note a finished chunk of the trial."""
        self._bars.advance(self._chunks)

    def finished(self, tried: Tried) -> None:
        """Note a finished trial."""
        self.done += 1
        seconds = time.monotonic() - self._began
        self._spent.append(seconds)
        left = ""
        if self.done < self.total:
            mean = sum(self._spent) / len(self._spent)
            left = f"{in_words(mean * (self.total - self.done))} left"
        self._bars.update(self._trials, advance=1, left=left)
        self._console.print(escape(self.line(tried, seconds) + (f", {left}" if left else "")))

    def line(self, tried: Tried, seconds: float) -> str:
        """A finished trial in one line."""
        constraints = self.spec.sweep.constraints
        shown = dict.fromkeys([*self.spec.objectives, *constraints])
        figures = "  ".join(f"{name} {value_of(tried.standing, name):.4f}" for name in shown)
        text = f"{self.done}/{self.total}  {tried.candidate.text}  {figures}"
        if not feasible(tried.standing, constraints):
            text += "  (breaks a constraint)"
        return f"{text}  {in_words(seconds)}"
