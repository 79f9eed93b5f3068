"""A lease on a cloud store: one writing run at a time, where no lock of a file system reaches.

The lease is an object. Whoever wants it creates it or replaces a free one, under the condition
that nobody was quicker; whoever has it writes it anew every few seconds. A holder that died stops
doing so: who waits looks at the object's tag, and takes it over once the tag has stayed the same
for ``LEASE`` seconds of the waiter's own clock. No two clocks are ever compared.

The answer to a write may be lost although the store has written. Each holder therefore signs what
it writes with an identity of its own, and reads the lease back before it believes itself replaced.

A holder that could not write in time, because the network was away for so long, may find that
another has taken over. Both then go on, and nothing is lost by it: they write the same chunks, and
a chunk counts only while the ledger's digests agree with every byte.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from storage.errors import StoreBusy, StoreError
from storage.objects import ObjectPath
from storage.patience import patiently

LEASE = 60.0
"""Seconds after which a holder that has not been heard of is taken for dead."""
_log = logging.getLogger("image_defender")


def this_holder() -> dict[str, str]:
    """Who this process is, for others who want the store."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_holder(text: str) -> dict[str, str]:
    """What :func:`this_holder` wrote; empty for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def holder_in_words(holder: dict[str, str]) -> str:
    """Who a holder is, as the beginning of a sentence."""
    if not {"host", "pid", "since"} <= holder.keys():
        return "another run"
    return f"another run (process {holder['pid']} on {holder['host']}, since {holder['since']})"


def lease_holder(place: ObjectPath) -> dict[str, str] | None:
    """Who holds a lease, None where it is free; a holder that died is named until taken over."""
    try:
        found = read_holder(place.read_text())
    except FileNotFoundError:
        return None
    return found if found.get("state") == "held" else None


@contextlib.contextmanager
def leased(
    place: ObjectPath,
    *,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
    lease: float = LEASE,
) -> Iterator[None]:
    """Hold a lease; ``on_wait`` is called before waiting for another.

    Args:
        place: the object.
        wait: for another holder to end or be taken for dead.
        on_wait: called once before waiting.
        lease: seconds without a sign of life after which a holder is taken for dead.

    Raises:
        StoreBusy: where another run holds it and ``wait`` is false.
    """
    held = _Lease(place, lease)
    held.acquire(wait, on_wait)
    renewing = threading.Thread(target=held.renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        held.ended.set()
        renewing.join()
        held.release()


class _Lease:
    def __init__(self, place: ObjectPath, lease: float) -> None:
        self.place = place
        self.lease = lease
        self.ended = threading.Event()
        self.holder = {**this_holder(), "run": uuid.uuid4().hex}
        self.tag: str | None = None

    def acquire(self, wait: bool, on_wait: Callable[[], None] | None) -> None:
        told, seen, since = False, "", time.monotonic()
        while True:
            try:
                data, tag = self.place.read_tagged()
            except FileNotFoundError:
                data, tag = b"", None
            holder = read_holder(data.decode(errors="replace"))
            now = time.monotonic()
            if tag is not None and tag != seen:
                seen, since = tag, now
            if holder.get("state") != "held" or now - since > self.lease:
                self.tag = self._write("held", tag)
                if self.tag is not None:
                    return
                continue
            if not wait:
                raise StoreBusy(f"store: {holder_in_words(holder)} is writing to {self.place}")
            if on_wait is not None and not told:
                on_wait()
            told = True
            time.sleep(min(1.0, self.lease / 10))

    def renew(self) -> None:
        """Give a sign of life until the lease ends or is lost."""
        while not self.ended.wait(self.lease / 6):
            # where the store cannot be reached the run fails by itself, or this is tried again
            with contextlib.suppress(StoreError):
                self.tag = self._write("held", self.tag)
                if self.tag is None:
                    _log.warning("%s: the lease was taken over by another run", self.place)
                    return

    def release(self) -> None:
        if self.tag is not None:
            with contextlib.suppress(StoreError):
                self._write("free", self.tag)

    def _write(self, state: str, tag: str | None) -> str | None:
        """Write the lease under the condition that it is still what was read.

        An answer may be lost on the way after the store has written; then what is tried again, or
        written next, fails the condition. So the lease is read back before it counts as another's.

        Args:
            state: ``held`` or ``free``.
            tag: of what was read, None where there was nothing.

        Returns:
            The tag of what was written, or None where another has written since.
        """
        while True:
            # what is written must differ each time, or its tag would stay the same
            content = self._content(state)
            made = patiently(partial(self._attempt, content, tag))
            if made is not None:
                return made
            try:
                found, tag = self.place.read_tagged()
            except FileNotFoundError:
                return None
            if found == content:
                return tag
            if read_holder(found.decode(errors="replace")).get("run") != self.holder["run"]:
                return None

    def _attempt(self, content: bytes, tag: str | None) -> str | None:
        if tag is not None:
            return self.place.replace_tagged(content, tag)
        try:
            return self.place.create(content)
        except FileExistsError:
            return None

    def _content(self, state: str) -> bytes:
        return json.dumps({**self.holder, "state": state, "sign": uuid.uuid4().hex}).encode()
