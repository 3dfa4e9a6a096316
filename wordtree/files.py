"""Files, whole or not at all: read within limits, written so that no half of one is ever seen.

Not here: what the bytes mean (darknet.py, treefile.py).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from wordtree.errors import TreeError

# A million nodes with glosses are about 150 MB of text; a file far above that is no tree but fills memory.
MOST_BYTES = 1 << 29


def read_whole(path: str | Path) -> bytes:
    """The bytes of a file. TreeError if it cannot be read or is absurdly large."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise TreeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > MOST_BYTES:
        raise TreeError(f"{path}: over {MOST_BYTES >> 20} MiB; that is no file of a tree")
    return data


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, none of them blank. TreeError names file and line."""
    data = read_whole(path)
    if not data:
        raise TreeError(f"{path}: the file is empty")
    if data.startswith(b"\xef\xbb\xbf"):
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


def check_target(path: str | Path) -> None:
    """TreeError if a device, folder or pipe goes by that name: replacing it would harm everybody."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise TreeError(f"{path}: cannot be written (there is something that is no plain file)")


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file so that an interrupted program leaves the old one or the new one, never half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        check_target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        raise TreeError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        with suppress(OSError, ValueError):  # gone already, or its folder is none
            temporary.unlink()
