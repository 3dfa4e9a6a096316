"""Ctrl-C and SIGTERM as one: as something that a loop looks at between two steps, or as an exception. What is
then done is the loop's, or the command's."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def caught_signals() -> Iterator[list[str]]:
    """The names of SIGINT and SIGTERM received, as a list that fills; a second Ctrl-C ends the program at
    once.

    Outside the main thread the list stays empty.
    """
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # handlers can only be set there
        return

    def note(number: int, frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt within, so that what Ctrl-C leaves whole is left whole.

    Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers can only be set there
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
