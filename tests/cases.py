"""One table of algorithm instances that the contract tests run, on a tiny classifier.

Every name in a registry has at least one row here; a test asserts it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from defender.attacks import (
    AMIFGSM,
    APGD,
    DI2FGSM,
    FAB,
    FGSM,
    IFGSM,
    MADC,
    MIFGSM,
    NES,
    PGD,
    SGADV,
    SSAH,
    TIFGSM,
    UAP,
    AdaptiveScaling,
    AdvCF,
    AutoAttack,
    CarliniWagner,
    ControlPatch,
    Corruption,
    GridPatch,
    ImageScaling,
    Korhonen,
    RandomNoise,
    Square,
    Zhang,
)
from defender.detectors import (
    CamEnergy,
    CleanFilter,
    ColourScattering,
    DecamouflageFiltering,
    DecamouflageScaling,
    DecamouflageSteganalysis,
    GradientMask,
    HistogramCosine,
    LatticeResidual,
    MaskEntropy,
    PatchCleanFilter,
    PatchEnergy,
    PeakDistance,
    PeakSpectrum,
    TargetedPatchCleanFilter,
)
from defender.gradients import gradient
from defender.norms import from_uint8
from defender.objectives import Misclassify, RaiseScore, ScaleTo
from defender.purifiers import (
    DDRM,
    IWMF,
    JPEG,
    AreaScaling,
    Average,
    Bilateral,
    BitDepth,
    ColourQuantisation,
    DCTShrinkage,
    DifferentiableJPEG,
    DiffPure,
    Flip,
    Gaussian,
    GaussianNoise,
    IWMFDiff,
    Learned,
    MaskInpaint,
    Median,
    Minimum,
    NoiseGate,
    NonLocalMeans,
    OneStepDenoise,
    PeakRemoval,
    RandomCrop,
    Resize,
    Rotate,
    SelectiveInterpolation,
    SelectiveMedian,
    SelectiveRandom,
    SeparateCorrectCombine,
    Sequence,
    TotalVariation,
    Unsharp,
    Upscale,
    WaveletShrinkage,
)
from defender.scaling import Pipeline, Scaler
from defender.types import Objective
from defender.universal import Perturbation
from tests.case_networks import CLASSES as CLASSES
from tests.case_networks import SIDE as SIDE
from tests.case_networks import SmoothQuality as SmoothQuality
from tests.case_networks import classifier as classifier
from tests.case_networks import image_network as image_network
from tests.defender.priors import tiny_prior


def images(n: int = 8, channels: int = 3, seed: int = 3) -> Tensor:
    """Smooth random images on the 8-bit grid, some values at 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 3, 3, generator=generator) * 1.4 - 0.2
    smooth = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    return from_uint8((smooth * 255).round().clamp(0, 255).to(torch.uint8))


def seeds(n: int = 8) -> Tensor:
    """Seeds of n images."""
    return torch.arange(n, dtype=torch.int64) * 7919 - 11


def labels(n: int = 8) -> Tensor:
    """Labels of n images."""
    return torch.arange(n, dtype=torch.int64) % CLASSES


MODEL = classifier()
QUALITY = SmoothQuality()
SCALER = Scaler("opencv", "linear", source=(SIDE, SIDE), target=(5, 5))


def targets(n: int = 8, channels: int = 3) -> Tensor:
    """What scaling attacks hide in n images: smooth images of the scaler's target size."""
    return SCALER(images(n, channels, seed=17)).mul(255).round().div(255)


def objective(
    attack: Any, index: Tensor | None = None, *, n: int = 8, channels: int = 3
) -> Objective:
    """What an attack is for, on ``images(n, channels)``, or on those of an index."""
    index = torch.arange(n) if index is None else index
    if attack.budget == "scaling":
        return ScaleTo(SCALER, targets(n, channels)[index])
    model = MODEL if channels == 3 else classifier(channels)
    if getattr(attack, "needs", "score") == "score":
        return Misclassify(model, labels(n)[index])
    # images that are not misclassified yet, but for one
    seen = model(images(n, channels)).argmax(1)
    seen[0] = (seen[0] + 1) % CLASSES
    return Misclassify(model, seen[index])


def universal() -> Perturbation:
    """What raises the loss of colour and grey images and the score of the metric, on average."""
    goals = [
        (Misclassify(MODEL, labels()), images()),
        (Misclassify(classifier(1), labels()), images(channels=1)),
        (RaiseScore(QUALITY), images()),
    ]
    return Perturbation(sum(0.03 * gradient(goal, x).mean(dim=0).sign() for goal, x in goals))


