"""A stage applied to one input, and the version of each kind of stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from storage.ledger import digest_of

RULES = {
    "ingest": 1,
    "target": 1,
    "fit": 1,
    "strength": 1,
    "calibrate": 1,
    "attack": 1,
    "detect": 1,
    "purify": 1,
    "score": 2,
    "answer": 1,
    "certify": 1,
    "explain": 1,
    "redraw": 1,
    "export": 1,
}
"""Version of what this package itself does in a stage; raising one recomputes that stage."""


CALM = ("none", "control")
"""Threats of changes that ask no model: harmless ones, and controls of attacks."""


@dataclass(frozen=True)
class Node:
    """One stage applied to one input.

    Args:
        name: unique within the plan; what status and progress show.
        kind: ``ingest``, ``target``, ``fit``, ``strength``, ``calibrate``, ``attack``, ``detect``,
            ``purify``, ``score``, ``answer``, ``certify``, ``explain``, ``redraw`` or ``export``.
        inputs: node that supplies each input, by role.
        position: index of the algorithm in its list of the specification; -1 for none.
        attack, detector, purifier: labels this node stands for.
        subject: label of the other model or of the certifier that is asked.
        config: everything that results depend on besides the inputs.
        gathers: 0 for a stage that works chunk by chunk; else the number of chunks of its inputs
            that its one result, chunk 0, is made of.
    """

    name: str
    kind: str
    inputs: dict[str, str] = field(default_factory=dict)
    position: int = -1
    attack: str = "none"
    detector: str = "none"
    purifier: str = "none"
    subject: str = "none"
    config: dict[str, Any] = field(default_factory=dict)
    gathers: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """Name of the stage's folder in the store."""
        return digest_of(self.config)[:24]
