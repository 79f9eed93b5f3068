"""A process that has loaded torch and nothing else, from which guards and defences are forked.

To import torch takes seconds, to fork milliseconds; a defence that fails on every batch would cost
an import each. One such process serves all defences of its parent. It runs no code of theirs, and
ends with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tasks.sandbox import guard, processes, syscalls
from tasks.sandbox.enforce import Setup

_TICK_MILLISECONDS = 1000
_MESSAGE = 64
_FAREWELL = 10.0


class ServerLost(Exception):
    """The server has ended, or did not answer in time."""


class ForkServer:
    """The parent's side.

    Args:
        threads: threads that the libraries of numerics may start on import.
        libraries: folders that torch and numpy are imported from.
    """

    def __init__(self, threads: int, libraries: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-B", __file__, str(other.fileno()), *libraries],
                env=_environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                cwd="/",
                start_new_session=True,
            )

    def start(
        self, setup: Setup, control: socket.socket, wake: socket.socket, deadline: float
    ) -> int:
        """Fork a guard, which is handed its ends of two sockets.

        Returns:
            The guard's process id.

        Raises:
            ServerLost: where there is no server, or no answer before the deadline.
        """
        told = os.memfd_create("setup", os.MFD_CLOEXEC)
        with self._lock, open(told, "w+b") as stream:
            stream.write(setup.to_json())
            stream.flush()
            try:
                descriptors = [control.fileno(), wake.fileno(), told]
                socket.send_fds(self._socket, [b"fork"], descriptors)
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
                return int(self._socket.recv(_MESSAGE))
            except (OSError, ValueError):
                raise ServerLost("the process to start from is gone or did not answer") from None

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the server."""
        self._socket.close()
        try:
            self._process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment(threads: int) -> dict[str, str]:
    pools = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    kept = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    return kept | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # the order of sets is the same in every process
        "PYTHONHASHSEED": "0",
        "CUDA_VISIBLE_DEVICES": "",
        **{f"{pool}_NUM_THREADS": str(threads) for pool in pools},
    }


_servers: dict[tuple[int, int, tuple[str, ...]], ForkServer] = {}
_servers_lock = threading.Lock()


def server(threads: int, libraries: list[str]) -> ForkServer:
    """The server of this process for so many threads, started where there is none."""
    # a fork of this process has to have its own
    key = (os.getpid(), threads, tuple(libraries))
    with _servers_lock:
        if key in _servers and not _servers[key].alive():
            _servers.pop(key).close()
        if key not in _servers:
            _servers[key] = ForkServer(threads, tuple(libraries))
        return _servers[key]


def forget(lost: ForkServer) -> None:
    """End a server that no longer answers, so that the next start makes another."""
    with _servers_lock:
        for key in [key for key, value in _servers.items() if value is lost]:
            del _servers[key]
    lost.close()


@atexit.register
def _close_all() -> None:
    for (pid, *_), each in list(_servers.items()):
        if pid == os.getpid():
            each.close()
    _servers.clear()


def _reap(guards: set[int]) -> bool:
    """Collect guards that have ended; whether one was killed and may have left something."""
    killed = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if pid == 0:
            return killed
        if pid in guards:
            guards.discard(pid)
            killed = killed or os.WIFSIGNALED(status)


def _serve(requests: socket.socket) -> None:
    """Fork a guard for each request until the parent is gone."""
    guards: set[int] = set()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        ready = poll.poll(_TICK_MILLISECONDS)
        if _reap(guards):
            # what a killed guard leaves comes to its next parent that asked for orphans
            for stray in set(processes.children(os.getpid())) - guards:
                processes.kill_descendants(stray)
                processes.kill(stray)
        if not ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            _be_a_guard(descriptors)
        guards.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def _be_a_guard(descriptors: list[int]) -> None:
    status = 1
    try:
        os.setsid()
        control, wake = (socket.socket(fileno=number) for number in descriptors[:2])
        with open(descriptors[2], "rb") as stream:
            stream.seek(0)
            setup = Setup.from_json(stream.read())
        guard.main(setup, control, wake)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Load torch and serve; arguments are a descriptor and folders of libraries."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    sys.path.remove(
        str(Path(__file__).resolve().parents[2])
    )  # once: the same folder may be there by right
    sys.path += [path for path in sys.argv[2:] if path not in sys.path]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.prctl("subreaper", syscalls.PR_SET_CHILD_SUBREAPER, 1)
    with contextlib.suppress(ImportError):
        # where they cannot be imported, loading a defence tells so
        import numpy  # noqa: F401
        import torch  # noqa: F401
    _serve(requests)


if __name__ == "__main__":
    main()
