"""Specifications for tests: a base, and what a test changes of it."""

from __future__ import annotations

from typing import Any


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with changes; mappings are merged, unless they name another kind."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        merge = isinstance(value, dict) and isinstance(old, dict) and "kind" not in value
        result[name] = {**old, **value} if merge else value
    return result
