"""Kill, corrupt, fill and fail at random, then compare with a run that nobody disturbed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Soak

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="of faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--folder", type=Path, default=None, help="kept; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        soak = Soak(given.folder or Path(temporary), given.seed, given.images)
        problems = soak.run(given.seconds)
        print(soak.table())
    for problem in problems:
        print(f"problem: {problem}")
    sys.exit(1 if problems else 0)
