"""Landlock: folders that a process may use, for systems that allow no namespaces.

Source: "Landlock: unprivileged access control", docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from tasks.sandbox.syscalls import raw

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
# access rights to files that each version of the interface knows, as number of low bits
_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_BITS = 16
_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 0b11, 0b11


def version() -> int:
    """Version of the kernel's Landlock.

    Raises:
        OSError: where the kernel has none.
    """
    return raw("landlock", _CREATE_RULESET, None, 0, _VERSION)


def restrict(
    readable: Iterable[Path],
    listed: Iterable[Path],
    writable: Iterable[Path],
    devices: Iterable[Path],
) -> None:
    """Confine this process, and all that it starts, for good.

    Needs ``no_new_privs``. Names and sizes of files elsewhere stay visible, their content and the
    listing of folders do not.

    Args:
        readable: files and folders that may be read and executed.
        listed: folders in which names may be listed, at any depth.
        writable: folders in which everything may be done.
        devices: files that may be read and written.

    Raises:
        OSError: where the kernel has no Landlock, or a rule is refused.
    """
    known = version()
    handled = (1 << _BITS.get(known, _NEWEST_BITS)) - 1
    words = [handled]
    words += [_TCP] if known >= 4 else []
    words += [_ABSTRACT_SOCKETS_AND_SIGNALS] if known >= 6 else []
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(words)}Q", *words), 8 * len(words))
    ruleset = raw("landlock", _CREATE_RULESET, attributes, 8 * len(words), 0)
    try:
        rules = [(path, READ) for path in readable]
        rules += [(path, READ_DIR) for path in listed]
        rules += [(path, handled) for path in writable]
        rules += [(path, READ_FILE | WRITE_FILE) for path in devices]
        for path, access in rules:
            _allow(ruleset, path, access & handled)
        raw("landlock", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        if not path.is_dir():
            access &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, place), 12)
        raw(f"landlock {path}", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(place)
