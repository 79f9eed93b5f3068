"""What a Prefect server is told: work pool, deployments, and what to do with runs that are lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import yaml
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows import parameters
from flows.lost_runs import AT_ONCE, GONE, crash, unended
from flows.processes import marked
from storage.files import write_atomic

SILENCE = timedelta(seconds=90)
"""Time without a heartbeat, every 30 s, after which a flow run counts as dead."""
AUTOMATION = "Flow runs without a heartbeat have crashed"
ENDS = tuple(f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed"))


def prepare(pool: str) -> None:
    """Make the work pool, and the rule that marks flow runs that died unnoticed."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        if not client.read_automations_by_name(AUTOMATION):
            client.create_automation(dead_runs_automation())


def dead_runs_automation() -> AutomationCore:
    """Mark a flow run as crashed once its heartbeat stops and it has not ended."""
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=AUTOMATION,
        description="A process that was killed cannot say so; its flow run would stay Running.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ENDS},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"No heartbeat for {SILENCE.total_seconds():.0f} s: the process is gone. "
                "Run it again: what is done is kept.",
            )
        ],
    )


def mark_lost_runs(worker: str) -> list[str]:
    """Mark what a worker left behind that did not come to an end itself, as after a power failure.

    Only flow runs that this worker submitted are looked at, and only those of which no process is
    left here. The rule of :func:`dead_runs_automation` sees to all others.

    Args:
        worker: name of the worker, which does not run now.

    Returns:
        Names of the flow runs.
    """
    with get_client(sync_client=True) as client:
        lost = [
            run
            for run in client.read_flow_runs(flow_run_filter=unended(), limit=AT_ONCE)
            if run.labels.get("prefect.worker.name") == worker
            and not marked("PREFECT__FLOW_RUN_ID", str(run.id))
        ]
        crash(client, lost, f"Its worker is gone. {GONE}")
    return [run.name for run in lost]


def deploy(
    folder: Path, home: Path, variables: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """Deploy what ``prefect.yaml`` lists, unless that has been done and nothing changed since.

    Args:
        folder: where ``prefect.yaml`` lies; flow runs work there.
        home: of the server; says what has been deployed.
        variables: environment of the command.
        say: told what happens.

    Returns:
        Whether it was done now.

    Raises:
        RuntimeError: where it fails.
    """
    path = folder / "prefect.yaml"
    listed = {str(one["name"]) for one in yaml.safe_load(path.read_text())["deployments"]}
    wanted, done = _digest(path), home / "deployed"
    if listed <= _deployed() and done.is_file() and done.read_text() == wanted:
        return False
    say(f"deploying {', '.join(sorted(listed))}")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    made = subprocess.run(
        [*command, "--prefect-file", str(path)],
        cwd=folder,
        env={**variables, "PWD": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    (home / "logs" / "deploy.log").write_text(made.stdout + made.stderr)
    missing = listed - _deployed()
    if made.returncode or missing:
        raise RuntimeError(
            f"{path}: expected all of it to be deployed, got exit code {made.returncode}"
            f"{' without ' + ', '.join(sorted(missing)) if missing else ''}: "
            f"see {home / 'logs' / 'deploy.log'}"
        )
    write_atomic(done, wanted.encode())
    return True


def wait_for_worker(pool: str, seconds: float, check: Callable[[], None]) -> None:
    """Wait until a worker of a pool is online.

    Args:
        pool: name of the work pool.
        seconds: to wait, at most.
        check: called now and then; raises where there is nothing left to wait for.

    Raises:
        RuntimeError: where none is in time.
    """
    until = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while not any(
            one.status == WorkerStatus.ONLINE for one in client.read_workers_for_work_pool(pool)
        ):
            check()
            if time.monotonic() > until:
                raise RuntimeError(f"worker: expected it online within {seconds:.0f} s, it is not")
            time.sleep(0.2)


def _deployed() -> set[str]:
    with get_client(sync_client=True) as client:
        return {one.name for one in client.read_deployments(limit=200)}


def _digest(path: Path) -> str:
    """Digest of what deployments are made from: the file, its folder, and the flows' parameters."""
    digest = hashlib.sha256(f"{path.resolve()}\n".encode())
    listed = yaml.safe_load(path.read_text())["deployments"]
    flows = {path.parent / str(one["entrypoint"]).partition(":")[0] for one in listed}
    for source in [path, Path(parameters.__file__), *sorted(flows)]:
        digest.update(source.read_bytes())
    return digest.hexdigest()
