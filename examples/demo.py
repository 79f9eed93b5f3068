"""The demo: start a run, kill it, start it again, and show that nothing was done twice."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

SPEC = Path(__file__).with_name("demo.yaml")


def defend(*words: str, quiet: bool = False) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )


def marks(store: Path) -> int:
    """Chunks that the ledger of a store vouches for."""
    return sum(1 for _ in store.glob("data/*/marks/*.json"))


def main() -> int:
    """Run, kill, resume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="demo-store", type=Path)
    store: Path = parser.parse_args().store
    begun = time.monotonic()
    before = marks(store)
    print(f"image-defender run {SPEC} --store {store}", flush=True)
    first = defend("run", str(SPEC), "--store", str(store), quiet=True)
    while first.poll() is None and marks(store) < before + 12:
        time.sleep(0.02)
    if first.poll() is None:
        first.send_signal(signal.SIGKILL)
        first.wait()
        print(f"\nkilled it (SIGKILL) with {marks(store)} chunks done; starting it again\n")
    elif first.returncode:
        print("the run failed", file=sys.stderr)
        return first.returncode
    kept = marks(store)
    code = defend("run", str(SPEC), "--store", str(store)).wait()
    if code:
        return code
    check = defend("verify", str(SPEC), "--store", str(store), "--json", quiet=True)
    verdict = json.loads(check.communicate()[0])
    print(f"verify: {verdict['chunks']} chunks re-hashed, {len(verdict['damage'])} files damaged")
    print(f"{kept} chunks survived the kill; {time.monotonic() - begun:.0f} s in all")
    report = (store / "demo" / "report.html").resolve()
    print(f"open {report.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
