"""Checkpoints of a training: the last two states, each vouched for by the ledger."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import torch

from defender.training import TrainingState
from storage.files import remove, sweep, write_atomic
from storage.ledger import Ledger, Mark, sha256_file
from tasks.models import digest_state

KEPT = 2
"""Checkpoints kept: where the last one is damaged, the training goes on from the one before."""


class Checkpoints:
    """The states of one training, by epoch.

    Args:
        folder: the training's folder in the store.
        inputs: digests of what the training is made from, by role.
    """

    def __init__(self, folder: Path, inputs: dict[str, str]) -> None:
        self.folder = folder
        self.inputs = inputs
        self.ledger = Ledger(folder)

    def path(self, epoch: int) -> Path:
        """Where the state after an epoch lies."""
        return self.folder / _file(_key(epoch))

    def save(self, state: TrainingState, seconds: float) -> Mark:
        """Store a state, vouch for it, and drop the ones that are no longer needed.

        Args:
            state: the state after an epoch.
            seconds: what the training has taken so far.

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
            content=digest_state(state.average),
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

    def load(self, mark: Mark, device: torch.device) -> TrainingState:
        """The state that a mark vouches for."""
        data = (self.folder / _file(mark.key)).read_bytes()
        content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        return TrainingState(**content)

    def _drop(self, key: str) -> None:
        remove(self.ledger.path(key))
        remove(self.folder / _file(key))


def _key(epoch: int) -> str:
    return f"epoch-{epoch:06d}"


def _file(key: str) -> str:
    return f"checkpoints/{key}.pt"
