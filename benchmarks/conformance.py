"""Our Auto-PGD and Square against other implementations: same model, images, starts and queries."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from defender import noise
from defender.attacks import APGD, Square
from defender.margins import Margin, margin
from defender.objectives import Misclassify
from storage.errors import DatasetNotFound
from storage.sources import Cifar10
from storage.sources.paths import resolve
from tasks.models import load_model
from tasks.subject_specs import ModelSpec

IMAGES, FEW, BATCH = 1000, 200, 125
EPSILON, STEPS = 1 / 255, 20
SQUARE_EPSILON, QUERIES = 8 / 255, 100


def run(_images: int) -> dict[str, Any]:
    """Percentages of all images: what is misclassified without an attack counts as not robust."""
    if find_spec("torchattacks") is None:
        return {"not measured": "torchattacks is not installed"}
    try:
        folder = resolve("cifar10", None, os.environ)
    except DatasetNotFound:
        return {"not measured": "no cifar10 in the folder of datasets"}
    with one_thread():
        return measured(folder)


def measured(folder: Path) -> dict[str, Any]:
    from benchmarks import references

    begun = time.process_time()
    subject = read(folder, IMAGES)
    few = subject.first(FEW)
    figures: dict[str, Any] = {"images": IMAGES, "of them classified right": len(subject.labels)}
    figures |= shown("APGD", apgd_pair(subject, EPSILON, STEPS, references.APGD), IMAGES)
    published = apgd_pair(few, EPSILON, STEPS, references.PublishedAPGD)
    figures |= shown(f"APGD, halving as published, first {FEW}", published, FEW)
    # another package is called art too
    if find_spec("art") is not None and find_spec("art.attacks") is not None:
        figures |= shown(f"APGD, ART, first {FEW}", art_pair(few, EPSILON, STEPS), FEW)
    squares = square_pair(subject, SQUARE_EPSILON, QUERIES)
    figures |= shown("Square", squares, IMAGES, unbroken=True)
    same = square_pair(few, SQUARE_EPSILON, QUERIES, same_squares=True)
    figures |= shown(f"Square, same squares, first {FEW}", same, FEW, unbroken=True)
    figures["CPU time (s)"] = round(time.process_time() - begun)
    return figures


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Subject:
    """A classifier, and images (n, 3, 32, 32) that it sees as their labels (n,) say.

    ``places`` (n,) are their numbers in the dataset, and the seeds of what is drawn for them.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    places: Tensor

    def first(self, count: int) -> Subject:
        """Those among the first images of the dataset."""
        kept = self.places < count
        return Subject(self.model, self.images[kept], self.labels[kept], self.places[kept])

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and places."""
        yield from zip(
            self.images.split(BATCH),
            self.labels.split(BATCH),
            self.places.split(BATCH),
            strict=True,
        )


@torch.no_grad()
def read(folder: Path, count: int) -> Subject:
    """The first test images of CIFAR-10, less those that the shipped classifier gets wrong."""
    source = Cifar10(folder)
    items = list(islice(source.items(), count))
    arrays = [
        one if isinstance(one, np.ndarray) else np.array(Image.open(io.BytesIO(one)))
        for one in source.read(items)
    ]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(255).contiguous()
    labels = torch.tensor([item.label for item in items])
    model = load_model(ModelSpec(name="cifar-resnet"), Path(), torch.device("cpu"))
    seen = torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)])
    places = (seen == labels).nonzero().flatten()
    return Subject(model, images[places], labels[places], places)


@dataclass(frozen=True)
class Pair:
    """Both attacks, image by image (n,).

    Args:
        ours: whether the image is still classified right after our attack.
        theirs: the same after theirs.
        theirs_best: the same of the point where their loss was largest.
        our_score: largest loss or margin that ours found.
        their_score: that of theirs.
    """

    ours: Tensor
    theirs: Tensor
    theirs_best: Tensor
    our_score: Tensor
    their_score: Tensor


def joined(pairs: list[Pair]) -> Pair:
    return Pair(*(torch.cat([getattr(p, f.name) for p in pairs]) for f in fields(Pair)))


def compared(
    objective: Callable[[Tensor], Tensor],
    goal: Misclassify,
    ours: Tensor,
    theirs: Tensor,
    best: Tensor,
) -> Pair:
    """Both results, and their best points by the score, as the classifier sees them."""
    with torch.no_grad():
        robust = [margin(goal, result) <= 0 for result in (ours, theirs, best)]
        return Pair(*robust, objective(ours), objective(best))


def shown(name: str, pair: Pair, images: int, *, unbroken: bool = False) -> dict[str, Any]:
    """The figures of a pair.

    Args:
        name: what is compared.
        pair: of the images attacked.
        images: how many they are with those that were misclassified at once.
        unbroken: scores are those of the images that both left unbroken, for an attack that
            stops at an image that it broke.
    """
    kept = (pair.ours & pair.theirs) | (not unbroken)
    our_score, their_score = pair.our_score[kept], pair.their_score[kept]
    both = (our_score - their_score).abs()
    return {
        f"{name}: robust accuracy, ours (%)": round(100 * int(pair.ours.sum()) / images, 2),
        f"{name}: robust accuracy, theirs (%)": round(100 * int(pair.theirs.sum()) / images, 2),
        f"{name}: robust accuracy, their largest score (%)": round(
            100 * int(pair.theirs_best.sum()) / images, 2
        ),
        f"{name}: same outcome, of the images attacked (%)": round(
            100 * float((pair.ours == pair.theirs).float().mean()), 2
        ),
        f"{name}: mean score, ours": round(float(our_score.mean()), 4),
        f"{name}: mean score, theirs": round(float(their_score.mean()), 4),
        f"{name}: median difference of scores": f"{float(both.median()):.1e}",
        f"{name}: largest difference of scores": f"{float(both.max()):.1e}",
    }


def start_at(images: Tensor, epsilon: float, numbers: Tensor) -> Tensor:
    """Where their Auto-PGD starts with these numbers in [0, 1)."""
    change = 2 * numbers - 1
    farthest = change.abs().amax(dim=(1, 2, 3), keepdim=True)
    return (images + epsilon * change / farthest).clamp(0, 1)


def our_apgd(
    goal: Misclassify, images: Tensor, epsilon: float, steps: int, start: Tensor
) -> Tensor:
    """Ours from a given start."""
    with patch("defender.attacks.apgd.random_start", lambda *_: start.clone()):
        seeds = torch.zeros(len(images), dtype=torch.int64)
        return APGD(epsilon, steps, loss="ce")(images, goal, seeds=seeds)


def apgd_pair(subject: Subject, epsilon: float, steps: int, reference: Callable[..., Any]) -> Pair:
    """Auto-PGD on the cross-entropy in the linf ball, one start, the same for both."""
    pairs = []
    for images, labels, places in subject.batches():
        goal = Misclassify(subject.model, labels)
        numbers = noise.uniform(places, tuple(images.shape[1:]))
        start = start_at(images, epsilon, numbers)
        ours = our_apgd(goal, images, epsilon, steps, start)
        attack = reference(subject.model, eps=epsilon, steps=steps, loss="ce")
        with patch("torch.rand", lambda *_, numbers=numbers: numbers):
            theirs = attack(images, labels)
        pairs.append(compared(goal, goal, ours, theirs, attack.found[0]))
    return joined(pairs)


def art_pair(subject: Subject, epsilon: float, steps: int) -> Pair:
    """The same against ART's; its score is that of what it returns."""
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        subject.model, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = AutoProjectedGradientDescent(
        estimator,
        eps=epsilon,
        eps_step=2 * epsilon,
        max_iter=steps,
        nb_random_init=1,
        batch_size=BATCH,
        loss_type="cross_entropy",
        verbose=False,
    )
    pairs = []
    for images, labels, places in subject.batches():
        goal = Misclassify(subject.model, labels)
        start = start_at(images, epsilon, noise.uniform(places, tuple(images.shape[1:])))
        ours = our_apgd(goal, images, epsilon, steps, start)
        change = (start - images).flatten(1).numpy()
        name = "art.attacks.evasion.auto_projected_gradient_descent.random_sphere"
        with patch(name, lambda *_, change=change: change):
            theirs = torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))
        pairs.append(compared(goal, goal, ours, theirs, theirs))
    return joined(pairs)


def square_pair(
    subject: Subject, epsilon: float, queries: int, *, same_squares: bool = False
) -> Pair:
    """Square on the margin, with as many proposals after the stripes for both.

    Theirs draws one square a step for a whole batch, ours one an image; with ``same_squares``
    both have one for all images, of our draws.
    """
    from benchmarks import references

    pairs = []
    # ours counts the clean image and the stripes too
    attack = Square(epsilon, queries + 2)
    for number, (images, labels, places) in enumerate(subject.batches()):
        goal = Misclassify(subject.model, labels)
        options = {"eps": epsilon, "n_queries": queries, "loss": "margin", "seed": number}
        if same_squares:
            seeds = torch.full_like(places, number)
            other = references.SameSquares(attack, number, subject.model, **options)
        else:
            seeds, other = places, references.Square(subject.model, **options)
        ours = attack(images, Margin(goal), seeds=seeds)
        theirs = other(images, labels)
        pairs.append(compared(Margin(goal), goal, ours, theirs, other.found))
    return joined(pairs)
