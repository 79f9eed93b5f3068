"""What the executable runs: the app and nothing else."""

from __future__ import annotations

import multiprocessing

import typer

from flows.app_commands import app

if __name__ == "__main__":
    multiprocessing.freeze_support()
    typer.run(app)
