"""Label Studio's JSON into records, and detections into its tasks. No pictures are touched here.

Read are its exports "JSON" and "JSON-MIN"; written are tasks with predictions, as it imports them, and the
labelling configuration that goes with them.
"""

import json
import math
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, span, tidy
from data_prep.predictions import class_labels
from data_prep.record import Category, Fault, Record, Records
from data_prep.textfile import read_json
from wordtree.files import written_whole

_FROM, _TO = "label", "image"  # names of the tags in the labelling configuration
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what it puts before the names of uploaded files
_LABELS = ("rectanglelabels", "labels", "polygonlabels", "ellipselabels")  # keys of a region's labels
_SHAPE = ("x", "y", "width", "height", "rotation", "points", "radiusX", "radiusY")  # keys of where it lies
_PICTURE_KEYS = ("image", "img", "image_url", "url", "picture")  # of a task's data, before any other
_PLACES = frozenset({"x", "points", "rle"})  # keys of a value that lies somewhere in the picture
# Keys of a value that says something of a region, or of the whole picture.
_REMARKS = frozenset({"choices", "text", "rating", "number", "taxonomy", "datetime"})
# What a JSON-MIN says of each annotation itself.
_OWN_KEYS = frozenset({"annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"})


def read_labelstudio(path: Path | str, pictures: Lookup, field: str | None = None) -> Records:
    """Read one export. Boxes are in percent of the picture; a turned one counts as the upright box about it,
    a polygon or ellipse as the box about it; choices are labels of the whole picture, as is the last part of
    what was chosen in a taxonomy, but those made for one region are left aside, as are remarks beside regions
    or choices. JSON-MIN does not tell choices from other text: strings of its controls are taken for choices.

    field: "annotations", or "predictions" where those are the truth; the default is annotations. Of several
        annotations of a task one marked as ground truth counts, else the last, cancelled ones never. A task
        that nobody annotated is left out as "missing labels". In an annotation with a region boxes were
        drawn, in one of choices alone they were not; one with neither says that nothing is there, unless the
        export holds choices only.

    Categories are named, their keys are the names.

    Raises:
        DataError: not such a file, or a JSON-MIN in which nothing was recognised.
    """
    path = Path(path)
    if field not in (None, "annotations", "predictions"):
        raise DataError(f"{path}: the field is annotations or predictions, not {field!r}")
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path}: not Label Studio's export: wanted a list of tasks")
    reader = _Reader(pictures.among(map(_called, tasks)))
    minimal = [task for task in tasks if "data" not in task]
    lists = {key for task in minimal for key, value in task.items() if isinstance(value, list)}
    said = [_said(task, field or "annotations", lists) for task in tasks]
    if len(minimal) == len(tasks) > 0 and not any(said):
        raise DataError(f"{path}: no region and no choice found in this JSON-MIN; export the project as JSON")
    rows = [row for rows in said for row in rows or () if isinstance(row, dict)]
    shapes = any(_PLACES & _value(row).keys() for row in rows)
    choices = any(map(_is_choice, rows))
    for task, rows in zip(tasks, said, strict=True):
        reader.add(task, rows, only_choices=choices and not shapes)
    if not reader.records and not reader.faults:
        raise DataError(f"{path}: no tasks in it")
    records = tuple(reader.records[name] for name in sorted(reader.records))
    return Records(records, reader.categories, tuple(reader.faults))


def write_labelstudio(
    path: Path | str,
    detections: Iterable[Any],
    prefix: str = "/data/local-files/?d=",
    model: str = "yolo9000",
    names: bool = True,
) -> int:
    """Write predictions as tasks that Label Studio imports and shows for correction; returns how many boxes.

    detections: yolo9000.Detections with a `source`, one a picture. prefix: what makes an address that its
    server answers of a picture's source; by default that of local files, whose folder the server is told of.
    names: label boxes with display names where these are unique, else with ids. Raises DataError for a
    picture without a name and for what the file system refuses.
    """
    detections = list(detections)
    label = class_labels(detections, names)
    tasks, count = [], 0
    for found in detections:
        if not found.source:
            raise DataError("detections without a source: Label Studio needs an address of each picture")
        width, height = found.image_size
        results = []
        for number, one in enumerate(found):
            left, top, right, bottom = one.box_xyxy
            value = {
                "x": round(100 * left / width, 6),
                "y": round(100 * top / height, 6),
                "width": round(100 * (right - left) / width, 6),
                "height": round(100 * (bottom - top) / height, 6),
                "rotation": 0,
                "rectanglelabels": [label(one)],
            }
            result = {"id": f"box{number}", "type": "rectanglelabels", "from_name": _FROM, "to_name": _TO}
            result |= {"original_width": width, "original_height": height, "image_rotation": 0}
            results.append(result | {"value": value, "score": round(float(one.score), 6)})
        count += len(results)
        score = max((result["score"] for result in results), default=0.0)
        prediction = {"model_version": model, "score": score, "result": results}
        tasks.append({"data": {"image": prefix + _quoted(found.source)}, "predictions": [prediction]})
    with written_whole(path, DataError) as part:
        text = json.dumps(tasks, ensure_ascii=False, indent=1, allow_nan=False)
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
    return count


