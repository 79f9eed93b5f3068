"""Checkpoints of what is fitted: the last two states, each vouched for by the ledger."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from defender.training import TrainingState
from storage.files import Place, remove, sweep, write_atomic
from storage.ledger import Ledger, Mark, sha256_file
from tasks.models import digest_state

KEPT = 2
"""Checkpoints kept: where the last one is damaged, the training goes on from the one before."""


class State(Protocol):
    """What an epoch leaves behind, and continues exactly."""

    epoch: int

    @property
    def result(self) -> dict[str, Tensor]:
        """The tensors that it is all for."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The arguments of a state that is the same: plain containers, numbers and tensors."""
        ...


AnyState = TypeVar("AnyState", bound=State)


class States(Generic[AnyState]):
    """The states of one fitting, by epoch.

    Args:
        folder: the fitting's folder in the store.
        inputs: digests of what it is made from, by role.
        kind: makes a state from what :meth:`State.as_dict` gave.
    """

    def __init__(
        self, folder: Place, inputs: dict[str, str], kind: Callable[..., AnyState]
    ) -> None:
        self.folder = folder
        self.inputs = inputs
        self.kind = kind
        self.ledger = Ledger(folder)

    def path(self, epoch: int) -> Place:
        """Where the state after an epoch lies."""
        return self.folder / _file(_key(epoch))

    def save(self, state: AnyState, seconds: float) -> Mark:
        """Store a state, vouch for it, and drop the ones that are no longer needed.

        Args:
            state: the state after an epoch.
            seconds: what the fitting has taken so far.

        Raises:
            StoreError: where the store cannot be written.
        """
        key = _key(state.epoch)
        path = self.folder / _file(key)
        self._drop(key)
        sweep(path.parent, path.name)
        buffer = io.BytesIO()
        torch.save(state.as_dict(), buffer)
        write_atomic(path, buffer.getvalue())
        mark = Mark(
            key=key,
            inputs=self.inputs,
            files={_file(key): sha256_file(path)},
            content=digest_state(state.result),
            images=0,
            receipt={
                "epoch": state.epoch,
                "seconds": round(seconds, 3),
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
        )
        self.ledger.write(mark)
        kept = {_key(state.epoch - back) for back in range(KEPT)}
        for other in set(self.ledger.keys()) - kept:
            self._drop(other)
        return mark

    def latest(self) -> Mark | None:
        """The mark of the last state that is whole, or None where there is none."""
        for key in reversed(self.ledger.keys()):
            mark = self.ledger.vouches(key, self.inputs)
            if mark is not None:
                return mark
        return None

    def load(self, mark: Mark, device: torch.device) -> AnyState:
        """The state that a mark vouches for."""
        data = (self.folder / _file(mark.key)).read_bytes()
        content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        return self.kind(**content)

    def _drop(self, key: str) -> None:
        remove(self.ledger.path(key))
        remove(self.folder / _file(key))


class Checkpoints(States[TrainingState]):
    """The states of one training of a network.

    Args:
        folder: the training's folder in the store.
        inputs: digests of what the training is made from, by role.
    """

    def __init__(self, folder: Place, inputs: dict[str, str]) -> None:
        super().__init__(folder, inputs, TrainingState)


def _key(epoch: int) -> str:
    return f"epoch-{epoch:06d}"


def _file(key: str) -> str:
    return f"checkpoints/{key}.pt"
