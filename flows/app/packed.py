"""What is different where the app is one executable file."""

from __future__ import annotations

import re
import sys

_INSTALL = re.compile(r"[;:] pip install .*")


def is_packed() -> bool:
    """Whether this is the executable."""
    return bool(getattr(sys, "frozen", False))


def as_packed(text: str) -> str:
    """A message, without the advice to install a package where none can be installed."""
    if not is_packed():
        return text
    return _INSTALL.sub("; the executable comes without it", text)
