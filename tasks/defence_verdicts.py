"""Which defences of a run are broken, by which attack: facts from the rows of its summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from defender.metrics.rates import wilson
from tasks.attackers import Attacker, attackers_of
from tasks.workbench import Workbench

Row = dict[str, Any]

KEPT = 0.5
"""A defence is broken that keeps no more than this share of what the bare model gets right."""
FAR_FACTOR = 10.0
"""A defence is broken that lets so many times more pass than it was calibrated for, ..."""
FAR_MOST = 0.5
"""... or this share, where that is less."""
FEW = 0.01
"""An attack that may do anything should not fail on more images than this."""
KNOWING = ("bpda", "eot", "full-gradient", "query")
"""What an attack that is made through a defence can be; one may be two of them."""
JUDGED = ("accuracy", "label_recovery")
"""What a defence of a classifier is judged by: the first that the run measured."""


@dataclass(frozen=True)
class Figure:
    """A share of images under an attack, with its interval.

    Args:
        attack: its label.
        kind: threats that it is to the defence.
        knows: it was made on the model behind the defence.
        value: the share; ``ci_low`` and ``ci_high`` are the ends of its 95 % interval.
        n: number of images.
    """

    attack: str
    kind: str
    knows: bool
    value: float
    ci_low: float
    ci_high: float
    n: int


@dataclass
class Defence:
    """What became of one defence, the bare model among them.

    Args:
        purifier: its label, ``none`` for the bare model.
        metric: what is judged: accuracy, label_recovery or far.
        status: bare; broken; useless: clean images suffer as much; broken-by-tries: only by whoever
            may try as often as there are draws; undecided: the interval holds the limit; untested:
            by no attack that knows it; no-better: not broken, nor better than no defence; holds.
        limit: value of the metric at or beyond which a defence counts as broken.
        unattacked: value of the metric that it has, or was calibrated for, without an attack.
        clean: accuracy on clean images, or the FRR of a face encoder.
        strongest: worst figure for the defender, by what the attack is to this defence: ``unaware``
            of those that do not know it, and each of :data:`KNOWING`; ``query`` of those that do
            not, where none that knows it was made.
        broken_by: attacks that break it, the strongest first.
        draws: of a random defence.
        worst: the worst figure over attacks in the worst of those draws.
        majority: the same where the defence takes what most draws say.
        no_better: the interval does not tell it from the bare model under its strongest attack.
        costly: clean images alone take what an attack must take to break it.
        tested: an attack that knows it was made.
        masked: signs that gradients are masked: which attack leaves less than which.
    """

    purifier: str
    metric: str
    status: str = "bare"
    limit: float = 0.0
    unattacked: float = 0.0
    clean: Figure | None = None
    strongest: dict[str, Figure] = field(default_factory=dict)
    broken_by: list[Figure] = field(default_factory=list)
    draws: int = 1
    worst: Figure | None = None
    majority: Figure | None = None
    no_better: bool = False
    costly: bool = False
    tested: bool = False
    masked: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What the summary holds."""
        return asdict(self)


def defences_of(
    bench: Workbench, rows: Sequence[Row], systems: Sequence[dict[str, Any]]
) -> list[Defence]:
    """What became of each defence of a run on a classifier or face encoder, the bare model first.

    Args:
        bench: the run.
        rows: of its summary.
        systems: the section ``verification`` of a face encoder's.

    Returns:
        Nothing where no purifier stood against an attack.
    """
    if not (bench.has_model or bench.has_encoder):
        return []
    if not bench.has_encoder:
        return judge(rows, attackers_of(bench))
    stated = bench.spec.faces.far
    calibrated = {
        one["purifier"]: max(one["far"] if one["fixed"] else stated, 1 / one["impostor_pairs"])
        for one in systems
    }
    return judge(rows, attackers_of(bench), calibrated)


