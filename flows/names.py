"""What runs are called on the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect.runtime import flow_run


def run_name() -> str:
    """The specification of the flow run at hand, and when it began."""
    parameters = flow_run.get_parameters()
    return f"{Path(str(parameters['spec'])).stem}/{datetime.now(UTC):%Y-%m-%d %H:%M}"
