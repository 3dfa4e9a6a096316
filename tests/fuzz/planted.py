"""Readers with planted faults, for test_harness.py: what the fuzzer has to find."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fuzz.reader import Check, MisreadError, Reader

CASES = 12


class RefusalError(Exception):
    """What a planted reader raises on purpose."""


def _number(random: Random, data: bytes) -> bytes:
    return b"%d" % random.randrange(1, 1 << 20)


def _reader(name: str, fault: Callable[[], None]) -> Reader:
    @contextmanager
    def opened(folder: Path) -> Iterator[Check]:
        def check(data: bytes) -> None:
            if data and int(data) % 3 == 0:
                fault()
            if data and int(data) % 3 == 1:
                raise RefusalError("not this one")

        yield check

    return Reader(name, (RefusalError,), opened, lambda: [b""], (_number,))


def _crash() -> None:
    raise KeyError("deep inside")


def _misread() -> None:
    raise MisreadError("something else")


def _silent() -> None:
    raise RefusalError("")


def _memory() -> None:
    bytearray(1 << 40)


def _grow() -> None:
    held = bytearray(400 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    raise RefusalError("too much")


def _talk() -> None:
    sys.stdout.write("a library prints\n")
    sys.stdout.flush()


FAULTS = {
    "fine": lambda: None,
    "crash": _crash,
    "misread": _misread,
    "silent": _silent,
    "memory": _memory,
    "grow": _grow,
    "talk": _talk,
    "death": lambda: os._exit(9),
    "hang": lambda: time.sleep(600),
}
READERS = tuple(_reader(name, fault) for name, fault in FAULTS.items())
