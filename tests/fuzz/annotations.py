"""Readers of annotations: COCO, LVIS, VOC, CVAT, Open Images, YOLO, Darknet's lists. Class names are
classnames.py's.

The independent parses: the json module and pycocotools, ElementTree, lines and fields split by hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from data_prep import DataError
from data_prep.coco import read_coco
from data_prep.cvat import read_cvat
from data_prep.lookup import Lookup
from data_prep.openimages import read_openimages
from data_prep.record import Records
from data_prep.voc import read_voc
from data_prep.yolo import read_darknet, read_yolo
from tests.fuzz.mutate import edit_bytes, edit_json, edit_text
from tests.fuzz.reader import Check, MisreadError, Reader, same

COCO = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 20, "height": 10},
        {"id": 8, "file_name": "b/c.jpg", "width": 640, "height": 480},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 1, 10, 5], "iscrowd": 0, "area": 50},
        {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0.5, 0, 20, 10], "iscrowd": 1, "area": 200},
        {"id": 3, "image_id": 8, "category_id": 90, "bbox": [1, 2, 3.25, 4], "iscrowd": 0, "area": 13},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 90, "name": "dog"}],
}
LVIS = {
    "images": [
        {
            "id": 7,
            "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg",
            "width": 20,
            "height": 10,
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [1],
        }
    ],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 1, 10, 5], "area": 50}],
    "categories": [
        {"id": 1, "name": "cat", "synset": "cat.n.01", "frequency": "f"},
        {"id": 2, "name": "dog", "synset": "dog.n.01", "frequency": "c"},
    ],
}
VOC = b"""<annotation>
 <folder>x</folder><filename>a.jpg</filename>
 <size><width>20</width><height>10</height><depth>3</depth></size>
 <object><name>cat</name><difficult>0</difficult>
  <bndbox><xmin>2</xmin><ymin>1</ymin><xmax>12</xmax><ymax>6.5</ymax></bndbox></object>
 <object><name>dog &amp; co</name><difficult>1</difficult><part><name>head</name></part>
  <bndbox><xmax>20</xmax><xmin>1</xmin><ymin>1</ymin><ymax>10</ymax></bndbox></object>
</annotation>
"""
CVAT = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
 <meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
 <image id="0" name="a.jpg" width="20" height="10">
  <box label="cat" xtl="2" ytl="1" xbr="12" ybr="6.5"><attribute name="difficult">true</attribute></box>
  <polygon label="dog" points="1,1;5,1;5,5.5"></polygon>
  <tag label="dog"></tag>
 </image>
 <image id="1" name="b/c.jpg" width="640" height="480"></image>
</annotations>
"""
OPEN = b"""ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf
a,xclick,/m/01yrx,1,0.1,0.6,0.1,0.65,0,0,0
a,xclick,/m/0bt9lr,1,0,1,0,1,0,0,1
c,xclick,/m/01yrx,1,0.25,0.5,0.125,0.75,0,0,0
"""
YOLO = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.1 0.1\n\n0 0.1 0.1 0.5 0.1 0.5 0.5\n"
DARK = b"2 0.5 0.5 0.25 0.5\n"
MARK = b"5 0 0 0 0\n"
LISTING = b"images/a.jpg\n/data/images/b/c.jpg\n"
_CORNERS = ("XMin", "YMin", "XMax", "YMax")
PICTURES = ("a.jpg", "b/c.jpg", "train2017/000000391895.jpg")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(records: Records) -> dict[str, list[tuple]]:
    """name -> sorted (key, box, crowd, difficult), each once more checked to be of one length."""
    found: dict[str, list[tuple]] = {}
    for record in records.records:
        n = len(record.categories)
        same(record.boxes_xyxy.shape, (n, 4), f"{record.name}: boxes")
        same((record.crowd.shape, record.difficult.shape), ((n,), (n,)), f"{record.name}: marks")
        rows = zip(record.categories, record.boxes_xyxy.tolist(), record.crowd, record.difficult, strict=True)
        found[record.name] = sorted(
            (repr(key), tuple(map(repr, box)), bool(c), bool(d)) for key, box, c, d in rows
        )
    same(len(found), len(records.records), "number of pictures (a name is there twice)")
    return found


