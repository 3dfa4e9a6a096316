"""Store: reads the samples of one packed file, from any number of processes.

Not here: writing (writer.py) and the layout (layout.py).
"""

import hashlib
import json
import os
import zlib
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from data_prep.checksum import quick
from data_prep.errors import DataError
from data_prep.layout import CHUNK, COLUMNS, FORMAT, LABELS, NEW, RAGGED, READABLE, index_fits
from data_prep.sample import Sample
from wordtree import TreeError, WordTree
from wordtree.files import MOST_BYTES

_OF_BOXES = ("boxes_cxcywh", "labels", "crowd", "difficult")

# Without elements nobody can change them, and making new ones for each sample costs as much as reading it.
_NO_LABELS = np.zeros(0, np.int64)
_NO_BOXES = np.zeros((0, 4), np.float32), _NO_LABELS, np.zeros(0, bool), np.zeros(0, bool)


class Store:
    """The samples of a packed file: `len(store)`, `store[i]` -> Sample, and columns over all samples without
    touching images.

    h5py reads the index once and is closed again; images are then read with pread at the places where HDF5
    put the chunks, so a store costs microseconds a picture, survives fork, and is picklable (the path
    travels, each process opens its own).

    Attributes:
        boxed: bool (n,). source: str (n,). sources: the distinct source names. widths, heights: int32 (n,).
        box_counts: int64 (n,). tree_fingerprint: of the tree whose node indices the labels are. about: dict,
            where it came from.

    Raises:
        DataError: no such file, not a store, another version, not finished, truncated or damaged. A flipped
            bit in the index is found on opening, one in an image when a process first reads that image (or by
            `verify`).
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._handle: int | None = None
        self._open()

    def __getstate__(self) -> dict:
        return {"path": self.path, "identity": self._identity}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])
        if self._identity != state["identity"]:
            raise DataError(f"{self.path}: the file was replaced while it was in use; start again")

    def _open(self) -> None:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file; `data-prep pack` makes one")
        try:
            with h5py.File(self.path, "r") as file:
                self._read_header(file)
                self._read_index(file)
                self._read_chunks(file["bytes"])
        except DataError:
            raise
        except (
            Exception
        ) as error:  # h5py raises half a dozen types on damaged files, none of which names the file
            raise DataError(
                f"{self.path}: damaged, truncated, still being written or not HDF5 ({error}); pack it again"
            ) from error

    def _read_header(self, file: h5py.File) -> None:
        attributes = file.attrs
        if attributes.get("format") != FORMAT:
            raise DataError(f"{self.path}: an HDF5 file, but not one that `data-prep pack` made")
        self._version = attributes["version"]
        if self._version not in READABLE:
            raise DataError(
                f"{self.path}: format version {self._version}, this program reads {READABLE}; "
                "pack the data again"
            )
        if not attributes["complete"]:
            raise DataError(f"{self.path}: was never finished; pack the data again")
        self.tree_fingerprint: str = attributes["tree_fingerprint"]
        self.sources: tuple[str, ...] = tuple(json.loads(attributes["sources"]))
        self.about: dict = json.loads(attributes["about"])
        self._identity: str = attributes["index_crc32"]
        texts = (self.tree_fingerprint, self._identity, *self.sources)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.about, dict):
            raise DataError(f"{self.path}: an attribute is not of its type; pack it again")
        self._tree_json = file["tree"][()].tobytes()

    def _read_index(self, file: h5py.File) -> None:
        checksums = json.loads(self._identity)
        columns: dict[str, np.ndarray] = {}
        for name, dtype in COLUMNS.items():
            if self._version == 1 and name in NEW:
                continue
            if file[f"index/{name}"].nbytes > self.path.stat().st_size:  # HDF5 makes up what is not there
                raise DataError(f"{self.path}: index/{name} is larger than the file; pack it again")
            column = file[f"index/{name}"][()]
            if column.dtype != dtype or zlib.crc32(column.tobytes()) != checksums[name]:
                raise DataError(
                    f"{self.path}: checksum of index/{name} does not fit; the file is damaged, pack it again"
                )
            columns[name] = column
        if zlib.crc32(self._tree_json) != checksums["tree"]:
            raise DataError(
                f"{self.path}: checksum of the tree does not fit; the file is damaged, pack it again"
            )
        self._length = len(columns["width"])
        if not index_fits(columns, file["bytes"].shape, len(self.sources)):
            raise DataError(f"{self.path}: the index does not fit the images or itself; pack it again")
        for name in LABELS:
            columns[name] = columns[name].astype(np.int64)
        for name in ("boxed", "crowd", "difficult"):
            columns[name] = columns[name].astype(bool)
        self._names = columns.pop("name_bytes").tobytes()
        self._checked = bytearray(self._length)  # images whose checksum was found to fit
        self._columns = columns
        # An element of a memoryview costs a third of an array's, and no memory of its own as a list's would:
        # these are read for every sample.
        self._views = {name: memoryview(column) for name, column in columns.items() if column.ndim == 1}
        newer = "image_quick" in columns
        self._quick = quick if newer else zlib.crc32
        self._quick_sums = self._views["image_quick" if newer else "image_crc32"]

    def _read_chunks(self, data: h5py.Dataset) -> None:
        """Where in the file each chunk of image bytes lies."""
        places = np.full(-(-data.shape[0] // CHUNK), -1, np.int64)
        if data.chunks != (CHUNK,) or data.compression is not None:
            raise DataError(
                f"{self.path}: images are not laid out as format version {self._version} says; pack it again"
            )

        def note(chunk) -> None:
            if chunk.chunk_offset[0] // CHUNK < len(places):
                places[chunk.chunk_offset[0] // CHUNK] = chunk.byte_offset

        if len(places):
            data.id.chunk_iter(note)
        if (places < 0).any():
            raise DataError(
                f"{self.path}: chunks of image bytes are missing; the file is damaged, pack it again"
            )
        self._places = places.tolist()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what tells samples, their order and their tree from others' (the checksums in the file:
        no sample is read); where the file lies and what it is called do not matter."""
        return hashlib.sha256(json.dumps([self._identity, self.sources]).encode()).hexdigest()

    # Columns over all samples

    def __len__(self) -> int:
        return self._length

    @property
    def boxed(self) -> np.ndarray:
        return self._columns["boxed"]

    @cached_property
    def source(self) -> np.ndarray:
        return (
            np.asarray(self.sources, dtype=str)[self._columns["source"]]
            if self.sources
            else np.zeros(0, dtype=str)
        )

    @property
    def widths(self) -> np.ndarray:
        return self._columns["width"]

    @property
    def heights(self) -> np.ndarray:
        return self._columns["height"]

    @property
    def box_counts(self) -> np.ndarray:
        return np.diff(self._columns["box_starts"])

    @property
    def all_boxes_cxcywh(self) -> np.ndarray:
        """float32 (total boxes, 4), those of sample 0 first; `box_counts` says how many belong to each."""
        return self._columns["boxes_cxcywh"]

    @property
    def all_box_labels(self) -> np.ndarray:
        """int64 (total boxes,), in the order of `all_boxes_cxcywh`."""
        return self._columns["labels"]

    @property
    def all_crowd(self) -> np.ndarray:
        """bool (total boxes,), in the order of `all_boxes_cxcywh`."""
        return self._columns["crowd"]

    @property
    def image_label_counts(self) -> np.ndarray:
        """int64 (n,)."""
        return np.diff(self._columns["image_label_starts"])

    @property
    def image_bytes(self) -> int:
        """Bytes of all encoded images together."""
        return self._views["image_starts"][-1]

    @property
    def all_image_labels(self) -> np.ndarray:
        """int64, the image labels of all samples, those of sample 0 first."""
        return self._columns["image_labels"]

    def name_of(self, index: int) -> str:
        """The picture's name in the data set it came from."""
        index, starts = self._position(index), self._views["name_starts"]
        return self._names[starts[index] : starts[index + 1]].decode("utf-8", "surrogateescape")

    def labels_of(self, index: int) -> np.ndarray:
        """Nodes sample `index` is a positive example of, boxes' first, then image labels; int64 (n + m,).
        Reads no image."""
        index = self._position(index)
        starts = self._views["box_starts"]
        boxes = self._columns["labels"][starts[index] : starts[index + 1]]
        return np.concatenate([boxes, self._rows("image_labels", index)])

    @cached_property
    def tree(self) -> WordTree:
        """The tree whose node indices the labels are, rebuilt from the file and held against the
        fingerprint."""
        try:
            tree = WordTree(**json.loads(zlib.decompressobj().decompress(self._tree_json, MOST_BYTES)))
        except (TreeError, ValueError, TypeError, RecursionError, zlib.error) as error:
            raise DataError(f"{self.path}: the tree in it cannot be read ({error})") from error
        if tree.fingerprint != self.tree_fingerprint:
            raise DataError(f"{self.path}: the tree in it is not the one its fingerprint names")
        self._check_labels(len(tree))
        return tree

    def require_tree(self, tree: WordTree) -> None:
        """Raise DataError unless the labels are nodes of `tree`."""
        if tree.fingerprint != self.tree_fingerprint:
            raise DataError(
                f"{self.path}: its labels are nodes of another tree ({self.tree_fingerprint[:12]}, "
                f"{len(self.tree)} nodes) than {tree.fingerprint[:12]} ({len(tree)} nodes); "
                "pack the data with that tree"
            )
        self._check_labels(len(tree))

    def _check_labels(self, nodes: int) -> None:
        for name in LABELS:
            if len(self._columns[name]) and self._columns[name].max() >= nodes:
                raise DataError(f"{self.path}: {name} beyond the {nodes} nodes of its tree; pack it again")

    # Samples

    def __getitem__(self, index: int) -> Sample:
        return self._sample(self._position(index), with_image=True)

    def image(self, index: int) -> bytes:
        """The encoded picture of sample `index` alone, without what is known of it."""
        return self._image(self._position(index))

    def annotation(self, index: int) -> Sample:
        """Sample `index` with empty `image`: all that is known of it, at the cost of no reading."""
        return self._sample(self._position(index), with_image=False)

    def _position(self, index: int) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(f"sample {index} of a store of {self._length}")
        return int(index) % self._length

    def _rows(self, what: str, index: int) -> np.ndarray:
        starts = self._views[RAGGED[what]]
        first, last = starts[index], starts[index + 1]
        return self._columns[what][first:last].copy() if last > first else _NO_LABELS

    def _sample(self, index: int, with_image: bool) -> Sample:
        columns, views = self._columns, self._views
        first, last = views["box_starts"][index], views["box_starts"][index + 1]
        boxes, labels, crowd, difficult = (
            (columns[what][first:last].copy() for what in _OF_BOXES) if last > first else _NO_BOXES
        )
        return Sample(
            name=self.name_of(index),
            image=self._image(index) if with_image else b"",
            width=views["width"][index],
            height=views["height"][index],
            boxes_cxcywh=boxes,
            labels=labels,
            image_labels=self._rows("image_labels", index),
            negative_labels=self._rows("negative_labels", index),
            crowd=crowd,
            difficult=difficult,
            source=self.sources[views["source"][index]],
            boxed=views["boxed"][index],
            not_exhaustive_labels=self._rows("not_exhaustive_labels", index),
        )

    def _image(self, index: int) -> bytes:
        if self._handle is None:
            try:
                self._handle = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be read any more ({error})") from error
        starts = self._views["image_starts"]
        position, end = starts[index], starts[index + 1]
        pieces = []
        while position < end:
            chunk, within = divmod(position, CHUNK)
            place = self._places[chunk] + within
            size = min(end - position, CHUNK - within)
            # HDF5 mostly puts one chunk behind the other: then one pread does.
            while position + size < end and self._places[chunk + 1] == self._places[chunk] + CHUNK:
                chunk += 1
                size = min(end - position, size + CHUNK)
            # pread has no file position, so processes that share this handle after a fork do not disturb each
            # other.
            try:
                piece = os.pread(self._handle, size, place)
            except OSError as error:
                raise DataError(f"{self.path}: reading sample {index} failed ({error})") from error
            if len(piece) != size:
                raise DataError(
                    f"{self.path}: ends within sample {index}; the file was cut short, pack it again"
                )
            pieces.append(piece)
            position += size
        image = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # Once for each process will do, for what goes wrong on a disk stays wrong.
        if not self._checked[index]:
            if self._quick(image) != self._quick_sums[index]:
                raise self._damaged(index)
            self._checked[index] = 1
        return image

    def _damaged(self, index: int) -> DataError:
        return DataError(
            f"{self.path}: sample {index} ({self.name_of(index)}): checksum does not fit; "
            "the file is damaged, pack it again"
        )

    def verify(self, progress: bool = False) -> None:
        """Read every image and hold it against all its checksums, whatever was read before; DataError at the
        first that does not fit."""
        self._checked = bytearray(self._length)
        for index in tqdm(range(self._length), unit=" pictures", disable=not progress):
            if zlib.crc32(self._image(index)) != self._views["image_crc32"][index]:
                raise self._damaged(index)

    def close(self) -> None:
        """Let go of the file; it is opened again when an image is read."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()
