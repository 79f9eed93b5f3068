"""The app does without what its executable leaves out, and asks no server for anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nicegui", reason="needs nicegui")
ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import sys, threading
from pathlib import Path

OUT = {"prefect", "torchvision", "skimage", "numba", "pandas", "diffusers", "optuna", "piq", "dask"}

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in OUT else found(name, *more)

def refuse(event, given):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(f"{event} {given}")

sys.addaudithook(refuse)
from flows.app import browse_page, server, try_page
from flows.app.try_form import Form
from tasks.preview import Preview
from tasks.preview_trial import Told

for family in ("classifier", "scaling", "quality", "patch"):
    form, shown = Form(Path.cwd()), []
    form.choose_family(family)
    if family == "quality":
        form.side = 32
    made = Preview(
        form.content(), form.data, form.picture(), other=form.other(),
        calibration=form.calibration(),
    )
    made.run(Told(pane=lambda pane: shown.append(pane.role)), threading.Event())
    assert "attacked" in shown, shown
    print(family, len(shown))
assert not OUT & set(sys.modules)
"""


def test_it_runs_without_prefect_torchvision_extras_and_network() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "classifier",
        "scaling",
        "quality",
        "patch",
    ]
