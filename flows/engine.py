"""Settings that keep Prefect quiet, quick and at home; import before Prefect."""

from __future__ import annotations

import logging
import os
import tomllib
from pathlib import Path

HOME = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # the second version of the dashboard asks for things outside of this machine
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # the default of 20 s is too short where other work takes the processor
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}
"""For runs and servers alike."""
SILENT = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}
"""Where nobody keeps what a run logs: no server but the temporary one."""
LOGGED = {
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Where a server does: the terminal stays quiet."""


def settle() -> None:
    """Set what the environment leaves open; what the user has set stays."""
    values = {**HOME, **(LOGGED if has_server() else SILENT)}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    logging.getLogger("prefect").setLevel(os.environ["PREFECT_LOGGING_LEVEL"])


def has_server() -> bool:
    """Whether runs are told of a server, by the environment or by Prefect's active profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or content.get("active")
    profile = content.get("profiles", {}).get(active)
    return isinstance(profile, dict) and bool(profile.get("PREFECT_API_URL"))
