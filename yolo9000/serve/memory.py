"""Giving memory that is free back to the system. What holds memory, and for how long, is each file's own."""

import asyncio
import ctypes
import gc

# Seconds without an upload after which memory is given back: longer than the pauses within a busy time.
IDLE_SECONDS = 2.0


class Idle:
    """Gives memory back once, a while after the last `touch`. For one event loop."""

    def __init__(self) -> None:
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Future[None] | None = None

    def touch(self) -> None:
        """Something was done that took memory, and is over."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(IDLE_SECONDS, self._due)

    def _due(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._last + IDLE_SECONDS - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._due)
        else:
            self._timer = None
            self._work = loop.run_in_executor(None, give_back)


def give_back() -> None:
    """Hand what the C library's allocator keeps for later back to the system; some tens of milliseconds.

    After many requests at once there are free pieces between those in use, in an arena for every thread that
    ever allocated, and glibc returns none of them by itself. Other C libraries have nothing of the kind.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc; on Windows None is no library
        return
    trim(0)
