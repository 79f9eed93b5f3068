"""What a run leaves on the Prefect dashboard: the score card and the way to the report."""

from __future__ import annotations

import time
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from storage.files import Place


def artifact_key(name: str) -> str:
    """A run's name as Prefect accepts it: lower case, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


class ProgressArtifact:
    """The share of finished chunks on the dashboard, brought up to date now and then.

    Args:
        name: name of the run.
        every: seconds between updates; each costs about 30 ms.
    """

    def __init__(self, name: str, every: float = 10.0) -> None:
        self.every = every
        made = create_progress_artifact(
            progress=0.0, key=f"{artifact_key(name)}-progress", description=f"Chunks of {name}"
        )
        self._id = cast(UUID, made)
        self._last = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Note how many chunks are finished."""
        now = time.monotonic()
        if done == total or now - self._last >= self.every:
            self._last = now
            update_progress_artifact(artifact_id=self._id, progress=100.0 * done / max(1, total))


def publish(summary: dict[str, Any], folder: Place) -> None:
    """Publish the score card and a link to the report as artifacts of the current run."""
    key = artifact_key(summary["name"])
    create_table_artifact(
        table=[
            {name: row[name] for name in ("attack", "detector", "policy", "purifier", "knowledge")}
            | {"metric": row["metric"], "value": row["value"], "n": row["n"]}
            for row in summary["rows"]
        ],
        key=f"{key}-scores",
        description=f"Scores of {summary['name']} over {summary['dataset']['images']} images",
    )
    publish_page(summary["name"], folder / "report.html")


def publish_page(name: str, page: Place) -> None:
    """Publish a link to the page of a run."""
    create_link_artifact(
        link=page.resolve().as_uri(),
        link_text="report",
        key=f"{artifact_key(name)}-report",
        description=f"Report of {name}",
    )
