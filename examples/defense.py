"""A template for a defence of your own: change `apply_defense` and score it.

`image-defender score-defense examples/defense.py`
"""

from pathlib import Path

import torch
from torch.nn import functional


class Defense:
    """Cleans images before a quality metric sees them.

    The file runs in a process of its own, on the CPU, without network. It may read the folder in
    which it lies, so weights can stand beside it; nothing it writes is kept. It may import
    `defender`: `noise_gate.py` beside this file is made of purifiers from there.
    """

    def __init__(self) -> None:
        """Load what is needed once: the time it takes does not count."""
        self.folder = Path(__file__).parent

    def apply_defense(self, images: torch.Tensor) -> torch.Tensor:
        """Clean a batch.

        Args:
            images: float32 (n, c, h, w) in [0, 1], attacked or not.

        Returns:
            float32 (n, c, any height, any width) in [0, 1].
        """
        # a mean over 3 x 3 pixels, the border repeated
        padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
        return functional.avg_pool2d(padded, 3, stride=1)
