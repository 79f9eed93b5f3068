"""Names and numbers as people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

_FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def folded(name: str) -> str:
    """What the spellings ``I-FGSM``, ``i_fgsm`` and ``IFGSM`` of a name have in common."""
    return re.sub(r"[-_ ]", "", name).lower()


def parse_number(value: Any) -> Any:
    """Read fractions such as ``8/255``; every other value is returned as it is."""
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
        if Fraction(match[2]) == 0:
            return value
        return float(Fraction(match[1]) / Fraction(match[2]))
    return value
