"""How far a run is that is still going, or was killed, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

from flows.app.browse_words import DASH, count
from tasks.sizes import size_in_words


def status(state: dict[str, Any]) -> str:
    """What :class:`flows.watch.Watch` sees of a run."""
    from flows.progress import in_words
    from flows.status_table import holder_line

    done, total = state["done"], state["total"]
    lately = sum(stage["last_minute"] for stage in state["stages"])
    eta = state["eta_seconds"]
    told = [
        f"{count(done)} of {count(total)} chunks",
        f"{lately:.3g} images/s in the last minute",
        f"about {in_words(eta)} left" if eta else "",
        f"{count(state['rejected'])} rejected" if state["rejected"] else "",
        f"{count(state['failures'])} failures" if state["failures"] else "",
        size_in_words(state["bytes"]),
        holder_line(state),
    ]
    words = " \u00b7 ".join(escape(part) for part in told if part)
    bar = f'<progress max="{max(1, total)}" value="{done}" aria-label="Chunks done"></progress>'
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (
            ("Stage", ""),
            ("Chunks", ' class="br-figure"'),
            ("Images/s", ' class="br-figure"'),
            ("Last minute", ' class="br-figure"'),
            ("Left", ' class="br-figure"'),
        )
    )
    body = "".join(_stage(stage, in_words) for stage in state["stages"])
    return (
        f'{bar}<p role="status">{words}</p>'
        '<div class="br-scroll br-card" tabindex="0" role="region" aria-label="Stages">'
        f'<table class="br-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _stage(stage: dict[str, Any], in_words: Any) -> str:
    left = stage["left_seconds"]
    cells = (
        f"{count(stage['done'])} of {count(stage['total'])}",
        _rate(stage["images_per_second"]),
        _rate(stage["last_minute"] or None),
        in_words(left) if left else DASH,
    )
    body = "".join(f'<td class="br-figure">{text}</td>' for text in cells)
    return f'<tr><th scope="row">{escape(stage["stage"])}</th>{body}</tr>'


def _rate(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
