"""Parquet files with an image in each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from storage.sources.items import JSON, Content, Item, identity_of, require_text
from storage.sources.rows import (
    class_names,
    find_columns,
    list_parts,
    list_rows,
    open_part,
    read_rows,
)


@dataclass(frozen=True)
class Parquet:
    """Parquet files with an encoded image in each row, such as the Hugging Face hub keeps.

    Items are the rows of all parts, the parts sorted by name. They are named by the path stored
    with each image where all have one and no two are alike, else ``<part>/<row>``.

    Args:
        path: a Parquet file, or a folder of them at any depth.
        image_column: a column of bytes or a struct with ``bytes`` (and ``path``); ``auto`` takes
            ``image`` or ``img``, or else the only one that fits.
        label_column: a column of integers; ``auto`` takes ``label``, ``labels``, ``target`` or
            ``class`` where there is one. Negative and missing labels count as none.
    """

    kind: ClassVar[str] = "parquet"
    doc: ClassVar[str] = "Parquet files with an encoded image in each row"

    path: Path
    image_column: str = "auto"
    label_column: str = "auto"

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        object.__setattr__(self, "path", Path(self.path))
        require_text("image_column", self.image_column, least=1)
        require_text("label_column", self.label_column, least=1)

    def identity(self) -> dict[str, JSON]:
        """Kind and options."""
        return identity_of(self)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names that the Hugging Face hub stored in the first part, if any."""
        part = list_parts(self.path)[0]
        with closing(open_part(part)) as file:
            schema = file.schema_arrow
        columns = find_columns(schema, self.image_column, self.label_column, part)
        return class_names(schema, columns.label)

    def items(self) -> Iterator[Item]:
        """List the rows; the stamp is the part's size and modification time and the row.

        Raises:
            DatasetNotFound: where there is no Parquet file.
            SourceError: where the columns do not fit.
        """
        parts = list_parts(self.path)
        yield from list_rows(self._root, parts, self.image_column, self.label_column)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the encoded images.

        Raises:
            DatasetNotFound: where a part has vanished.
            SourceError: where a part is damaged.
        """
        yield from read_rows(self._root, items, self.image_column, self.label_column)

    @property
    def _root(self) -> Path:
        return self.path.parent if self.path.is_file() else self.path