@contextmanager
def open_coco(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.json"
        path.write_bytes(data)
        records = read_coco(path)
        content = json.loads(data)
        found = _rows(records)
        listed = [entry["id"] for entry in content["images"] if isinstance(entry, dict) and "id" in entry]
        if len(found) > len(listed):
            raise MisreadError("more pictures than the file lists")
        boxes = sum(len(rows) for rows in found.values())
        if boxes > len(content["annotations"]):
            raise MisreadError("more boxes than the file lists")
        if not records.faults:
            _compare_coco(records, content, found)
        else:
            dropped = len(content["annotations"]) - boxes
            telling = [
                f for f in records.faults if f.kind != "repeated id" or "both are kept" not in f.detail
            ]
            if dropped and not telling:
                raise MisreadError(f"{dropped} annotations are gone without a word")

    yield check


def _compare_coco(records: Records, content: dict, found: dict[str, list[tuple]]) -> None:
    """A file that nothing is wrong with, against pycocotools' index."""
    from pycocotools import coco

    index = coco.COCO()
    for position, entry in enumerate(content["annotations"]):
        entry["id"] = position  # pycocotools wants one; of annotations it means nothing here
    index.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    same(
        {key: c.name for key, c in records.categories.items()},
        {k: c["name"] for k, c in index.cats.items()},
        "classes",
    )
    same(len(found), len(index.imgs), "number of pictures")
    by_name = {}
    for key, image in index.imgs.items():
        name = image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])
        by_name[name.replace("\\", "/").removeprefix("./")] = key
    same(set(found), set(by_name), "names")
    for record in records.records:
        rows, image = [], index.imgs[by_name[record.name]]
        for a in index.imgToAnns[by_name[record.name]]:
            x, y, w, h = (math.inf if abs(v) > 1e308 and isinstance(v, int) else float(v) for v in a["bbox"])
            difficult = a.get("difficult", a.get("ignore"))
            if difficult is None and isinstance(a.get("attributes"), dict):
                difficult = a["attributes"].get("difficult")
            box = tuple(map(repr, (x, y, x + w, y + h)))
            rows.append((repr(a["category_id"]), box, _said(a.get("iscrowd")), _said(difficult)))
        same(found[record.name], sorted(rows), record.name)
        if record.size is not None:
            same(record.size, (int(image["width"]), int(image["height"])), f"{record.name}: size")
        same(list(record.negative_categories), image.get("neg_category_ids") or [], "negatives")
        lacking = image.get("not_exhaustive_category_ids") or []
        same(list(record.not_exhaustive_categories), lacking, "not exhaustive")


def _said(value: object) -> bool:
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _parsed(text: str | None) -> float | None:
    try:
        return None if text is None or "_" in text or not text.isascii() else float(text)
    except ValueError:
        return None


@contextmanager
def open_voc(folder: Path) -> Iterator[Check]:
    (folder / "xml").mkdir()

    def check(data: bytes) -> None:
        (folder / "xml" / "a.xml").write_bytes(data)
        records = read_voc(folder / "xml", Lookup(PICTURES))
        root = ElementTree.fromstring(data)
        same(root.tag, "annotation", "root")
        rows, dropped = [], 0
        for thing in root.findall("object"):
            box = thing.find("bndbox")
            name = _text(thing.find("name"))
            tags = ("xmin", "ymin", "xmax", "ymax")
            corners = [_parsed(_text(box.find(tag))) if box is not None else None for tag in tags]
            if name and None not in corners:
                difficult = _text(thing.find("difficult")).lower() in ("1", "true")
                rows.append((repr(name), tuple(map(repr, corners)), False, difficult))
            else:
                dropped += 1
        same(_rows(records), {"a.jpg": sorted(rows)}, "objects")
        same(len(records.faults), dropped, "number of faults")

    yield check


