"""What comes of a picture, as it comes: panes side by side, bars, suspicions, seconds."""

from __future__ import annotations

from html import escape

from nicegui import ui

from flows.app.shelf import shelf
from tasks.preview_panes import Pane
from tasks.preview_trial import Suspicion

FIGURES = {
    "psnr": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.4f}"),
    "linf": ("largest change", "{:.0f}/255"),
}
SIGNS = {"good": "✓ ", "bad": "✗ "}


class Panes:
    """The right side of the page."""

    def __init__(self) -> None:
        self.shown: list[tuple[Pane, str]] = []
        self.suspicions: dict[str, Suspicion] = {}
        self.seconds: dict[str, float] = {}
        with ui.element("div").classes("zoomed") as self.grid:
            self.grid.props('role="region" aria-label="Pictures" tabindex="0"')
        with ui.element("div").classes("facts-row"):
            self.answers = ui.element("div").classes("answers")
            self.facts = ui.element("div").classes("facts")

    def clear(self) -> None:
        """Take everything away."""
        self.forget()
        self.suspicions.clear()
        self.seconds.clear()
        for part in (self.grid, self.answers, self.facts):
            part.clear()

    def forget(self) -> None:
        """Let the pictures of a page that is gone go."""
        shelf.drop([address for _, address in self.shown])
        self.shown.clear()

    def add(self, pane: Pane) -> None:
        """Show one more picture."""
        address = shelf.put(pane.png)
        self.shown.append((pane, address))
        width, height = pane.size
        crisp = " crisp" if max(width, height) <= 256 or pane.mask else ""
        with self.grid, ui.element("figure").classes("pane"):
            with ui.element("figcaption"):
                ui.label(pane.role).classes("role")
                file = f"{pane.role.replace(' ', '-')}.png"
                ui.html(
                    f'<a href="{address}" download="{escape(file)}" '
                    f'aria-label="Save {escape(pane.role)} as PNG">save</a>',
                    sanitize=False,
                )
            ui.html(
                f'<div class="view"><img class="shown{crisp}" src="{address}" '
                f'alt="{escape(pane.alt)}" width="{width}" height="{height}" '
                'draggable="false"></div>',
                sanitize=False,
            )
            if pane.said:
                sign = SIGNS.get(pane.verdict, "")
                ui.label(f"{sign}{pane.said}").classes(f"said {pane.verdict}")
            told = figures_in_words(pane)
            if told:
                ui.label(told).classes("muted small")
        if pane.answers:
            self._add_answers(pane)

    def suspect(self, found: Suspicion) -> None:
        """Show what a detector says."""
        self.suspicions[found.detector] = found
        self._facts()

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._facts()

    def _add_answers(self, pane: Pane) -> None:
        with self.answers, ui.element("section").classes("bars"):
            ui.label(pane.role).classes("role")
            for name, share in pane.answers:
                percent = f"{100 * share:.1f} %"
                ui.html(
                    f'<div class="bar" role="img" aria-label="{escape(name)} {percent}">'
                    f"<span>{escape(name)}</span><i><b style='width:{100 * share:.2f}%'></b></i>"
                    f"<span>{percent}</span></div>",
                    sanitize=False,
                )

    def _facts(self) -> None:
        self.facts.clear()
        with self.facts:
            for found in self.suspicions.values():
                with ui.element("section").classes("suspicion"):
                    ui.label(found.detector).classes("role")
                    for line in suspicion_lines(found):
                        ui.label(line)
            if self.seconds:
                with ui.element("section"):
                    ui.label("seconds").classes("role")
                    for stage, spent in self.seconds.items():
                        ui.label(f"{stage} {spent:.3f}").classes("small")


def figures_in_words(pane: Pane) -> str:
    """Distances to the original in a line."""
    told = []
    for name, value in pane.figures.items():
        title, form = FIGURES.get(name, ("", ""))
        if title and not (name == "linf" and pane.role.startswith("difference")):
            told.append(f"{title} {form.format(value)}")
    return ", ".join(told)


def suspicion_lines(found: Suspicion) -> list[str]:
    """What a detector says, in sentences."""
    lines = [f"original {found.clean:.4g}, attacked {found.attacked:.4g}"]
    if found.threshold is None:
        lines.append("no threshold: not enough clean pictures to set one on")
        return lines
    verdicts = [
        f"{name} is {'suspect' if score > found.threshold else 'not suspect'}"
        for name, score in (("original", found.clean), ("attacked", found.attacked))
    ]
    lines.append(
        f"threshold {found.threshold:.4g}, which {100 * found.fpr:g} % of clean pictures exceed "
        f"({found.pictures} looked at)"
    )
    lines.append(", ".join(verdicts))
    return lines
