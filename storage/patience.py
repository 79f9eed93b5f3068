"""Trying again what fails in passing, in a folder and in a cloud store alike."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from storage.errors import StoreFault

PASSING = (errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)
"""Errors of a file system that may pass, such as those of a network share."""
PAUSES = (0.05, 0.2, 0.7)
"""Seconds before what failed so is tried again."""
LONG = 5.0
"""Seconds of trying after which a failure stays: a cloud store's client tries again by itself,
and what it has given up after minutes is not worth four times as many."""
T = TypeVar("T")


def patiently(action: Callable[[], T]) -> T:
    """Do something; a fault that may pass is waited for, three times within a second.

    Args:
        action: may be done twice: a fault does not say whether it was done.

    Raises:
        OSError, StoreFault: where the fault stays.
    """
    begun = time.monotonic()
    for pause in PAUSES:
        try:
            return action()
        except (OSError, StoreFault) as error:
            lasting = isinstance(error, OSError) and error.errno not in PASSING
            if lasting or time.monotonic() - begun > LONG:
                raise
            time.sleep(pause)
    return action()
