"""The process between the parent and a defence: it starts, measures and ends it.

It holds no images and runs none of the defence's code. It lives until the defence has ended or the
parent has, and takes everything with it that the defence has started.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket

from tasks.sandbox import child, enforce, processes, syscalls
from tasks.sandbox.enforce import Setup
from tasks.sandbox.meter import Meter, peak_memory

TICK_MILLISECONDS = 50
_MESSAGE = 64


def _say(control: socket.socket, message: str) -> None:
    try:
        control.send(message.encode())
    except OSError:
        return  # the parent is gone, which the next look at the socket tells


def _reap(defence: int) -> int | None:
    """Collect what has ended; the status of the defence if it is among it."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == defence:
            status = ended


def _watch(defence: int, setup: Setup, control: socket.socket, alarm: socket.socket) -> None:
    """Measure until something ends, or has to be ended."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(alarm, select.POLLIN)
    meter = Meter(os.getpid(), setup.limits.memory_bytes)
    peak = 0
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(TICK_MILLISECONDS)]
        if alarm.fileno() in ready:
            alarm.recv(_MESSAGE)
        used = meter.measure()
        peak = max(peak, used.memory, peak_memory(defence))
        status = _reap(defence)
        if peak > setup.limits.memory_bytes:
            return _say(control, f"memory {peak}")
        if used.threads > setup.limits.processes:
            return _say(control, f"processes {used.threads}")
        if status is not None:
            if os.WIFSIGNALED(status):
                return _say(control, f"signal {os.WTERMSIG(status)}")
            return _say(control, f"exit {os.WEXITSTATUS(status)}")
        if control.fileno() in ready:
            if not control.recv(_MESSAGE):
                return None
            _say(control, f"usage {peak}")


def main(setup: Setup, control: socket.socket, wake: socket.socket) -> None:
    """Start the defence's process and watch over it until one of them or the parent ends."""
    syscalls.prctl("name", syscalls.PR_SET_NAME, text=setup.name)
    syscalls.prctl("subreaper", syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        _run(setup, control, wake)
    except OSError as error:
        _say(control, f"refused {syscalls.reason(error)}")
    finally:
        processes.kill_descendants(os.getpid())
        shutil.rmtree(setup.scratch, ignore_errors=True)


def _run(setup: Setup, control: socket.socket, wake: socket.socket) -> None:
    own_users = not setup.refused and enforce.leave_namespaces()
    alarm, bell = socket.socketpair()
    bell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    defence = os.fork()
    if defence == 0:
        signal.set_wakeup_fd(-1)
        for kind in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(kind, signal.SIG_DFL)
        child.main(setup, control, wake, own_users=own_users)
    wake.close()
    _watch(defence, setup, control, alarm)
