"""How busy the GPU is, looked at now and then, where its driver can be asked."""

from __future__ import annotations

import threading
import time
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any

EVERY = 0.25
"""Seconds between looks; the driver itself takes means over about as long."""


class GpuMeter:
    """Sums of what was seen, from which anyone can tell a share over their own time.

    Args:
        handle: of the device, as ``pynvml`` knows it.
        driver: ``pynvml``.
    """

    def __init__(self, driver: Any, handle: Any) -> None:
        self._driver, self._handle = driver, handle
        self._sum, self._looks = 0.0, 0
        threading.Thread(target=self._watch, name="gpu-meter", daemon=True).start()

    def sums(self) -> tuple[float, int]:
        """Sum of the shares seen so far, and their number."""
        return self._sum, self._looks

    def since(self, before: tuple[float, int]) -> dict[str, float]:
        """Mean share of time in which the GPU computed; empty for a time too short to tell."""
        looks = self._looks - before[1]
        return {"gpu_share": round((self._sum - before[0]) / looks, 4)} if looks else {}

    def _watch(self) -> None:
        while True:
            try:
                busy = self._driver.nvmlDeviceGetUtilizationRates(self._handle).gpu
            except Exception:  # the driver's own kind, which is known only where it is there
                return
            self._sum, self._looks = self._sum + busy / 100, self._looks + 1
            time.sleep(EVERY)


@lru_cache(maxsize=1)
def gpu_meter() -> GpuMeter | None:
    """The meter of the current GPU; None where the driver cannot be asked."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            driver = import_module("pynvml")
        driver.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return GpuMeter(driver, driver.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except Exception:  # no package, no driver, or a device it does not know: then no share is told
        return None