def judge(
    rows: Sequence[Row], attackers: Sequence[Attacker], calibrated: dict[str, float] | None = None
) -> list[Defence]:
    """What became of each defence.

    Args:
        rows: of a summary.
        attackers: the attacks that count.
        calibrated: FAR that each defence was calibrated for, of a face encoder.

    Returns:
        The bare model and each purifier that needs no clean original; nothing where there is no
        figure of the bare model on clean images, or of a purifier under an attack.
    """
    plain = [row for row in rows if row["policy"] == "none" and row["knowledge"] != "reference"]
    metrics = {row["metric"] for row in plain}
    wanted = ("far",) if calibrated is not None else JUDGED
    metric = next((name for name in wanted if name in metrics), None)
    if metric is None:
        return []
    table = _Table(plain, metric, attackers)
    made: list[Defence] = []
    for purifier in sorted(dict.fromkeys(row["purifier"] for row in plain), key="none".__ne__):
        harmed = "frr" if metric == "far" else metric
        clean = table.figure(None, purifier, f"{harmed}_mean", harmed)
        if clean is None or (metric == "far" and purifier not in (calibrated or {})):
            continue
        bare = made[0] if made else None
        if bare is None and purifier != "none":
            return []
        made.append(_judged(table, purifier, clean, bare, (calibrated or {}).get(purifier)))
    return made if any(one.strongest for one in made[1:]) else []


class _Table:
    """Looks up rows, and says which figure is the worse for the defender."""

    def __init__(self, rows: Iterable[Row], metric: str, attackers: Sequence[Attacker]) -> None:
        self.metric = metric
        self.attackers = attackers
        self.sign = -1.0 if metric == "far" else 1.0
        self.rows = {(row["attack"], row["purifier"], row["metric"]): row for row in rows}

    def figure(self, attacker: Attacker | None, purifier: str, *metrics: str) -> Figure | None:
        """The first of several metrics that there is."""
        attack = "none" if attacker is None else attacker.label
        for metric in metrics:
            row = self.rows.get((attack, purifier, metric))
            if row is not None and row["value"] is not None:
                low, high = _interval(row)
                kinds = () if attacker is None else attacker.kinds(purifier)
                knows = attacker is not None and attacker.knows(purifier)
                kind = ", ".join(kinds)
                return Figure(attack, kind, knows, row["value"], low, high, row["n"])
        return None

    def judged(self, attacker: Attacker, purifier: str) -> Figure | None:
        """The figure of an attack: of a random defence, the mean over its draws."""
        return self.figure(attacker, purifier, f"{self.metric}_mean", self.metric)

    def hardest(self, figures: Iterable[Figure | None]) -> Figure | None:
        """The worst for the defender, of several as bad the first."""
        there = [figure for figure in figures if figure is not None]
        return min(there, key=lambda one: self.sign * one.value, default=None)

    def beyond(self, figure: Figure | None, limit: float) -> bool:
        """Whether the whole interval of a figure is at or beyond a limit, on the bad side."""
        if figure is None:
            return False
        return figure.ci_high <= limit if self.sign > 0 else figure.ci_low >= limit

    def touches(self, figure: Figure, limit: float) -> bool:
        """Whether any of the interval of a figure is at or beyond a limit."""
        return figure.ci_low <= limit if self.sign > 0 else figure.ci_high >= limit

    def survives(self, figure: Figure) -> bool:
        """Whether an attack clearly fails on more than one image in a hundred."""
        return figure.ci_low > FEW if self.sign > 0 else figure.ci_high < 1 - FEW

    def beats(self, one: Figure, other: Figure) -> bool:
        """Whether an attack does better than another, the intervals apart."""
        return one.ci_high < other.ci_low if self.sign > 0 else one.ci_low > other.ci_high


def _interval(row: Row) -> tuple[float, float]:
    """The interval of a row; Wilson's where resampling found no spread at all."""
    low, high = row["ci_low"], row["ci_high"]
    if low is None or high is None or low == high:
        low, high = wilson(round(row["value"] * row["n"]), row["n"])
    return (0.0, 1.0) if math.isnan(low) else (low, high)


def _judged(
    table: _Table, purifier: str, clean: Figure, bare: Defence | None, calibrated: float | None
) -> Defence:
    found = Defence(purifier, table.metric, clean=clean)
    if calibrated is None:
        first = clean if bare is None else bare.clean
        found.limit, found.unattacked = KEPT * (first.value if first else 0.0), clean.value
        found.costly = bare is not None and table.beyond(clean, found.limit)
    else:
        found.limit, found.unattacked = min(FAR_MOST, FAR_FACTOR * calibrated), calibrated
        if bare is not None and bare.clean is not None:
            found.costly = 1 - clean.ci_low <= KEPT * (1 - bare.clean.value)
    tried = [(one, table.judged(one, purifier)) for one in table.attackers]
    against = [(one, figure) for one, figure in tried if figure is not None]
    _sort(table, found, against)
    found.masked = _masked(table, purifier, against)
    if bare is not None:
        found.status = _status(table, found, bare)
    return found


