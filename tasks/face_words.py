"""What the cards of face encoders say in words."""

from __future__ import annotations

from typing import Any

from tasks.training_tasks import Card


class FaceWords:
    """How well people who were never seen are told apart."""

    figure = "ROC-AUC"
    preparation = "decoding"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return (
            f"A `{card['architecture']}` face encoder trained with `image-defender train` on "
            f"{card['people']:,} people."
        )

    def rows(self, card: Card) -> list[str]:
        """The area, accept rates, and what they are to be compared with."""
        figures = card["verification"]
        rows = [
            f"| ROC-AUC of pairs of {figures['people']:,} people never seen | {_area(figures)} |"
        ]
        rows += [
            f"| genuine pairs accepted at false accept rate {far} | {share:.1%} |"
            for far, share in figures["tar"].items()
        ]
        return [
            *rows,
            f"| ROC-AUC of the first weights | {figures['first']:.4f} |",
            f"| ROC-AUC of bare pixels | {figures['pixels']:.4f} |",
            f"| input | {card['input']} |",
        ]

    def remarks(self, card: Card) -> str:
        """What is compared, and what the encoder is for."""
        return REMARKS

    def last(self, card: Card) -> float | None:
        """The area."""
        return float(card["verification"]["roc_auc"]["value"])

    def headline(self, card: Card) -> str:
        """The area."""
        figures = card["verification"]
        return (
            f"ROC-AUC {_area(figures)} on pairs of {figures['people']:,} people never seen; "
            f"bare pixels {figures['pixels']:.4f}"
        )


def _area(figures: dict[str, Any]) -> str:
    area = figures["roc_auc"]
    low, high = area["ci_low"], area["ci_high"]
    interval = "no interval" if low is None else f"95 % interval {low:.4f} to {high:.4f}"
    return (
        f"{area['value']:.4f} ({interval}; {figures['genuine']:,} genuine and "
        f"{figures['impostor']:,} impostor pairs)"
    )


REMARKS = """\
Every held-out image is compared with every other one; none is compared with itself. Intervals \
are bootstrap intervals over people. Bare pixels are grey pictures of 32 x 32, standardised: what \
they reach needs no encoder. All figures are those of the file, read back after it was written.

The encoder was trained on images that nobody attacked. It is not robust: it is there to be \
attacked."""
