"""Some decoding processes, each with its thread: bytes in, pixels out, within a time limit.

What a decoder does is decoder.py's; a picture that takes too long costs its process, never the server."""

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, TypeVar

import numpy as np

from yolo9000.serve.decoder import HEAD, LENGTH
from yolo9000.serve.limits import Limits, RequestError

T = TypeVar("T")

# glibc gives what a picture took back to the system after each, and has it cleared page by page for the next:
# half of the time of decoding. Up to 16 MiB it keeps now; larger pictures still go back. Others ignore it.
_KEEP = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(16 << 20))

# What a pipe holds, if the system lets it: most pictures go over in one piece rather than in fourteen.
_PIPE_BYTES = 1 << 20

# A process starts in a fraction of a second; on a machine that is short of everything in some.
_START_SECONDS = 60.0


class Decoders:
    """`workers` processes that decode; each runs one picture at a time. network_size: (width, height) of the
    network's input, if large JPEGs may come reduced (images.read_reduced)."""

    def __init__(self, limits: Limits, workers: int = 2, network_size: tuple[int, int] | None = None) -> None:
        self.limits = limits
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._all = [_Process(limits, network_size or ()) for _ in range(workers)]
        for process in self._all:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
        self._inside, self._watching = 0, False
        self.restarts = 0

    async def __call__(self, data: bytes, then: Callable[[np.ndarray, tuple[int, int]], T]) -> T:
        """`then` of the pixels (H, W, 3) uint8 and the (width, height) of the picture, made in the decoder's
        thread. Raises RequestError."""
        loop = asyncio.get_running_loop()
        self._inside += 1
        if not self._watching:
            self._watch(loop)
        try:
            return await loop.run_in_executor(self._threads, self._run, data, then)
        finally:
            self._inside -= 1

    def start(self) -> None:
        """Start the processes now rather than with the first picture."""
        for process in self._all:
            process.start()

    def close(self) -> None:
        """End the processes; what is still being decoded is given up."""
        for process in self._all:
            process.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Looks a few times within the limit whether a process is late, until nothing is being decoded; a
        timer for each picture would be a thread for each."""
        for process in self._all:
            process.end_if_late()
        self._watching = self._inside > 0
        if self._watching:
            loop.call_later(self.limits.decode_seconds / 4, self._watch, loop)

    def _run(self, data: bytes, then: Callable[[np.ndarray, tuple[int, int]], T]) -> T:
        process = self._idle.get()
        try:
            pixels, image_size = process.decode(data)
        finally:
            self.restarts += not process.alive
            self._idle.put(process)
        return then(pixels, image_size)


class _Process:
    """One decoding process, started when first needed and again after it was lost."""

    def __init__(self, limits: Limits, network_size: tuple[int, ...]) -> None:
        self.limits = limits
        self._settings = [str(number) for number in (limits.pixels, *network_size)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._fresh = True  # it has answered nothing yet and may still be starting
        self._until = math.inf  # when the picture must be there
        self._deadline = threading.Lock()  # none is ended between its answer and the next one's start

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self._lock:
            if self.alive or self._closed:
                return
            self._forget()
            self._fresh = True
            # -P: a file called PIL.py in the folder the server was started in is not imported. One thread:
            # the decoders themselves are as many as shall run.
            settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **_KEEP}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "yolo9000.serve.decoder", *self._settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | settings,
            )
            for pipe in (self._process.stdin, self._process.stdout):
                _widen(pipe)

    def stop(self) -> None:
        with self._lock:
            self._closed = True
            self._forget()

    def decode(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels (H, W, 3) uint8, and (width, height) of the picture. Raises RequestError."""
        self.start()
        process = self._process
        if process is None:
            raise RequestError(503, "the server is going down", retry=10)
        limit = self.limits.decode_seconds + (_START_SECONDS if self._fresh else 0)
        self._until = until = time.monotonic() + limit
        try:
            process.stdin.write(LENGTH.pack(len(data)))
            process.stdin.write(data)
            process.stdin.flush()
            status, width, height, *image_size, length = HEAD.unpack(_read(process.stdout, HEAD.size))
            payload = _read(process.stdout, length)
        except (OSError, EOFError, ValueError):
            process.kill()
            process.wait()
            if time.monotonic() >= until:
                reason = f"decoding takes longer than the {self.limits.decode_seconds:g} s that are granted"
            else:
                reason = "the decoder broke down on it"
            raise RequestError(422, reason) from None
        finally:
            with self._deadline:
                self._until = math.inf
        self._fresh = False
        if time.monotonic() >= until:  # it may have been ended as it answered
            process.kill()
            process.wait()  # so that the next picture finds it gone
        if status != 200:
            raise RequestError(status, payload.decode())
        pixels = np.frombuffer(payload, np.uint8).reshape(height, width, 3)  # (H*W*3,) -> (H, W, 3)
        return pixels, (image_size[0], image_size[1])

    def end_if_late(self) -> None:
        """Kill what has not brought its picture in time. Any thread."""
        with self._deadline:
            process = self._process
            if process is not None and time.monotonic() >= self._until:
                process.kill()

    def _forget(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # what was left to write has no reader any more
                    pipe.close()
            self._process = None


def _widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold more, on systems that do this."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return  # it holds what it holds


def _read(pipe, length: int) -> bytearray:
    """Exactly so many bytes. Raises EOFError."""
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = pipe.readinto(view[got:])
        if not count:
            raise EOFError
        got += count
    return data
