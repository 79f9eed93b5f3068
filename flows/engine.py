"""Settings that keep Prefect quiet, quick and at home; import before Prefect."""

from __future__ import annotations

import logging
import os

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # the default of 20 s is too short where other work takes the processor
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}


def settle() -> None:
    """Set what the environment leaves open; what the user has set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("prefect").setLevel(os.environ["PREFECT_LOGGING_LEVEL"])
