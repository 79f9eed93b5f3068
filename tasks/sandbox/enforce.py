"""Locking up a process before it runs code that nobody vouches for, and saying what holds.

Namespaces first: of users, mounts, processes, network and IPC. Where the system refuses them (a
container without rights, a kernel that has them switched off), Landlock keeps files and a filter
of system calls keeps the network and other processes out of reach. What neither gives is said to be
"not enforced".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.sandbox import landlock, seccomp
from tasks.sandbox import syscalls as sys_
from tasks.sandbox.limits import Limits
from tasks.sandbox.view import DEVICES, Place, enter_view, readable_by_landlock

OPEN_FILES = 256
_NOT = "not enforced"


@dataclass(frozen=True)
class Enforcement:
    """How each limit is enforced: by which means, or "not enforced: <reason>".

    Args:
        network: nothing outside is reached.
        files: only its own folder, Python and the system's libraries are read, and nothing that is
            hidden in them; only its private temporary folder is written.
        memory: resident memory of all its processes.
        processes: their number, and that none is left or reaches another.
        time: seconds for an answer.
        privileges: rights over the system.
    """

    network: str
    files: str
    memory: str
    processes: str
    time: str
    privileges: str

    def missing(self) -> dict[str, str]:
        """What is not enforced, with the reason."""
        stated: dict[str, str] = dataclasses.asdict(self)
        return {k: v.removeprefix(f"{_NOT}: ") for k, v in stated.items() if v.startswith(_NOT)}

    def to_json(self) -> bytes:
        """As sent by the process that locked itself up."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Enforcement:
        """Read `to_json`."""
        stated = json.loads(data)
        return cls(**{field.name: str(stated[field.name]) for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Setup:
    """What the separate process is told, before it knows the file.

    Args:
        name: what its processes are called, at most 15 characters.
        file: the file of the defence.
        folder: its folder.
        seen: what may be read, the folder included.
        hidden: what in it may not be read.
        scratch: an empty folder for temporary files.
        threads: threads that torch computes with.
        limits: see `Limits`.
        refused: why namespaces are not to be tried, empty where they are.
    """

    name: str
    file: str
    folder: str
    seen: list[Place]
    hidden: list[str]
    scratch: str
    threads: int
    limits: Limits
    refused: str

    def to_json(self) -> bytes:
        """As written to the separate process."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Setup:
        """Read `to_json`."""
        given: dict[str, Any] = json.loads(data)
        given["seen"] = [Place(**place) for place in given["seen"]]
        given["limits"] = Limits(**given["limits"])
        return cls(**given)


def leave_namespaces() -> bool:
    """Leave the namespaces of users, processes, network and IPC.

    The processes that this one starts from now on live in the new ones.

    Returns:
        Whether it has a user namespace of its own; root needs none where they are switched off.

    Raises:
        OSError: where the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    others = sys_.CLONE_NEWPID | sys_.CLONE_NEWNET | sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS
    try:
        sys_.unshare(sys_.CLONE_NEWUSER | others)
    except OSError:
        if user:
            raise
        sys_.unshare(others)
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def lock_up(setup: Setup, *, own_users: bool) -> Enforcement:
    """Lock this process up for good.

    Args:
        setup: what it may see and use.
        own_users: whether `leave_namespaces` gave it a user namespace.

    Raises:
        OSError: where a namespace is refused after all.
    """
    confined = not setup.refused
    temporary = "/tmp" if confined else setup.scratch
    if confined:
        sys_.unshare(sys_.CLONE_NEWNS)
        scratch, folder = Path(setup.scratch), Path(setup.folder)
        hidden, size = [Path(path) for path in setup.hidden], setup.limits.file_bytes
        enter_view(setup.seen, hidden, scratch, folder, size, own_users=own_users)
    else:
        os.chdir(setup.folder)
    os.environ.update(HOME=temporary, TMPDIR=temporary)
    counted = _limit_resources(setup.limits, own_users=own_users)
    sys_.drop_capabilities()
    sys_.prctl("no_new_privs", sys_.PR_SET_NO_NEW_PRIVS, 1)
    files = "namespace" if confined else _landlock(setup)
    filtered = _filter_calls(own_view=confined)
    sys_.prctl("pdeathsig", sys_.PR_SET_PDEATHSIG, 9)
    refusals = "; ".join(filter(None, (setup.refused, filtered)))
    ways = ["namespace"] * confined + ["seccomp"] * (not filtered)
    processes = ["namespace"] * confined + ["rlimit"] * counted + ["watchdog"]
    if not confined and not filtered:
        processes.insert(0, "seccomp")
    return Enforcement(
        network=", ".join(ways) or f"{_NOT}: {refusals}",
        files=files,
        memory="watchdog",
        processes=", ".join(processes),
        time="clock of the parent",
        privileges=", ".join(["no_new_privs", "no capabilities", *["seccomp"] * (not filtered)]),
    )


def _limit_resources(limits: Limits, *, own_users: bool) -> bool:
    """Set the limits of the kernel; whether one binds the number of processes."""
    wanted = [
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ]
    # the kernel counts the processes of a user, who has others outside, unless in a namespace
    # since Linux 5.14; root it does not count at all
    release = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    counted = own_users and os.geteuid() != 0 and release >= [5, 14]
    if counted:
        wanted.append((resource.RLIMIT_NPROC, limits.processes))
    for kind, value in wanted:
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
    return counted


def _landlock(setup: Setup) -> str:
    try:
        readable, listed = readable_by_landlock(setup.seen, [Path(path) for path in setup.hidden])
        landlock.restrict(readable, listed, [Path(setup.scratch)], DEVICES)
    except OSError as error:
        return f"{_NOT}: {setup.refused}; {sys_.reason(error)}"
    return "landlock"


def _filter_calls(*, own_view: bool) -> str:
    """Why calls are not filtered; empty where they are."""
    try:
        seccomp.install(own_view=own_view)
    except OSError as error:
        return sys_.reason(error)
    return ""


def volunteer_for_the_kernel() -> None:
    """Be the first to go where the whole machine runs out of memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
