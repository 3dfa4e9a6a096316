"""CVAT's XML for images into records. No pictures are touched here."""

import math
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, is_marked, number, side, span
from data_prep.record import Category, Fault, Record, Records
from data_prep.xmlfile import read_xml, text_of

_LIMIT = 1 << 32  # bytes; read piece by piece, so only the records stay in memory


def read_cvat(path: Path | str, pictures: Lookup) -> Records:
    """Read one file of CVAT's format "for images".

    <box> is a box (turned ones by the upright box about them), <polygon>, <ellipse> and <mask> are the box
    about them, <tag> is a label of the picture. Where there is any shape, boxes were drawn; where there are
    tags alone, nobody drew any; where there is neither, nothing is there, unless the whole file has tags
    alone. Attributes called `difficult` and `iscrowd` are kept. Other shapes are faults: no box is meant by
    them. Categories are named, their keys are the names, in the order of the file's labels.

    Raises:
        DataError: not such a file, or tracks of a video, whose pictures have no names.
    """
    path = Path(path)
    categories: dict[str, Category] = {}
    faults: list[Fault] = []
    records: dict[str, Record] = {}
    kinds: set[str] = set()  # of what lies in the pictures
    names: list[tuple[str]] = []

    def gather(element: Element) -> None:
        names.append((element.get("name", ""),))

    def label(element: Element) -> None:
        name = text_of(element.find("name"))
        if name and element.find("parent") is None:  # a skeleton's joints are no classes
            categories.setdefault(name, Category(name))

    def image(element: Element) -> None:
        called = element.get("name", "")
        name = pictures.find(called) or called
        kinds.update(shape.tag for shape in element)
        if not name:
            faults.append(Fault("malformed annotation", "", f"image {element.get('id')!r} has no name"))
        elif name in records:
            faults.append(Fault("repeated id", name, "a picture of that name is there already"))
        else:
            records[name] = _record(name, element, categories, faults)

    def track(_: Element) -> None:
        raise DataError(f"{path}: tracks of a video; export the task again as `CVAT for images`")

    read_xml(path, "annotations", {"image": gather, "track": track}, _LIMIT)
    pictures = pictures.among(names)
    read_xml(path, "annotations", {"label": label, "image": image, "track": track}, _LIMIT)
    if not records:
        raise DataError(f"{path}: no <image> in it")
    if kinds == {"tag"}:
        records = {name: replace(record, boxed=False) for name, record in records.items()}
    return Records(tuple(records[name] for name in sorted(records)), categories, tuple(faults))


def _record(name: str, image: Element, categories: dict[str, Category], faults: list[Fault]) -> Record:
    width, height = side(image.get("width", "")), side(image.get("height", ""))
    boxes, keys, marks, labels = [], [], [], []
    for position, shape in enumerate(image):
        key = shape.get("label", "").strip()
        if shape.tag == "tag" and key:
            labels.append(key)
            categories.setdefault(key, Category(key))
            continue
        box = _SHAPES[shape.tag](shape) if shape.tag in _SHAPES else None
        if not key or box is None:
            detail = f"shape {position}: <{shape.tag}> without a label, or no box can be made of it"
            faults.append(Fault("malformed annotation", name, detail))
            continue
        categories.setdefault(key, Category(key))
        boxes.append(box)
        keys.append(key)
        said = {a.get("name", "").lower(): is_marked(text_of(a)) for a in shape}
        marks.append((said.get("iscrowd", False), said.get("difficult", False)))
    return Record(
        name=name,
        boxes_xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
        categories=tuple(keys),
        crowd=np.asarray([crowd for crowd, _ in marks], bool),
        difficult=np.asarray([difficult for _, difficult in marks], bool),
        image_categories=tuple(dict.fromkeys(labels)),
        size=(width, height) if width and height else None,
        boxed={shape.tag for shape in image} != {"tag"},
    )


def _box(shape: Element) -> list[float] | None:
    corners = [number(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr")]
    turn = number(shape.get("rotation", "0"))
    if None in corners or turn is None:
        return None
    if not turn or not math.isfinite(turn):
        return corners
    left, top, right, bottom = corners
    # A box turned about its centre by `rotation` degrees: half its sides, projected on both axes.
    c, s = abs(math.cos(math.radians(turn))), abs(math.sin(math.radians(turn)))
    x, y, w, h = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    across, down = w * c + h * s, w * s + h * c
    return [x - across, y - down, x + across, y + down]


def _about_ellipse(shape: Element) -> list[float] | None:
    numbers = [number(shape.get(key, "")) for key in ("cx", "cy", "rx", "ry")]
    turn = number(shape.get("rotation", "0"))
    if None in numbers or turn is None:
        return None
    x, y, a, b = numbers
    if turn and math.isfinite(turn):
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        a, b = math.hypot(a * c, b * s), math.hypot(a * s, b * c)
    return [x - a, y - b, x + a, y + b]


def _about_mask(shape: Element) -> list[float] | None:
    """A mask is stored as the pixels within a box."""
    left, top, width, height = (number(shape.get(key, "")) for key in ("left", "top", "width", "height"))
    return None if None in (left, top, width, height) else [left, top, left + width, top + height]


def _around(shape: Element) -> list[float] | None:
    points = [[number(v) for v in point.split(",")] for point in shape.get("points", "").split(";")]
    if any(len(point) != 2 or None in point for point in points):
        return None
    (left, right), (top, bottom) = map(span, zip(*points, strict=True))
    return [left, top, right, bottom]


_SHAPES = {"box": _box, "polygon": _around, "ellipse": _about_ellipse, "mask": _about_mask}
