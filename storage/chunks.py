"""References to chunks: what travels between tasks instead of arrays."""

from __future__ import annotations

from dataclasses import dataclass

from storage.files import Place
from storage.ledger import Ledger, digest_of


@dataclass(frozen=True)
class ChunkRef:
    """One chunk of one stage.

    Args:
        stage: fingerprint of the stage, the name of its folder in the store.
        key: name of the chunk within the stage, made from the digests of its inputs.
    """

    stage: str
    key: str


def chunk_key(inputs: dict[str, str]) -> str:
    """Name of the chunk that a stage makes from inputs with these content digests, by role."""
    return digest_of(inputs)[:24]


class Store:
    """Where stages keep their chunks.

    Args:
        root: the store's folder, or its prefix in a cloud store.
    """

    def __init__(self, root: Place) -> None:
        self.root = root

    def stage(self, fingerprint: str) -> Place:
        """Folder of a stage."""
        return self.root / "data" / fingerprint

    def ledger(self, fingerprint: str) -> Ledger:
        """The marks of a stage."""
        return Ledger(self.stage(fingerprint))

    def images(self, ref: ChunkRef) -> Place:
        """Where the images of a chunk lie."""
        return self.stage(ref.stage) / "images" / ref.key

    def rows(self, ref: ChunkRef) -> Place:
        """Where the rows of a chunk lie."""
        return self.stage(ref.stage) / "rows" / f"{ref.key}.parquet"

    def run(self, name: str) -> Place:
        """Folder of a run's summary, report and references."""
        return self.root / name
