"""The layout of a store file (HDF5): what is written (writer.py) and read (store.py) under which name.

    attributes   format, version, complete, sources (JSON), about (JSON), tree_fingerprint,
                 index_crc32 (JSON: column -> crc32)
    bytes        uint8, the encoded images one after the other, in chunks without filters
    tree         uint8, zlib of JSON {"ids", "parents", "names"}
    index/...    one small array per column below

Column `x_starts` (n + 1,) says which rows of `x` belong to sample i: x_starts[i]:x_starts[i + 1].
"""

from collections.abc import Mapping

import numpy as np

from data_prep.sample import sound

FORMAT = "yolo9000-samples"
VERSION = 2
# Version 1 lacks the columns in NEW; readers do without them.
READABLE = (1, 2)
NEW = frozenset({"image_quick"})

# HDF5 gives each chunk one place in the file, so a picture is read with one or two preads; 1 MiB keeps the
# padding of the last chunk small and the list of chunks short (100,000 for 100 GB).
CHUNK = 1 << 20

# Column -> type on disk. Node indices are int32 there (trees are far below 2^31 nodes) and int64 in memory.
COLUMNS = {
    "image_starts": np.dtype("<i8"),
    "image_crc32": np.dtype("<u4"),
    "image_quick": np.dtype("<u4"),  # checksum.py
    "width": np.dtype("<i4"),
    "height": np.dtype("<i4"),
    "boxed": np.dtype("u1"),
    "source": np.dtype("<i4"),
    "name_starts": np.dtype("<i8"),
    "name_bytes": np.dtype("u1"),
    "box_starts": np.dtype("<i8"),
    "boxes_cxcywh": np.dtype("<f4"),
    "labels": np.dtype("<i4"),
    "crowd": np.dtype("u1"),
    "difficult": np.dtype("u1"),
    "image_label_starts": np.dtype("<i8"),
    "image_labels": np.dtype("<i4"),
    "negative_label_starts": np.dtype("<i8"),
    "negative_labels": np.dtype("<i4"),
    "not_exhaustive_label_starts": np.dtype("<i8"),
    "not_exhaustive_labels": np.dtype("<i4"),
}

# Rows column -> the column of its starts.
RAGGED = {
    "name_bytes": "name_starts",
    "boxes_cxcywh": "box_starts",
    "labels": "box_starts",
    "crowd": "box_starts",
    "difficult": "box_starts",
    "image_labels": "image_label_starts",
    "negative_labels": "negative_label_starts",
    "not_exhaustive_labels": "not_exhaustive_label_starts",
}

# Columns of node indices.
LABELS = ("labels", "image_labels", "negative_labels", "not_exhaustive_labels")


def index_fits(columns: Mapping[str, np.ndarray], images: tuple[int, ...], sources: int) -> bool:
    """Whether the columns of an index can be what a writer wrote, but for labels above the tree's nodes.

    columns: those of the file, of the right types. images: shape of the data set `bytes`; sources: how many.
    Checksums tell accidents; this tells a file that was made so, whose samples would reach into others.
    """
    n = columns["width"].size
    starts = {*RAGGED.values(), "image_starts"}
    ragged = {*RAGGED} - {"boxes_cxcywh"}
    shapes = {name: (column.size,) if name in ragged else (n,) for name, column in columns.items()}
    shapes |= dict.fromkeys(starts, (n + 1,)) | {"boxes_cxcywh": (columns["labels"].size, 4)}
    if any(column.shape != shapes[name] for name, column in columns.items()):
        return False
    return bool(
        images == (columns["image_starts"][-1],)
        and all(columns[name][0] == 0 and (np.diff(columns[name]) >= 0).all() for name in starts)
        and all(len(columns[rows]) == columns[name][-1] for rows, name in RAGGED.items())
        and (np.diff(columns["image_starts"]) > 0).all()
        and all((columns[side] > 0).all() for side in ("width", "height"))
        and ((columns["source"] >= 0) & (columns["source"] < sources)).all()
        and all((columns[name] >= 0).all() for name in LABELS)
        and sound(columns["boxes_cxcywh"]).all()
        and not np.diff(columns["box_starts"])[columns["boxed"] == 0].any()
    )
