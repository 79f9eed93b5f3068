"""Finding registered names as people write them: ``I-FGSM``, ``ifgsm`` and ``IFGSM`` are one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from defender.spelling import folded


def find(known: Iterable[str], name: str) -> str | None:
    """The registered spelling of a name, or None where it is not registered."""
    return {folded(entry): entry for entry in known}.get(folded(name))


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` where a known name is close, otherwise nothing."""
    entries = {folded(entry): entry for entry in known}
    close = difflib.get_close_matches(folded(name), list(entries), n=1)
    return f" (did you mean {entries[close[0]]}?)" if close else ""
