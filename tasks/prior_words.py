"""What the cards of diffusion models say in words."""

from __future__ import annotations

from typing import Any

from tasks.training_tasks import Card


class PriorWords:
    """How well noise is taken out, by its strength, beside filters."""

    figure = "PSNR, dB"
    preparation = "decoding"

    def opening(self, card: Card) -> str:
        """What it is, in one sentence."""
        return (
            f"A `{card['architecture']}` network that predicts the noise in images, trained with "
            "`image-defender train`. It is the `prior` of the purifiers that diffuse."
        )

    def rows(self, card: Card) -> list[str]:
        """A row a noise level."""
        return [
            f"| PSNR at noise {level['sigma']:g}, {card['denoising']['n']:,} held-out images | "
            f"{level['noisy']:.2f} dB before, {level['prior']:.2f} dB after |"
            for level in card["denoising"]["levels"]
        ]

    def remarks(self, card: Card) -> str:
        """The figures beside those of filters."""
        levels: list[dict[str, Any]] = card["denoising"]["levels"]
        names = list(levels[0]["filters"])
        lines = [
            f"| noise | step | noisy | this | {' | '.join(names)} |",
            "|---" * (4 + len(names)) + "|",
        ]
        for level in levels:
            cells = " | ".join(f"{level['filters'][name]['psnr']:.2f}" for name in names)
            lines.append(
                f"| {level['sigma']:g} | {level['step']} | {level['noisy']:.2f} | "
                f"{level['prior']:.2f} | {cells} |"
            )
        return "\n".join(lines) + "\n\n" + REMARKS

    def last(self, card: Card) -> float | None:
        """The PSNR at the strongest noise."""
        return float(card["denoising"]["levels"][-1]["prior"])

    def headline(self, card: Card) -> str:
        """The PSNR at every noise level."""
        parts = (
            f"{level['prior']:.2f} dB at noise {level['sigma']:g}"
            for level in card["denoising"]["levels"]
        )
        return "; ".join(parts)


REMARKS = """\
Noise is the standard deviation in units of images in [0, 1]; figures are mean PSNR in dB of \
images clamped to [0, 1]. The network takes it out in a single step. Each filter is the best of \
several strengths at each level, chosen on these images: that favours the filters. All figures \
are those of the file, read back after it was written. `samples.png`, below, is what it makes out \
of noise alone in 50 calls, the first 64 without choosing."""
