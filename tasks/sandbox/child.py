"""The process of a defence: it locks itself up, loads the file and answers.

It starts as a copy of the guard, with torch loaded and no line of the file run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tasks.sandbox import channel
from tasks.sandbox.channel import IMAGES, REPLY, REQUEST, Buffer, Header, Status
from tasks.sandbox.enforce import Setup, lock_up, volunteer_for_the_kernel
from tasks.sandbox.syscalls import reason

if TYPE_CHECKING:
    from torch import Tensor

MODULE = "defence_from_file"
_OWN = Path(__file__).resolve().parents[2] / "defender"


def main(setup: Setup, control: socket.socket, wake: socket.socket, *, own_users: bool) -> NoReturn:
    """Lock this process up, say how, and serve until the parent is gone."""
    os.setsid()
    volunteer_for_the_kernel()
    try:
        _close_all_but(control, wake)
        record = lock_up(setup, own_users=own_users)
    except OSError as error:
        control.send(f"refused {reason(error)}".encode())
        os._exit(0)
    control.send(b"setup " + record.to_json())
    control.close()
    try:
        Service(setup, wake).serve()
    finally:
        os._exit(1)


def _close_all_but(*kept: socket.socket) -> None:
    """Close what was inherited from the guard and the server it came from."""
    numbers = {0, 1, 2, *(each.fileno() for each in kept)}
    for number in {int(name) for name in os.listdir("/proc/self/fd")} - numbers:
        with contextlib.suppress(OSError):
            os.close(number)


class OwnPackage:
    """Finds the package ``defender`` where it is not installed: beside this one."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """The specification of the package; None for every other one."""
        if name != _OWN.name:
            return None
        return importlib.util.spec_from_file_location(
            name, _OWN / "__init__.py", submodule_search_locations=[str(_OWN)]
        )


class NotLoaded(Exception):
    """The file is not what was expected; the text says why."""


class Service:
    """Answers one request after the other.

    Args:
        setup: see `Setup`.
        wake: the socket of turns.
    """

    def __init__(self, setup: Setup, wake: socket.socket) -> None:
        self.setup = setup
        self.wake = wake
        self.pid = os.getpid()
        self.buffer: Buffer
        self.defence: Any = None

    def serve(self) -> None:
        """Wait for turns and take them."""
        while True:
            turn, descriptors, _, _ = socket.recv_fds(self.wake, 1, 1)
            if not turn:
                os._exit(0)
            if descriptors:
                self.buffer = Buffer(descriptors[0])
                self.buffer.close()
            request = Header.unpack(self.buffer.copy(REQUEST))
            if request is None:
                os._exit(1)
            if request.status == Status.LOAD:
                self.answer(request, self.load, Status.NOT_LOADED)
            else:
                self.answer(request, self.apply, Status.RAISED)

    def answer(self, request: Header, work: Callable[[Header], Header], failed: Status) -> None:
        """Do what is asked and put the reply, or the text of what went wrong, into the buffer."""
        text = b""
        try:
            reply = work(request)
        except Unusable as error:
            reply, text = Header(Status.NO_TENSOR, request.sequence), describe(error)
        except NotLoaded as error:
            reply, text = Header(failed, request.sequence), describe(error)
        except BaseException as error:
            reply, text = Header(failed, request.sequence), raised(error)
        if os.getpid() != self.pid:
            os._exit(0)  # a fork of the defence's own, which has come back to here
        reply = dataclasses.replace(reply, text=len(text))
        self.buffer.put(REPLY, reply, text)
        self.wake.send(channel.TURN)

    def load(self, request: Header) -> Header:
        """Import torch and the file, and make the ``Defense``."""
        import torch

        torch.set_num_threads(self.setup.threads)
        seed(0)
        sys.path.insert(0, self.setup.folder)
        sys.meta_path.append(OwnPackage())
        self.defence = made(Path(self.setup.file))
        return Header(Status.READY, request.sequence, parameters=self.parameters())

    def parameters(self) -> int:
        """See `count_parameters`."""
        return count_parameters(self.defence, self.setup.folder)

    def apply(self, request: Header) -> Header:
        """Put a batch through the defence."""
        import torch

        if request.flags & channel.SEEDED:
            seed(request.seed)
        count = request.length // 4
        sent = torch.frombuffer(self.buffer.memory, dtype=torch.float32, count=count, offset=IMAGES)
        sent = sent.view(request.shape)
        given = sent.clone()
        answer = self.defence.apply_defense(given)
        if not isinstance(answer, torch.Tensor):
            raise Unusable(f"a {type(answer).__name__}, expected a torch.Tensor")
        if answer.device.type != "cpu":
            raise Unusable(f"a tensor on {answer.device}, expected one on cpu")
        if answer.layout != torch.strided:
            raise Unusable(f"a tensor of layout {answer.layout}, expected a dense one")
        flags = 0 if _same(given, sent) else channel.MUTATED
        name = str(answer.dtype).removeprefix("torch.")
        dtype = channel.DTYPES.index(name) if name in channel.DTYPES else 0
        length = 4 * answer.numel()
        start = IMAGES + channel.padded(request.length)
        if dtype == channel.FLOAT32 and 0 < length <= self.buffer.size - start:
            place = torch.frombuffer(
                self.buffer.memory, dtype=torch.float32, count=answer.numel(), offset=start
            )
            place.view(answer.shape).copy_(answer.detach())
        sizes = [*answer.shape[:4], 0, 0, 0, 0]
        return Header(
            Status.ANSWER,
            request.sequence,
            dtype=dtype,
            dimensions=answer.ndim,
            flags=flags,
            shape=(sizes[0], sizes[1], sizes[2], sizes[3]),
            length=length,
            parameters=self.parameters(),
        )


class Unusable(Exception):
    """The answer is no images; the text says what it is."""


def seed(value: int) -> None:
    """Start every generator from a number, so that a random defence can be repeated."""
    import numpy
    import torch

    torch.manual_seed(value)
    numpy.random.seed(value & 0xFFFFFFFF)
    random.seed(value)


def made(file: Path) -> Any:
    """The ``Defense`` of a file.

    Raises:
        NotLoaded: with what was expected.
    """
    spec = importlib.util.spec_from_file_location(MODULE, file)
    if spec is None or spec.loader is None:
        raise NotLoaded(f"expected a Python file, got {file.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if isinstance(error, SyntaxError) and error.filename == str(file):
            raise NotLoaded(f"line {error.lineno} is no Python: {error.msg}") from None
        raise NotLoaded(f"importing it {raised(error).decode()}") from None
    kind = getattr(module, "Defense", None)
    if not isinstance(kind, type):
        raise NotLoaded("expected a class Defense in it")
    if not callable(getattr(kind, "apply_defense", None)):
        raise NotLoaded("expected a method apply_defense(self, images) of its class Defense")
    try:
        return kind()
    except BaseException as error:
        raise NotLoaded(f"Defense() {raised(error).decode()}") from None


def raised(error: BaseException) -> bytes:
    """What was raised, with its text, short enough for the reply."""
    text = describe(error)
    return b"raised " + type(error).__name__.encode()[:100] + (b": " + text if text else b"")


def describe(error: BaseException) -> bytes:
    """The text of an exception, which code of the defence may compute."""
    try:
        text = str(error)[:1000]
    except BaseException:
        return b"(no text)"
    return text.encode(errors="replace")[:2000]


def _same(given: Tensor, sent: Tensor) -> bool:
    """Whether the batch is still what was sent."""
    import torch

    try:
        return torch.equal(given, sent)
    except RuntimeError:  # no longer of a kind that can be compared
        return False


def count_parameters(defence: Any, folder: str) -> int:
    """Parameters of the networks that an object holds, itself included.

    Looks into lists, dictionaries, and the attributes of networks and of objects whose class comes
    from a file of the folder or from this package, those of such classes included.
    """
    import torch

    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    todo: list[Any] = [defence]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.nn.Parameter):
            found[id(thing)] = thing
        elif isinstance(thing, torch.nn.Module):
            found.update({id(p): p for p in thing.parameters()})
            todo += vars(thing).values()
        elif isinstance(thing, dict):
            todo += thing.values()
        elif isinstance(thing, list | tuple | set | frozenset):
            todo += thing
        else:
            made_there = [base for base in type(thing).__mro__ if _made_in(base, folder)]
            todo += [value for base in made_there for value in vars(base).values()]
            if made_there and hasattr(thing, "__dict__"):
                todo += vars(thing).values()
    return sum(parameter.numel() for parameter in found.values())


def _made_in(kind: type, folder: str) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and not {Path(folder), _OWN}.isdisjoint(Path(file).parents)
