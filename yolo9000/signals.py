"""Ctrl-C and SIGTERM as something that a loop looks at between two steps. What it then does is the loop's."""

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
