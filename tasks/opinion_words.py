"""What the cards of quality metrics say that were trained on people's opinions."""

from __future__ import annotations

from typing import Any

from tasks.training_tasks import Card


class OpinionWords:
    """Agreement with people, and the line to the scale of their scores."""

    figure = "SROCC"
    preparation = "decoding"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return (
            f"A `{card['architecture']}` metric of image quality without a reference, trained "
            "with `image-defender train` on people's opinions. Larger scores mean better images."
        )

    def rows(self, card: Card) -> list[str]:
        """The correlations, the distance, and the line."""
        line, opinions = card["calibration"], card["opinions"]
        (low, high), (worst, best) = line["score_range"], opinions["scale"]
        passed = ""
        if opinions["unrated"] or opinions["unknown"]:
            passed = (
                f"; passed over: {opinions['unrated']:,} images without a score, "
                f"{opinions['unknown']:,} scores without an image"
            )
        return [
            f"| SROCC on held-out images | {_correlation(card['srocc'])} |",
            f"| PLCC on held-out images | {_correlation(card['plcc'])} |",
            f"| RMSE on held-out images | {card['rmse']:.4g} |",
            f"| score | {line['k']:.4g} x output + {line['b']:.4g} |",
            f"| range of scores | {low:g} to {high:g}, the 1st and the 99th percentile of the "
            "training images |",
            f"| opinions | column {opinions['column']} of `{opinions['table']}`, "
            f"{opinions['rows']:,} rows, {worst:g} to {best:g} in training{passed} |",
        ]

    def remarks(self, card: Card) -> str:
        """What the figures are."""
        return (
            "SROCC is Spearman's and PLCC Pearson's correlation between the scores of the metric "
            "and people's; RMSE is the root of their mean squared difference, on people's scale. "
            "They are those of the file, read back after it was written; intervals are 95 % "
            "bootstrap intervals over images. The line from the output to the score was fitted to "
            "the training images by least squares; nothing was fitted to the held-out images. The "
            "metric was trained on images that nobody attacked. It is not robust: it is there to "
            "be attacked."
        )

    def last(self, card: Card) -> float | None:
        """The rank correlation."""
        value = card["srocc"]["value"]
        return None if value is None else float(value)

    def headline(self, card: Card) -> str:
        """The rank correlation."""
        return f"SROCC {_correlation(card['srocc'])} with people's scores of held-out images"


def _correlation(figure: dict[str, Any]) -> str:
    return correlation(figure, f"{figure['images']:,} images")


def correlation(figure: dict[str, Any], sizes: str) -> str:
    """A correlation with its interval, and what it rests on."""
    if figure["value"] is None:
        return f"not defined ({sizes})"
    low, high = figure["ci_low"], figure["ci_high"]
    return f"{figure['value']:.3f} (95 % interval {low:.3f} to {high:.3f}; {sizes})"
