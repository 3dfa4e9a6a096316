"""COCO JSON into records, with LVIS's fields for federated annotation where they occur.

No pictures are touched here.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, is_marked
from data_prep.record import Category, Fault, Record, Records


def read_coco(path: Path | str, pictures: Lookup | None = None) -> Records:
    """Read COCO's instances JSON (boxes as [left, top, width, height] in pixels).

    Keys of categories are the file's ids. `iscrowd` is kept as crowd; `difficult` or, as some exporters have
    it, `ignore` as difficult. Of LVIS, a category's `synset` and an image's `neg_category_ids` and
    `not_exhaustive_category_ids` are kept, and a picture without `file_name` goes by the last two parts of
    its `coco_url`. An image without annotations is one without objects. pictures: finds what the file's names
    mean; without it they are taken as they are. Of several images with one id none is kept: whose the boxes
    are nobody can tell.

    Raises:
        DataError: not JSON, or not of COCO's shape. What is wrong with single entries is a fault of the
        result, not an error.
    """
    path = Path(path)
    content = _load(path)
    faults: list[Fault] = []
    categories = _categories(path, content, faults)
    images = _images(path, content, pictures, faults)
    boxes: dict[int, list[tuple]] = defaultdict(list)
    seen: set[Any] = set()
    for position, entry in enumerate(_list(path, content, "annotations")):
        _annotation(entry, position, images, categories, boxes, seen, faults)
    records = [_record(*image, boxes[key], categories, faults) for key, image in images.items() if image]
    return Records(tuple(sorted(records, key=lambda record: record.name)), categories, tuple(faults))


def _load(path: Path) -> dict:
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, integers of 5,000 digits
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or "images" not in content:
        raise DataError(
            f"{path}: not COCO's format: wanted an object with images, annotations and categories"
        )
    return content


def _list(path: Path, content: dict, name: str) -> list:
    value = content.get(name)
    if not isinstance(value, list):
        raise DataError(f"{path}: `{name}` must be a list, found {type(value).__name__}")
    return value


def _categories(path: Path, content: dict, faults: list[Fault]) -> dict[Any, Category]:
    categories: dict[Any, Category] = {}
    for position, entry in enumerate(_list(path, content, "categories")):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_text(entry.get("name")):
            faults.append(
                Fault("malformed annotation", "", f"categories[{position}] lacks a proper id or name")
            )
        elif entry["id"] in categories:
            faults.append(
                Fault("repeated id", "", f"categories[{position}]: id {entry['id']} is there twice")
            )
        else:
            synset = entry.get("synset")
            categories[entry["id"]] = Category(entry["name"], synset if _is_text(synset) else None)
    return categories


def _images(
    path: Path, content: dict, pictures: Lookup | None, faults: list[Fault]
) -> dict[Any, tuple[str, dict] | None]:
    """Name and entry of each image by its id; None for an id that several have, and for an image whose
    picture another one has."""
    images: dict[Any, tuple[str, dict] | None] = {}
    names: set[str] = set()
    entries = _list(path, content, "images")
    called = [_name(entry) if isinstance(entry, dict) else None for entry in entries]
    if pictures is not None:
        pictures = pictures.among((name,) for name in called if name is not None)
    for position, (entry, name) in enumerate(zip(entries, called, strict=True)):
        if pictures is not None and name is not None:
            name = pictures.find(name) or name
        if name is None or not _is_id(entry.get("id")):
            faults.append(
                Fault("malformed annotation", "", f"images[{position}] lacks a proper id or file_name")
            )
        elif entry["id"] in images:
            faults.append(Fault("repeated id", name, f"images[{position}]: id {entry['id']} is there twice"))
            first = images[entry["id"]]
            if first is not None and first[0] != name:
                faults.append(Fault("repeated id", first[0], f"id {entry['id']} is also that of {name}"))
                images[entry["id"]] = None
        elif name in names:
            detail = (
                f"images[{position}]: a picture of that name is there already; this one's boxes are left out"
            )
            faults.append(Fault("repeated id", name, detail))
            images[entry["id"]] = None
        else:
            names.add(name)
            images[entry["id"]] = (name, entry)
    return images


def _name(entry: dict) -> str | None:
    if _is_text(entry.get("file_name")):
        return entry["file_name"].replace("\\", "/").removeprefix("./")
    if _is_text(entry.get("coco_url")):  # LVIS v1: .../train2017/000000391895.jpg
        return "/".join(entry["coco_url"].split("/")[-2:])
    return None


def _annotation(
    entry: Any, position: int, images: dict, categories: dict, boxes: dict, seen: set, faults: list[Fault]
) -> None:
    where = f"annotations[{position}]"
    if not isinstance(entry, dict):
        faults.append(Fault("malformed annotation", "", f"{where} is not an object"))
        return
    image, category, box, key = (entry.get(k) for k in ("image_id", "category_id", "bbox", "id"))
    if not _is_id(image) or image not in images:
        faults.append(Fault("orphan annotation", "", f"{where}: image_id {image!r} is not listed"))
        return
    if images[image] is None:  # the fault of the pictures says so already
        return
    name = images[image][0]
    if not _is_id(category) or category not in categories:
        faults.append(Fault("orphan annotation", name, f"{where}: category_id {category!r} is not listed"))
        return
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        faults.append(Fault("malformed annotation", name, f"{where}: bbox {str(box)[:60]} is not 4 numbers"))
        return
    if _is_id(key):
        if key in seen:
            faults.append(Fault("repeated id", name, f"{where}: id {key!r} is there twice; both are kept"))
        seen.add(key)
    left, top, width, height = map(_float, box)
    attributes = entry.get("attributes")
    difficult = entry.get("difficult", entry.get("ignore"))
    if difficult is None and isinstance(attributes, dict):  # CVAT's exporter keeps further fields here
        difficult = attributes.get("difficult")
    marks = is_marked(entry.get("iscrowd")), is_marked(difficult)
    boxes[image].append((left, top, left + width, top + height, category, *marks))


def _record(name: str, image: dict, rows: list[tuple], categories: dict, faults: list[Fault]) -> Record:
    sides = [_float(side) if _is_number(side) else math.nan for side in map(image.get, ("width", "height"))]
    known = all(math.isfinite(side) and side > 0 for side in sides)
    lists = {}
    for what in ("neg_category_ids", "not_exhaustive_category_ids"):
        value = image.get(what) or []
        listed = (
            [key for key in value if _is_id(key) and key in categories] if isinstance(value, list) else []
        )
        if not isinstance(value, list) or len(listed) < len(value):
            faults.append(Fault("orphan annotation", name, f"{what} names categories that are not listed"))
        lists[what] = tuple(listed)
    return Record(
        name=name,
        boxes_xyxy=np.asarray([row[:4] for row in rows], np.float64).reshape(-1, 4),
        categories=tuple(row[4] for row in rows),
        crowd=np.asarray([row[5] for row in rows], bool),
        difficult=np.asarray([row[6] for row in rows], bool),
        negative_categories=lists["neg_category_ids"],
        not_exhaustive_categories=lists["not_exhaustive_category_ids"],
        size=(int(image["width"]), int(image["height"])) if known else None,
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