@contextmanager
def open_cvat(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.xml"
        path.write_bytes(data)
        records = read_cvat(path, Lookup(PICTURES))
        root = ElementTree.fromstring(data)
        inner = {id(b) for image in root.iter("image") for b in image.iter("image") if b is not image}
        names = [image.get("name", "") for image in root.iter("image") if id(image) not in inner]
        if len(records.records) + len(
            [f for f in records.faults if not f.picture or f.kind == "repeated id"]
        ) < len(names):
            raise MisreadError("a picture is gone without a word")
        shapes = sum(len(image) for image in root.iter("image"))
        taken = sum(len(r.categories) for r in records.records)
        _rows(records)
        if taken > shapes:
            raise MisreadError("more boxes than shapes")
        if (
            not records.faults
            and len(set(names)) == len(names)
            and "rotation" not in data.decode("utf-8", "replace")
        ):
            wanted = []
            for box in root.iterfind(".//image/box"):
                wanted.append([_parsed(box.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")])
            for shape in root.iterfind(".//image/polygon"):
                points = np.array([[float(v) for v in p.split(",")] for p in shape.get("points").split(";")])
                wanted.append([*points.min(axis=0).tolist(), *points.max(axis=0).tolist()])
            found = [box for r in records.records for box in r.boxes_xyxy.tolist()]
            same(sorted(map(repr, found)), sorted(map(repr, wanted)), "boxes")

    yield check


@contextmanager
def open_openimages(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        path = folder / "x.csv"
        path.write_bytes(data)
        records = read_openimages(path, Lookup(PICTURES))
        _rows(records)
        text = data.decode("utf-8-sig")
        boxes = sum(len(r.categories) for r in records.records)
        if '"' in text or re.search(r"[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text):
            return  # quoted fields and odd line ends are the csv module's: nothing independent to ask
        heading, *lines = [line.split(",") for line in text.split("\n") if line]
        column = {
            name: k for k, name in enumerate(heading)
        }  # of two columns of one name the last, as csv has it
        wanted = []
        for fields in lines:
            values = [_parsed(fields[column[k]]) if column[k] < len(fields) else None for k in _CORNERS]
            if None not in values and column["LabelName"] < len(fields):
                key, image = fields[column["LabelName"]].strip(), fields[column["ImageID"]].strip()
                if key and image:
                    wanted.append((repr(key), tuple(map(repr, values))))
        found = sorted(row[:2] for rows in _rows(records).values() for row in rows)
        same(found, sorted(wanted), "boxes")
        same(boxes + len(records.faults), len(lines), "boxes and faults, of the lines")

    yield check


def _yolo_rows(data: bytes, classes: int) -> list[tuple]:
    """The lines of a label file that are sound, by hand."""
    rows = []
    for line in data.decode("utf-8-sig").splitlines():
        fields = line.split()
        if (
            not fields
            or not re.fullmatch(r"[0-9]{1,9}(\.0*)?", fields[0])
            or int(float(fields[0])) >= classes
        ):
            continue
        values = [_parsed(f) for f in fields[1:]]
        polygon = len(values) >= 6 and len(values) % 2 == 0 and not any(v is None or v >= 2 for v in values)
        if None in values or not (len(values) == 4 or polygon):
            continue
        if len(values) == 4:
            x, y, w, h = values
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            corners = np.array(values).reshape(-1, 2)
            box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
        rows.append((repr(int(float(fields[0]))), tuple(map(repr, box)), False, False))
    return sorted(rows)


@contextmanager
def open_yolo(folder: Path) -> Iterator[Check]:
    (folder / "labels").mkdir()
    (folder / "x.names").write_bytes(b"cat\ndog\nhusky dog\n")

    def check(data: bytes) -> None:
        (folder / "labels" / "a.txt").write_bytes(data)
        records = read_yolo(folder / "labels", ["a.jpg"], Lookup(["a.jpg"]), folder / "x.names")
        rows = _yolo_rows(data, 3)
        same(_rows(records), {"a.jpg": rows}, "boxes")
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.split()]
        same(len(rows) + len(records.faults), len(lines), "boxes and faults, of the lines")

    yield check


@contextmanager
def open_darknet(folder: Path) -> Iterator[Check]:
    images = folder / "images"
    (images / "b").mkdir(parents=True)
    (folder / "labels" / "b").mkdir(parents=True)
    for name, labels in (("a", DARK), ("b/c", MARK)):
        (images / f"{name}.jpg").write_bytes(b"x")
        (folder / "labels" / f"{name}.txt").write_bytes(labels)

    def check(data: bytes) -> None:
        path = folder / "train.txt"
        path.write_bytes(data)
        records = read_darknet(path, images, Lookup(["a.jpg", "b/c.jpg"]))
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
        same(len(records.records) + len(records.faults), len(lines), "pictures and faults, of the lines")
        for record in records.records:
            ends = record.name.rpartition("/")[2].removesuffix(".jpg")
            if not any(
                re.search(rf"(^|/){ends}(\.\w+)?$", line.strip().replace("\\", "/")) for line in lines
            ):
                raise MisreadError(f"{record.name} is in no line")

    yield check


_ERRORS = (DataError,)
_JSON = (edit_json, edit_json, edit_text, edit_bytes)
_TEXT = (edit_text, edit_text, edit_bytes)
READERS = (
    Reader("coco", _ERRORS, open_coco, lambda: [json.dumps(COCO).encode()], _JSON),
    Reader("lvis", _ERRORS, open_coco, lambda: [json.dumps(LVIS).encode()], _JSON),
    Reader("voc", _ERRORS, open_voc, lambda: [VOC], _TEXT),
    Reader("cvat", _ERRORS, open_cvat, lambda: [CVAT], _TEXT),
    Reader("openimages", _ERRORS, open_openimages, lambda: [OPEN], _TEXT),
    Reader("yolo", _ERRORS, open_yolo, lambda: [YOLO, b""], _TEXT),
    Reader("darknet-list", _ERRORS, open_darknet, lambda: [LISTING], _TEXT),
)
