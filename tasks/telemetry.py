"""What a run tells while it works: events as JSON lines, and what a chunk cost.

Everything goes through one logger, ``image_defender``. What an event is about (run, stage, chunk,
attempt) comes from the block of code it happens in, what else it tells is stated with it. Where no
one listens, the terminal shows warnings and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import SpecError
from tasks.gpu_meter import GpuMeter, gpu_meter

LOG = logging.getLogger("image_defender")
VARIABLE = "IMAGE_DEFENDER_LOG"
"""Environment variable that names the file of events; other processes of a run find it there."""
STDERR = "-"
_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def event(level: int, name: str, text: str, **fields: Any) -> None:
    """Tell of something.

    Args:
        level: of :mod:`logging`.
        name: what kind of event it is.
        text: the same in words.
        fields: what else it tells; None is left out.
    """
    if LOG.isEnabledFor(level):
        told = {**(_about.get() or {}), **fields}
        LOG.log(level, "%s", text, extra={"event": name, "fields": told})


@contextlib.contextmanager
def about(**fields: Any) -> Iterator[None]:
    """State what everything that happens in this block is about."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            **getattr(record, "fields", _about.get() or {}),
            "message": record.getMessage(),
            "host": HOST,
            "pid": record.process,
            "thread": record.threadName,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        told = {name: value for name, value in line.items() if value is not None}
        return json.dumps(told, ensure_ascii=False, default=str)


HOST = socket.gethostname()


class LineFile(logging.Handler):
    """Appends records to a file, each in one piece, so that several processes can share it.

    A file that can no longer be written does not stop a run.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = self._open()
        super().__init__(logging.INFO)
        self._told = False
        self.setFormatter(JsonLines())

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record."""
        try:
            if self._file < 0:  # whoever configures logging anew closes every handler there is
                self._file = self._open()
            os.write(self._file, f"{self.format(record)}\n".encode())
        except OSError as error:
            if not self._told:
                self._told = True
                sys.stderr.write(f"warning: log: cannot write {self.path}: {error.strerror}\n")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()


_handlers: dict[str, list[logging.Handler]] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def logging_to(target: str | None) -> Iterator[None]:
    """Write events to a file while this is entered, those of processes started meanwhile too.

    Args:
        target: the file, ``-`` for standard error, None for nothing more than there was.

    Raises:
        SpecError: where it cannot be written.
    """
    if target is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = target if target == STDERR else str(Path(target).absolute())
    try:
        listen()
        yield
    finally:
        _forget(os.environ.pop(VARIABLE))
        if before is not None:
            os.environ[VARIABLE] = before


def listen() -> None:
    """Have this process write its events where the environment says, and into Prefect's log.

    It can be called again and again.

    Raises:
        SpecError: where the file cannot be written.
    """
    _tell_prefect()
    target = os.environ.get(VARIABLE)
    if not target or target in _handlers:
        return
    with _lock:
        if target in _handlers:
            return
        if target == STDERR:
            shown: logging.Handler = logging.StreamHandler()
            shown.setFormatter(JsonLines())
            made = [shown]
        else:
            try:
                made = [LineFile(Path(target)), logging.StreamHandler()]
            except OSError as error:
                raise SpecError(f"log: cannot write {target}: {error.strerror}") from None
            made[1].setLevel(logging.WARNING)
        for handler in made:
            LOG.addHandler(handler)
        _handlers[target] = made
        LOG.setLevel(logging.INFO)
        # Prefect shows what reaches the root logger on the terminal, a second time
        LOG.propagate = False


def _forget(target: str) -> None:
    for handler in _handlers.pop(target, []):
        LOG.removeHandler(handler)
        handler.close()
    if not _handlers:
        LOG.setLevel(logging.NOTSET)
        LOG.propagate = True


def _tell_prefect() -> None:
    """Put events of this run into its log on Prefect's server, where it is told to keep one."""
    context = sys.modules.get("prefect.context")
    if context is None or not _in_run(context):
        return
    if not context.get_settings_context().settings.logging.to_api.enabled:
        return
    # by name: Prefect is there by now, and whoever does without it is not to need it for this
    kind = importlib.import_module("prefect.logging.handlers").APILogHandler
    with _lock:
        if not any(isinstance(handler, kind) for handler in LOG.handlers):
            handler = kind(logging.INFO)
            # a record from outside of a run, such as a lease's, has no log to go to
            handler.addFilter(lambda record: _in_run(context))
            LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)


def _in_run(context: Any) -> bool:
    return bool(context.FlowRunContext.get() or context.TaskRunContext.get())


Failure = Callable[[str, int], None]
_failures: list[Failure] = []


@contextlib.contextmanager
def told_of_failures(listener: Failure) -> Iterator[None]:
    """Have a listener called with stage and chunk of each attempt that fails in this process."""
    _failures.append(listener)
    try:
        yield
    finally:
        _failures.remove(listener)


class Measured:
    """What making one chunk costs, from its beginning on."""

    def __init__(self, gpu: GpuMeter | None, attempt: int) -> None:
        self.attempt = attempt
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        self._gpu = gpu
        self._gpu_before = None if gpu is None else gpu.sums()

    def receipt(self, written: int) -> dict[str, Any]:
        """The cost so far.

        ``cpu_seconds`` are of the thread that makes the chunk. A chunk is computed by one thread
        on a CPU, so this is all of it but for what other programs did, such as a sandbox.

        Args:
            written: bytes.
        """
        told: dict[str, Any] = {
            "seconds": round(time.perf_counter() - self._wall, 4),
            "cpu_seconds": round(time.thread_time() - self._cpu, 4),
            "bytes": written,
            "attempt": self.attempt,
            "host": HOST,
            "pid": os.getpid(),
            "thread": threading.current_thread().name,
        }
        if self._gpu is not None and self._gpu_before is not None:
            told |= self._gpu.since(self._gpu_before)
        return told


@contextlib.contextmanager
def making(run: str, stage: str, chunk: int, *, gpu: bool = False) -> Iterator[Measured]:
    """Tell of the making of a chunk, and of its failure.

    Args:
        run: name of the run.
        stage: name of the stage.
        chunk: number of the chunk.
        gpu: whether it is made on a GPU, which is then looked at now and then.
    """
    listen()
    attempt = _attempt()
    with about(run=run, stage=stage, chunk=chunk, attempt=attempt):
        try:
            yield Measured(gpu_meter() if gpu else None, attempt)
        except Exception as error:
            for listener in list(_failures):
                listener(stage, chunk)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            text = f"{stage} chunk {chunk}: attempt {attempt} failed: {reason}"
            event(logging.WARNING, "chunk failed", text, reason=reason)
            raise


def _attempt() -> int:
    """How often Prefect has begun the task at hand, 1 outside of any."""
    module = sys.modules.get("prefect.context")
    context = None if module is None else module.TaskRunContext.get()
    return 1 if context is None else max(1, int(context.task_run.run_count))
