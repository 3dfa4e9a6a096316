"""Journal: what `pack` has already read and decoded, so that a run killed at any moment goes on where it was.

Beside `<out>.partial`, the store being written, lies `<out>.partial.log`: a line for each picture looked
at (its shape and where its bytes begin, or its fault) and for each chunk of bytes on disk (its place there).
Neither is ever read as a store. Going on, the unfinished store becomes `<out>.partial.old`, and pictures are
copied out of it instead of being read and decoded again; those whose bytes are not on disk are read again.
"""

import fcntl
import json
import os
import zlib
from pathlib import Path

from data_prep.errors import DataError
from data_prep.layout import CHUNK
from data_prep.pictures import Shape
from data_prep.record import Fault
from wordtree.files import disk_advice


class Journal:
    """The log of one packed file. Holds a lock, so that no two processes write the same file.

    Args:
        out: the file that is packed. key: what it is made of and how; a log with another key is dropped.

    Raises:
        DataError: another process is writing, or nothing can be written there.
    """

    def __init__(self, out: Path, key: str):
        self._data, self._log, self._old = (
            out.with_name(f"{out.name}.partial{end}") for end in ("", ".log", ".old")
        )
        try:
            self._file = self._log.open("a+b")
        except OSError as error:
            raise DataError(f"{self._log}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise DataError(f"{out}: another process is packing it") from error
        self._entries: list[dict] = []  # of the pictures, by number
        self._places: dict[int, int] = {}  # chunk -> position in the file
        self._base: int | None = None  # handle of the unfinished store
        self._fresh = False  # whether an entry was added that the log did not have
        copying = self._read(key)
        if self._entries and copying and self._old.exists():
            pass  # killed while it was copying: the older file is still the one that has more
        elif self._entries and self._data.exists():
            self._old.unlink(missing_ok=True)
            self._put({"copying": True})
            self._data.replace(self._old)
        else:
            self._begin(key)
            return
        self._base = os.open(self._old, os.O_RDONLY)

    def __len__(self) -> int:
        """Pictures that an earlier run has dealt with."""
        return len(self._entries)

    def _begin(self, key: str) -> None:
        self._entries, self._places = [], {}
        self._old.unlink(missing_ok=True)
        self._file.truncate(0)
        self._put({"key": key})

    def _read(self, key: str) -> bool:
        """Take in the log up to its first damaged line; whether a run was copying from the older file."""
        self._file.seek(0)
        copying, end = False, 0
        for number, line in enumerate(self._file):
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
                break
            row = json.loads(text)
            if number == 0 and row != {"key": key}:
                break
            end += len(line)
            copying = row.get("copying", copying)
            if "chunk" in row:
                self._places[row["chunk"]] = row["at"]
            elif "n" in row and row["n"] <= len(self._entries):
                del self._entries[row["n"] :]
                self._entries.append(row)
        self._file.truncate(end)  # half a line would make the next one unreadable
        return copying

    def _put(self, row: dict) -> None:
        text = json.dumps(row).encode()
        try:
            self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._log}: writing failed ({error}){disk_advice(error)}") from error

    def taken(self, number: int, name: str) -> tuple[bytes, Shape | Fault] | None:
        """Picture `number` as an earlier run found it; None if it has to be read. Threads may share this."""
        if self._base is None or number >= len(self._entries):
            return None
        row = self._entries[number]
        if row["name"] != name:
            return None
        if "fault" in row:
            return b"", Fault(row["fault"][0], name, row["fault"][1])
        width, height, orientation = row["shape"]
        image = self._bytes(row["at"], row["size"])
        if zlib.crc32(image) != row["crc"] or len(image) != row["size"]:
            return None
        return image, Shape((width, height), orientation)

    def _bytes(self, position: int, size: int) -> bytes:
        pieces = []
        while size:
            chunk, within = divmod(position, CHUNK)
            length = min(size, CHUNK - within)
            if chunk not in self._places:
                return b""
            pieces.append(os.pread(self._base, length, self._places[chunk] + within))
            position, size = position + length, size - length
        return b"".join(pieces)

    def add(self, number: int, name: str, position: int, image: bytes, shape: Shape | Fault) -> None:
        """Picture `number` is dealt with; if it goes into the store, its bytes begin at `position`."""
        row = {"n": number, "name": name}
        if isinstance(shape, Fault):
            row["fault"] = [shape.kind, shape.detail]
        else:
            row |= {"shape": [*shape.stored, shape.orientation], "at": position}
            row |= {"size": len(image), "crc": zlib.crc32(image)}
        if self._fresh or number >= len(self._entries) or row != self._entries[number]:
            self._fresh = True
            self._put(row)
        if self._base is not None and number >= len(self._entries):
            self._put({"copying": False})
            self._let_go()

    def add_chunk(self, chunk: int, place: int) -> None:
        """A chunk of bytes has been given to the system, at `place` in the file."""
        self._put({"chunk": chunk, "at": place})

    def _let_go(self) -> None:
        if self._base is not None:
            os.close(self._base)
            self._base = None
            self._old.unlink(missing_ok=True)

    def drop(self) -> None:
        """There is nothing to go on with: the file is finished, or cannot be made."""
        self._let_go()
        self._log.unlink(missing_ok=True)
        self._file.close()

    def keep(self) -> None:
        """Leave all as it is, to go on later."""
        if self._base is not None:
            os.close(self._base)
            self._base = None
        self._file.close()
