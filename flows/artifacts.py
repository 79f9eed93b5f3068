"""What a run leaves on the Prefect dashboard: score card, report, pictures, progress, rejects."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import product
from typing import Any, cast
from uuid import UUID

from prefect import get_client
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate

from flows.terminal import PARTS, score_lines
from storage.files import Place
from tasks.first_strip import enlarged, first_strip
from tasks.outputs import rejected_rows
from tasks.pictures import Strip
from tasks.survey import Survey

LISTED = 200
"""Rows of a table on the dashboard, at most; files hold all of them."""
TOLD = " given the clean original"
"""What is said of tables of methods that are told the answer."""
Line = dict[str, Any]


def artifact_key(name: str) -> str:
    """A run's name as Prefect accepts it: lower case, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


class ProgressArtifact:
    """The share of finished chunks on the dashboard, brought up to date now and then.

    Args:
        name: name of the run.
        state: the run; with it, a table says how far each of its stages is.
        every: seconds between updates; each costs about 30 ms.
    """

    def __init__(self, name: str, state: Survey | None = None, every: float = 10.0) -> None:
        self.every = every
        key = artifact_key(name)
        share = 0.0 if state is None else 100.0 * len(state.done) / max(1, state.total)
        made = create_progress_artifact(
            progress=share, key=f"{key}-progress", description=f"Chunks of {name}"
        )
        self._id = cast(UUID, made)
        self._state = state
        self._table: UUID | None = None
        if state is not None:
            description = f"Chunks of {name}, stage by stage"
            table = stage_lines(state)
            made = create_table_artifact(table=table, key=f"{key}-stages", description=description)
            self._table = cast(UUID, made)
        self._last = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Note how many chunks are finished."""
        now = time.monotonic()
        if done == total or now - self._last >= self.every:
            self._last = now
            update_progress_artifact(artifact_id=self._id, progress=100.0 * done / max(1, total))
            if self._table is not None and self._state is not None:
                data = ArtifactUpdate(data=json.dumps(stage_lines(self._state)))
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._table, data)


def stage_lines(state: Survey) -> list[Line]:
    """Chunks done and in all: a line a stage, or a line a kind where there are too many stages."""
    counts = [(node, done, len(state.indices(node))) for node, done in state.counts()]
    if len(counts) <= LISTED:
        return [_stage(node.name, done, total) for node, done, total in counts]
    kinds = dict.fromkeys(node.kind for node, _, _ in counts)
    return [
        _stage(
            kind,
            sum(done for node, done, _ in counts if node.kind == kind),
            sum(total for node, _, total in counts if node.kind == kind),
        )
        for kind in kinds
    ]


def _stage(name: str, done: int, total: int) -> Line:
    share = f"{100 * done / max(1, total):.0f} %"
    return {"stage": name, "done": done, "chunks": total, "share": share}


def publish(summary: dict[str, Any], folder: Place, state: Survey | None = None) -> None:
    """Publish what a run came to as artifacts of the current run.

    Args:
        summary: what ``summary.json`` holds.
        folder: the run's outputs.
        state: the finished run, for the pictures of its first example and its rejected files.
    """
    name, key = summary["name"], artifact_key(summary["name"])
    images = summary["dataset"]["images"]
    for part, lines in score_tables(summary["rows"]):
        publish_table(f"{key}-{artifact_key(part)}", lines, f"{name}: {part}, {images} images")
    publish_page(name, folder / "report.html")
    if state is None:
        return
    strip = first_strip(state)
    if strip is not None:
        create_markdown_artifact(
            markdown=strip_markdown(strip),
            key=f"{key}-example",
            description=f"First example of the report of {name}",
        )
    publish_rejected(name, rejected_rows(state).to_pylist())


def score_tables(rows: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The score card as tables: name and lines of each, none of them empty.

    Methods that are given the clean original stand in tables of their own, last.
    """
    made = []
    for reference, (title, columns, metrics, policies) in product((False, True), PARTS):
        chosen = [
            row
            for row in rows
            if row["policy"] in policies and (row["knowledge"] == "reference") == reference
        ]
        found = score_lines(chosen, columns)
        shown = [one for one in metrics if any(one in values for values in found.values())]
        lines = [
            dict(zip(columns, where, strict=True)) | {one: values.get(one, "") for one in shown}
            for where, values in found.items()
        ]
        if shown:
            made.append((f"{title or 'scores'}{TOLD if reference else ''}", lines))
    return made


def publish_table(key: str, lines: Sequence[Line], description: str) -> None:
    """Publish a table, its first rows where there are very many."""
    if len(lines) > LISTED:
        description += f" (the first {LISTED} of {len(lines)})"
    create_table_artifact(table=list(lines[:LISTED]), key=key, description=description)


def publish_rejected(name: str, rejected: Sequence[Line]) -> None:
    """Publish files that could not be used and why, if there are any."""
    if rejected:
        publish_table(f"{artifact_key(name)}-rejected", rejected, f"Rejected files of {name}")


def publish_page(name: str, page: Place, text: str = "report") -> None:
    """Publish a link to the page of a run, or to what it has in place of one."""
    create_link_artifact(
        link=page.resolve().as_uri(),
        link_text=text,
        key=f"{artifact_key(name)}-report",
        description=f"{text[0].upper()}{text[1:]} of {name}",
    )


def strip_markdown(strip: Strip) -> str:
    """An image before, between and after as a table that carries its pictures in itself."""
    shown = strip.pictures
    rows = [
        [one.role for one in shown],
        ["---"] * len(shown),
        [f"![{_plain(one.alt)}]({enlarged(one)})" for one in shown],
        [_plain(f"{one.caption} {one.note}".strip()) or " " for one in shown],
    ]
    title = f"{strip.name}: {strip.rank}, {strip.value}"
    return "\n".join([_plain(title), "", *(f"| {' | '.join(row)} |" for row in rows)])


def _plain(text: str) -> str:
    """Words without what Markdown would take for more than words."""
    return "".join(" " if c in "|[]\n\u00a0" else c for c in text)