def labelling_config(names: Iterable[str]) -> str:
    """The configuration of a project whose rectangles have these labels, XML; the tags are those that
    `write_labelstudio` speaks of."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in dict.fromkeys(names))
    return (
        f'<View>\n  <Image name="{_TO}" value="$image"/>\n'
        f'  <RectangleLabels name="{_FROM}" toName="{_TO}">\n{labels}\n  </RectangleLabels>\n</View>\n'
    )


def _quoted(source: str) -> str:
    return quote(tidy(source), safe="/", errors="surrogateescape")


def _said(task: dict, field: str, lists: Container[str]) -> list | None:
    """The regions and choices that count for a task; None where nobody said anything. lists: see _minimal."""
    if "data" not in task:
        return list(_minimal(task, lists)) or (None if field == "predictions" else [])
    given = task.get(field)
    good = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    good = [one for one in good if not one.get("was_cancelled") and isinstance(one.get("result"), list)]
    truths = [one for one in good if one.get("ground_truth")]
    return (truths or good)[-1]["result"] if good else None


def _minimal(task: dict, lists: Container[str]) -> Iterator[dict]:
    """Rows of a task of JSON-MIN: lists of regions, and choices, under the names of their controls. A choice
    is a string, several are {"choices": [...]}; of a control that is a list in any task (`lists`), they are
    made region by region.

    The task's data come first, then its id, the controls, and keys of the export; so its data are no choices.
    """
    keys = list(task)
    controls = {"choice", *keys[keys.index("id") + 1 if "id" in task else 0 :]}
    controls -= {*_PICTURE_KEYS, *_OWN_KEYS}
    for key, value in task.items():
        if isinstance(value, list):
            # Strings are what was said of its regions one by one, or the task's data.
            yield from (row if "value" in row else {"value": row} for row in value if isinstance(row, dict))
        elif isinstance(value, dict) and "choices" in value:
            yield {"value": value}
        elif isinstance(value, str) and value and key in controls and key not in lists:
            yield {"value": {"choices": [value]}}


def _is_choice(row: dict) -> bool:
    """Whether it is said of the whole picture."""
    value = _value(row)
    said = row.get("type") == "choices" or {"choices", "taxonomy"} & value.keys()
    return bool(said) and not _PLACES & value.keys()


def _chosen(value: dict) -> Iterator[str]:
    """The classes of a choice; of a taxonomy, whose choices are paths from its root, the ends of these."""
    said = [value.get(key) for key in ("choices", "taxonomy")]
    for one in [one for some in said if isinstance(some, list) for one in some]:
        last = one[-1] if isinstance(one, list) and one else one
        if isinstance(last, str) and last:
            yield last


def _is_remark(value: dict) -> bool:
    """Whether it says more about a region that has its label in another row, or about the picture."""
    return bool(_REMARKS & value.keys()) and not _labels(value)


def _shape(value: dict) -> str:
    return repr([value.get(key) for key in _SHAPE])


def _value(row: dict) -> dict:
    value = row.get("value")
    return value if isinstance(value, dict) else {}


class _Reader:
    """Gathers records, categories and faults."""

    def __init__(self, pictures: Lookup) -> None:
        self.pictures = pictures
        self.records: dict[str, Record] = {}
        self.categories: dict[str, Category] = {}
        self.faults: list[Fault] = []

    def add(self, task: dict, rows: list | None, only_choices: bool) -> None:
        called = _called(task)
        name = self.pictures.find(*called) or (called[0] if called else "")
        if not name:
            where = f"task {task.get('id')!r} names no picture"
            self.faults.append(Fault("malformed annotation", "", where))
        elif name in self.records:
            self.faults.append(Fault("repeated id", name, "a picture of that name is there already"))
        elif rows is None:
            self.faults.append(Fault("missing labels", name, "nobody annotated it"))
        else:
            self._add(name, rows, only_choices)

    def _add(self, name: str, rows: list, only_choices: bool) -> None:
        boxes, keys, chosen, sizes = [], [], [], set()
        good = [row for row in rows if isinstance(row, dict)]
        drawn = any(_PLACES & _value(row).keys() for row in good)
        told = drawn or any(map(_is_choice, good))
        labelled = {_shape(_value(row)) for row in good if _labels(_value(row))}
        for position, row in enumerate(rows):
            if not isinstance(row, dict):
                self._malformed(name, position, "is no object")
                continue
            if _is_choice(row):
                chosen += _chosen(_value(row))
                continue
            if row.get("type") == "relation" or (told and _is_remark(_value(row))):
                continue
            # A <Rectangle> beside <Labels> is there twice: bare, and with its label.
            keys_here = _value(row).keys()
            if _PLACES & keys_here and keys_here.isdisjoint(_LABELS) and _shape(_value(row)) in labelled:
                continue
            size = tuple(_side(row, _value(row), key) for key in ("original_width", "original_height"))
            sizes |= {size} if None not in size else set()
            labels, box = _labels(_value(row)), _box(_value(row), size)
            if row.get("image_rotation") not in (None, 0):
                self._malformed(name, position, "was drawn on the picture turned")
            elif not labels or box is None:
                self._malformed(name, position, "has no label, or no box can be made of it")
            else:
                keys += labels
                boxes += [box] * len(labels)
        for key in (*keys, *chosen):
            self.categories.setdefault(key, Category(key))
        self.records[name] = Record(
            name=name,
            boxes_xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
            categories=tuple(keys),
            crowd=np.zeros(len(keys), bool),
            difficult=np.zeros(len(keys), bool),
            image_categories=tuple(dict.fromkeys(chosen)),
            size=sizes.pop() if len(sizes) == 1 else None,
            boxed=drawn or not (chosen or only_choices),
            in_shares=True,
        )

    def _malformed(self, name: str, position: int, why: str) -> None:
        self.faults.append(Fault("malformed annotation", name, f"region {position} {why}"))


def _called(task: dict) -> list[str]:
    """Names that a task's picture may have, the likeliest first."""
    return [name for address in _addresses(task) for name in _names(address)]


