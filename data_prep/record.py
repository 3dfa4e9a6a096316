"""Record: what an annotation file says of one picture, before it is judged or mapped to nodes.

Readers (coco.py, voc.py, cvat.py, openimages.py, yolo.py, folders.py) make it, packing.py and checking.py
take it.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Category:
    """A class of a data set: its name, and, where the data set gives one, its synset name ("dog.n.01") or its
    node's number in the tree the data is packed for. closer: names that say more exactly what it is, tried
    before `name`: its own in full, its own alone, then those of what it lies in."""

    name: str
    synset: str | None = None
    node: int | None = None
    closer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data set. `picture` is "" where the fault is not that of one picture."""

    kind: str  # one of KINDS
    picture: str
    detail: str
    box_xyxy: tuple[float, float, float, float] | None = None  # in pixels of the upright picture


# Kind of fault -> what it means; `check` reports in this order.
KINDS = {
    "missing picture": "annotated, but not there",
    "unreadable picture": "empty, truncated, too large, or of a format or samples that are not read",
    "missing labels": "a picture that nobody says anything about, so it is left out",
    "wrong size": "not the size the annotations say, so boxes cannot be placed",
    "orphan annotation": "points to a picture or class that is not listed",
    "repeated id": "two pictures, classes or annotations share an id or a name",
    "unmapped class": "no node of the tree is known for it",
    "malformed annotation": "lacks a field or has one of the wrong type",
    "box not finite": "NaN or infinite",
    "box inverted": "negative width or height",
    "box empty": "zero width or height",
    "box outside": "no part of it lies in the picture",
    "box cut": "sticks out by more than a pixel; packing clips it",
    "box larger than picture": "sticks out on opposite sides; packing clips it",
    "box duplicate": "same place and class as another of the picture; packing keeps both",
}

# These do not cost a picture, box or label anything, so packing goes on without a word about them.
HARMLESS = frozenset({"box cut", "box larger than picture", "box duplicate"})


# Shared by all records without boxes: three empty arrays each would be half a gigabyte for ImageNet.
_NO_BOXES = np.zeros((0, 4))
_NO_MARKS = np.zeros(0, bool)
_NO_BOXES.setflags(write=False)
_NO_MARKS.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Record:
    """One picture of a data set. Categories are keys into the data set's `categories`.

    boxes_xyxy: float64 (n, 4) in pixels (in_shares: in 0..1 of the picture), left, top, right, bottom,
        exactly as annotated (they may be absurd).
    categories: n keys. crowd, difficult: bool (n,). size: (width, height) as annotated, None where the
        annotations do not say.
    boxed: False where nobody drew boxes.
    """

    name: str
    boxes_xyxy: np.ndarray = field(default_factory=lambda: _NO_BOXES)
    categories: tuple[Hashable, ...] = ()
    crowd: np.ndarray = field(default_factory=lambda: _NO_MARKS)
    difficult: np.ndarray = field(default_factory=lambda: _NO_MARKS)
    image_categories: tuple[Hashable, ...] = ()
    negative_categories: tuple[Hashable, ...] = ()
    not_exhaustive_categories: tuple[Hashable, ...] = ()
    size: tuple[int, int] | None = None
    boxed: bool = True
    in_shares: bool = False


@dataclass(frozen=True, eq=False)
class Records:
    """A data set as its annotations tell it: records in the order of names, categories by key, and what did
    not fit together."""

    records: tuple[Record, ...]
    categories: dict[Hashable, Category]
    faults: tuple[Fault, ...] = ()
