"""Numbers of bytes in words."""

from __future__ import annotations


def size_in_words(count: int) -> str:
    """Bytes as a person would say them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
