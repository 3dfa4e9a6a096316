"""Reader: what the fuzzer knows of one reader of files, and how one case of it ends.

Not here: the readers themselves (trees.py, networks.py, annotations.py, classnames.py, stores.py, photos.py,
requests.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Mutation, mutate

Check = Callable[[bytes], None]


class MisreadError(AssertionError):
    """A reader accepted a file and made something else of it than an independent parse does."""


@dataclass(frozen=True)
class Reader:
    """One reader under test.

    errors: what it may raise on purpose; anything else is a crash. open: given an empty folder, gives the
    check, which has one file read and holds what was accepted against an independent parse (MisreadError).
    seeds: valid files, each of which the check accepts; mutations: the ways to mutate them.
    """

    name: str
    errors: tuple[type[Exception], ...]
    open: Callable[[Path], AbstractContextManager[Check]]
    seeds: Callable[[], Sequence[bytes]]
    mutations: tuple[Mutation, ...]


def case(reader: Reader, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """The mutated file of one case: a function of reader, seed and number alone."""
    return mutate(Random(f"{reader.name} {seed} {number}"), seeds, reader.mutations)


def outcome(reader: Reader, check: Check, data: bytes) -> tuple[str, str]:
    """("accepted" | "refused" | "misread" | "memory" | "crash", detail)."""
    try:
        check(data)
    except reader.errors as error:
        text = str(error)
        # What the command line prints is one line, and says something.
        return ("refused", text) if text.strip() else ("crash", f"an empty {type(error).__name__}")
    except MisreadError as error:
        return "misread", str(error)
    except MemoryError as error:
        return "memory", repr(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error} ({_where(error)})"
    return "accepted", ""


def same(found: object, wanted: object, what: str) -> None:
    """MisreadError unless both are equal."""
    if found != wanted:
        raise MisreadError(f"{what}: the reader has {str(found)[:200]}, the file says {str(wanted)[:200]}")


def _where(error: Exception) -> str:
    """File and line of the innermost frame of ours."""
    place, trace = "", error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.parent.name in ("wordtree", "data_prep", "yolo9000", "serve", "fuzz"):
            place = f"{file.parent.name}/{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
