"""A filter of system calls: no sockets, no kernel interfaces that a defence has no use for.

Without a PID namespace it also forbids signals to other processes, and without a view of its own
the change of modes, owners and times, which Landlock does not cover.

Source: "Seccomp BPF", docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from tasks.sandbox.syscalls import PR_SET_SECCOMP, prctl

# machine -> its audit number and the column of the tables below
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000

# numbers on x86_64 and aarch64; None where the machine lacks the call
Numbers = dict[str, tuple[int | None, int | None]]

ALWAYS: Numbers = {
    # the network, and the sockets of services on this machine
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # mounts and namespaces
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # parts of the kernel with a history of holes
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory that no process's resident set shows
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}

WITHOUT_VIEW: Numbers = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "tkill": (200, 130),
    "pidfd_send_signal": (424, 424),
    "rt_tgsigqueueinfo": (297, 240),
    "rt_sigqueueinfo": (129, 138),
    "setpriority": (141, 140),
}

# without a PID namespace: allowed for this process only (first argument), 0 meaning itself
OWN_ONLY: Numbers = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
_CLONE, _CLONE3 = (56, 220), 435
_NEW_NAMESPACES = 0x7E020000  # user, mount, PID, network, IPC, UTS, cgroup

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_FIRST = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program(machine: str, *, own_view: bool, pid: int) -> bytes:
    """The filter as BPF instructions of eight bytes.

    Args:
        machine: name of the processor as ``os.uname`` gives it.
        own_view: whether mount and PID namespaces hold, so that the second table is not needed.
        pid: the process that may signal itself where they do not.

    Raises:
        OSError: for a machine whose numbers are not known here.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"seccomp: system calls of {machine} are not known")
    audit, column = _MACHINES[machine]
    refuse, allow = _step(_RETURN, _ERROR | errno.EPERM), _step(_RETURN, _ALLOW)
    steps = [
        _step(_LOAD, _AT_MACHINE),
        _step(_JUMP_EQUAL, audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_JUMP_AT_LEAST, _X32, 0, 1), refuse]
    for numbers in (ALWAYS, *(() if own_view else (WITHOUT_VIEW,))):
        for pair in numbers.values():
            if (number := pair[column]) is not None:
                steps += [_step(_JUMP_EQUAL, number, 0, 1), refuse]
    # the flags of clone3 lie behind a pointer; without it the C library takes clone
    steps += [_step(_JUMP_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    steps += [_step(_JUMP_EQUAL, _CLONE[column], 0, 4), _step(_LOAD, _AT_FIRST)]
    steps += [_step(_JUMP_SET, _NEW_NAMESPACES, 0, 1), refuse, allow]
    for pair in () if own_view else OWN_ONLY.values():
        number = pair[column]
        if number is not None:
            steps += [_step(_JUMP_EQUAL, number, 0, 5), _step(_LOAD, _AT_FIRST)]
            steps += [_step(_JUMP_EQUAL, pid, 2, 0), _step(_JUMP_EQUAL, 0, 1, 0), refuse, allow]
    return b"".join([*steps, allow])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(*, own_view: bool) -> None:
    """Filter the calls of this process, and of all that it starts, for good.

    Needs ``no_new_privs``. See `program`.

    Raises:
        OSError: where the kernel or the machine has no filters.
    """
    instructions = program(os.uname().machine, own_view=own_view, pid=os.getpid())
    memory = ctypes.create_string_buffer(instructions, len(instructions))
    described = _Program(len(instructions) // 8, ctypes.addressof(memory))
    mode_filter = 2
    pointer = ctypes.cast(ctypes.byref(described), ctypes.c_void_p)
    prctl("seccomp", PR_SET_SECCOMP, mode_filter, pointer=pointer)
