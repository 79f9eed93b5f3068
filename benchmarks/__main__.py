"""Run the benchmarks: ``python -m benchmarks [--images N] [--only NAME] [--out FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from flows import engine

engine.settle()

from benchmarks import (  # noqa: E402
    app,
    attack_speed,
    conformance,
    ddrm,
    iwmf,
    memory,
    overhead,
    pipeline,
    scale,
    scaling,
    startup,
    watch,
)

BENCHMARKS = {
    "attack": attack_speed.run,
    "pipeline": pipeline.run,
    "overhead": overhead.run,
    "scale": scale.run,
    "memory": memory.run,
    "iwmf": iwmf.run,
    "ddrm": ddrm.run,
    "ddrm-256": ddrm.run_large,
    "scaling": scaling.run,
    "conformance": conformance.run,
    "startup": startup.run,
    "watch": watch.run,
    "app": app.run,
}
ASKED_FOR = ("ddrm-256", "conformance", "overhead", "scale", "app")
"""What runs only where it is named."""


def main() -> int:
    """Run what was asked for and print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="images of the pipeline pair")
    parser.add_argument("--only", choices=sorted(BENCHMARKS), action="append")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.only or [name for name in BENCHMARKS if name not in ASKED_FOR]:
        results[name] = BENCHMARKS[name](options.images)
        for key, value in results[name].items():
            print(f"{name:<9} {key:<58} {value}", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
