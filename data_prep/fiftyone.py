"""FiftyOne's JSON into records, and detections into it. No pictures are touched here.

Read are the `samples.json` of a FiftyOneDataset (also what `dataset.to_json()` gives) and the `labels.json`
of a FiftyOneImageDetectionDataset or FiftyOneImageClassificationDataset; the second is written, too.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, is_marked, stem_of, tidy
from data_prep.predictions import class_labels
from data_prep.record import Category, Fault, Record, Records
from data_prep.textfile import read_json
from wordtree.files import written_whole

# A label field's `_cls` -> the key of the list in it; "" for one label by itself.
_FIELDS = {
    "Detections": "detections",
    "Detection": "",
    "Classifications": "classifications",
    "Classification": "",
}
_USUAL = "ground_truth"  # what FiftyOne calls the field of the truth


def read_fiftyone(path: Path | str, pictures: Lookup, field: str | None = None) -> Records:
    """Read one file. Boxes are [left, top, width, height] in shares of the picture.

    field: of samples.json, which label field is the truth: corrected predictions may lie in another than
        "ground_truth", which is taken if not said otherwise, or the only one that there is. `iscrowd` and
        `difficult` of a detection or among its attributes are kept. A picture whose field is empty or null is
        one that nobody labelled, and is left out as "missing labels"; one with an empty list has no objects.

    Categories are named, their keys are the names.

    Raises:
        DataError: not such a file, or it is not clear which field is meant.
    """
    path = Path(path)
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("samples"), list):
        entries = list(_of_samples(path, content["samples"], field))
    elif isinstance(content, dict) and isinstance(content.get("labels"), dict):
        if field is not None:
            raise DataError(f"{path}: a labels.json has no fields to choose {field!r} of")
        entries = list(_of_labels(path, content))
    else:
        raise DataError(f"{path}: neither FiftyOne's samples.json (samples) nor its labels.json (labels)")
    reader = _Reader(pictures.among((called,) for called, _ in entries))
    for called, said in entries:
        reader.add(called, said)
    if not reader.records and not reader.faults:
        raise DataError(f"{path}: no pictures in it")
    records = tuple(reader.records[name] for name in sorted(reader.records))
    return Records(records, reader.categories, tuple(reader.faults))


def write_fiftyone(path: Path | str, detections: Iterable[Any], names: bool = True) -> int:
    """Write predictions as the labels.json of a FiftyOneImageDetectionDataset; returns how many boxes.

    detections: yolo9000.Detections with a `source`, one a picture. names: label boxes with display names
    where these are unique, else with ids. In FiftyOne: `Dataset.from_dir(data_path="pictures/",
    labels_path=path, dataset_type=FiftyOneImageDetectionDataset, label_field="predictions")`, where
    `pictures/` is the folder that all pictures have in common: names are relative to it, without their
    endings. Raises DataError for a picture without a name, two of one name, and what the file system refuses.
    """
    detections = list(detections)
    keys = _keys([found.source for found in detections])
    label = class_labels(detections, names)
    labels: dict[str, list[dict[str, Any]]] = {}
    for found, key in zip(detections, keys, strict=True):
        if key in labels:
            raise DataError(f"two pictures are called {key!r}; FiftyOne tells them apart by their names only")
        width, height = found.image_size
        labels[key] = []
        for one in found:
            left, top, right, bottom = one.box_xyxy
            box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
            row = {"label": label(one), "bounding_box": [round(value, 6) for value in box]}
            labels[key].append(row | {"confidence": round(float(one.score), 6)})
    classes = sorted({row["label"] for rows in labels.values() for row in rows})
    with written_whole(path, DataError) as part:
        text = json.dumps(
            {"classes": classes, "labels": labels}, ensure_ascii=False, indent=1, allow_nan=False
        )
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
    return sum(map(len, labels.values()))


def _keys(sources: list[str | None]) -> list[str]:
    """Names relative to the folder that all have in common, without endings."""
    if not all(sources):
        raise DataError("detections without a source: FiftyOne finds pictures by their names")
    parts = [PurePosixPath(stem_of(source.replace("\\", "/"))).parts for source in sources]
    common = 0
    while all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts) and parts:
        common += 1
    return ["/".join(p[common:]) for p in parts]


def _of_samples(path: Path, samples: list, field: str | None) -> Iterator[tuple[str, Any]]:
    """Name and labels of each sample."""
    known: dict[str, str] = {}
    for sample in samples:
        for name, value in sample.items() if isinstance(sample, dict) else ():
            if _kind(value) in _FIELDS:
                known.setdefault(name, _kind(value))
    chosen = field or (_USUAL if _USUAL in known else next(iter(known)) if len(known) == 1 else None)
    if chosen not in known:
        raise DataError(
            f"{path}: which field holds the truth (field, --field)? "
            f"{'there are ' + ', '.join(sorted(known)) if known else 'there is none with labels'}"
        )
    for sample in samples:
        called = sample.get("filepath") if isinstance(sample, dict) else None
        yield called if isinstance(called, str) else "", sample.get(chosen) if called else None


def _of_labels(path: Path, content: dict) -> Iterator[tuple[str, Any]]:
    """The same of labels.json, in the form that samples have, numbers of classes replaced by names."""
    classes = content.get("classes")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise DataError(f"{path}: classes is not a list of names")

    def named(label: Any) -> Any:
        if isinstance(label, int) and not isinstance(label, bool):
            return classes[label] if classes and 0 <= label < len(classes) else None
        return label

    for called, value in content["labels"].items():
        if isinstance(value, list):
            rows = [
                {**one, "label": named(one.get("label"))} if isinstance(one, dict) else one for one in value
            ]
            yield called, {"_cls": "Detections", "detections": rows}
        elif value is None:
            yield called, None
        else:
            label = value.get("label") if isinstance(value, dict) else value
            yield called, {"_cls": "Classification", "label": named(label)}


class _Reader:
    """Gathers records, categories and faults."""

    def __init__(self, pictures: Lookup) -> None:
        self.pictures = pictures
        self.records: dict[str, Record] = {}
        self.categories: dict[str, Category] = {}
        self.faults: list[Fault] = []

    def add(self, called: str, said: Any) -> None:
        name = self.pictures.find(called) or tidy(called)
        if not name:
            self.faults.append(Fault("malformed annotation", "", "a sample without a filepath"))
        elif name in self.records:
            self.faults.append(Fault("repeated id", name, "a picture of that name is there already"))
        elif said is None:
            self.faults.append(Fault("missing labels", name, "its field of labels is empty"))
        else:
            self._add(name, said)

    def _add(self, name: str, said: Any) -> None:
        kind = _kind(said)
        key = _FIELDS.get(kind, "")
        rows = (said.get(key) if key else [said]) if kind in _FIELDS else None
        if not isinstance(rows, list):
            self.faults.append(Fault("malformed annotation", name, f"labels of the kind {kind or 'none'}"))
            return
        boxed = kind.startswith("Detection")
        boxes, keys, marks = [], [], []
        for position, row in enumerate(rows):
            label = row.get("label") if isinstance(row, dict) else None
            box = _corners(row.get("bounding_box")) if boxed and isinstance(row, dict) else None
            if not isinstance(label, str) or not label or (boxed and box is None):
                detail = f"label {position} has no class, or no box of 4 numbers"
                self.faults.append(Fault("malformed annotation", name, detail))
                continue
            self.categories.setdefault(label, Category(label))
            keys.append(label)
            if box is not None:
                boxes.append(box)
                marks.append((_mark(row, "iscrowd"), _mark(row, "difficult")))
        self.records[name] = Record(
            name=name,
            boxes_xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
            categories=tuple(keys) if boxed else (),
            crowd=np.asarray([crowd for crowd, _ in marks], bool),
            difficult=np.asarray([difficult for _, difficult in marks], bool),
            image_categories=() if boxed else tuple(dict.fromkeys(keys)),
            boxed=boxed,
            in_shares=True,
        )


def _kind(said: Any) -> str:
    kind = said.get("_cls") if isinstance(said, dict) else None
    return kind if isinstance(kind, str) else ""


def _corners(box: Any) -> list[float] | None:
    """[left, top, width, height] as corners."""
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in box):
        return None
    try:
        left, top, width, height = map(float, box)
    except OverflowError:  # an integer of hundreds of digits
        return [math.inf] * 4
    return [left, top, left + width, top + height]


def _mark(row: dict, name: str) -> bool:
    """A field of a detection, or, in older exports, {"value": ...} or a value among its attributes."""
    attributes = row.get("attributes")
    value = row.get(name, attributes.get(name) if isinstance(attributes, dict) else None)
    value = value.get("value") if isinstance(value, dict) else value
    return is_marked(value)
