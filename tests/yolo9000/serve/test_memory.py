"""Memory that is free goes back to the system when the server has nothing to do, and only then."""

import ctypes
import gc
import itertools
import platform
import threading
import time
import weakref
from pathlib import Path

import pytest

from tests.browser import wait_for
from tests.yolo9000.serve.running import png
from yolo9000.serve import memory


@pytest.fixture
def given_back(monkeypatch) -> list[float]:
    """The times at which a server gave memory back, two seconds after the last upload: this process, which
    the server shares, may stand still for one.
    """
    times: list[float] = []
    monkeypatch.setattr(memory, "IDLE_SECONDS", 2.0)
    monkeypatch.setattr(memory, "give_back", lambda: times.append(time.monotonic()))
    return times


def test_once_after_the_last_upload_of_a_busy_time(start, detector, given_back):
    server = start(detector)
    for _ in range(10):
        given_back.clear()
        times = [time.monotonic()]
        for _ in range(8):
            assert server.detect(png()).status_code == 200
            time.sleep(0.1)  # shorter than the pause it waits for
            times.append(time.monotonic())
        if max(after - before for before, after in itertools.pairwise(times)) < 1.5:
            break  # else the machine stood still: what was to be busy was not
    last = times[-2]  # before the last upload was sent
    wait_for(lambda: given_back, "memory given back")
    assert given_back[0] - last > 1.5
    for _ in range(4):  # probes are no work
        assert server.client.get("/healthz").status_code == 200
        time.sleep(0.2)
    assert len(given_back) == 1
    assert server.detect(b"no picture").status_code == 415  # what is refused took memory, too
    wait_for(lambda: len(given_back) == 2, "memory given back again")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps arenas that can be trimmed")
def test_what_lies_free_between_pieces_in_use_goes_back():
    """Pieces of 64 KiB allocated in threads; every other is kept, so that no arena can shrink by itself."""
    kept: list[bytearray] = []

    def fill() -> None:
        made = [bytearray(1 << 16) for _ in range(800)]
        kept.extend(made[::8])

    memory.give_back()
    before = resident()
    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    held = sum(map(len, kept))
    memory.give_back()
    assert resident() - before < held + (16 << 20)
    assert len(kept) == 400


def test_circles_are_garbage_too():
    class Node:
        pass

    node = Node()
    node.itself = node
    reference = weakref.ref(node)
    gc.disable()
    try:
        del node
        assert reference() is not None
        memory.give_back()
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("library", [object(), OSError(), TypeError()])
def test_without_glibc_nothing_happens(monkeypatch, library):
    def open_library(name):
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    memory.give_back()
