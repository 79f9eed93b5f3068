"""Strips of pictures as HTML: clean, attacked, difference, purified, with what was said of them."""

from __future__ import annotations

import math
from html import escape
from urllib.parse import quote

from flows.app.browse_words import DASH
from tasks.views import DETECTOR, Page, Pane, Shot

SIDE = 240
"""Longest side to which large pictures are reduced in a strip."""
GOALS = ("o1", "o2")
"""Figures that are true or false of an image."""
ROLES = {"difference": "difference \u00d7\u00a0{}"}


class Strips:
    """Draws the images of a page.

    Args:
        run: whose images they are.
        version: what the digest of the run begins with; nothing for one that is still going.
        factor: amplification of differences; 0: none is shown.
    """

    def __init__(self, run: str, version: str, factor: int) -> None:
        # imported here because it brings torch along
        from flows.scorecard import TITLES, number

        self.run, self.version, self.factor = run, version, factor
        self._titles, self._number = TITLES, number

    def html(self, page: Page) -> str:
        """The strips of a page."""
        if not page.shots:
            return '<p class="muted">No image fits.</p>'
        return f'<ul class="br-strips">{"".join(self._shot(one) for one in page.shots)}</ul>'

    def _shot(self, shot: Shot) -> str:
        panes = [one for one in shot.panes if not one.difference or self.factor]
        pictures = "".join(self._pane(shot, one) for one in panes)
        truth = f' <span class="muted">{escape(shot.truth)}</span>' if shot.truth else ""
        return (
            f'<li class="br-strip"><button type="button" class="br-look" aria-haspopup="dialog" '
            f'data-name="{escape(shot.name)}">{pictures}</button>'
            f'<p class="br-name"><b>{escape(shot.name)}</b>{truth}</p>{self._figures(shot)}</li>'
        )

    def _pane(self, shot: Shot, pane: Pane) -> str:
        role = pane.role
        times = self.factor if pane.difference else 0
        if times:
            role = ROLES["difference"].format(times)
        said, kind = self._said(pane)
        alt = f"{role} picture of {shot.name}" if not times else f"{role} of {shot.name}"
        alt += f", {said}" if said else ""
        alt += {"right": ", which is right", "wrong": ", which is wrong"}.get(kind, "")
        return (
            f'<span class="br-pane"><span class="br-role">{role}</span>'
            f'<img loading="lazy" decoding="async" alt="{escape(alt)}" '
            f'src="{self._address(pane, shot.place, times, SIDE)}" '
            f'data-full="{self._address(pane, shot.place, times, 0)}">'
            f'<span class="br-said {kind}">{escape(said)}</span></span>'
        )

    def _said(self, pane: Pane) -> tuple[str, str]:
        if pane.answer is not None:
            right = pane.answer.right
            kind = "" if right is None else "right" if right else "wrong"
            return f"{pane.answer.said}, {100 * pane.answer.confidence:.0f}\u00a0%", kind
        if pane.score is not None:
            name, value = pane.score
            return f"{name} {value:.4g}", ""
        return "", ""

    def _address(self, pane: Pane, place: int, times: int, side: int) -> str:
        asked = [("times", times), ("side", side), ("v", self.version)]
        query = "&amp;".join(f"{name}={value}" for name, value in asked if value)
        return f"/stored/{quote(self.run, safe='')}/{pane.node}/{place}.png?{query}"

    def _figures(self, shot: Shot) -> str:
        shown = [
            f"<span>{escape(self._figure(name, value))}</span>" for name, value in shot.figures
        ]
        if shot.by is not None and shot.by[0] not in dict(shot.figures):
            shown.append(f"<span>{escape(self._figure(*shot.by))}</span>")
        for flag in shot.flags:
            kind, word = "", ""
            if flag.flagged is not None:
                kind, word = ("flagged", " flagged") if flag.flagged else ("", " not flagged")
            score = DASH if math.isnan(flag.score) else f"{flag.score:.3g}"
            shown.append(f'<span class="{kind}">{escape(flag.detector)} {score}{word}</span>')
        return f'<p class="br-figures">{"".join(shown)}</p>' if shown else ""

    def title(self, name: str) -> str:
        """A column in words."""
        if name.startswith(DETECTOR):
            return name
        found: str = self._titles.get(name, name.replace("_", " "))
        return found

    def _figure(self, name: str, value: float) -> str:
        if name in GOALS:
            return f"{self.title(name)} {'reached' if value else 'missed'}"
        title, _, unit = self.title(name).partition(", ")
        text = "\u221e" if math.isinf(value) else self._number(name, value)
        return f"{title} {text}\u00a0{unit}" if unit else f"{title} {text}"
