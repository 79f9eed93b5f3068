"""What a specification is about, in a few words: its families of attacks and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from defender.attacks import ATTACKS
from tasks.errors import SpecError
from tasks.names import find
from tasks.spec_files import override, read_content

FAMILIES = ("gradient", "query", "scaling", "patch", "quality", "face")
"""Families of attacks, as runs are tagged with them."""
SCALING = ("AdaptiveScaling", "ImageScaling")
UNKNOWN = "images"
"""What images are called of which nothing is known."""


def content_of(spec: str, assignments: Sequence[str] = (), limit: int | None = None) -> Any:
    """The content of a specification file, not validated; empty where it cannot be read."""
    more = [] if limit is None else [f"dataset.limit={limit}"]
    try:
        return override(read_content(Path(spec)), [*assignments, *more])
    except SpecError:
        return {}


def families(content: Any) -> tuple[str, ...]:
    """The families that a specification belongs to, in the order of :data:`FAMILIES`.

    A run against a quality metric or a face encoder is of that family, whatever its attacks are;
    one against a classifier is of those of its attacks.

    Args:
        content: what the file of any kind of specification holds.
    """
    if not isinstance(content, Mapping):
        return ()
    found = {_family(one) for one in _names(content.get("attacks"))}
    if _given(content, "pipeline"):
        found.add("scaling")
    subject = next((family for field, family in SUBJECTS if _given(content, field)), None)
    if subject is not None:
        found = (found - {"gradient", "query"}) | {subject}
    return tuple(family for family in FAMILIES if family in found)


SUBJECTS = (("metric", "quality"), ("encoder", "face"))
"""Fields that state what is attacked where it is no classifier, and the family of such runs."""


def dataset_word(content: Any) -> str:
    """What the images of a specification are called: the stem of their path, or their kind."""
    stated = content.get("dataset") if isinstance(content, Mapping) else None
    if isinstance(stated, str):
        stated = {"kind": stated}
    if not isinstance(stated, Mapping):
        return UNKNOWN
    path = PurePosixPath(str(stated.get("path") or ""))
    return path.stem or str(stated.get("kind") or UNKNOWN).rpartition(":")[2]


def _given(content: Mapping[str, Any], field: str) -> bool:
    return content.get(field) is not None


def _names(attacks: Any) -> list[str]:
    listed = attacks if isinstance(attacks, list | tuple) else []
    return [str(one.get("name") if isinstance(one, Mapping) else one) for one in listed]


def _family(name: str) -> str | None:
    registered = find(ATTACKS, name)
    if registered is None:
        return None
    kind = ATTACKS[registered]
    threat, budget = getattr(kind, "threat", None), getattr(kind, "budget", None)
    if registered in SCALING:
        return "scaling"
    if budget == "patch":
        return "patch"
    return {"oblivious": "gradient", "query": "query"}.get(str(threat))
