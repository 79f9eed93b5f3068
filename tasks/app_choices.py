"""What the app offers: families, models, and algorithms with a control for each parameter."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from defender.detectors import DETECTORS
from defender.spelling import parse_number
from defender.types import parameter, range_text
from storage import imagenet
from storage.sources import SOURCES
from tasks.building import parameter_fields
from tasks.defences import PURIFIER_KINDS
from tasks.encoders import ENCODERS
from tasks.models import MODELS
from tasks.precomputed import ATTACK_KINDS
from tasks.quality_models import QUALITY_MODELS

REGISTRIES: dict[str, dict[str, type[Any]]] = {
    "attacks": ATTACK_KINDS,
    "detectors": DETECTORS,
    "purifiers": PURIFIER_KINDS,
}
"""Every algorithm by kind and name."""
NONE = "none"
FIRST = {
    "epsilon": 8 / 255,
    "step_size": 2 / 255,
    "steps": 10,
    "prior": "prior-cifar10",
    "network": "denoiser-linearity",
}
"""First values of parameters that have no default."""
QUICK = {
    ("IFGSM", "epsilon"): 8 / 255,
    ("IFGSM", "step_size"): 2 / 255,
    ("IFGSM", "steps"): 10,
    ("SeparateCorrectCombine", "steps"): 20,
    ("GridPatch", "grid"): 4,
    ("GridPatch", "size"): 0.35,
    ("GridPatch", "place"): "centre",
    ("MaskEntropy", "patch"): 0.4,
    ("Square", "queries"): 1000,
    ("NES", "queries"): 1000,
    ("AutoAttack", "steps"): 20,
    ("AutoAttack", "queries"): 500,
    ("SGADV", "steps"): 50,
}
"""First values that suit one small picture better than the defaults of whole runs."""
UNITS = {("ImageScaling", "more_epsilons"): "[0, 1] intensity"}
"""Units of parameters that are lists, which declare none."""
ELSEWHERE = {"Precomputed", "ControlPatch", "Defense", "Sequence", "Average", "NoiseGate"}
"""What needs more than one picture and numbers: other files, lists, a fitted attack beside it."""
COMPOSITION = "composition"
"""A purifier written as a line, such as ``median(3) > unsharp(1)``."""
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {
    "shapes-cnn": SOURCES["builtin:shapes"]().classes,
    "cifar-resnet": CIFAR,
    "cifar-resnet-wide": CIFAR,
    "xray-cnn": ("NORMAL", "PNEUMONIA"),
}
SIDES = {"shapes-cnn": 32, "cifar-resnet": 32, "cifar-resnet-wide": 32, "xray-cnn": 64}
"""Height and width that models were trained on."""


@dataclass(frozen=True)
class Control:
    """How a parameter is set on the page.

    Args:
        name: of the parameter.
        kind: ``number``, ``whole``, ``numbers`` (several in one line), ``switch``, ``choice`` or
            ``text``.
        first: its value at the beginning; None or empty text leaves it to the algorithm.
        low: smallest value, as the page shows it.
        high: largest value; None where there is no bound.
        open_low: ``low`` itself is excluded.
        automatic: it may be left empty, and the algorithm finds its value.
        reach: where a slider ends.
        step: of the slider.
        choices: the words it may be.
        unit: of the value; ``/255`` where it is shown in 255ths of the intensity range.
        doc: what it does, with its range.
    """

    name: str
    kind: str
    first: Any
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    automatic: bool = False
    reach: float = 1.0
    step: float = 1.0
    choices: tuple[str, ...] = ()
    unit: str = ""
    doc: str = ""

    def read(self, shown: Any) -> Any:
        """The parameter's value for what the page shows; None: leave it to the algorithm.

        Raises:
            ValueError: naming the parameter and what was expected.
        """
        if self.kind in ("switch", "choice"):
            return shown
        if self.kind == "text":
            return str(shown).strip() or None
        if self.kind == "numbers":
            found = [self._number(word) for word in re.split(r"[,;\s]+", str(shown)) if word]
            return found or None
        if self.automatic and (shown is None or not str(shown).strip()):
            return None
        return self._number(shown)

    def _number(self, shown: Any) -> float:
        """One number, within the range.

        Raises:
            ValueError: naming the parameter and what was expected.
        """
        whole = self.kind == "whole"
        try:
            value = float(parse_number(shown))
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value) or (whole and value != round(value)):
            what = "a whole number" if whole else "a number"
            raise ValueError(f"{self.name}: expected {what}, got {shown!r}")
        least = self.low is not None and (value < self.low or (self.open_low and value == self.low))
        if least or (self.high is not None and value > self.high):
            unit = " in 255ths" if self.unit == "/255" else ""
            raise ValueError(f"{self.name}: expected {self.range}{unit}, got {shown!r}")
        if self.unit == "/255":
            return value / 255
        return round(value) if whole else value

    @property
    def range(self) -> str:
        """What it may be, in words, as the page shows it."""
        return range_text(parameter(doc="", low=self.low, high=self.high, open_low=self.open_low))

    def show(self, value: Any) -> Any:
        """What the page shows for a value."""
        return round(255 * value, 3) if self.unit == "/255" and value not in ("", None) else value


@dataclass(frozen=True)
class Choice:
    """An algorithm that can be chosen.

    Args:
        name: as a specification names it.
        doc: what it is, in a sentence.
        paper: where it comes from.
        controls: one a parameter.
    """

    name: str
    doc: str
    paper: str
    controls: tuple[Control, ...]


@dataclass(frozen=True)
class Family:
    """A kind of system that is attacked.

    Args:
        name: short, in addresses and names of files.
        title: on the page.
        attacks: names of attacks, the usual one first.
        detectors: the same of detectors; the first may be ``none``.
        purifiers: the same of purifiers.
    """

    name: str
    title: str
    attacks: tuple[str, ...]
    detectors: tuple[str, ...]
    purifiers: tuple[str, ...]


def _attacks(first: str, *budgets: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    left_out = ELSEWHERE | set(without)
    names = [
        name
        for name, kind in sorted(ATTACK_KINDS.items())
        if name not in left_out and _budget(kind) in budgets
    ]
    return (first, *(name for name in names if name != first))


def _budget(kind: type[Any]) -> str:
    value = getattr(kind, "budget", "none")
    if isinstance(value, str):
        return value
    return "scaling" if "Scaling" in kind.__name__ else "ball"


def _knowing(registry: dict[str, type[Any]], *knowledge: str) -> tuple[str, ...]:
    names = []
    for name, kind in sorted(registry.items()):
        stated = getattr(kind, "knowledge", "model")
        if name not in ELSEWHERE and (not isinstance(stated, str) or stated in knowledge):
            names.append(name)
    return tuple(names)


def _needs_pipeline(kind: type[Any]) -> bool:
    return "pipeline" in {field.name for field in dataclasses.fields(kind)}


def _with_first(names: tuple[str, ...], *first: str) -> tuple[str, ...]:
    return (*first, *(name for name in names if name not in first))


@cache
def families() -> dict[str, Family]:
    """The five families, by name."""
    plain = tuple(
        name
        for name, kind in sorted(PURIFIER_KINDS.items())
        if name not in ELSEWHERE and not _needs_pipeline(kind)
    )
    filters = (*plain, COMPOSITION)
    blind = tuple(name for name in plain if name not in ("SeparateCorrectCombine", "MaskInpaint"))
    small = ("linf", "l2", "ball", "none")
    scaling_filters = tuple(
        name for name, kind in sorted(PURIFIER_KINDS.items()) if _needs_pipeline(kind)
    )
    pipeline = tuple(n for n, kind in sorted(DETECTORS.items()) if _needs_pipeline(kind))
    around = ("DecamouflageFiltering", "DecamouflageSteganalysis")
    seen = tuple(name for name in DETECTORS if name not in (*pipeline, *around))
    only_quality = ("Korhonen", "MADC", "SSAH", "AdvCF", "Zhang", "AMIFGSM", "UAP")
    logits = ("AutoAttack", "CarliniWagner", "FAB", "Corruption")
    made = (
        Family(
            "classifier",
            "Classifier",
            _attacks("IFGSM", *small),
            (NONE, *_with_first(seen, "GradientMask")),
            (NONE, *_with_first(filters, "SeparateCorrectCombine", "Median", "JPEG")),
        ),
        Family(
            "scaling",
            "Image scaling",
            ("ImageScaling", "AdaptiveScaling"),
            (NONE, *_with_first(pipeline, "LatticeResidual"), *around),
            (NONE, *_with_first(scaling_filters, "SelectiveMedian"), *blind, COMPOSITION),
        ),
        Family(
            "quality",
            "Quality metric",
            (
                *_with_first(
                    _attacks("IFGSM", *small, without=logits), "IFGSM", "MIFGSM", *only_quality
                ),
            ),
            (NONE,),
            (NONE, *_with_first((*blind, COMPOSITION), "JPEG", "Median", "Resize", "Learned")),
        ),
        Family(
            "patch",
            "Patch",
            ("GridPatch",),
            (NONE, "CamEnergy", "PatchEnergy", "MaskEntropy"),
            (NONE, *_with_first(filters, "MaskInpaint", "Median")),
        ),
        Family(
            "face",
            "Face login",
            _attacks("APGD", *small, without=(*logits, "Zhang", "SSAH", "AdvCF", "UAP")),
            (NONE,),
            (NONE, *_with_first((*blind, COMPOSITION), "IWMF", "Median", "JPEG")),
        ),
    )
    return {family.name: family for family in made}


@cache
def choice(what: str, name: str) -> Choice:
    """What is to be known of an algorithm.

    Args:
        what: ``attacks``, ``detectors`` or ``purifiers``.
        name: as registered.
    """
    if name == COMPOSITION:
        doc = "filters one after the other (>) or averaged (+), in one line"
        control = Control("line", "text", "median(3) > unsharp(1)", doc=doc)
        return Choice(name, doc, "", (control,))
    kind = REGISTRIES[what][name]
    controls = [control_of(name, field) for field in parameter_fields(kind).values()]
    doc = (inspect.getdoc(kind) or "").split("\n", 1)[0]
    return Choice(name, doc, kind.paper, tuple(c for c in controls if c is not None))


def control_of(algorithm: str, field: dataclasses.Field[Any]) -> Control | None:
    """The control of a parameter; None where it cannot be set on a page."""
    meta, name, kind = field.metadata, field.name, str(field.type)
    value: Any = field.default
    if value is dataclasses.MISSING:
        value = FIRST.get(name, "")
    value = QUICK.get((algorithm, name), value)
    unit = str(meta["unit"] or UNITS.get((algorithm, name), ""))
    doc = f"{meta['doc']} ({range_text(field)})"
    if kind.startswith("bool"):
        return Control(name, "switch", value, doc=doc)
    if meta["choices"]:
        return Control(name, "choice", value, choices=tuple(meta["choices"]), doc=doc)
    if kind.startswith("str"):
        return Control(name, "text", value or "", unit=unit, doc=doc)
    if not kind.startswith(("int", "float", "tuple[float")):
        return None
    low, high = meta["low"], meta["high"]
    several = kind.startswith("tuple")
    told: dict[str, Any] = {
        "open_low": meta["open_low"],
        "automatic": "None" in kind,
        "unit": unit,
        "doc": doc,
    }
    small = value in (None, ()) or 0 <= value <= 0.1
    if unit.startswith("[0, 1] intensity") and small:
        fine = value in (None, ()) or value < 2 / 255
        told |= {"unit": "/255", "reach": 8.0 if fine else 64.0, "step": 0.1 if fine else 0.5}
        low, high = (None if bound is None else 255 * bound for bound in (low, high))
    elif kind.startswith("int"):
        told |= {"reach": high if high is not None else max(10, 4 * (value or 0)), "step": 1}
        return Control(name, "whole", value, low, high, **told)
    else:
        reach = high if high is not None else _round_up(4 * abs(value or 0) or 1.0)
        begin = low if low is not None else -reach
        told |= {"reach": reach, "step": _round_up((reach - begin) / 200)}
    if several:
        return Control(name, "numbers", "", low, high, **told)
    return Control(name, "number", value, low, high, **told)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... and their tenths."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(n * power, 10) for n in (1, 2, 5, 10) if n * power >= value * (1 - 1e-9))


def models() -> tuple[str, ...]:
    """Classifiers that can be chosen here; others are named as ``torchvision:<architecture>``."""
    return tuple(MODELS)


def has_torchvision() -> bool:
    """Whether architectures of torchvision can be loaded."""
    return importlib.util.find_spec("torchvision") is not None


def has_photos() -> bool:
    """Whether there are built-in photographs."""
    return importlib.util.find_spec("skimage") is not None


def quality_metrics() -> tuple[str, ...]:
    """Quality metrics that come with the package."""
    return tuple(QUALITY_MODELS)


def encoders() -> tuple[str, ...]:
    """Architectures of face encoders."""
    return tuple(name for name in ENCODERS if ":" not in name)


def classes_of(model: str) -> tuple[str, ...] | None:
    """Names of a model's classes, where they are known."""
    if model.startswith("torchvision:"):
        return imagenet.class_names()
    return CLASSES.get(model)
