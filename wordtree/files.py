"""Files, whole or not at all: read within limits, written so that no half of one is ever seen.

Not here: what lines and JSON mean (darknet.py, treefile.py).
"""

from __future__ import annotations

import codecs
import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from wordtree.errors import TreeError

# A million nodes with glosses are about 150 MB of text; a file far above that is no tree but fills memory.
MOST_BYTES = 1 << 29
_PART = 1 << 20


def read_whole(path: str | Path) -> bytes:
    """The bytes of a file. TreeError if it cannot be read or is absurdly large."""
    try:
        data = bytearray()
        with Path(path).open("rb") as file:
            # In parts: to ask for the most there may be at once would take that much memory.
            while len(data) <= MOST_BYTES and (part := file.read(_PART)):
                data += part
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise TreeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > MOST_BYTES:
        raise TreeError(f"{path}: over {MOST_BYTES >> 20} MiB; that is no file of a tree")
    return bytes(data)


def read_lines(path: str | Path, marked: bool = False) -> list[str]:
    """The lines of a UTF-8 text file, none of them blank. marked: a byte order mark in front, as spreadsheets
    put there, is no fault. TreeError names file and line."""
    data = read_whole(path)
    if marked:
        data = data.removeprefix(codecs.BOM_UTF8)
    if not data:
        raise TreeError(f"{path}: the file is empty")
    if data.startswith(codecs.BOM_UTF8):
        raise TreeError(f"{path}:1: starts with a byte order mark; save it as UTF-8 without one")
    lines = []
    for number, raw in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise TreeError(
                f"{path}:{number}: not UTF-8 text ({error.reason}, byte {error.start + 1})"
            ) from None
        if not line.strip():
            raise TreeError(f"{path}:{number}: a blank line; every line is one entry")
        if "\r" in line:
            raise TreeError(f"{path}:{number}: a carriage return within the line; end lines with a line feed")
        lines.append(line)
    return lines


def parse_json(data: bytes, where: str) -> Any:
    """The value of JSON in UTF-8, with a byte order mark or without. TreeError if it is none, or an object
    has a key twice: one of the two would be lost."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _object(pairs, where))
    except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8 and over-long integers
        raise TreeError(f"{where}: not JSON in UTF-8 ({error})") from error


def _object(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise TreeError(f"{where}: an object has the key {twice!r} twice; make one of the two")
    return found


def check_target(path: str | Path, error: type[Exception] = TreeError, suffixes: Sequence[str] = ()) -> None:
    """`error` if no file can be written there: where a device, folder or pipe goes by that name, or the
    folder it belongs in, or would be made in, is none or takes no new files. Nothing is left there.

    suffixes: how such files are named, any way if there are none: a page by the name of a packed file would
    take the data's place.
    """
    path = Path(path)
    try:
        _no_device(path, error)
        if suffixes and path.suffix.lower() not in suffixes:
            raise error(f"{path}: such a file is named {' or '.join(suffixes)}; give another name")
        around = (folder for folder in path.absolute().parents if os.path.lexists(folder))
        # A question for permission would not do: root has it in /proc, where no file can be made.
        with TemporaryFile(dir=next(around, path.parent)):
            pass
    except OSError as reason:
        raise error(_unwritten(path, reason)) from reason


def _no_device(path: Path, error: type[Exception]) -> None:
    """`error` if a device, folder or pipe goes by that name: replacing it would harm everybody."""
    if path.exists() and not path.is_file():
        raise error(f"{path}: cannot be written (there is something that is no plain file)")


def _unwritten(path: Path, reason: Exception) -> str:
    return f"{path}: cannot be written ({getattr(reason, 'strerror', None) or reason})"


@contextmanager
def written_whole(
    path: str | Path, error: type[Exception] = TreeError, durable: bool = False
) -> Iterator[Path]:
    """Gives a path beside `path` to write to; what is there at the end becomes `path`, in one step.

    The folder is made if it is missing. An error or an interruption leaves an older file as it was, and
    nothing else. What the file system refuses is raised as `error`, one line that names the path. durable:
    the file and its name are on the disk before this returns, so that a power cut takes neither.
    """
    path = Path(path)
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        _no_device(path, error)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if durable:
            to_disk(part)
        part.replace(path)
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened
            to_disk(path.parent)
    except (OSError, ValueError) as reason:
        raise error(_unwritten(path, reason)) from reason
    finally:
        with suppress(OSError, ValueError):  # gone already, or its folder is none
            part.unlink()


def disk_advice(error: Exception) -> str:
    """What to look at where writing failed: the disk, if it was full or nobody says what it was."""
    full = getattr(error, "errno", None) in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "; is the disk full?" if full else ""


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file so that an interrupted program leaves the old one or the new one, never half of it."""
    with written_whole(path) as part:
        part.write_bytes(data)


def to_disk(path: Path) -> None:
    """fsync a file or folder, so that a rename never lands before the bytes it promises."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders, and renames within them are whole
    number = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows syncs nothing read-only
    try:
        os.fsync(number)
    finally:
        os.close(number)
