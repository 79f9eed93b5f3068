"""Matplotlib figures as SVG that lives inside a page."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#010203"
"""A colour that stands for the page's own text colour."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "path.simplify": True,
}


def inline(figure: Figure, salt: str) -> str:
    """Turn a figure into SVG text to be put into HTML.

    The same figure gives the same text: no dates, no random names. Names inside are the figure's
    own, so several figures can stand in one page.

    Args:
        figure: drawn with :data:`INK` for whatever follows the page's text colour.
        salt: tells this figure's names from those of others.
    """
    canvas: Any = FigureCanvasSVG(figure)
    sink = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        canvas.print_svg(sink, metadata=nothing)
    return _embedded(sink.getvalue(), "p" + hashlib.sha256(salt.encode()).hexdigest()[:8])


def _embedded(text: str, prefix: str) -> str:
    """Drop what only a file of its own needs, and make names and colours the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", text)
    text = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?| transform=\"rotate\(-0 [^\"]*\"", "", text)
    text = re.sub(r"<style.*?</style>|<defs>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r' [dxy]="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda name: name[0] if name[1] in used else "", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace(INK, "currentColor").strip()
