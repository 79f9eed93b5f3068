"""Figures of other models, certified defences and heat maps; all with intervals."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defender.metrics import maps
from storage.images import read_images
from tasks.nodes import Node
from tasks.patch_stages import CLASSES
from tasks.summary import Row, Summary

SIMILARITY = "target_similarity"
"""Correlation of a heat map with the mean map of real images of the target class."""


def further_sections(summary: Summary) -> dict[str, Any]:
    """What a summary says beyond its rows: only what the run has.

    ``transfer``: rows of other models. ``certification``: rows of certified defences, with
    ``seconds`` an image. ``explanation``: rows of heat maps; ``wrong_predictions``: how often each
    class is given for images of another, by attack.
    """
    sections = {
        "transfer": _transfer(summary),
        "certification": _certification(summary),
        "explanation": _explanation(summary),
    }
    found: dict[str, Any] = {name: rows for name, rows in sections.items() if rows}
    if "explanation" in found:
        found["wrong_predictions"] = _wrong(summary)
    return found


def _nodes(summary: Summary, kind: str) -> list[Node]:
    return [node for node in summary.state.plan if node.kind == kind]


def _transfer(summary: Summary) -> list[Row]:
    rows: list[Row] = []
    counted = summary.split.counted & (summary.labels >= 0)
    for node in _nodes(summary, "answer"):
        prediction = summary.columns.column(node.name, "prediction")
        right = prediction == summary.labels
        found = [summary.rate(node, "accuracy", right[counted])]
        if node.attack != "none":
            clean = summary.columns.column(f"answer/none/{node.subject}", "prediction")
            target = summary.target_of(node)
            if target is None:
                open_to, hits = clean == summary.labels, ~right
            else:
                open_to, hits = summary.labels != target, prediction == target
            found.append(summary.rate(node, "attack_success", hits[open_to & counted]))
        rows += [{**row, "model": node.subject} for row in found]
    return rows


def _certification(summary: Summary) -> list[Row]:
    rows: list[Row] = []
    counted = summary.split.counted & (summary.labels >= 0)
    for node in _nodes(summary, "certify"):
        column = {
            name: summary.columns.column(node.name, name)
            for name in ("prediction", "certified", "evaluations")
        }
        right = column["prediction"] == summary.labels
        certified = column["certified"] == 1
        seconds = summary.state.seconds(node)
        found = [
            summary.rate(node, "accuracy", right[counted]),
            summary.rate(node, "certified_accuracy", (right & certified)[counted]),
            summary.mean(node, "evaluations", column["evaluations"][counted].astype(float)),
        ]
        rows += [{**row, "certifier": node.subject, "seconds": seconds} for row in found]
        by_class = _by_class(summary, (right & certified)[counted], summary.labels[counted])
        rows[-2]["by_class"] = by_class
    return rows


def _by_class(
    summary: Summary, hits: NDArray[np.bool_], labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """How many images of each class are proven: a model may give one answer to all that is hidden.

    Args:
        summary: knows the names of classes.
        hits: bool (n,).
        labels: (n,).
    """
    names = list(summary.bench.dataset.source.classes or [])
    return [
        {
            "class": names[label] if label < len(names) else str(label),
            "images": int((labels == label).sum()),
            "certified": int(hits[labels == label].sum()),
        }
        for label in np.unique(labels).tolist()
    ]


def _explanation(summary: Summary) -> list[Row]:
    rows: list[Row] = []
    counted = summary.split.counted
    means: dict[int, torch.Tensor | None] = {}
    for node in _nodes(summary, "explain"):
        table = summary.columns.table(node.name)
        for metric in table.schema.names:
            if metric.split("_")[0] in CLASSES:
                values = summary.columns.column(node.name, metric)[counted]
                rows.append(summary.mean(node, metric, values))
        target = summary.target_of(node)
        if target is not None:
            if target not in means:
                means[target] = _mean_map(summary, target)
            similar = _similarity(summary, node, means[target])
            if similar is not None:
                rows.append(summary.mean(node, SIMILARITY, similar[counted]))
    return rows


def _maps(summary: Summary, node: Node, index: int) -> list[NDArray[np.uint8]]:
    given = summary.state.done[(node.name, index)]
    return read_images(summary.bench.store.images(given.ref)) if given.images else []


def _mean_map(summary: Summary, target: int) -> torch.Tensor | None:
    """The mean heat map (h, w) of clean images of a class, None where they differ in size."""
    node = summary.state.plan.nodes["explain/none/none"]
    total, count, start = None, 0, 0
    for index in summary.state.indices(node):
        for place, pixels in enumerate(_maps(summary, node, index), start):
            if summary.labels[place] != target:
                continue
            heat = torch.from_numpy(pixels[1]).double()
            if total is not None and total.shape != heat.shape:
                return None
            total, count = heat if total is None else total + heat, count + 1
        start += summary.state.done[(node.name, index)].images
    return None if total is None else total / (255 * count)


def _similarity(
    summary: Summary, node: Node, mean: torch.Tensor | None
) -> NDArray[np.float64] | None:
    """Correlation of each image's map of the predicted class with a mean map."""
    if mean is None:
        return None
    values: list[float] = []
    for index in summary.state.indices(node):
        found = [pixels[0] for pixels in _maps(summary, node, index)]
        part = np.full(len(found), np.nan)
        same = [place for place, heat in enumerate(found) if heat.shape == mean.shape]
        if same:
            heat = torch.from_numpy(np.stack([found[place] for place in same])).double() / 255
            part[same] = maps.pearson(heat, mean[None]).numpy()
        values += part.tolist()
    return np.array(values)


def _wrong(summary: Summary) -> dict[str, list[dict[str, int]]]:
    wrong: dict[str, list[dict[str, int]]] = {}
    for node in _nodes(summary, "score"):
        if node.purifier != "none":
            continue
        prediction = summary.columns.column(node.name, "prediction")
        chosen = summary.split.counted & (summary.labels >= 0) & (prediction != summary.labels)
        counts = Counter(prediction[chosen].tolist())
        wrong[node.attack] = [
            {"class": int(label), "images": count} for label, count in counts.most_common()
        ]
    return wrong
