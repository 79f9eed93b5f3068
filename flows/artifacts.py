"""What a run leaves on the Prefect dashboard: the score card and the way to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact


def artifact_key(name: str) -> str:
    """A run's name as Prefect accepts it: lower case, digits and dashes."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def publish(summary: dict[str, Any], folder: Path) -> None:
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
    create_link_artifact(
        link=(folder / "report.html").resolve().as_uri(),
        link_text="report",
        key=f"{key}-report",
        description=f"Report of {summary['name']}",
    )