def _sort(table: _Table, found: Defence, against: Sequence[tuple[Attacker, Figure]]) -> None:
    """Put the figures of all attacks where they belong."""
    columns: dict[str, list[Figure]] = {name: [] for name in ("unaware", *KNOWING)}
    bare = found.purifier == "none"
    asked = any(figure.knows and figure.kind == "query" for _, figure in against)
    for one, figure in against:
        kinds = one.kinds(found.purifier)
        if bare or not figure.knows:
            columns["unaware"].append(figure)
            kinds = ("query",) if kinds == ("query",) and (bare or not asked) else ()
        for kind in kinds:
            columns[kind].append(figure)
    for name, figures in columns.items():
        hardest = table.hardest(figures)
        if hardest is not None:
            found.strongest[name] = hardest
    found.tested = any(figure.knows for _, figure in against)
    broken = [figure for _, figure in against if table.beyond(figure, found.limit)]
    found.broken_by = sorted(broken, key=lambda one: table.sign * one.value)
    attackers = [one for one, _ in against]
    for name in ("worst", "majority"):
        metric = f"{table.metric}_{name}"
        hardest = table.hardest(table.figure(one, found.purifier, metric) for one in attackers)
        setattr(found, name, hardest)
        if hardest is not None:
            found.draws = table.rows[hardest.attack, found.purifier, metric]["draws"]


def _status(table: _Table, found: Defence, bare: Defence) -> str:
    own, without = (table.hardest(one.strongest.values()) for one in (found, bare))
    if own is None:
        return "untested"
    found.no_better = without is not None and not table.beats(without, own)
    if found.costly and (table.metric != "far" or not found.broken_by):
        return "useless"
    if found.broken_by:
        return "broken"
    if table.beyond(found.worst, found.limit):
        return "broken-by-tries"
    if table.touches(own, found.limit):
        return "undecided"
    if not found.tested:
        return "untested"
    return "no-better" if found.no_better else "holds"


def _masked(
    table: _Table, purifier: str, against: Sequence[tuple[Attacker, Figure]]
) -> list[dict[str, Any]]:
    """Signs that the gradients of a defence lead nowhere.

    A query attack or one that does not know the defence beats every gradient attack that knows it
    and may change an image as much; one step beats many; the same attack does better where it may
    change an image less; one that may change an image into any other fails on some.

    Source: A. Athalye, N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of
    Security", 2018, arXiv 1802.00420, section 3.1.
    """
    gradients = [(a, f) for a, f in against if f.knows and a.threat != "query"]
    signs: list[dict[str, Any]] = []
    for sign in ("query", "unaware", "one-step"):
        hits = []
        for one, figure in against:
            if sign == "one-step":
                suits = one.steps == 1 and figure.knows and one.threat != "query"
                rivals = [(a, f) for a, f in gradients if (a.steps or 0) > 1 and _alike(one, a)]
            else:
                query = one.threat == "query"
                suits = query if sign == "query" else not (query or figure.knows)
                rivals = gradients
            rivals = [(a, f) for a, f in rivals if one.comparable(a)]
            if suits and rivals and all(table.beats(figure, f) for _, f in rivals):
                hits.append((figure, table.hardest(f for _, f in rivals)))
        strongest = table.hardest(figure for figure, _ in hits)
        for figure, rival in hits:
            if figure is strongest and rival is not None:
                signs.append({"sign": sign, "by": asdict(figure), "than": asdict(rival)})
    return [*signs, *_senseless(table, gradients)]


def _senseless(
    table: _Table, gradients: Sequence[tuple[Attacker, Figure]]
) -> Iterator[dict[str, Any]]:
    """Gradient attacks that should do better than they do, whatever the defence."""
    for one, figure in gradients:
        less = [f for a, f in gradients if one.enlarges(a) and table.beats(f, figure)]
        if less:
            by = table.hardest(less)
            yield {"sign": "larger", "by": asdict(by or figure), "than": asdict(figure)}
        if one.unbounded and table.survives(figure):
            yield {"sign": "unbounded", "by": asdict(figure), "than": asdict(figure)}


def _alike(one: Attacker, other: Attacker) -> bool:
    """Whether two attacks have the same gradient."""
    return (one.exact, one.draws) == (other.exact, other.draws)
