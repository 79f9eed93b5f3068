"""A printable square of flat cells that is pasted on every image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from defender.gradients import ordinary, value_and_gradient
from defender.noise import derive_seeds, uniform
from defender.patch_penalties import non_printability, total_variation
from defender.patch_placing import (
    PLACES,
    cell_means,
    cell_side,
    corners,
    enlarged,
    in_channels,
    paste,
    square_boxes,
)
from defender.patch_training import (
    OPTIMIZERS,
    Ascent,
    PatchState,
    Watch,
    check_theta,
    selected,
)
from defender.patch_transforms import Transforms, laid
from defender.types import Budget, Images, Objective, Seeds, Threat, check_parameters, parameter
from defender.universal import Goals, Perturbation

Item = Tensor | tuple[Images, Tensor]
Epochs = Callable[[int], Iterable[Item]] | Iterable[Item]
"""The batches of an epoch, asked with it, or a collection that is gone through every epoch. A batch
is clean images (n, c, h, w), with their places int64 (n,) or in the order of the seeds."""

_FITTED = (
    *("grid", "target", "epochs", "step_size", "optimizer", "start", "starts"),
    *(
        "total_variation",
        "printable",
        "brightness",
        "contrast",
        "rotation",
        "scale",
        "perspective",
        "blur",
        "noise",
    ),
)
"""Parameters that theta depends on, besides the size that it is fitted at."""


@dataclass(frozen=True)
class GridPatch:
    """Pastes a square of ``grid`` x ``grid`` flat cells, whose colours theta were fitted before.

    A cell is ``floor(size * shorter side / grid)`` pixels wide, so that grid 10 at 15 % of 224
    pixels paints 30 x 30 of them. Theta (c, grid, grid) in [0, 1] is fitted by :meth:`fit`: for
    each batch the patch is pasted on every image at a place of its own, uniformly random within
    the image and new in every epoch, and theta steps along ``g``, the mean over images of the mean
    over the cell's pixels of ``d objective / d pixel``, one value a cell and channel:
    ``theta <- clip(theta + step, 0, 1)``. The objective of an image that is attacked is not asked.

    Args:
        grid: cells along a side.
        size: side of the patch, as a share of the image's shorter side.
        target: class that it is made for, for the record; the objective decides.
        epochs: passes over the images when it is fitted.
        step_size: of theta, in [0, 1] units (of ``gradient``: factor of g).
        optimizer: ``adam``, ``sign`` (steps of one length) or ``gradient``.
        start: theta before the first step: ``uniform`` numbers, ``zero`` or ``grey`` (1/2).
        starts: how many uniform starts are tried. What they become depends on luck: all of them
            are fitted side by side, and after every :data:`~defender.patch_training.STEPS_OF_ROUND`
            steps, at the end of an epoch, the half with the higher loss is given up.
        place: where it is pasted on images that are attacked, see
            :func:`defender.patch_placing.corners`; it is always fitted at random places.
        total_variation: weight of :func:`~defender.patch_penalties.total_variation`, whose
            gradient is taken from g.
        printable: weight of :func:`~defender.patch_penalties.non_printability`.
        brightness: range of a change of tone, see
            :class:`~defender.patch_transforms.Transforms`; all ranges hold when theta is fitted
            and when images are attacked, and 0 switches the change off.
        contrast: range of a change of contrast.
        rotation: largest turn in degrees.
        scale: largest relative change of the side.
        perspective: largest move of a corner, in halves of the side.
        blur: largest standard deviation of a blur in pixels.
        noise: standard deviation of noise.
        fit_size: size at which theta is fitted; None: ``size``.
        perturbation: theta; None where it is yet to be fitted.
        model: classifier whose heat map says where the object is, for ``place="off-object"``.

    Raises:
        ValueError: a theta of another grid; when called, no theta, or images on which a cell is
            smaller than a pixel.

    Source: T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer, "Adversarial Patch", 2017,
    arXiv 1712.09665; DomenicoArmillotta, Adversarial_patch (repository), for the cells.
    Differs: the repository's update averages over channels and takes Adam's step besides; here
    the gradient of a cell is averaged over its pixels and there is one step. Penalties weigh
    against this mean, so that weights mean the same for every size.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "T. B. Brown, D. Mané, A. Roy, M. Abadi, J. Gilmer, Adversarial Patch, 2017, "
        "arXiv 1712.09665; DomenicoArmillotta, Adversarial_patch, GitHub repository"
    )
    budget: ClassVar[Budget] = "patch"
    threat: ClassVar[Threat] = "oblivious"

    grid: int = parameter(10, doc="cells along a side", low=1)
    size: float = parameter(
        0.15, doc="side as a share of the image's shorter side", low=0, high=1, open_low=True
    )
    target: int | None = parameter(None, doc="class it is made for, for the record", low=0)
    epochs: int = parameter(20, doc="passes over the images when it is fitted", low=1)
    step_size: float = parameter(
        0.1, doc="of theta when it is fitted", low=0, open_low=True, unit="[0, 1] intensity"
    )
    optimizer: str = parameter("adam", doc="how theta steps", choices=OPTIMIZERS)
    start: str = parameter(
        "uniform", doc="theta before it is fitted", choices=("uniform", "zero", "grey")
    )
    starts: int = parameter(4, doc="uniform starts that are tried, the best is kept", low=1)
    place: str = parameter("random", doc="where it is pasted", choices=PLACES)
    total_variation: float = parameter(0.0, doc="weight of edges between cells", low=0)
    printable: float = parameter(0.0, doc="weight of colours that cannot be printed", low=0)
    brightness: float = parameter(
        0.0, doc="largest change of brightness", low=0, high=1, unit="[0, 1] intensity"
    )
    contrast: float = parameter(0.0, doc="largest relative change of contrast", low=0, high=1)
    rotation: float = parameter(0.0, doc="largest turn", low=0, high=180, unit="degrees")
    scale: float = parameter(0.0, doc="largest relative change of the side", low=0, high=0.9)
    perspective: float = parameter(
        0.0, doc="largest move of a corner, in halves of the side", low=0, high=0.4
    )
    blur: float = parameter(0.0, doc="largest standard deviation of a blur", low=0, unit="pixels")
    noise: float = parameter(
        0.0, doc="standard deviation of noise", low=0, high=1, unit="[0, 1] intensity"
    )
    fit_size: float | None = parameter(
        None, doc="size at which it is fitted; none: size", low=0, high=1, open_low=True
    )
    perturbation: Perturbation | None = None
    model: Any = None

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.perturbation is not None:
            check_theta(self.perturbation.values, "perturbation", self.grid)

    @property
    def must_fit(self) -> bool:
        """Whether it cannot attack before it is fitted."""
        return self.perturbation is None

    @property
    def fitting(self) -> str:
        """Everything about the attack that theta depends on."""
        stated = ", ".join(f"{name}={getattr(self, name)!r}" for name in _FITTED)
        return f"GridPatch(version={self.version}, size={self._size_of_fit!r}, {stated})"

    @property
    def _size_of_fit(self) -> float:
        return self.size if self.fit_size is None else self.fit_size

    @property
    def transforms(self) -> Transforms:
        """The ranges of brightness, contrast, rotation, scale, perspective, blur and noise."""
        names = Transforms.__dataclass_fields__
        return Transforms(**{name: getattr(self, name) for name in names})

    def __call__(self, images: Images, objective: Objective, *, seeds: Seeds) -> Images:
        """Attack images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            objective: not asked.
            seeds: int64 (n,); random places and transforms follow from them.

        Returns:
            (n, c, h, w) in [0, 1].
        """
        return self.apply(images, seeds=seeds)[0]

    @torch.no_grad()
    def apply(
        self, images: Images, theta: Tensor | None = None, *, seeds: Seeds
    ) -> tuple[Images, Tensor]:
        """Paste the patch on images.

        Without transforms every cell of it is flat, and equal to theta to the bit.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged. Grey ones take the mean over channels.
            theta: (c, grid, grid) in [0, 1]; None: the one that was fitted.
            seeds: int64 (n,); random places and transforms follow from them.

        Returns:
            Images (n, c, h, w), and where the patch is: int64 (n, 4) boxes top, left, height,
            width in pixels, with transforms those of what it covers by more than half.
        """
        if theta is None:
            if self.perturbation is None:
                raise ValueError(f"perturbation: expected a fitted one, got {self!r}")
            theta = self.perturbation.values
        check_theta(theta, "theta", self.grid)
        cells = in_channels(theta.to(images), images.shape[1])
        side = self.grid * cell_side(self.size, self.grid, _shape(images))
        patches = enlarged(cells[None], side // self.grid).expand(len(images), -1, -1, -1)
        top, left = corners(images, side, self.place, seeds, self.model)
        attacked, boxes = self._pasted(images, patches, top, left, seeds)
        return torch.empty_like(images).copy_(attacked), boxes

    def _pasted(
        self, images: Images, patches: Tensor, top: Tensor, left: Tensor, seeds: Seeds
    ) -> tuple[Images, Tensor]:
        patches = self.transforms.toned(patches, seeds)
        if self.transforms.moves:
            return laid(images, patches, top, left, self.transforms.outlines(seeds))
        boxes = square_boxes(top, left, patches.shape[2]).to(images.device)
        return paste(images, patches, top, left), boxes

    def fit(
        self,
        batches: Epochs,
        objective_factory: Goals,
        *,
        seeds: Seeds,
        state: PatchState | None = None,
    ) -> Iterator[PatchState]:
        """Fit theta and yield a state after each epoch; the last one holds what was found.

        Args:
            batches: the images of an epoch, the same every time they are asked for; see
                :data:`Epochs`. Images may differ in size between batches.
            objective_factory: makes from a batch and the places of its images what an attack on
                them should raise; minus the cross-entropy of a class is descended on.
            seeds: int64, one for each place; places and transforms follow from seed and epoch.
            state: a state yielded before; the fitting goes on after it, to the same bits.

        Raises:
            TypeError: an objective without a gradient.
            ValueError: an epoch without images, places without a seed, a state of another grid,
                or images on which a cell is smaller than a pixel.
        """
        states = [] if state is None else [state, *(PatchState(**one) for one in state.rivals)]
        for one in states:
            check_theta(one.theta, "state", self.grid)
        while not states or states[0].epoch < self.epochs:
            epoch = states[0].epoch if states else 0
            ascents = list[Ascent]()
            for images, places, seen in _items(batches, epoch):
                states = states or self._beginnings(images.shape[1], seeds)
                ascents = ascents or [
                    Ascent(self.optimizer, self.step_size, begun) for begun in states
                ]
                keys = derive_seeds(_keys(seeds, places, seen, len(images)), f"epoch {epoch}")
                objective = objective_factory(images, places)
                for ascent in ascents:
                    self._step(ascent, images, objective, keys)
            if not ascents:
                raise ValueError(f"batches: expected images in epoch {epoch}, got none")
            state = selected(ascents, self.starts)
            states = [state, *(PatchState(**one) for one in state.rivals)]
            yield state

    def _beginnings(self, channels: int, seeds: Seeds) -> list[PatchState]:
        shape = (channels, self.grid, self.grid)
        if self.start != "uniform":
            theta = torch.full(shape, 0.5 if self.start == "grey" else 0.0)
            return [PatchState.beginning(theta)]
        key = seeds[:1].cpu()
        return [
            PatchState.beginning(uniform(derive_seeds(key, f"patch start {k}"), shape)[0])
            for k in range(self.starts)
        ]

    def _step(self, ascent: Ascent, images: Images, objective: Objective, keys: Seeds) -> None:
        """Change theta for a batch."""
        span = float(getattr(objective, "span", 1.0))
        watch = Watch(objective)
        side = self.grid * cell_side(self._size_of_fit, self.grid, _shape(images))
        with torch.inference_mode(False), torch.enable_grad():
            theta = ordinary(ascent.theta).detach().requires_grad_(True)
            cells = in_channels(theta.to(images), images.shape[1])
            flat = enlarged(cells.detach()[None], side // self.grid)
            patches = flat.repeat(len(images), 1, 1, 1).requires_grad_(True)
            top, left = corners(images, side, "random", keys)
            attacked, _ = self._pasted(images, patches, top, left, keys)
            scores, gradient = value_and_gradient(watch.objective, attacked.detach(), check=False)
            (slopes,) = torch.autograd.grad(attacked, patches, gradient.nan_to_num(0.0, 0.0, 0.0))
            upward = cell_means(slopes, self.grid).mean(dim=0) / span
            (slope,) = torch.autograd.grad(cells, theta, upward)
            if self.total_variation:
                slope = slope - self.total_variation * _gradient(total_variation, theta)
            if self.printable:
                slope = slope - self.printable * _gradient(non_printability, theta)
        ascent.step(slope)
        ascent.note(scores, watch.successes(scores))


def _shape(images: Images) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _gradient(penalty: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return torch.autograd.grad(penalty(theta), theta)[0]


def _items(batches: Epochs, epoch: int) -> Iterator[tuple[Images, Tensor, int]]:
    """The batches of an epoch, the places of their images, and how many came before."""
    start = 0
    for item in batches(epoch) if callable(batches) else batches:
        if isinstance(item, Tensor):
            images, places = item, torch.arange(start, start + len(item), device=item.device)
        else:
            images, places = item
        if len(images):
            yield images, places, start
        start += len(images)


def _keys(seeds: Seeds, places: Tensor, seen: int, count: int) -> Seeds:
    """The seeds of images by their places."""
    where = places.to(seeds.device)
    if len(where) != count or bool(((where < 0) | (where >= len(seeds))).any()):
        raise ValueError(
            f"seeds: expected one for each of {count} images after {seen}, got {len(seeds)} for "
            f"places {places.tolist()[:5]}..."
        )
    return seeds[where]
