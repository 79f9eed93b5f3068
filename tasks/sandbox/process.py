"""A running defence as its parent sees it: a guard and two sockets."""

from __future__ import annotations

import contextlib
import select
import shutil
import signal
import socket
import time

from tasks.sandbox import forkserver, processes
from tasks.sandbox.channel import TURN
from tasks.sandbox.enforce import Enforcement, Setup
from tasks.sandbox.forkserver import ServerLost

_MESSAGE = 4096
_LAST_WORDS = 10.0
_FAREWELL = 10.0


class Ended(Exception):
    """The process is no more, or has to go; the text is a sentence without a subject."""


class Late(Exception):
    """Nothing came in time."""


class Refused(Exception):
    """The system does not allow what the process tried in order to lock itself up."""


def gibibytes(size: int) -> str:
    """A size for people."""
    return f"{size / (1 << 30):.2g} GiB" if size < 10 << 30 else f"{size / (1 << 30):.0f} GiB"


class Process:
    """Starts a guard, which starts the defence's process.

    Args:
        setup: what both are told.
        libraries: folders that torch and numpy are imported from.
        deadline: when the guard has to be there.

    Raises:
        Ended: where it is not.
    """

    def __init__(self, setup: Setup, libraries: list[str], deadline: float) -> None:
        self.setup = setup
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wake, wake = socket.socketpair()
        server = forkserver.server(setup.threads, libraries)
        with control, wake:
            try:
                self.guard = server.start(setup, control, wake, deadline)
            except ServerLost as error:
                forkserver.forget(server)
                self.control.close()
                self.wake.close()
                shutil.rmtree(setup.scratch, ignore_errors=True)
                raise Ended(str(error)) from None

    def begin(self, deadline: float) -> Enforcement:
        """Wait until the process has locked itself up.

        Raises:
            Refused: where the system does not allow the way it tried.
            Ended: where it ended.
            Late: after the deadline.
        """
        message = self._message(deadline)
        kind, _, text = message.partition(b" ")
        if kind == b"refused":
            raise Refused(text.decode(errors="replace"))
        if kind != b"setup":
            raise Ended(self._cause(message))
        return Enforcement.from_json(text)

    def give_turn(self, descriptor: int | None) -> None:
        """Tell the process to look into the buffer, which is a new one if it is given.

        Raises:
            Ended: where it is no more.
        """
        try:
            socket.send_fds(self.wake, [TURN], [] if descriptor is None else [descriptor])
        except OSError:
            raise Ended(self._last_words()) from None

    def await_turn(self, deadline: float) -> None:
        """Wait for the reply.

        Raises:
            Ended: where the process ended or was ended.
            Late: after the deadline.
        """
        ready = self._ready(deadline, self.control, self.wake)
        if self.control in ready:
            raise Ended(self._cause(self._message(deadline)))
        try:
            turn = self.wake.recv(1)
        except OSError:
            turn = b""
        if not turn:
            raise Ended(self._last_words())

    def peak_memory(self) -> int:
        """Largest resident memory so far, in bytes.

        Raises:
            Ended: where it was more than is allowed, or the process is no more.
        """
        try:
            self.control.send(b"usage")
            message = self._message(time.monotonic() + _LAST_WORDS)
        except (OSError, Late):
            raise Ended("lost its guard") from None
        kind, _, number = message.partition(b" ")
        if kind != b"usage":
            raise Ended(self._cause(message))
        return int(number)

    def _ready(self, deadline: float, *sockets: socket.socket) -> list[socket.socket]:
        poll = select.poll()
        for each in sockets:
            poll.register(each, select.POLLIN)
        left = max(0.0, deadline - time.monotonic())
        found = [descriptor for descriptor, _ in poll.poll(left * 1000)]
        if not found:
            raise Late
        return [each for each in sockets if each.fileno() in found]

    def _message(self, deadline: float) -> bytes:
        self._ready(deadline, self.control)
        try:
            return self.control.recv(_MESSAGE)
        except OSError:
            return b""

    def _last_words(self) -> str:
        """Why a process that no longer listens has ended."""
        try:
            return self._cause(self._message(time.monotonic() + _LAST_WORDS))
        except Late:
            return "closed the channel"

    def _cause(self, message: bytes) -> str:
        kind, _, text = message.partition(b" ")
        limits = self.setup.limits
        if not text.isdigit():
            return "lost its guard"
        number = int(text)
        if kind == b"memory":
            allowed = gibibytes(limits.memory_bytes)
            return f"used {gibibytes(number)} of memory, more than the {allowed} allowed"
        if kind == b"processes":
            return f"ran {number} processes and threads, more than the {limits.processes} allowed"
        if kind == b"signal":
            return f"was ended by signal {number} ({signal.strsignal(number)})"
        return f"exited with status {number}"

    def end(self) -> None:
        """End it with everything that it has started."""
        self.wake.close()
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)  # the guard's sign to end all
        deadline = time.monotonic() + _FAREWELL
        try:
            while self._message(deadline):
                pass
            while processes.runs(self.guard) and time.monotonic() < deadline:
                time.sleep(0.001)  # its sockets close a moment before it is dead
        except Late:
            processes.kill_descendants(self.guard)
            processes.kill(self.guard)
        self.control.close()
        if self.setup.refused:
            # without a namespace of processes a guard can have been killed
            processes.kill_named(self.setup.name)
        shutil.rmtree(self.setup.scratch, ignore_errors=True)
