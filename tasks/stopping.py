"""Work in torch that another thread can stop at once, and that says how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Stopped(BaseException):
    """Somebody asked for the work to be stopped; no failure, so that nobody handles it as one."""


class Stoppable(TorchFunctionMode):
    """While this is entered, every operation on tensors of this thread looks whether to go on.

    No algorithm has to know of it: an attack of ten thousand steps ends within the next of its
    operations. Other threads are not concerned.

    Args:
        stop: set by whoever wants the work to end.
        stepped: called after every gradient, with how many there were.

    Raises:
        Stopped: out of the operation after ``stop`` was set.
    """

    def __init__(self, stop: threading.Event, stepped: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.gradients = 0
        self._stop = stop
        self._stepped = stepped

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Carry an operation out, unless it is time to stop."""
        if self._stop.is_set():
            raise Stopped
        result = func(*args, **(kwargs or {}))
        if func is torch.autograd.grad or func is torch.Tensor.backward:
            self.gradients += 1
            if self._stepped is not None:
                self._stepped(self.gradients)
        return result