def _addresses(task: dict) -> Iterator[str]:
    """What may be the address of a task's picture, the likeliest first."""
    data = task.get("data", task)
    data = data if isinstance(data, dict) else {}
    for key in (*_PICTURE_KEYS, *data):
        if isinstance(data.get(key), str) and (key in _PICTURE_KEYS or "data" in task):
            yield data[key]


def _names(address: str) -> Iterator[str]:
    """Names that a picture may have in its folder: of local files, uploads, and addresses elsewhere."""
    try:
        parts = urlsplit(address if "\\" not in address else "")
    except ValueError:  # half an IPv6 address
        parts = urlsplit("")
    path = unquote(parts.path) if parts.path else address
    if local := parse_qs(parts.query).get("d"):
        path = local[0]
    yield tidy(path)
    folder, slash, last = tidy(path).rpartition("/")
    if _UPLOADED.match(last):
        yield folder + slash + _UPLOADED.sub("", last)
        yield _UPLOADED.sub("", last)


def _labels(value: dict) -> list[str]:
    for key in _LABELS:
        if isinstance(value.get(key), list):
            return [label for label in value[key] if isinstance(label, str) and label]
    return []


def _side(row: dict, value: dict, key: str) -> int | None:
    side = row.get(key, value.get(key))
    return side if isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31 else None


def _box(value: dict, size: tuple) -> list[float] | None:
    """Corners in shares of the picture; None where there is no box."""
    points = value.get("points")
    if isinstance(points, list) and points:
        corners = [[_number(v) for v in p] if isinstance(p, list) and len(p) == 2 else [None] for p in points]
        if any(None in corner for corner in corners):
            return None
        (left, right), (top, bottom) = map(span, zip(*corners, strict=True))
        return [left / 100, top / 100, right / 100, bottom / 100]
    turn = _number(value.get("rotation", 0))
    if "radiusX" in value:
        return _about_ellipse(value, turn, size)
    x, y, w, h = (_number(value.get(key)) for key in ("x", "y", "width", "height"))
    if None in (x, y, w, h, turn):
        return None
    if turn and math.isfinite(turn):
        # Turned clockwise about its upper left corner, in pixels: percent of unlike sides do not turn.
        if None in size:
            return None
        wide, high = size
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        across, down = w * wide, h * high
        xs = [0, across * c, across * c - down * s, -down * s]
        ys = [0, across * s, across * s + down * c, down * c]
        x, y, w, h = (
            x + min(xs) / wide,
            y + min(ys) / high,
            (max(xs) - min(xs)) / wide,
            (max(ys) - min(ys)) / high,
        )
    return [x / 100, y / 100, (x + w) / 100, (y + h) / 100]


def _about_ellipse(value: dict, turn: float | None, size: tuple) -> list[float] | None:
    x, y, a, b = (_number(value.get(key)) for key in ("x", "y", "radiusX", "radiusY"))
    if None in (x, y, a, b, turn):
        return None
    if turn and math.isfinite(turn):
        if None in size:  # as of a rectangle
            return None
        wide, high = size
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        across, down = a * wide, b * high
        a, b = math.hypot(across * c, down * s) / wide, math.hypot(across * s, down * c) / high
    return [(x - a) / 100, (y - b) / 100, (x + a) / 100, (y + b) / 100]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
