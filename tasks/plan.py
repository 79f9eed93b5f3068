"""The stages of a run as a graph: what is computed from what, under which fingerprint.

Nodes that would do the same work on the same input are one node, and the chunks of a stage are
named after its fingerprint and the content of their inputs, so runs that share a prefix share its
chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.datasets import Dataset
from tasks.errors import SpecError
from tasks.further import further
from tasks.nodes import CALM, RULES, Node
from tasks.quality_scores import likenesses
from tasks.run_checks import calibrates
from tasks.specs import label_of
from tasks.workbench import Workbench


def ingest_node(dataset: Dataset) -> Node:
    """The stage that decodes a dataset; every kind of run over it shares this one."""
    config = {"kind": "ingest", "rules": RULES["ingest"], **dataset.identity()}
    return Node("ingest", "ingest", config=config)


class Plan:
    """The nodes of a run in an order in which they can be computed.

    Args:
        bench: the run's models and algorithms.
    """

    def __init__(self, bench: Workbench) -> None:
        self.nodes: dict[str, Node] = {}
        common = {
            "seed": bench.spec.seed,
            "batch": [bench.rule.images, bench.rule.pixels],
            "device": bench.device.type,
        }
        self._add_ingest(bench)
        self._add_attacks(bench, common)
        self._add_purifiers(bench, common)
        self._add_detectors(bench, common)
        self._add_scores(bench, common)
        for node in further(bench, dict(self.nodes), common):
            self._add(node)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def _add(self, node: Node) -> None:
        if node.name in self.nodes:
            raise SpecError(f"label: expected labels that tell stages apart, got {node.name} twice")
        self.nodes[node.name] = node

    def _of(self, kind: str) -> list[Node]:
        return [node for node in self if node.kind == kind]

    def _add_ingest(self, bench: Workbench) -> None:
        self._add(ingest_node(bench.dataset))

    def _stage(self, kind: str, algorithm: Any, **more: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "rules": RULES[kind],
            "algorithm": repr(algorithm),
            "version": algorithm.version,
            **more,
        }

    def _add_attacks(self, bench: Workbench, common: dict[str, Any]) -> None:
        for position, spec in enumerate(bench.spec.attacks):
            through: dict[str, Any] = {"through": None}
            if spec.through is not None:
                purifier = bench.purifiers[bench.purifier_position(spec.through)]
                through = {"through": repr(purifier), "backward": spec.backward}
                if spec.randomness == "known":
                    through |= {"randomness": "known", "purify": RULES["purify"]}
            label = label_of(spec)
            inputs = {"images": "ingest"}
            if bench.targets[position] is not None:
                inputs["target"] = self._add_targets(bench, position, label, common)
            hides = bench.attacks[position].budget == "scaling"
            asks = not hides and bench.attacks[position].threat not in CALM
            config = self._stage(
                "attack",
                bench.attacks[position],
                model=self._asked(bench, position) if asks else None,
                target=spec.target,
                draws=spec.draws,
                **through,
                **common,
                **({"pipeline": repr(bench.pipeline)} if hides else {}),
                **({"metric": repr(bench.metric)} if bench.has_metric and asks else {}),
                **(self._encoder(bench, position) if bench.has_encoder and asks else {}),
            )
            if asks and calibrates(bench, position):
                inputs["threshold"] = self._add_threshold(bench, common)
            if bench.must_fit(position):
                inputs["fit"] = self._fit_of(bench, position, label, config)
            if spec.strength is not None:
                fitted = {k: v for k, v in inputs.items() if k == "fit"}
                inputs["strength"] = self._add_strength(bench, position, label, config, fitted)
            self._add(
                Node(
                    f"attack/{label}",
                    "attack",
                    inputs,
                    position,
                    attack=label,
                    config=config,
                )
            )

    def _add_targets(
        self, bench: Workbench, position: int, label: str, common: dict[str, Any]
    ) -> str:
        """The stage that chooses what an attack hides; attacks that hide the same share it."""
        pool = bench.targets[position]
        config = {
            "kind": "target",
            "rules": RULES["target"],
            "seed": bench.spec.seed,
            "pipeline": repr(bench.pipeline),
            "decode": bench.dataset.identity()["decode"],
            **({} if pool is None else pool.identity()),
            **({"encoder": repr(bench.encoder), **common} if bench.has_encoder else {}),
        }
        for node in self._of("target"):
            if node.config == config:
                return node.name
        name = f"target/{label}"
        self._add(Node(name, "target", {"images": "ingest"}, position, config=config))
        return name

    def _add_threshold(self, bench: Workbench, common: dict[str, Any]) -> str:
        """The stage that finds the threshold of the bare system, for all attacks that need it."""
        name = "calibrate/none"
        if name not in self.nodes:
            config = {
                "kind": "calibrate",
                "rules": [RULES["calibrate"], RULES["score"]],
                "encoder": repr(bench.encoder),
                "far": bench.spec.faces.far,
                "identity": bench.spec.faces.identity,
                "calibration": bench.spec.calibration,
                **common,
            }
            gathers = bench.dataset.chunk_count
            inputs = {"images": "ingest"}
            self._add(Node(name, "calibrate", inputs, config=config, gathers=gathers))
        return name

    def _asked(self, bench: Workbench, position: int) -> str | None:
        """The models that an attack asks, by name and weights."""
        surrogates = bench.spec.attacks[position].surrogates
        if surrogates is not None:
            return " + ".join(repr(bench.others[label]) for label in surrogates)
        return repr(bench.model) if bench.has_model else None

    def _encoder(self, bench: Workbench, position: int) -> dict[str, Any]:
        """What an attack on a face encoder asks, and what for."""
        asked: dict[str, Any] = {
            "encoder": repr(bench.encoder),
            "aim": bench.spec.attacks[position].aim,
        }
        if getattr(bench.attacks[position], "needs", "score") == "margin":
            asked["threshold"] = bench.spec.faces.threshold
        return asked

    def _fit_of(self, bench: Workbench, position: int, label: str, attack: dict[str, Any]) -> str:
        """The stage that fits an attack, its own or that of another attack."""
        other = bench.spec.attacks[position].fitted
        if other is not None:
            return self.nodes[f"attack/{other}"].inputs["fit"]
        return self._add_fit(bench, position, label, attack)

    def _add_fit(self, bench: Workbench, position: int, label: str, attack: dict[str, Any]) -> str:
        """The stage that fits an attack to many images at once."""
        wanted = bench.spec.attacks[position].fit_images
        images = bench.fit_sets[position]
        gathers = bench.dataset.chunk_count if wanted is None else bench.dataset.chunks_of(wanted)
        config = {**attack, "kind": "fit", "rules": RULES["fit"], "images": wanted}
        if images is not None:
            config["fit_dataset"], gathers = images.identity(), 1
        # how strong the attack will be, or where its patch will be put, does not matter here
        config.pop("algorithm")
        fitting = getattr(bench.attacks[position], "fitting", None)
        if fitting is not None:
            config["fitting"] = fitting
        self._add(
            Node(
                f"fit/{label}",
                "fit",
                {"images": "ingest"} if images is None else {},
                position,
                attack=label,
                config=config,
                gathers=gathers,
            )
        )
        return f"fit/{label}"

    def _add_strength(
        self,
        bench: Workbench,
        position: int,
        label: str,
        attack: dict[str, Any],
        fitted: dict[str, str],
    ) -> str:
        """The stage that finds how strong an attack must be."""
        wanted = bench.spec.attacks[position].strength
        if wanted is None:
            raise SpecError(f"attacks[{position}].strength: expected one, got nothing")
        config = {
            **attack,
            "kind": "strength",
            "rules": [RULES["strength"], RULES["attack"]],
            "linf": wanted.linf,
            "images": wanted.images,
        }
        self._add(
            Node(
                f"strength/{label}",
                "strength",
                {"images": "ingest", **fitted},
                position,
                attack=label,
                config=config,
                gathers=bench.dataset.chunks_of(wanted.images),
            )
        )
        return f"strength/{label}"

    def _sources(self) -> list[tuple[str, str]]:
        return [("ingest", "none"), *((node.name, node.attack) for node in self._of("attack"))]

    def _tried(self, bench: Workbench, attack: str, field: str, label: str) -> bool:
        """Whether a detector or purifier is tried on an attack; all are on clean images."""
        if attack == "none":
            return True
        position = self.nodes[f"attack/{attack}"].position
        chosen = getattr(bench.spec.attacks[position], field)
        return chosen is None or label in chosen

    def _add_purifiers(self, bench: Workbench, common: dict[str, Any]) -> None:
        for source, attack in self._sources():
            for position, spec in enumerate(bench.spec.purifiers):
                if not self._tried(bench, attack, "purifiers", label_of(spec)):
                    continue
                purifier = bench.purifiers[position]
                config = self._stage("purify", purifier, **common)
                inputs = {"images": source}
                if purifier.knowledge == "reference":
                    inputs["reference"] = "ingest"
                label = label_of(spec)
                self._add(
                    Node(
                        f"purify/{attack}/{label}",
                        "purify",
                        inputs,
                        position,
                        attack=attack,
                        purifier=label,
                        config=config,
                    )
                )

    def _add_detectors(self, bench: Workbench, common: dict[str, Any]) -> None:
        for source, attack in self._sources():
            for position, spec in enumerate(bench.spec.detectors):
                if not self._tried(bench, attack, "detectors", label_of(spec)):
                    continue
                config = self._stage("detect", bench.detectors[position], **common)
                label = label_of(spec)
                self._add(
                    Node(
                        f"detect/{attack}/{label}",
                        "detect",
                        {"images": source, "clean": "ingest"},
                        position,
                        attack=attack,
                        detector=label,
                        config=config,
                    )
                )

    def _add_scores(self, bench: Workbench, common: dict[str, Any]) -> None:
        config = {
            "kind": "score",
            "rules": RULES["score"],
            "model": repr(bench.model) if bench.has_model else None,
            "columns": sorted(bench.distortions),
            **({} if bench.pipeline is None else {"pipeline": repr(bench.pipeline)}),
            **({"metric": repr(bench.metric)} if bench.has_metric else {}),
            **({"encoder": repr(bench.encoder)} if bench.has_encoder else {}),
            **({likeness: 1 for likeness in likenesses(bench)} if bench.has_metric else {}),
            **{name: common[name] for name in ("batch", "device")},
        }
        purified = [(n.name, n.attack, n.purifier, n.inputs["images"]) for n in self._of("purify")]
        plain = [(source, attack, "none", source) for source, attack in self._sources()]
        for source, attack, purifier, before in plain + purified:
            inputs = {"images": source, "clean": "ingest", "before": before}
            if attack != "none" and "target" in self.nodes[f"attack/{attack}"].inputs:
                inputs["target"] = self.nodes[f"attack/{attack}"].inputs["target"]
            self._add(
                Node(
                    f"score/{attack}/{purifier}",
                    "score",
                    inputs,
                    attack=attack,
                    purifier=purifier,
                    config=config,
                )
            )
