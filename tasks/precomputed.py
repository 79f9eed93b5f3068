"""Attacked images that exist already, beside the clean ones of a ``paired`` dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from defender.attacks import ATTACKS
from defender.types import Budget, Threat, check_parameters, parameter
from storage.errors import SourceError
from storage.ingest import ingest_chunk
from storage.ledger import digest_of
from storage.sources import Paired
from tasks.datasets import Dataset
from tasks.errors import SpecError

if TYPE_CHECKING:
    from storage.images import Pixels


@dataclass(frozen=True)
class Precomputed:
    """Reads the attacked images of one sub-folder of a ``paired`` dataset instead of attacking.

    Raises:
        SourceError: where the attacked version of a clean image is absent, unreadable or of
            another size; the text names it.
    """

    folder: str = parameter(doc="sub-folder with the attacked images, same stems as the clean ones")

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none: reads images attacked elsewhere"
    budget: ClassVar[Budget] = "none"
    threat: ClassVar[Threat] = "precomputed"

    def __post_init__(self) -> None:
        check_parameters(self)

    def check(self, dataset: Dataset, where: str) -> None:
        """Refuse a dataset without such a folder, and clean images without a counterpart.

        Raises:
            SpecError: naming the field and what is missing.
        """
        if not isinstance(dataset.source, Paired):
            raise SpecError(
                f"{where}: Precomputed expected a dataset of kind paired, got {dataset.spec.kind}"
            )
        known = dataset.source.attacks()
        if self.folder not in known:
            raise SpecError(
                f"{where}.folder: expected one of {', '.join(known)}, got {self.folder!r}"
            )

    def files_digest(self, dataset: Dataset, index: int) -> str:
        """Digest of the stamps of the attacked files of a chunk."""
        source: Any = dataset.source
        items = dataset.items(index)
        stamps = source.counterpart(self.folder).stamps(items)
        names = [item.name for item in items]
        return digest_of(list(zip(names, stamps, strict=True)))

    def read(
        self, dataset: Dataset, index: int, rows: pa.Table, clean: list[Pixels]
    ) -> list[Pixels]:
        """The attacked versions of the usable images of a chunk, in its order."""
        source: Any = dataset.source
        counterpart = source.counterpart(self.folder)
        wanted = set(rows["name"].to_pylist())
        items = [item for item in dataset.items(index) if item.name in wanted]
        result = ingest_chunk(counterpart, items, dataset.decode_options)
        if result.rejected.num_rows:
            first = result.rejected.to_pylist()[0]
            raise SourceError(
                f"{self.folder}: expected an attacked version of {first['name']}: {first['reason']}"
            )
        for item, before, after in zip(items, clean, result.images, strict=True):
            if before.shape != after.shape:
                raise SourceError(
                    f"{self.folder}: {item.name}: expected {before.shape}, got {after.shape}"
                )
        return result.images


ATTACK_KINDS: dict[str, type[Any]] = {**ATTACKS, "Precomputed": Precomputed}
"""Every attack that a specification can name."""
