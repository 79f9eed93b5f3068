"""A fitted patch pasted on pictures, as files: resumable, lossless, and with a list of boxes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin

from defender.attacks.grid_patch import GridPatch
from defender.norms import from_uint8, to_uint8
from defender.universal import Perturbation
from storage.decode import Colour, DecodeOptions
from storage.errors import StorageError
from storage.files import sweep, write_atomic
from storage.images import Pixels
from storage.ingest import catalogue, ingest_chunk
from storage.ledger import digest_of
from storage.sources import Folder, Item, Source, Zip
from tasks.errors import SpecError
from tasks.printing_artefact import load_patch
from tasks.result_files import encoded, name_problem, result_names
from tasks.scan_specs import found

RULES = 1
"""Version of what is pasted and how; raising it pastes everything anew."""
CHUNK = 64
"""Pictures read at a time, at most."""
BOXES, REJECTED, ABOUT = "boxes.csv", "rejected.csv", "patch.json"
COLUMNS = (
    *("name", "file", "top", "left", "height", "width"),
    *("image_height", "image_width", "channels", "id"),
)
"""Of ``boxes.csv``: the picture, the file made of it, the box and the picture's size in pixels."""
MARK = "image-defender"
"""Key of the text in each PNG that says what it was made from."""

Listener = Callable[[int, int], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class Files(Folder):
    """Some files of a folder, as a dataset.

    Args:
        files: their paths relative to the folder, with forward slashes.
    """

    files: tuple[str, ...] = ()

    def _names(self) -> list[str]:
        return list(self.files)


@dataclass(frozen=True)
class PasteRequest:
    """What is to be pasted on what.

    Args:
        artefact: file of the patch, or a folder that holds one such file.
        images: one folder or zip, or any number of image files.
        out: folder of the results.
        size: side of the patch as a share of the shorter side of each picture.
        place: where it goes, one of ``PLACES`` of :mod:`defender.patch_placing`.
        seed: of random places.
    """

    artefact: Path
    images: tuple[Path, ...]
    out: Path
    size: float = 0.15
    place: str = "random"
    seed: int = 0

    @cached_property
    def source(self) -> Source:
        """The pictures.

        Raises:
            DatasetNotFound: where something is not there.
            SpecError: for several folders, or an output folder among the pictures.
        """
        paths = [found(path).resolve() for path in self.images]
        single = paths[0] if len(paths) == 1 else None
        if single is not None and single.is_dir():
            if self.out.resolve().is_relative_to(single):
                raise SpecError(
                    f"--out: expected a folder that is not among the pictures of {single}, "
                    f"got {self.out}"
                )
            return Folder(single)
        if single is not None and single.suffix.lower() == ".zip":
            return Zip(single)
        for path in paths:
            if path.is_dir() or path.suffix.lower() == ".zip":
                raise SpecError(
                    f"apply-patch: expected one folder or zip, or image files, got {path} "
                    f"among {len(paths)} paths"
                )
        root = Path(os.path.commonpath([path.parent for path in paths]))
        names = dict.fromkeys(path.relative_to(root).as_posix() for path in paths)
        return Files(root, files=tuple(names))

    def pasting(self) -> Pasting:
        """The patch, ready to be pasted.

        Raises:
            ModelError: where the artefact is no patch.
            SpecError: for a size or place that does not exist.
        """
        if self.place == "off-object":
            raise SpecError(
                "--place: off-object needs a model that says where the object is; a run of "
                "GridPatch has one. Expected another place"
            )
        path, patch = load_patch(self.artefact)
        try:
            attack = GridPatch(grid=patch.values.shape[1], size=self.size, place=self.place)
        except ValueError as error:
            raise SpecError(f"--{error}") from None
        return Pasting(path, patch, attack, self.seed)


@dataclass(frozen=True)
class Pasting:
    """A patch and where it goes.

    Args:
        artefact: its file.
        patch: theta.
        attack: what pastes it.
        seed: of random places.
    """

    artefact: Path
    patch: Perturbation
    attack: GridPatch
    seed: int

    @property
    def options(self) -> DecodeOptions:
        """How pictures are decoded: under a patch of three channels grey ones become RGB."""
        colour: Colour = "rgb" if self.patch.values.shape[0] == 3 else "keep"
        return DecodeOptions(colour=colour)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that a result depends on besides the picture."""
        return {
            "rules": RULES,
            "patch": self.patch.digest,
            "attack": repr(self.attack),
            "version": self.attack.version,
            "seed": self.seed,
            "colour": self.options.colour,
        }

    def key(self, item: Item) -> str:
        """What a result is made from: this, and name and stamp (size, time) of the picture."""
        return digest_of({**self.identity, "name": item.name, "stamp": item.stamp})

    def __call__(self, pixels: Pixels, identifier: str) -> tuple[Pixels, list[int]]:
        """Paste on one picture, at a place that depends on nothing but seed and picture.

        Returns:
            uint8 (c, h, w), equal to the picture outside the box, and the box.

        Raises:
            ValueError: for a picture that is too small.
        """
        text = f"{self.seed} apply-patch {identifier}"
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        images = from_uint8(torch.tensor(pixels)[None])
        seeds = torch.tensor([number], dtype=torch.int64)
        attacked, boxes = self.attack.apply(images, self.patch.values, seeds=seeds)
        return to_uint8(attacked[0]).numpy(), [int(part) for part in boxes[0].tolist()]


def apply_patch(request: PasteRequest, listener: Listener | None = None) -> dict[str, Any]:
    """Paste a patch on pictures; what is already pasted is not pasted again.

    Each result is a PNG under the name of its picture, in ``boxes.csv`` with its box. It says in
    its own header what it was made from, so that a call that was interrupted, or is repeated with
    more pictures, makes what is missing, what is damaged and what has changed, and nothing else.

    Args:
        request: what to paste on what.
        listener: told how many of how many pictures are done.

    Returns:
        ``out``, ``images`` in the list, ``pasted`` now, ``rejected`` with ``reasons`` by name,
        and what was pasted: ``artefact``, ``digest``, ``attack``, ``seed``.

    Raises:
        ModelError, SpecError, StorageError: saying what is wrong, in one sentence.
    """
    pasting = request.pasting()
    source = request.source
    chunks = catalogue(source, chunk_size=CHUNK).chunks()
    items = [item for chunk in chunks for item in chunk.items]
    if not items:
        raise StorageError(f"apply-patch: expected images in {request.images[0]}, found none")
    targets = result_names([item.name for item in items])
    _keep_apart(request, source, targets)
    rows: dict[str, Row] = {}
    rejected: dict[str, str] = {}
    pasted = 0
    for chunk in chunks:
        waiting = []
        for item in chunk.items:
            path = request.out / targets[item.name]
            state = _look(path, pasting.key(item))
            if isinstance(state, dict):
                rows[item.name] = state
            elif state:
                rejected[item.name] = state
            else:
                waiting.append(item)
        made, refused = _paste(pasting, source, waiting, request.out, targets)
        rows |= made
        rejected |= refused
        pasted += len(made)
        if listener is not None:
            listener(len(rows) + len(rejected), len(items))
    listed = [rows[item.name] for item in items if item.name in rows]
    reasons = {item.name: rejected[item.name] for item in items if item.name in rejected}
    about = {
        "artefact": str(pasting.artefact),
        "digest": pasting.patch.digest,
        "attack": repr(pasting.attack),
        "seed": request.seed,
    }
    _write_lists(request.out, listed, reasons, about)
    if not listed:
        name, reason = next(iter(reasons.items()))
        raise SpecError(
            f"apply-patch: expected pictures, none of {len(items)} can be used; {name}: {reason}"
        )
    return {
        "out": str(request.out),
        "images": len(listed),
        "pasted": pasted,
        "rejected": len(reasons),
        "reasons": reasons,
        **about,
    }


def _keep_apart(request: PasteRequest, source: Source, targets: dict[str, str]) -> None:
    """Refuse to leave the output folder or to write over the pictures themselves."""
    if (problem := name_problem(targets)) is not None:
        raise SpecError(f"apply-patch: {problem}")
    root = source.root.resolve() if isinstance(source, Folder) else None
    out = request.out.resolve()
    for name, target in targets.items():
        if root is not None and (out / target) == root / name:
            raise SpecError(f"--out: expected another folder than that of {root / name}")


def _paste(
    pasting: Pasting,
    source: Source,
    items: Sequence[Item],
    out: Path,
    targets: dict[str, str],
) -> tuple[dict[str, Row], dict[str, str]]:
    """Read, paste and write some pictures; the rows of the results, and why there are no others."""
    if not items:
        return {}, {}
    keys = {item.name: pasting.key(item) for item in items}
    chunk = ingest_chunk(source, items, pasting.options)
    refused = {row["name"]: row["reason"] for row in chunk.rejected.to_pylist()}
    made: dict[str, Row] = {}
    for about, pixels in zip(chunk.rows.to_pylist(), chunk.images, strict=True):
        name = about["name"]
        try:
            attacked, box = pasting(pixels, about["id"])
        except ValueError as error:
            refused[name] = f"is too small: {error}"
            continue
        sizes = (about["height"], about["width"], about["channels"])
        row = dict(zip(COLUMNS, (name, targets[name], *box, *sizes, about["id"]), strict=True))
        path = out / targets[name]
        sweep(path.parent, path.name)
        write_atomic(path, _encoded(attacked, {"key": keys[name], "row": row}))
        made[name] = row
    return made, refused


def _encoded(pixels: Pixels, mark: dict[str, Any]) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text(MARK, json.dumps(mark, sort_keys=True))
    return encoded(pixels, pnginfo=text)


def _look(path: Path, key: str) -> Row | str:
    """What lies where a result goes.

    Returns:
        The row of the result, if that is it; empty text, if it is yet to be made; or why nothing
        may be written there.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mark = image.info.get(MARK)
            image.verify()
    except Exception:  # absent, or damaged, for which readers raise nearly anything
        return ""
    if mark is None:
        return f"{path} is there and was not made by apply-patch"
    try:
        stated = json.loads(mark)
        return dict(stated["row"]) if stated["key"] == key else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _write_lists(
    out: Path, rows: Iterable[Row], reasons: dict[str, str], about: dict[str, Any]
) -> None:
    write_atomic(out / BOXES, _csv(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)))
    write_atomic(out / REJECTED, _csv(("name", "reason"), reasons.items()))
    write_atomic(out / ABOUT, json.dumps(about, indent=1).encode() + b"\n")


def _csv(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return sink.getvalue().encode()
