"""Finding registered names as people write them: ``I-FGSM``, ``ifgsm`` and ``IFGSM`` are one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def _folded(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def find(known: Iterable[str], name: str) -> str | None:
    """The registered spelling of a name, or None where it is not registered."""
    return {_folded(entry): entry for entry in known}.get(_folded(name))


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` where a known name is close, otherwise nothing."""
    folded = {_folded(entry): entry for entry in known}
    close = difflib.get_close_matches(_folded(name), list(folded), n=1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""
