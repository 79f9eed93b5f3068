"""The gate at the end of a run: what it requires, whether that holds, and who is told if not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tasks.requirements import missed

if TYPE_CHECKING:
    from storage.files import Place

NOTIFY = "IMAGE_DEFENDER_NOTIFY"
"""Environment variable: a URL that is told of runs whose requirements are not met."""
TIMEOUT = 5.0
"""Seconds that a notification may take."""


def stored_summary(folder: Place) -> dict[str, Any]:
    """The summary of a finished run."""
    return dict(json.loads((folder / "summary.json").read_bytes()))


def unmet(folder: Place, summary: dict[str, Any]) -> tuple[str, ...]:
    """Requirements that a finished run does not meet; whoever is to be told is told of them.

    Args:
        folder: of the run, its outputs written.
        summary: one of them.

    Returns:
        A line each, with value, limit, and the last run's value; none where all are met.
    """
    lines = missed(summary.get("requirements", []))
    tell(folder, summary, lines)
    return tuple(lines)


def tell(folder: Place, summary: dict[str, Any], lines: Sequence[str]) -> None:
    """Tell whoever is to be told which requirements a finished run does not meet, if any."""
    if lines:
        problem = notify(message(summary, folder, lines))
        if problem is not None:
            warn(problem)


def message(summary: dict[str, Any], folder: Place, lines: Sequence[str]) -> dict[str, Any]:
    """What is sent: words for whoever reads it, and the same for programs."""
    return {
        "text": f"image-defender: {summary['name']}: requirements not met: {'; '.join(lines)}",
        "event": "requirements-not-met",
        "run": summary["name"],
        "folder": str(folder),
        "dataset": summary["dataset"]["digest"],
        "model": summary["model"],
        "missed": list(lines),
        "requirements": [one for one in summary["requirements"] if not one["passed"]],
        "last": summary["last"],
    }


def notify(content: dict[str, Any]) -> str | None:
    """POST a notification as JSON to where the environment says, if it says anything.

    Returns:
        Why it did not arrive, None where it did or nobody asked for it. The address is not in the
        text beyond its host: such addresses are secrets.
    """
    url = os.environ.get(NOTIFY, "").strip()
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{NOTIFY}: expected an http:// or https:// address; nobody was told"
    headers = {"Content-Type": "application/json", "User-Agent": "image-defender"}
    body = json.dumps(content, allow_nan=False).encode()
    try:
        with urlopen(Request(url, body, headers, method="POST"), timeout=TIMEOUT) as answer:
            answer.read(1)
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        return f"{NOTIFY}: {parts.hostname} was not told: {reason or type(error).__name__}"
    except (ValueError, HTTPException) as error:  # their texts may hold the address
        return f"{NOTIFY}: {parts.hostname} was not told: {type(error).__name__}"
    return None


def warn(text: str) -> None:
    """Say on standard error, and in the log of the flow run if there is one, what went wrong."""
    print(f"warning: {text}", file=sys.stderr)
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        get_run_logger().warning(text)
    except MissingContextError:
        return


def publish(summary: dict[str, Any]) -> None:
    """Publish the requirements as a table of the current flow run, where there are any."""
    from prefect.artifacts import create_table_artifact

    from flows.artifacts import artifact_key

    lines = [
        {
            "met": "yes" if row["passed"] else "NO",
            "requirement": one["text"],
            **{name: row[name] for name in ("attack", "purifier", "detector", "policy")},
            **{name: row[name] for name in ("value", "ci_low", "ci_high", "last", "difference")},
            "note": "; ".join(row["misses"] + row["notes"]),
        }
        for one in summary.get("requirements", [])
        for row in one["rows"] or [EMPTY | {"passed": False, "misses": [one["problem"]]}]
    ]
    if lines:
        create_table_artifact(
            table=lines,
            key=f"{artifact_key(summary['name'])}-requirements",
            description=f"Requirements of {summary['name']}",
        )


EMPTY: dict[str, Any] = {
    **dict.fromkeys(("attack", "purifier", "detector", "policy"), ""),
    **dict.fromkeys(("value", "ci_low", "ci_high", "last", "difference")),
    "notes": [],
}
"""A line of a requirement without any row."""
