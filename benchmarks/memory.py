"""Peak memory of a run over 1,000 and over 10,000 images."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

MEASURE = (
    "import sys; from flows import engine; engine.settle(); "
    "from flows.evaluate import run; run(sys.argv[1], sys.argv[2]); "
    "print(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
)
"""Run, then print the peak of this very program: what getrusage tells includes its parent."""


def peak(images: int, folder: Path) -> int:
    """Peak resident memory in MiB of a run over so many images, in a process of its own."""
    spec = folder / f"memory-{images}.yaml"
    spec.write_text(
        yaml.safe_dump(
            {
                "name": f"memory-{images}",
                "dataset": {"kind": "builtin:shapes", "count": images, "chunk_size": 250},
                "model": {"name": "shapes-cnn"},
                "attacks": [{"name": "FGSM", "epsilon": 0.03}],
                "detectors": ["GradientMask"],
                "purifiers": [{"name": "Median"}],
                "compute": {"workers": 2, "device": "cpu"},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(spec), str(folder / f"store-{images}")],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-1]) // 1024


def run(_images: int) -> dict[str, Any]:
    """Peaks and their ratio; a ratio near 1 means that memory does not grow with the dataset."""
    with tempfile.TemporaryDirectory() as temporary:
        small, large = (peak(n, Path(temporary)) for n in (1_000, 10_000))
    return {
        "peak over 1,000 images (MiB)": small,
        "peak over 10,000 images (MiB)": large,
        "10,000 / 1,000": round(large / small, 4),
    }