def fitted(attack: GridPatch) -> GridPatch:
    """The patch whose colours do the same when they are pasted."""
    goals = (
        Misclassify(MODEL, labels()),
        Misclassify(classifier(1), labels()),
        RaiseScore(QUALITY),
    )
    given = (images(), images(channels=1), images())
    batches = [(x, torch.full((8,), k)) for k, x in enumerate(given)]
    recipe = dataclasses.replace(attack, epochs=12, optimizer="sign", step_size=0.05, start="grey")
    *_, state = recipe.fit(batches, lambda x, places: goals[int(places[0])], seeds=seeds())
    return dataclasses.replace(attack, perturbation=state.patch)


PATCH = fitted(GridPatch(3, 0.5))

ATTACK_CASES: list[Any] = [
    FGSM(8 / 255),
    IFGSM(steps=12),
    IFGSM(0.03, 0.01, 5),
    PGD(0.03, 0.01, 5),
    PGD(0.03, 0.01, 5, random_start=False),
    PGD(0.5, 0.2, 5, norm="l2", restarts=2),
    Square(8 / 255, 60),
    APGD(0.03, 8),
    APGD(0.5, 8, norm="l2", restarts=2, loss="ce"),
    APGD(0.03, 8, loss="dlr"),
    APGD(0.03, 8, loss="dlr-targeted", target_classes=2),
    FAB(0.02, steps=10),
    FAB(0.6, "l2", 10, restarts=2, target_classes=0),
    CarliniWagner(0.3, 20, 3, 0.05),
    CarliniWagner(0.5, 20, 3, 0.05, 0.1, 0.2, stored=False),
    DI2FGSM(),
    DI2FGSM(0.02, 12, 0.0, 1.0, 0.7),
    TIFGSM(),
    TIFGSM(0.02, 12, 0.0, 5),
    SGADV(steps=40),
    SGADV(0.02, 0.004, 20, random_start=False),
    AutoAttack(0.03, steps=6, target_classes=2, queries=40),
    AutoAttack(0.6, "l2", steps=6, target_classes=2),
    AutoAttack(0.03, variant="rand", steps=6, eot=2),
    MIFGSM(),
    MIFGSM(0.03, 5, 0.5),
    AMIFGSM(),
    AMIFGSM(0.03, quality_factor=0.1),
    Zhang(),
    Korhonen(),
    MADC(),
    MADC(0.02, rmse=0.02),
    SSAH(),
    SSAH(0.003, weight=1.0),
    AdvCF(0.001),
    AdvCF(0.005, pieces=8, weight=5.0),
    NES(8 / 255, 402, samples=10, sigma=0.01, step_size=0.005),
    NES(0.02, 402, samples=10, step_size=0.005, tile=5),
    UAP(1.0, universal()),
    PATCH,
    fitted(GridPatch(3, 0.5, place="centre")),
    fitted(GridPatch(3, 0.75, brightness=0.1, rotation=20.0, blur=0.3)),
    ControlPatch(grid=3, size=0.5),
    ControlPatch("mean", grid=2, size=0.5, place="centre", perturbation=PATCH.perturbation),
    ControlPatch("noise", grid=1, size=0.3),
    ImageScaling(),
    ImageScaling(0.0, method="dual", more_epsilons=(1 / 255, 3 / 255)),
    ImageScaling(method="two-stage"),
    ImageScaling(norm="l0"),
    ImageScaling(norm="l1"),
    ImageScaling(norm="linf"),
    AdaptiveScaling(),
    AdaptiveScaling(against="median", share=0.9, bandwidth=2),
    AdaptiveScaling(against="random"),
    AdaptiveScaling(against="jpeg", quality=90),
    AdaptiveScaling(against="spectrum", suppression=0.7, radius=1),
    AdaptiveScaling(against="peaks", divisor=75.0),
    RandomNoise(8 / 255),
    RandomNoise(0.5, "l2"),
    Corruption(),
    Corruption("blur", sigma=0.7),
    Corruption("noise", noise=0.05),
    Corruption("brightness", brightness=-0.1),
    Corruption("contrast", contrast=0.8),
]

PIPELINE = Pipeline("opencv", "linear", target=(5, 5))
SPARSE_PIPELINE = Pipeline("opencv", "nearest", target=(3, 4))

DETECTOR_CASES: list[Any] = [
    GradientMask(MODEL),
    GradientMask(MODEL, k=0.5, labelled_by="own"),
    GradientMask(MODEL, labelled_by="reference"),
    HistogramCosine(PIPELINE),
    ColourScattering(SPARSE_PIPELINE),
    DecamouflageScaling(PIPELINE),
    DecamouflageScaling(SPARSE_PIPELINE, "ssim"),
    DecamouflageFiltering(),
    DecamouflageFiltering("maximum", 5, "ssim"),
    DecamouflageSteganalysis(level=140, blur=3),
    PeakSpectrum(SPARSE_PIPELINE, radius=1),
    PeakDistance(PIPELINE),
    PeakDistance(SPARSE_PIPELINE),
    CleanFilter(PIPELINE),
    CleanFilter(SPARSE_PIPELINE, "random", "ssim"),
    PatchCleanFilter(PIPELINE),
    TargetedPatchCleanFilter(SPARSE_PIPELINE),
    LatticeResidual(PIPELINE),
    LatticeResidual(SPARSE_PIPELINE, sigma=1.0, sides="both"),
    PatchEnergy(),
    PatchEnergy(largest=1.0, threshold=-20.0),
    CamEnergy(MODEL, layer="0"),
    MaskEntropy(MODEL),
    MaskEntropy(MODEL, 0.3, 3, "changed"),
]

