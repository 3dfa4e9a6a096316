"""Which device computes, in which precision, with how many threads, and what processes can hand one another.
No network."""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import torch

from yolo9000.errors import LoaderError

# Held while lanes begin: for that moment threads that begin elsewhere would compute with as few.
_BEGINNING = threading.Lock()


def find_device(name: str | torch.device, error: type[Exception]) -> torch.device:
    """The device of that name, "auto" a GPU where there is one. Raises `error` where it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as reason:
        raise error(f"device {str(name)!r} cannot be used ({str(reason).splitlines()[0]})") from reason
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor computes in bfloat16 itself; elsewhere it is emulated and slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether "bfloat16", "float32" or "auto", what the processor is fast at, means bfloat16 here."""
    return has_bfloat16(device) if precision == "auto" else precision == "bfloat16"


def threads_here() -> int:
    """How many of torch's threads the calling thread computes with."""
    with _BEGINNING:
        return torch.get_num_threads()


def begun(count: int, name: str, threads: int) -> ThreadPoolExecutor:
    """A pool of `count` threads, begun already, that compute with `threads` of torch's threads each; all
    others with as many as before, also those that begin while the pool lives.

    torch.set_num_threads is for the calling thread and for all that have not asked or computed yet. So the
    lanes ask and set theirs at once, and a thread that has just begun then sets what it began with.
    """
    pool = ThreadPoolExecutor(count, name)
    ready = threading.Barrier(count)

    def begin() -> None:
        torch.get_num_threads()
        torch.set_num_threads(threads)
        ready.wait()  # a thread that is free would be given the next one's turn

    def begin_all() -> None:
        before = torch.get_num_threads()
        try:
            wait([pool.submit(begin) for _ in range(count)])
        except BaseException:  # the system grants no more threads
            ready.abort()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(before)

    with _BEGINNING, ThreadPoolExecutor(1) as apart:
        apart.submit(begin_all).result()
    return pool


def batches_ahead(size: int, workers: int, most: int) -> int:
    """How many batches of `size` bytes each of `workers` processes may have ready ahead: `most`, or what half
    of the memory that processes share holds, of which containers have 64 MB unless told otherwise. With 0
    they could hand over none, and would wait for ever.
    """
    shared = Path("/dev/shm")  # Linux's; elsewhere shared memory has no such limit
    if not (workers and shared.is_dir()):
        return most
    return min(most, shutil.disk_usage(shared).free // 2 // (size * workers))


def loader_killed(error: Exception) -> bool:
    """Whether this is how torch says that a process of its DataLoader has died."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


@contextmanager
def loaders_told(remedy: str) -> Iterator[None]:
    """Within, a loading process of torch's that was killed is a LoaderError, which says what to do.

    It is told of where the system's signal reaches this process, at any line: not only where a batch is
    waited for.
    """
    try:
        yield
    except RuntimeError as error:
        if not loader_killed(error):
            raise
        reason = str(error).split(". ")[0].strip()
        raise LoaderError(
            f"a process that loads pictures was killed, probably because memory ran out ({reason}); {remedy}"
        ) from None


def _forked() -> None:
    """A forked process computes with one thread: the others were not inherited, but OpenMP would wait for
    them for ever."""
    global _BEGINNING
    _BEGINNING = threading.Lock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
