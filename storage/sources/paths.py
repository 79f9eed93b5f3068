"""Where a dataset lies: the places that a path in a specification may be relative to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from storage.errors import DatasetNotFound

VARIABLE = "IMAGE_DEFENDER_DATA"
"""Environment variable that names the folder of datasets."""

SHARED = Path("../shared/data")
"""Folder of datasets beside a project, tried last."""

_PROJECT = Path(__file__).resolve().parents[2]


def places(
    path: str | Path, spec_folder: Path | None, environment: Mapping[str, str]
) -> list[Path]:
    """Every place where ``path`` is looked for, in order.

    An absolute path is its only place. A relative one is looked for in the folder of the
    specification, in the folder that ``IMAGE_DEFENDER_DATA`` names, in ``../shared/data`` as seen
    from the current directory and from the project, and in the current directory.
    """
    wanted = Path(path).expanduser()
    if wanted.is_absolute():
        return [wanted]
    bases = [] if spec_folder is None else [spec_folder.absolute()]
    if stated := environment.get(VARIABLE):
        bases.append(Path(stated).expanduser().absolute())
    bases += [Path.cwd() / SHARED, _PROJECT / SHARED, Path.cwd()]
    return list(dict.fromkeys((base / wanted).resolve() for base in bases))


def resolve(path: str | Path, spec_folder: Path | None, environment: Mapping[str, str]) -> Path:
    """Find a dataset.

    Args:
        path: as the specification states it; ``~`` is expanded.
        spec_folder: folder of the specification file, or None where there is none.
        environment: environment variables, such as ``os.environ``.

    Returns:
        The first place of ``places`` where something lies, as an absolute path.

    Raises:
        DatasetNotFound: where nothing lies in any of them; the message lists them all.
    """
    tried = places(path, spec_folder, environment)
    for place in tried:
        if place.exists():
            return place.resolve()
    listed = ", ".join(str(place) for place in tried)
    hint = "" if environment.get(VARIABLE) else f"; {VARIABLE} can name a folder of datasets"
    raise DatasetNotFound(f"expected a dataset {str(path)!r}, got nothing at {listed}{hint}")


def data_folder(environment: Mapping[str, str]) -> Path:
    """The folder that downloads go to: ``IMAGE_DEFENDER_DATA`` or a cache of the user."""
    stated = environment.get(VARIABLE)
    return (Path(stated) if stated else Path("~/.cache/image-defender")).expanduser().absolute()
