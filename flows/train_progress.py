"""Progress of a training: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich import progress as bars
from rich.console import Console

from flows.progress import OnTerminal, in_words

WORDS = {"dataset": "decode", "held_out": "decode held-out", "train": "train"}

NOTES = {
    "accuracy": "{:.1%} right",
    "held_out": "held out {:.1%}",
    "srocc": "held-out SROCC {:.3f}",
    "ssim": "held-out SSIM {:.4f}",
    "psnr": "held-out PSNR {:.2f} dB",
    "roc_auc": "held-out ROC-AUC {:.4f}",
}
"""What is told of an epoch beside its loss, where the record has it."""


class TrainProgress(OnTerminal):
    """Shows how far a training is and how long it will take.

    Args:
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self._console = Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<15}"),
            bars.BarColumn(bar_width=None),
            bars.TextColumn("{task.percentage:>3.0f} %"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[left]:>12}"),
            bars.TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._ids: dict[str, bars.TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that so many steps of a stage are finished."""
        if stage not in self._ids:
            words = WORDS.get(stage, stage)
            self._ids[stage] = self._bars.add_task(words, total=total, left="", note="")
            self._began[stage] = (time.monotonic(), done)
        self._bars.update(self._ids[stage], completed=done, left=self.left(stage, done, total))

    def left(self, stage: str, done: int, total: int) -> str:
        """How long the rest of a stage will take, in words; nothing before it can be told."""
        since, first = self._began[stage]
        if done <= first:
            return ""
        seconds = (time.monotonic() - since) / (done - first) * (total - done)
        return f"{in_words(seconds)} left"

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        """Show what an epoch came to."""
        loss = record["loss"]
        note = f"loss {loss:.3f}" if loss >= 0.1 else f"loss {loss:.2e}"
        for name, words in NOTES.items():
            if name in record:
                note += f", {words.format(record[name])}"
        left = ""
        if "train" in self._ids:
            self._bars.update(self._ids["train"], note=note)
            left = self._bars.tasks[self._ids["train"]].fields["left"]
        now = time.monotonic()
        last = record["epoch"] == epochs
        if not self._console.is_terminal and (last or now - self._last > self.every):
            self._last = now
            where = f"epoch {record['epoch']}/{epochs}: {note}"
            self._console.print(where if last or not left else f"{where}; {left}")
