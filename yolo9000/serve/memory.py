"""Giving memory that is free back to the system. What holds memory, and for how long, is each file's own."""

import ctypes
import gc


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
