"""StoreWriter: samples into one HDF5 file that appears whole or not at all.

Not here: reading (store.py) and the layout (layout.py).
"""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from data_prep.checksum import quick
from data_prep.errors import DataError
from data_prep.layout import CHUNK, COLUMNS, FORMAT, RAGGED, VERSION
from data_prep.sample import Sample
from wordtree import WordTree
from wordtree.files import disk_advice, to_disk

# Room for HDF5's own structures: headers of two dozen data sets, attributes, a chunk's padding.
_SPARE = 2 * CHUNK

# Columns that are a sample's fields of the same name.
_OF_SAMPLE = (
    "boxes_cxcywh",
    "labels",
    "crowd",
    "difficult",
    "image_labels",
    "negative_labels",
    "not_exhaustive_labels",
)

# One column of rows -> its column of starts; labels stand for all that there is one of for each box.
_COUNTED = {
    rows: starts for rows, starts in RAGGED.items() if rows not in ("boxes_cxcywh", "crowd", "difficult")
}


class StoreWriter:
    """Writes samples to `<path>.partial` and renames it to `path` when all is there and on disk.

    Use as a context manager: leaving it normally finishes the file, leaving it by an exception (Ctrl-C too)
    removes the partial one and leaves an older file at `path` as it was.

    Args:
        path: the file to make.
        tree: the WordTree whose node indices the labels are; its ids, parents and names go into the file.
        about: anything JSON-able that says where the data came from.
        on_chunk: told the number and the place in the partial file of each whole chunk of image bytes that
            was given to the system. Then an interrupt leaves the partial file, for whoever knows the places.

    Raises:
        DataError: the folder is missing or cannot be written, another process is writing, or a sample is
            not sound.
    """

    def __init__(
        self,
        path: Path | str,
        tree: WordTree,
        about: dict | None = None,
        on_chunk: Callable[[int, int], None] | None = None,
    ):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._tree = tree
        self._about = about or {}
        self._on_chunk = on_chunk
        self._sources: dict[str, int] = {}
        self._columns = {name: bytearray() for name in COLUMNS}  # as they will lie in the file
        self._length = 0
        self._buffer = bytearray()
        self._written = 0  # bytes of images already in the file, a multiple of CHUNK until the end
        check_place(self.path)
        self._reserved = 0
        self._file: h5py.File | None = None
        fresh = not self.partial.exists()
        try:
            self._open()
        except BaseException:  # Ctrl-C too
            if fresh or self._file is not None:  # otherwise another process may be writing it
                self.abandon()
            raise

    def _open(self) -> None:
        with _failing_as(self.partial):
            self._reserve(0)
            # libver latest: HDF5 then keeps a checksum over each piece of its own metadata.
            self._file = h5py.File(self.partial, "w", libver="latest")
            self._reserved = 0  # HDF5 emptied the file
            self._reserve(0)
        self._file.attrs["format"] = FORMAT
        self._file.attrs["version"] = VERSION
        self._file.attrs["complete"] = False
        self._put_ends()
        self._bytes = self._file.create_dataset("bytes", (0,), "u1", maxshape=(None,), chunks=(CHUNK,))

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is None:
            self.finish()
        elif self._on_chunk is not None and not issubclass(kind, Exception):
            self._close()
        else:
            self.abandon()

    @property
    def position(self) -> int:
        """Where the bytes of the next image will begin."""
        return self._written + len(self._buffer)

    def __len__(self) -> int:
        return self._length

    def add(self, sample: Sample) -> None:
        """Append a sample; DataError if it is not sound, and then nothing of it is written."""
        sample.validate(len(self._tree))
        name = sample.name.encode("utf-8", "surrogateescape")
        self._put("image_starts", self._written + len(self._buffer))
        self._put("image_crc32", zlib.crc32(sample.image))
        self._put("image_quick", quick(sample.image))
        self._put("width", sample.width)
        self._put("height", sample.height)
        self._put("boxed", sample.boxed)
        self._put("source", self._sources.setdefault(sample.source, len(self._sources)))
        self._columns["name_bytes"] += name
        for what in _OF_SAMPLE:
            self._put(what, getattr(sample, what))
        self._put_ends()
        self._length += 1
        self._buffer += sample.image
        if len(self._buffer) >= CHUNK:
            self._flush(len(self._buffer) // CHUNK * CHUNK)

    def _put(self, column: str, values: np.ndarray | int) -> None:
        self._columns[column] += np.asarray(values).astype(COLUMNS[column]).tobytes()

    def _put_ends(self) -> None:
        """Where the rows of the next sample start, in each ragged column."""
        for rows, starts in _COUNTED.items():
            self._put(starts, len(self._columns[rows]) // COLUMNS[rows].itemsize)

    def _reserve(self, size: int) -> None:
        """Make sure that `size` more bytes, and what HDF5 adds to them, find room on the disk; OSError if
        not.

        HDF5 does not survive a full disk: it can then not close the file, and takes the process down with a
        segmentation fault. So the system is asked first, and HDF5 only writes where there is room.
        """
        chunks = -(-self._written // CHUNK)
        # 64 bytes a chunk: HDF5's list of chunks, which it keeps in memory until the file is closed.
        wanted = chunks * (CHUNK + 64) + size + _SPARE
        if wanted <= self._reserved:
            return
        with self.partial.open("ab") as file:
            if not hasattr(os, "posix_fallocate"):  # macOS cannot promise room
                return
            try:
                os.posix_fallocate(file.fileno(), self._reserved, wanted - self._reserved)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot promise
                    raise
        self._reserved = wanted

    def _flush(self, size: int) -> None:
        if not size:
            return
        with _failing_as(self.partial):
            self._reserve(size)
            self._bytes.resize((self._written + size,))
            whole = size // CHUNK * CHUNK
            for start in range(0, whole, CHUNK):
                at = (self._written + start,)
                # Past HDF5's cache: what is told to be in the file must be there if the process is killed.
                self._bytes.id.write_direct_chunk(at, bytes(self._buffer[start : start + CHUNK]))
                if self._on_chunk is not None:
                    place = self._bytes.id.get_chunk_info_by_coord(at).byte_offset
                    self._on_chunk(at[0] // CHUNK, place)
            self._bytes[self._written + whole :] = np.frombuffer(self._buffer, np.uint8, size - whole, whole)
        self._written += size
        self._buffer = self._buffer[size:]

    def finish(self) -> None:
        """Write the index and the mark `complete`, bring it to disk and rename the file to its name."""
        try:
            self._finish()
        except BaseException:
            self.abandon()
            raise

    def _finish(self) -> None:
        total = self._written + len(self._buffer)
        self._flush(len(self._buffer))
        tree = {
            "ids": self._tree.ids,
            "parents": np.asarray(self._tree.parents).tolist(),
            "names": self._tree.names,
        }
        packed = zlib.compress(json.dumps(tree).encode("utf-8"), 9)
        checksums = {"tree": zlib.crc32(packed)}
        with _failing_as(self.path):
            self._reserve(len(packed) + sum(map(len, self._columns.values())))
            self._file.create_dataset("tree", data=np.frombuffer(packed, np.uint8))
            self._put("image_starts", total)
            for name, dtype in COLUMNS.items():
                column = np.frombuffer(self._columns[name], dtype)
                checksums[name] = zlib.crc32(column)
                shape = (-1, 4) if name == "boxes_cxcywh" else (-1,)
                self._file.create_dataset(f"index/{name}", data=column.reshape(shape))
            attributes = self._file.attrs
            attributes["sources"] = json.dumps(list(self._sources))
            attributes["about"] = json.dumps(self._about)
            attributes["tree_fingerprint"] = self._tree.fingerprint
            attributes["index_crc32"] = json.dumps(checksums)
            attributes["complete"] = True
            self._file.close()
            _give_back(self.partial)
            to_disk(self.partial)
            self.partial.replace(self.path)
            to_disk(self.path.parent)

    def abandon(self) -> None:
        """Drop what was written; a file that was at `path` before stays."""
        self._close()
        self.partial.unlink(missing_ok=True)

    def _close(self) -> None:
        # HDF5 may not be able to write its metadata (a full disk): then there is nothing more to close.
        with contextlib.suppress(*_HDF5_ERRORS):
            if self._file is not None:
                self._file.close()


def check_place(path: Path) -> None:
    """DataError unless a file could be put there, in place of none but an older packed one."""
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder to write {path.name} into")
    if path.is_dir():
        raise DataError(f"{path}: is a folder")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no plain file; replacing a device or pipe would harm everybody")
    try:
        foreign = path.exists() and path.stat().st_size > 0 and not h5py.is_hdf5(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error})") from error
    if foreign:  # an annotation file given twice would be lost
        raise DataError(f"{path}: is there and is no packed file; give another name, or move it away first")


# What h5py raises when the system refuses to write: the second when it notices only on closing.
_HDF5_ERRORS = (OSError, RuntimeError)


@contextlib.contextmanager
def _failing_as(path: Path) -> Iterator[None]:
    try:
        yield
    except _HDF5_ERRORS as error:
        raise DataError(f"{path}: writing failed ({error}){disk_advice(error)}") from error


def _give_back(path: Path) -> None:
    """Cut off what was reserved and not used: all behind the end that the superblock of a closed file
    names."""
    with path.open("r+b") as file:
        # HDF5 file format specification 3.0, II.A, superblock versions 2 and 3: end of file address
        file.seek(28)
        file.truncate(int.from_bytes(file.read(8), "little"))
