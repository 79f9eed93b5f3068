"""The pipeline against a bare PyTorch loop that does the same work, image for image."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from torch import nn

from flows.evaluate import run as evaluate_run
from storage.errors import DatasetNotFound
from storage.sources.paths import resolve
from storage.sources.shapes import Shapes
from tasks.devices import cores
from tasks.models import load_model
from tasks.subject_specs import ModelSpec

EPSILON, STEP, STEPS, BATCH = 0.03, 0.003, 10, 64


def real_images() -> Path | None:
    """The folder of CIFAR-10's Parquet files, where this machine has them."""
    try:
        return resolve("cifar10", None, os.environ)
    except DatasetNotFound:
        return None


def specification(images: int, real: bool) -> dict[str, Any]:
    """One attack, and its score: the least that a run can be."""
    dataset: dict[str, Any] = {"kind": "builtin:shapes", "count": images}
    if real:
        dataset = {"kind": "cifar10", "path": "cifar10", "limit": images}
    return {
        "name": "pair",
        "dataset": {**dataset, "chunk_size": 256},
        "model": {"name": "cifar-resnet"},
        "attacks": [{"name": "IFGSM", "epsilon": EPSILON, "step_size": STEP, "steps": STEPS}],
        "metrics": ["accuracy", "attack_success"],
        "compute": {"batch": BATCH, "device": "cpu"},
        "examples": 0,
    }


def bare_loop(images: int, folder: Path | None) -> tuple[float, float]:
    """Read, decode, attack and classify with nothing around it; seconds and attacked accuracy."""
    torch.set_num_threads(cores())
    begun = time.perf_counter()
    model = load_model(ModelSpec(name="cifar-resnet"), Path(), torch.device("cpu"))
    if folder is None:
        source = Shapes(count=images)
        items = list(source.items())
        decoded = [np.asarray(image) for image in source.read(items)]
        labels = [item.label for item in items]
    else:
        table = pq.read_table(folder / "test-00000-of-00001.parquet").slice(0, images)
        decoded = [
            np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
            for row in table["img"].to_pylist()
        ]
        labels = table["label"].to_pylist()
    pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    truth = torch.tensor(labels)
    right = 0
    for start in range(0, len(pixels), BATCH):
        clean = pixels[start : start + BATCH].float().div_(255)
        y = truth[start : start + BATCH]
        low, high = (clean - EPSILON).clamp_min(0), (clean + EPSILON).clamp_max(1)
        x = clean
        for _ in range(STEPS):
            x = x.detach().requires_grad_(True)
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            x = (x.detach() + STEP * gradient.sign()).clamp(low, high)
        with torch.no_grad():
            model(clean)
            stored = (x.detach() * 255).round() / 255
            right += int((model(stored).argmax(1) == y).sum())
    spent = time.perf_counter() - begun
    torch.set_num_threads(1)
    return spent, right / len(pixels)


def run(images: int) -> dict[str, Any]:
    """Seconds of both, from the first chunk's start to the last mark, and their ratio."""
    data = real_images()
    with tempfile.TemporaryDirectory() as temporary:
        spec = Path(temporary) / "pair.yaml"
        spec.write_text(yaml.safe_dump(specification(images, data is not None)))
        loop_seconds, accuracy = bare_loop(images, data)
        store = Path(temporary) / "store"
        begun = time.time()
        evaluate_run(str(spec), str(store))
        whole = time.time() - begun
        marks = list(store.glob("data/*/marks/*.json"))
        starts = [m.stat().st_mtime - _seconds(m) for m in marks]
        ends = [m.stat().st_mtime for m in marks]
        spent = max(ends) - min(starts)
    return {
        "images": images,
        "dataset": "cifar10" if data else "builtin:shapes",
        "bare loop, all cores in one batch (s)": round(loop_seconds, 2),
        "pipeline, first chunk to last mark (s)": round(spent, 2),
        "pipeline / bare loop": round(spent / loop_seconds, 4),
        "start-up and report (s)": round(whole - spent, 2),
        "accuracy under attack, bare loop": round(accuracy, 4),
    }


def _seconds(mark: Path) -> float:
    return float(json.loads(mark.read_bytes())["receipt"]["seconds"])
