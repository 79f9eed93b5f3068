"""The work of one user: one picture at a time, in a thread of its own, that can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from flows.app.packed import as_packed
from tasks.preview import Preview
from tasks.preview_trial import Told
from tasks.stopping import Stopped

Event = tuple[str, tuple[Any, ...]]
"""``stage``, ``pane``, ``suspicion``, ``took``, ``failed`` or ``ended``, and what goes with it."""


@dataclass
class Job:
    """A picture that is being tried.

    Args:
        stop: set to have it end.
        events: what happened, in order.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)

    def news(self) -> list[Event]:
        """What has happened since the last call; of stages the last word only."""
        found: list[Event] = []
        while True:
            try:
                event = self.events.get_nowait()
            except Empty:
                return found
            if event[0] == "stage" and found and found[-1][0] == "stage":
                found.pop()
            found.append(event)


class Worker:
    """Runs one job after another; a new one, or a stop, ends the one before at once."""

    def __init__(self) -> None:
        self.job: Job | None = None

    def start(self, make: Callable[[], Preview]) -> Job:
        """Begin a job.

        Args:
            make: makes what is to be done, in the job's own thread.
        """
        self.stop()
        job = Job()
        self.job = job
        threading.Thread(target=_work, args=(job, make), name="try", daemon=True).start()
        return job

    def stop(self) -> bool:
        """End what is going on; returns whether anything was. Nothing is heard of it any more."""
        job, self.job = self.job, None
        if job is not None:
            job.stop.set()
        return job is not None


def _work(job: Job, make: Callable[[], Preview]) -> None:
    def tell(kind: str) -> Callable[..., None]:
        return lambda *given: job.events.put((kind, given))

    try:
        told = Told(tell("stage"), tell("pane"), tell("suspicion"), tell("took"))
        make().run(told, job.stop)
    except Stopped:
        pass
    except Exception as error:
        job.events.put(("failed", (explain(error),)))
    finally:
        job.events.put(("ended", ()))


def explain(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, MemoryError):
        return "expected enough memory for this picture, there is too little"
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name}: expected this package, it is not installed here"
    return as_packed(text) or type(error).__name__
