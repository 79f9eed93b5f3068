"""The app as it is used: a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PICTURES = os.environ.get("IMAGE_DEFENDER_PICTURES")
"""Folder to which the pages that are looked at are written as pictures, for the docs."""
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}


def app_at(store: Path, data: Path, *words: str) -> AbstractContextManager[str]:
    """The app on a store; gives its address."""
    command = [sys.executable, "-m", "flows.cli", "app", "--store", str(store), "--data", str(data)]
    # with these variables it would take itself for a test of NiceGUI's own
    kept = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return served([*command, *words], {**kept, "OMP_NUM_THREADS": "1"}, ROOT)


@contextmanager
def served(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A process that serves the app; gives its address."""
    process = subprocess.Popen(
        [*command, "--no-open", "--port", "0"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip().rstrip("/")
        assert address.startswith("http://127.0.0.1:"), address
        wait_for(address)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(address: str, seconds: float = 90) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            assert time.monotonic() < until, f"{address} does not answer"
            time.sleep(0.1)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, without a window; the test skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def page_of(made: Any, address: str, size: dict[str, int] = WIDE) -> Iterator[Any]:
    """A page of a new user, who must see no error and ask no other server."""
    context = made.new_context(viewport=size, accept_downloads=True)
    context.set_default_timeout(90_000)
    page = context.new_page()
    problems: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
        outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
        assert not outside
        assert not problems
    finally:
        context.close()


def keep_picture(page: Any, name: str, **options: Any) -> None:
    """Write what is seen to the folder of pictures, if one is named."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), **options)
