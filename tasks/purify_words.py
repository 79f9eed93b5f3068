"""What the cards of networks that purify say in words."""

from __future__ import annotations

from typing import Any

from tasks.training_tasks import Card

TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "gain": "gain", "accuracy": "accuracy"}
PATTERNS = {"psnr": "{:.2f}", "ssim": "{:.4f}", "gain": "{:.1%}", "accuracy": "{:.1%}"}


class PurifyWords:
    """Likeness to clean images and what attacks gain, before and after, by attack."""

    figure = "SSIM"
    preparation = "decoding and attacking"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return (
            f"A `{card['architecture']}` network that takes attacks off images, trained with "
            "`image-defender train`. It is the `network` of the purifier `Learned`."
        )

    def rows(self, card: Card) -> list[str]:
        """What it comes to over all attacks, and on clean images."""
        figures = card["figures"]
        mean, clean = figures["mean"], figures["clean"]["after"]
        rows = [
            f"| {TITLES[name]}, held-out images, mean over attacks | "
            f"{_shown(name, mean['before'][name])} before, {_shown(name, mean['after'][name])} "
            "after |"
            for name in figures["measures"]
        ]
        costs = ", ".join(
            f"{TITLES[name]} {_shown(name, _value(clean, name))}" for name in figures["measures"]
        )
        return [*rows, f"| held-out images that nobody attacked, after | {costs} |"]

    def remarks(self, card: Card) -> str:
        """The figures by attack, and what they are."""
        figures = card["figures"]
        names = figures["measures"]
        head = " | ".join(f"{TITLES[name]} before | after" for name in names)
        lines = [f"| held-out images | {head} |", "|---" * (1 + 2 * len(names)) + "|"]
        lines += [_line(f"`{label}`", one, names) for label, one in figures["attacks"].items()]
        lines.append(_line("nobody attacked", figures["clean"], names))
        words = GAIN if "gain" in names else ACCURACY
        return "\n".join(lines) + f"\n\n{COMMON} {words.format(subject=figures['subject'])}"

    def last(self, card: Card) -> float | None:
        """The mean SSIM of purified images."""
        value = card["figures"]["mean"]["after"]["ssim"]
        return None if value is None else float(value)

    def headline(self, card: Card) -> str:
        """What it comes to over all attacks."""
        mean = card["figures"]["mean"]
        parts = (
            f"{TITLES[name]} {_shown(name, mean['before'][name])} before, "
            f"{_shown(name, mean['after'][name])} after"
            for name in card["figures"]["measures"]
        )
        return "; ".join(parts)


COMMON = """\
PSNR and SSIM are means over images, to the clean image, before and after purification, of images \
stored with 8 bits. All figures are those of the file, read back after it was written, as an \
ordinary run computes them; `card.json` has their intervals. The weights are those of the last \
epoch, averaged; no held-out image chose anything."""

GAIN = """\
Gain is the mean of |q(y) - q(x)| / |q(x)| for the metric q = `{subject}`, a clean image x and the \
image y in question. The network was trained on what attacks made that did not know it: someone \
who knows it can attack through it."""

ACCURACY = """\
Accuracy is the share of images whose class `{subject}` gets right. The network was trained on \
what attacks made that did not know it: someone who knows it can attack through it."""


def _value(figures: dict[str, Any], name: str) -> float | None:
    found = figures.get(name)
    return None if found is None else found["value"]


def _shown(name: str, value: float | None) -> str:
    return "-" if value is None else PATTERNS[name].format(value)


def _line(title: str, one: dict[str, Any], names: list[str]) -> str:
    cells = (
        _shown(name, _value(one[when], name)) for name in names for when in ("before", "after")
    )
    return f"| {title} | {' | '.join(cells)} |"