PURIFIER_CASES: list[Any] = [
    SeparateCorrectCombine(MODEL, steps=8),
    SeparateCorrectCombine(MODEL, variant="blind", correction="both", steps=8),
    SeparateCorrectCombine(MODEL, variant="reference", correction="logits", steps=8),
    SeparateCorrectCombine(MODEL, variant="reference", correction="pixels", steps=8),
    SeparateCorrectCombine(MODEL, variant="reference", correction="both", steps=8),
    SeparateCorrectCombine(MODEL, variant="code", steps=8),
    Median(),
    Median(window=5),
    Gaussian(0.8),
    BitDepth(4),
    JPEG(60),
    Median(padding="symmetric"),
    SelectiveMedian(PIPELINE),
    SelectiveMedian(SPARSE_PIPELINE, bandwidth=2),
    SelectiveRandom(PIPELINE),
    SelectiveRandom(SPARSE_PIPELINE),
    SelectiveInterpolation(PIPELINE),
    SelectiveInterpolation(SPARSE_PIPELINE, noise=0.0),
    AreaScaling(PIPELINE),
    Minimum(),
    PeakRemoval(),
    PeakRemoval("original"),
    Unsharp(),
    Unsharp("original"),
    Unsharp(amount=0.5, window=3, sigma=0.7),
    Gaussian(1.4, window=7),
    DifferentiableJPEG(),
    DifferentiableJPEG(70, "cubic", "4:4:4"),
    ColourQuantisation(),
    Bilateral(),
    NonLocalMeans(),
    NonLocalMeans(0.1, patch=1, window=5, sigma=0.02),
    TotalVariation(),
    WaveletShrinkage(),
    WaveletShrinkage(0.03, 5, "soft", 1),
    DCTShrinkage(),
    DCTShrinkage(0.1, 8),
    GaussianNoise(),
    Flip(),
    Flip("horizontal"),
    Flip("vertical"),
    Rotate(),
    Rotate(30.0, "reflected"),
    RandomCrop(8),
    Resize(),
    Upscale(),
    IWMF(),
    IWMF(0.25, 2, shared=True),
    DDRM(tiny_prior(SIDE)),
    DDRM(tiny_prior(16), 0.1, "symmetric"),
    DiffPure(tiny_prior(SIDE), 0.02, steps=3),
    DiffPure(tiny_prior(SIDE), 0.003, "sde"),
    DiffPure(tiny_prior(SIDE), 0.02, "ddim", 2),
    OneStepDenoise(tiny_prior(SIDE)),
    IWMFDiff(tiny_prior(SIDE), range="symmetric", size="image"),
    Learned(image_network()),
    MaskInpaint(detector=PatchEnergy(largest=1.0, threshold=-20.0)),
    MaskInpaint("mean", detector=PatchEnergy(largest=1.0, threshold=-20.0)),
    MaskInpaint("telea", detector=PatchEnergy(largest=1.0, threshold=-20.0)),
    MaskInpaint(detector=MaskEntropy(MODEL, 0.4, 3)),
    Learned(image_network(residual=True)),
    Sequence((Median(), Unsharp())),
    Average((Median(), GaussianNoise(0.02), Sequence((RandomCrop(9), Unsharp())))),
    NoiseGate((Median(), Sequence((GaussianNoise(0.02), Gaussian(1.0)))), 0.01, 0.2),
    Sequence((GaussianNoise(0.02), SelectiveRandom(PIPELINE), RandomCrop(9), GaussianNoise(0.02))),
]

COMPUTE_BATCH = 4


def in_splits(run: Callable[[Tensor], Tensor], n: int, sizes: list[int]) -> Tensor:
    """Run on images by index in splits of the given sizes, each padded to the compute batch.

    Args:
        run: maps indices (COMPUTE_BATCH,) to results (COMPUTE_BATCH, ...).
        n: number of images.
        sizes: sizes of the splits, none above COMPUTE_BATCH, n in all.

    Returns:
        The results of all n images, those of the padding dropped.
    """
    results, start = [], 0
    for size in sizes:
        index = torch.arange(start, start + COMPUTE_BATCH).clamp(max=n - 1)
        index[size:] = start
        results.append(run(index)[:size])
        start += size
    return torch.cat(results)
