"""Nodes of a plan that ask more: other models, certified defences, heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.nodes import RULES, Node
from tasks.specs import label_of
from tasks.targets import is_apart
from tasks.workbench import Workbench


def further(
    bench: Workbench, nodes: Mapping[str, Node], common: Mapping[str, Any]
) -> Iterator[Node]:
    """The nodes, in an order in which they can be computed.

    Args:
        bench: the run.
        nodes: those that are there.
        common: what the fingerprint of every stage holds.
    """
    attacks = [node for node in nodes.values() if node.kind == "attack"]
    sources = [("ingest", "none"), *((node.name, node.attack) for node in attacks)]
    rule = {name: common[name] for name in ("batch", "device")}
    yield from _redraws(bench, nodes)
    yield from _victims(bench, nodes)
    yield from _answers(bench, sources, rule)
    yield from _certificates(bench, sources, nodes, rule)
    if bench.spec.explain is not None:
        yield from _maps(bench, sources, nodes, rule)


def _redraws(bench: Workbench, nodes: Mapping[str, Node]) -> Iterator[Node]:
    for node in nodes.values():
        if node.kind != "purify":
            continue
        draws = bench.spec.purifiers[node.position].draws
        if draws == 1 or bench.subject is None:
            continue
        inputs = {"images": node.inputs["images"], "clean": "ingest"}
        if bench.has_encoder and node.attack != "none":
            target = nodes[f"attack/{node.attack}"].inputs.get("target")
            inputs |= {} if target is None else {"target": target}
        yield Node(
            f"redraw/{node.attack}/{node.purifier}",
            "redraw",
            inputs,
            node.position,
            attack=node.attack,
            purifier=node.purifier,
            config=_redrawn(bench, node, 2),
        )


def _redrawn(bench: Workbench, node: Node, first: int) -> dict[str, Any]:
    """What the draws of a purifier from a first one on depend on, besides their images."""
    return {
        **node.config,
        "kind": "redraw",
        "rules": [RULES["redraw"], RULES["purify"], RULES["score"]],
        "draws": bench.spec.purifiers[node.position].draws,
        "subject": repr(bench.subject),
        **({"embeddings": 1, "first": first} if bench.has_encoder else {}),
    }


def _victims(bench: Workbench, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Pictures of those who are impersonated, behind every purifier.

    They are needed where they come from a data set of their own: thresholds are then those of
    their clean pairs.
    """
    if not bench.has_encoder:
        return
    for target in nodes.values():
        if target.kind != "target" or not is_apart(bench.targets[target.position], bench.dataset):
            continue
        for node in nodes.values():
            if node.kind == "purify" and node.attack == "none":
                yield Node(
                    f"{target.name.replace('target/', 'victims/', 1)}/{node.purifier}",
                    "redraw",
                    {"images": target.name, "clean": target.name},
                    node.position,
                    purifier=node.purifier,
                    config=_redrawn(bench, node, 1),
                )


def _answers(
    bench: Workbench, sources: list[tuple[str, str]], rule: dict[str, Any]
) -> Iterator[Node]:
    for label, model in bench.others.items():
        config = {"kind": "answer", "rules": RULES["answer"], "model": repr(model), **rule}
        for source, attack in sources:
            yield Node(
                f"answer/{attack}/{label}",
                "answer",
                {"images": source},
                attack=attack,
                subject=label,
                config=config,
            )


def _certificates(
    bench: Workbench,
    sources: list[tuple[str, str]],
    nodes: Mapping[str, Node],
    rule: dict[str, Any],
) -> Iterator[Node]:
    for position, spec in enumerate(bench.spec.certifiers):
        certifier, label = bench.certifiers[position], label_of(spec)
        config = {
            "kind": "certify",
            "rules": RULES["certify"],
            "algorithm": repr(certifier),
            "version": certifier.version,
            **rule,
        }
        for source, attack in sources:
            chosen = None
            if attack != "none":
                chosen = bench.spec.attacks[nodes[source].position].certifiers
            if chosen is None or label in chosen:
                yield Node(
                    f"certify/{attack}/{label}",
                    "certify",
                    {"images": source},
                    position,
                    attack=attack,
                    subject=label,
                    config=config,
                )


def _maps(
    bench: Workbench,
    sources: list[tuple[str, str]],
    nodes: Mapping[str, Node],
    rule: dict[str, Any],
) -> Iterator[Node]:
    wanted = bench.spec.explain
    config = {
        "kind": "explain",
        "rules": RULES["explain"],
        "model": repr(bench.model),
        **({} if wanted is None else wanted.model_dump()),
        **rule,
    }
    clean = "explain/none/none"
    purified = [
        (node.name, node.attack, node.purifier) for node in nodes.values() if node.kind == "purify"
    ]
    plain = [(source, attack, "none") for source, attack in sources]
    for source, attack, purifier in plain + purified:
        name = f"explain/{attack}/{purifier}"
        inputs = {"images": source}
        if name != clean:
            inputs["map"] = clean
        if attack != "none":
            algorithm = bench.attacks[nodes[f"attack/{attack}"].position]
            if algorithm.budget == "patch":
                inputs["boxes"] = f"attack/{attack}"
        yield Node(
            name,
            "explain",
            inputs,
            attack=attack,
            purifier=purifier,
            config=config,
        )
