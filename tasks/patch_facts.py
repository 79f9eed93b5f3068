"""What the patches of a run are: size, place, target, whose colours, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defender.metrics.paired_rates import paired_difference
from tasks.columns import Columns
from tasks.counted import counted
from tasks.leaderboard import Estimate
from tasks.nodes import CALM, Node
from tasks.specs import AttackSpec, label_of
from tasks.strips import class_name
from tasks.survey import Survey


@dataclass(frozen=True)
class PatchAttack:
    """An attack that covers a square of every image.

    Args:
        label: of the attack.
        control: whether nobody fitted what it paints.
        size: side as a share of the image's shorter side.
        place: where it is pasted, as its parameter says.
        side: pixels of the painted square, None where images differ.
        target: name of the class that it is meant to reach, empty for any other.
        fitted: label of the attack whose fitted colours it takes, empty for none.
        drop: by how much accuracy falls, a share with its interval; None without labels.
    """

    label: str
    control: bool
    size: float
    place: str
    side: int | None
    target: str
    fitted: str
    drop: Estimate | None


def patch_attacks(state: Survey, columns: Columns) -> list[PatchAttack]:
    """The patches of a run and their controls, in the order of the plan."""
    found = []
    for node in state.plan:
        if node.kind != "attack":
            continue
        algorithm = state.bench.attacks[node.position]
        if algorithm.budget != "patch":
            continue
        target = state.bench.spec.attacks[node.position].target
        found.append(
            PatchAttack(
                label=node.attack,
                control=algorithm.threat == "control",
                size=float(algorithm.size),
                place=str(algorithm.place),
                side=_side(columns, node),
                target="" if target is None else class_name(state, target),
                fitted=state.plan.nodes[node.inputs["fit"]].attack if "fit" in node.inputs else "",
                drop=_drop(columns, node.attack),
            )
        )
    return found


def made_on(state: Survey) -> dict[str, list[str]]:
    """Labels of the models that each attack was made on; empty for one that asked none."""
    spec = state.bench.spec
    if spec.model is None:
        return {}
    own = [spec.model.label or spec.model.name]
    by_label = {label_of(one): one for one in spec.attacks}

    def models(label: str, one: AttackSpec, threat: str) -> list[str]:
        if one.fitted is not None:
            one = by_label[one.fitted]
        if threat in (*CALM, "precomputed"):
            return []
        return own if one.surrogates is None else list(one.surrogates)

    return {
        label: models(label, one, str(algorithm.threat))
        for (label, one), algorithm in zip(by_label.items(), state.bench.attacks, strict=True)
    }


def _side(columns: Columns, node: Node) -> int | None:
    """Pixels of the painted square, None where it is not the same on all images."""
    sides = np.unique(
        [columns.column(node.name, "height"), columns.column(node.name, "width")],
    )
    return int(sides[0]) if len(sides) == 1 else None


def _drop(columns: Columns, attack: str) -> Estimate | None:
    """Clean less attacked accuracy, over the same images."""
    bench, labels = columns.state.bench, columns.column("ingest", "label")
    among = counted(columns) & (labels >= 0)
    if not bench.has_model or not among.any():
        return None
    clean, attacked = (
        (columns.column(f"score/{name}/none", "prediction") == labels)[among]
        for name in ("none", attack)
    )
    return Estimate(*paired_difference(clean, attacked))
