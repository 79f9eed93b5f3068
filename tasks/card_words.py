"""What the cards of each kind of training say in words."""

from __future__ import annotations

from typing import Any, Protocol

from defender.quality_labels import BEST
from tasks.face_words import FaceWords
from tasks.opinion_words import OpinionWords, correlation
from tasks.prior_words import PriorWords
from tasks.purify_words import PurifyWords
from tasks.training_tasks import Card


class Words(Protocol):
    """The words of the cards of one kind of training."""

    figure: str
    """What the curve of the held-out images shows."""

    preparation: str
    """What is done to images before they are learned from."""

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        ...

    def rows(self, card: Card) -> list[str]:
        """The rows of figures, as Markdown."""
        ...

    def remarks(self, card: Card) -> str:
        """What has to be known in order to read the figures."""
        ...

    def last(self, card: Card) -> float | None:
        """The figure of the exported weights, for the end of the curve."""
        ...

    def headline(self, card: Card) -> str:
        """What the training came to, in one line."""
        ...


class ClassifierWords:
    """Accuracy, balanced accuracy and normalisation."""

    figure = "accuracy"
    preparation = "decoding"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return f"A `{card['architecture']}` classifier trained with `image-defender train`."

    def rows(self, card: Card) -> list[str]:
        """Two rows a pipeline."""
        rows = []
        for behind in card["held_out_behind"]:
            accuracy, balanced = behind["accuracy"], behind["balanced_accuracy"]
            where = f", {behind['pipeline']}" if behind["pipeline"] else ""
            rows += [
                f"| accuracy on held-out images{where} | "
                f"{_percent(accuracy)}, n = {accuracy['n']:,}) |",
                f"| balanced accuracy{where} | "
                f"{_percent(balanced)}{_recalls(balanced['recalls'])}) |",
            ]
        return rows

    def remarks(self, card: Card) -> str:
        """Normalisation, and what the model is for."""
        normalisation = card["normalisation"]
        return (
            "Images go in as they are, in [0, 1]; the model itself subtracts the mean "
            f"{normalisation['mean']} and divides by {normalisation['std']}. The accuracy is "
            "that of the file, read back after it was written.\n\n"
            "The model was trained on clean images. It is not robust: it is there to be attacked."
        )

    def last(self, card: Card) -> float | None:
        """The accuracy behind the first pipeline."""
        return float(card["held_out_accuracy"]["value"])

    def headline(self, card: Card) -> str:
        """The share of right images."""
        held_out = card["held_out_accuracy"]
        return (
            f"{held_out['value']:.2%} of {held_out['n']:,} held-out images right "
            f"(95 % interval {held_out['ci_low']:.2%} to {held_out['ci_high']:.2%})"
        )


class QualityWords:
    """Rank correlation, the line to the scale of the labels, and what labels are."""

    figure = "SROCC"
    preparation = "decoding"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return (
            f"A `{card['architecture']}` metric of image quality without a reference, trained "
            "with `image-defender train`. Larger scores mean better images."
        )

    def rows(self, card: Card) -> list[str]:
        """The correlations, pooled and by kind, clean scores, and the line."""
        srocc, clean, line = card["srocc"], card["clean"], card["calibration"]
        trained = card["training"]["distortions"]
        rows = [
            f"| SROCC on held-out images, pristine and under {trained} | "
            f"{_srocc(srocc['trained'])} |"
        ]
        if srocc["unseen"] is not None:
            rows.append(
                "| SROCC on held-out images, pristine and under kinds of distortion that it was "
                f"not trained on | {_srocc(srocc['unseen'])} |"
            )
        rows += [
            f"| SROCC, {kind} alone{'' if kind in trained.split(', ') else ' (not trained on)'} | "
            f"{_srocc(figure)} |"
            for kind, figure in srocc["by_kind"].items()
        ]
        low, high = line["score_range"]
        return [
            *rows,
            f"| scores of {clean['images']:,} pristine held-out images | mean {clean['mean']:.1f}, "
            f"standard deviation {clean['std']:.1f} |",
            f"| score | {line['k']:.4f} x output + {line['b']:.4f} |",
            f"| range of scores | {low:g} to {high:g}, the 1st and the 99th percentile of the "
            "training images |",
        ]

    def remarks(self, card: Card) -> str:
        """What labels and intervals are."""
        return LABELS

    def last(self, card: Card) -> float | None:
        """The correlation under the trained kinds."""
        value = card["srocc"]["trained"]["value"]
        return None if value is None else float(value)

    def headline(self, card: Card) -> str:
        """The correlation under the trained kinds."""
        figure = card["srocc"]["trained"]
        return f"SROCC {_srocc(figure)} on held-out images"


LABELS = f"""\
No person has rated these images. Each photograph is distorted by each kind at five levels; the \
label of a version is the mean of its ranks by MS-SSIM and by VIF to the pristine photograph among \
all versions of the training images, whatever their kind and level, as a share of these, times \
{BEST:g}: the label of a pristine photograph is {BEST:g}. So the metric says how much of an \
original that it never sees an image seems to have kept, which is not the same as what people like.

SROCC is Spearman's rank correlation between scores and labels. It is that of the file, read back \
after it was written; intervals are 95 % bootstrap intervals over photographs. The metric was \
trained on images that nobody attacked. It is not robust: it is there to be attacked."""
"""What the labels of quality metrics are."""

WORDS: dict[str, Words] = {
    "classify": ClassifierWords(),
    "quality": QualityWords(),
    "opinions": OpinionWords(),
    "purify": PurifyWords(),
    "prior": PriorWords(),
    "face": FaceWords(),
}
"""The words of a card, by its task, or by where labels come from."""


def words_of(card: Card) -> Words:
    """The words of a card; cards of classifiers do not name their task."""
    return WORDS["opinions" if "opinions" in card else card.get("task", "classify")]


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["ci_low"], figure["ci_high"]
    return f"{figure['value']:.2%} (95 % interval {low:.2%} to {high:.2%}"


def _recalls(recalls: dict[str, float]) -> str:
    if len(recalls) > 10:
        return ""
    return "; recalls " + ", ".join(f"{value:.1%}" for value in recalls.values())


def _srocc(figure: dict[str, Any]) -> str:
    sizes = f"{figure['images']:,} photographs, {figure['versions']:,} versions"
    return correlation(figure, sizes)
