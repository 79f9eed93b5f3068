"""Which files a defence sees: its own folder, the Python it runs on, and nothing else.

With a mount namespace the rest of the machine is not there. Without one, Landlock forbids it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.sandbox import syscalls as sys_
from tasks.sandbox.syscalls import lock_mount, mount

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
_SETTINGS = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"),
    *("passwd", "group", "nsswitch.conf", "fonts"),
)
_PROCESSOR = "/sys/devices/system/cpu"
DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom"))
_PROC_FILES = tuple(Path("/proc", name) for name in ("cpuinfo", "meminfo"))


@dataclass(frozen=True)
class Place:
    """A folder or file to be seen.

    Args:
        path: its name in the sandbox.
        real: the same without symbolic links.
    """

    path: str
    real: str


def places(folder: Path, libraries: Sequence[Path], hidden: Sequence[Path]) -> list[Place]:
    """What a defence may read, but for what is hidden in it.

    Args:
        folder: its own folder.
        libraries: folders that torch and others are imported from.
        hidden: what stays out of sight even where it lies in one of those, without symbolic links.
            A place that lies in something hidden is there all the same.
    """
    pythons = [Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    stated = [Path(p) for p in _SYSTEM] + [Path("/etc", name) for name in _SETTINGS]
    stated += [Path(_PROCESSOR), *pythons, *libraries, folder]
    found: dict[str, Place] = {}
    for path in stated:
        real = path.resolve()
        if path.exists() and (path == folder or real not in hidden):
            found |= {name: Place(name, str(real)) for name in (str(real), str(path))}
    kept: dict[str, Place] = {}
    for place in sorted(found.values(), key=lambda place: place.path):
        above = [kept[str(path)] for path in Path(place.path).parents if str(path) in kept]
        if not any(_shows(one, place, hidden) for one in above):
            kept[place.path] = place
    return list(kept.values())


def _shows(outer: Place, inner: Place, hidden: Sequence[Path]) -> bool:
    """Whether a place shows another one that lies in it: nothing between the two is hidden."""
    between = Path(inner.real).parents
    return not any(Path(outer.real) in one.parents and one in between for one in hidden)


def covered(seen: Sequence[Place], hidden: Sequence[Path]) -> list[Path]:
    """What is hidden within places, by its names in the sandbox."""
    found: dict[Path, None] = {}
    for place in seen:
        for one in hidden:
            if Path(place.real) in one.parents:
                found[place.path / one.relative_to(place.real)] = None
    return list(found)


def enter_view(
    seen: Sequence[Place],
    hidden: Sequence[Path],
    base: Path,
    folder: Path,
    size: int,
    *,
    own_users: bool,
) -> None:
    """Replace the root of this process by one that holds only what may be seen.

    Needs fresh mount and PID namespaces. Everything is read-only but ``/tmp`` and ``/dev/shm``,
    which live in memory.

    Args:
        seen: what there is.
        hidden: what of it is an empty file or an empty folder.
        base: an empty folder to build on.
        folder: where to stand afterwards.
        size: bytes of ``/tmp``, and of ``/dev/shm``.
        own_users: whether this process has a user namespace of its own.

    Raises:
        OSError: where the system does not allow it.
    """
    mount("none", Path("/"), None, sys_.MS_REC | sys_.MS_PRIVATE)
    plain = sys_.MS_NOSUID | sys_.MS_NODEV
    mount("tmpfs", base, "tmpfs", plain, "size=1m,mode=755")
    old = Path("/.old")
    (base / old.name).mkdir()
    sys_.pivot_root(base, base / old.name)
    os.chdir("/")
    attributes = sys_.MOUNT_ATTR_RDONLY | sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NODEV
    # first, because the defence's folder may lie in one of them
    for memory in (Path("/tmp"), Path("/dev/shm")):
        memory.mkdir(parents=True)
        options = f"size={size},nr_inodes=4096,mode=777"
        mount("tmpfs", memory, "tmpfs", plain, options)
    _bind_all(old, seen, hidden, attributes)
    for device in DEVICES:
        _bind(old, device, device, sys_.MOUNT_ATTR_NOSUID)
    _mount_proc(old, attributes, own_users=own_users)
    sys_.unmount(old)
    old.rmdir()
    lock_mount(Path("/"), sys_.MOUNT_ATTR_RDONLY, recursive=False)
    os.chdir(folder)


def _bind_all(old: Path, seen: Sequence[Place], hidden: Sequence[Path], attributes: int) -> None:
    """Bind what is seen and cover what is hidden, outer places before those that lie in them."""
    steps: dict[Path, Place | None] = dict.fromkeys(covered(seen, hidden))
    steps |= {Path(place.path): place for place in seen}
    nothing, folders = Path("/.nothing"), []
    nothing.touch()
    for path, place in sorted(steps.items(), key=lambda step: len(step[0].parts)):
        if place is not None:
            _bind(old, Path(place.real), path, attributes)
        elif path.is_dir():
            mount("tmpfs", path, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "size=64k,mode=755")
            folders.append(path)
        elif path.exists():
            mount(str(nothing), path, None, sys_.MS_BIND)
            lock_mount(path, attributes)
    for path in folders:
        lock_mount(path, attributes, recursive=False)
    nothing.unlink()


def _bind(old: Path, real: Path, target: Path, attributes: int) -> None:
    source = old / real.relative_to("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(exist_ok=True)
    else:
        return
    mount(str(source), target, None, sys_.MS_BIND | sys_.MS_REC)
    lock_mount(target, attributes)


def _mount_proc(old: Path, attributes: int, *, own_users: bool) -> None:
    proc = Path("/proc")
    proc.mkdir()
    try:
        mount("proc", proc, "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    except OSError:
        # refused in a container that hides parts of its own /proc
        for path in _PROC_FILES:
            _bind(old, path, path, attributes)
        return
    if own_users:  # the switch is that of the namespace; without one it is the machine's
        with contextlib.suppress(OSError):
            # nobody becomes root of a namespace in here; older kernels lack the switch
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
    # the settings of the kernel lie there, and the owner of some is root without a capability
    lock_mount(proc, attributes)


def readable_by_landlock(
    seen: Sequence[Place], hidden: Sequence[Path]
) -> tuple[list[Path], list[Path]]:
    """The same for Landlock, where ``/proc`` is the machine's.

    It allows whole folders only: those that hold something hidden are allowed piece by piece.

    Returns:
        What may be read, and the folders of which only the names in them may be listed, at any
        depth. Python finds no module in a folder that it cannot list.
    """
    readable, listed = list(_PROC_FILES), []
    for place in seen:
        parts = list(_without(Path(place.real), hidden))
        if parts != [Path(place.real)]:
            listed.append(Path(place.real))
        readable += parts
    return readable, listed


def _without(path: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    """``path``, or what it holds where something in it is hidden.

    Links are left out then: what they point to is allowed for itself, or not.
    """
    inside = [h for h in hidden if path in h.parents]
    if not inside:
        yield path
        return
    for child in sorted(path.iterdir()):
        if not child.is_symlink() and child not in inside:
            yield from _without(child, inside)
