"""What runs are called on the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect.runtime import flow_run


def run_name() -> str:
    """The specification of the flow run at hand, and when it began."""
    return begun_now(Path(str(flow_run.get_parameters()["spec"])).stem)


def begun_now(what: str) -> str:
    """What a flow run that begins now is called."""
    return f"{what}/{datetime.now(UTC):%Y-%m-%d %H:%M}"
