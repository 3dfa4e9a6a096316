"""StoreWriter: samples into one HDF5 file that appears whole or not at all. Reading is store.py, the layout
layout.py."""

import contextlib
import json
import os
import zlib
from pathlib import Path

import h5py
import numpy as np

from data_prep.errors import DataError
from data_prep.layout import CHUNK, COLUMNS, FORMAT, VERSION
from data_prep.sample import Sample
from wordtree import WordTree


class StoreWriter:
    """Writes samples to `<path>.partial` and renames it to `path` when all is there and on disk.

    Use as a context manager: leaving it normally finishes the file, leaving it by an exception (Ctrl-C too)
    removes the partial one and leaves an older file at `path` as it was.

    Args:
        path: the file to make.
        tree: the WordTree whose node indices the labels are; its ids, parents and names go into the file.
        about: anything JSON-able that says where the data came from.

    Raises:
        DataError: the folder is missing or cannot be written, another process is writing, or a sample is not
        sound.
    """

    def __init__(self, path: Path | str, tree: WordTree, about: dict | None = None):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._tree = tree
        self._about = about or {}
        self._sources: dict[str, int] = {}
        self._columns: dict[str, list] = {name: [] for name in COLUMNS}
        self._buffer = bytearray()
        self._written = 0  # bytes of images already in the file, a multiple of CHUNK until the end
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path.parent}: no such folder to write {self.path.name} into")
        if self.path.is_dir():
            raise DataError(f"{self.path}: is a folder")
        try:
            # libver latest: HDF5 then keeps a checksum over each piece of its own metadata.
            self._file = h5py.File(self.partial, "w", libver="latest")
        except OSError as error:
            raise DataError(f"{self.partial}: cannot be written ({error})") from error
        self._file.attrs["format"] = FORMAT
        self._file.attrs["version"] = VERSION
        self._file.attrs["complete"] = False
        self._bytes = self._file.create_dataset("bytes", (0,), "u1", maxshape=(None,), chunks=(CHUNK,))

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()

    def __len__(self) -> int:
        return len(self._columns["width"])

    def add(self, sample: Sample) -> None:
        """Append a sample; DataError if it is not sound, and then nothing of it is written."""
        sample.validate(len(self._tree))
        rows, name = self._columns, sample.name.encode("utf-8", "surrogateescape")
        rows["image_starts"].append(self._written + len(self._buffer))
        rows["image_crc32"].append(zlib.crc32(sample.image))
        rows["width"].append(sample.width)
        rows["height"].append(sample.height)
        rows["boxed"].append(sample.boxed)
        rows["source"].append(self._sources.setdefault(sample.source, len(self._sources)))
        rows["name_starts"].append(len(name))
        rows["name_bytes"].append(np.frombuffer(name, np.uint8))
        rows["box_starts"].append(len(sample.labels))
        rows["boxes_cxcywh"].append(sample.boxes_cxcywh)
        rows["labels"].append(sample.labels)
        rows["crowd"].append(sample.crowd)
        rows["difficult"].append(sample.difficult)
        for what in ("image_label", "negative_label", "not_exhaustive_label"):
            values = getattr(sample, what + "s")
            rows[what + "_starts"].append(len(values))
            rows[what + "s"].append(values)
        self._buffer += sample.image
        if len(self._buffer) >= CHUNK:
            self._flush(len(self._buffer) // CHUNK * CHUNK)

    def _flush(self, size: int) -> None:
        if not size:
            return
        try:
            self._bytes.resize((self._written + size,))
            self._bytes[self._written :] = np.frombuffer(self._buffer, np.uint8, size)
        except OSError as error:
            raise DataError(f"{self.partial}: writing failed ({error}); is the disk full?") from error
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
        try:
            self._file.create_dataset("tree", data=np.frombuffer(packed, np.uint8))
            for name, dtype in COLUMNS.items():
                column = self._column(name, total).astype(dtype)
                checksums[name] = zlib.crc32(column.tobytes())
                self._file.create_dataset(f"index/{name}", data=column)
            attributes = self._file.attrs
            attributes["sources"] = json.dumps(list(self._sources))
            attributes["about"] = json.dumps(self._about)
            attributes["tree_fingerprint"] = self._tree.fingerprint
            attributes["index_crc32"] = json.dumps(checksums)
            attributes["complete"] = True
            self._file.close()
            _to_disk(self.partial)
            self.partial.replace(self.path)
            _to_disk(self.path.parent)
        except OSError as error:
            raise DataError(f"{self.path}: writing failed ({error}); is the disk full?") from error

    def _column(self, name: str, total: int) -> np.ndarray:
        rows = self._columns[name]
        if name == "image_starts":
            return np.asarray([*rows, total])
        if name.endswith("_starts"):
            return np.concatenate([[0], np.cumsum(np.asarray(rows, np.int64))])
        if name == "boxes_cxcywh":
            return np.concatenate(rows) if rows else np.zeros((0, 4))
        if rows and isinstance(rows[0], np.ndarray):
            return np.concatenate(rows)
        return np.asarray(rows)

    def abandon(self) -> None:
        """Drop what was written; a file that was at `path` before stays."""
        # HDF5 may not be able to write its metadata (a full disk): then there is nothing more to close.
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self.partial.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """fsync a file or folder, so that the rename never lands before the bytes it promises."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
