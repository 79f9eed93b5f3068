"""What the attacks of a run know, and which of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from defender.objectives import threat_through
from tasks.nodes import CALM
from tasks.specs import AttackSpec, label_of
from tasks.workbench import Workbench


@dataclass(frozen=True)
class Attacker:
    """What an attack of a run knows, and how strong it is allowed to be.

    Args:
        label: of the attack.
        threat: of its algorithm.
        through: label of the purifier that it is made through.
        exact: it has the purifier's own gradient.
        draws: of the purifier that it averages over.
        steps: gradient steps, None where there are none or it is not known.
        ball: norm, radius and target, which two attacks must share for their results to be compared
            (the radius may be larger), None where there is no radius.
        elsewhere: it was made on other models.
        algorithm: its name.
    """

    label: str
    threat: str = "oblivious"
    through: str | None = None
    exact: bool = False
    draws: int = 1
    steps: int | None = None
    ball: tuple[str, float, int | None] | None = None
    elsewhere: bool = False
    algorithm: str = ""

    def knows(self, purifier: str) -> bool:
        """Whether it was made on the model behind a purifier."""
        return not self.elsewhere and self.through == (None if purifier == "none" else purifier)

    def kinds(self, purifier: str) -> tuple[str, ...]:
        """Threats that it is to a purifier; what does not know it is one kind."""
        if not self.knows(purifier):
            return ("transfer",) if self.elsewhere or self.through else (self.threat,)
        if self.threat == "query" or self.through is None:
            return (self.threat,)
        if self.exact:
            return ("full-gradient", "eot") if self.draws > 1 else ("full-gradient",)
        return ("bpda", "eot") if self.draws > 1 else ("bpda",)

    def enlarges(self, other: Attacker) -> bool:
        """Whether it is another attack with a larger radius."""
        if self.ball is None or other.ball is None or self.ball[1] <= other.ball[1]:
            return False
        return replace(self, label=other.label, ball=other.ball) == other and other.comparable(self)

    @property
    def unbounded(self) -> bool:
        """Whether it may make any image of any other, and has no class to reach."""
        if self.ball is None:
            return False
        norm, radius, aim = self.ball
        return norm == "linf" and radius >= 1 and aim is None

    def comparable(self, other: Attacker) -> bool:
        """Whether it may change an image no more than another attack, to the same end."""
        if self.ball is None or other.ball is None:
            return False
        (norm, radius, aim), (other_norm, other_radius, other_aim) = self.ball, other.ball
        return (norm, aim) == (other_norm, other_aim) and radius <= other_radius


def attackers_of(bench: Workbench) -> list[Attacker]:
    """The attacks of a run whose result says something of defences.

    Controls, harmless changes, attacks on image scaling and those that dodge a face encoder are
    not among them: neither accuracy nor false acceptance says whether they succeed.
    """
    return [
        _attacker(spec, attack)
        for spec, attack in zip(bench.spec.attacks, bench.attacks, strict=True)
        if attack.threat not in CALM
        and attack.budget != "scaling"
        and not (bench.has_encoder and spec.aim == "dodge")
    ]


def draws_of(spec: AttackSpec, attack: Any) -> int:
    """Draws of a purifier that a step of an attack averages over: the objective's and its own."""
    return spec.draws * int(getattr(attack, "draws_per_step", 1))


def threat_of(spec: AttackSpec, attack: Any) -> str:
    """What those who make an attack know and may do, in one word; see docs/specs.md."""
    own = str(attack.threat)
    if spec.through is None or own == "query":
        return own
    return threat_through(spec.backward, draws_of(spec, attack))


def _attacker(spec: AttackSpec, attack: Any) -> Attacker:
    radius = getattr(attack, "epsilon", None)
    known = isinstance(radius, (int, float)) and spec.strength is None
    return Attacker(
        label_of(spec),
        str(attack.threat),
        spec.through,
        spec.backward == "exact",
        draws_of(spec, attack),
        1 if spec.name == "FGSM" else getattr(attack, "steps", None),
        (str(attack.budget), float(radius), spec.target) if known and radius is not None else None,
        bool(spec.surrogates),
        spec.name,
    )
