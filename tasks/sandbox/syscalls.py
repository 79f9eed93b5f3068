"""The Linux calls that lock a process up, which Python 3.11 does not offer.

Every function raises ``OSError`` whose text names the call.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION = 0x20080522


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library of this process, with ``errno`` kept."""
    return ctypes.CDLL(None, use_errno=True)


def checked(name: str, result: int) -> int:
    """The result of a call, or its error as an exception."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def reason(error: OSError) -> str:
    """What was refused, in a few words."""
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"


def raw(name: str, number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its number; integers travel as longs."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(name, libc().syscall(ctypes.c_long(number), *converted))


def unshare(flags: int) -> None:
    """Leave the namespaces that the flags name."""
    checked("unshare", libc().unshare(flags))


def mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or bind a folder or file to another place."""
    kind_bytes = kind.encode() if kind is not None else None
    result = libc().mount(
        os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data.encode()
    )
    checked(f"mount {target}", result)


def lock_mount(target: Path, attributes: int, *, recursive: bool = True) -> None:
    """Add attributes, such as read-only, to a mount and those below it (Linux 5.12)."""
    words = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    path = ctypes.create_string_buffer(os.fsencode(target))
    structure = (ctypes.c_char * 32).from_buffer(words)
    flags = AT_RECURSIVE if recursive else 0
    raw(f"mount_setattr {target}", _MOUNT_SETATTR, AT_FDCWD, path, flags, structure, 32)


def unmount(target: Path) -> None:
    """Take a tree of mounts out of sight."""
    checked(f"umount {target}", libc().umount2(os.fsencode(target), MNT_DETACH))


def pivot_root(new: Path, old: Path) -> None:
    """Make ``new`` the root and put the old root at ``old``."""
    checked("pivot_root", libc().pivot_root(os.fsencode(new), os.fsencode(old)))


def prctl(
    name: str,
    option: int,
    value: int = 0,
    *,
    text: str | None = None,
    pointer: ctypes.c_void_p | None = None,
) -> None:
    """Set an attribute of this process to a number, a text, or what a pointer points to."""
    zero = ctypes.c_ulong(0)
    second = ctypes.c_ulong(value) if text is None else ctypes.c_char_p(text.encode())
    third = zero if pointer is None else pointer
    checked(f"prctl {name}", libc().prctl(option, second, third, zero, zero))


def drop_capabilities() -> None:
    """Give up every capability, for this process and all that it starts."""
    for capability in range(64):
        try:
            prctl("capbset_drop", PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one, or not privileged and so without any to drop
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    checked("capset", libc().capset(header, nothing))
