"""What a detector found on pictures, as `yolo9000 detect --json` or `--json-lines` writes it, read for the
writers of data sets and labelling tools (results.py, fiftyone.py, labelstudio.py), and what they call a
class. Imports nothing of yolo9000; yolo9000.Detections have the same attributes.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.textfile import read_text


@dataclass(frozen=True)
class Prediction:
    """One box: left, top, right, bottom in pixels; path: ids, root first, empty for "something"."""

    box_xyxy: tuple[float, float, float, float]
    name: str
    path: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Predictions:
    """What was found on one picture. image_size: (width, height) in pixels."""

    source: str | None
    image_size: tuple[int, int]
    found: tuple[Prediction, ...]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.found)


def read_predictions(path: Path | str, least: float = 0.0) -> list[Predictions]:
    """Predictions of every picture in the file; boxes with a lower score than `least` are left out.

    Raises DataError that names the place of what is no such record, and for a file whose end says that
    detecting was stopped before its own.
    """
    path = Path(path)
    text = read_text(path)
    try:
        content = json.loads(text)
        records = content.get("pictures") if isinstance(content, dict) else None
        if isinstance(content, dict) and records is None:
            records = [content]  # one line
        if isinstance(content, dict) and content.get("unfinished"):
            raise DataError(f"{path}: detecting was stopped before its end; detect again")
    except (ValueError, RecursionError) as error:
        records = _lines(path, text, error)
        if not records:
            raise DataError(f"{path}: no predictions in it") from None
    if not isinstance(records, list):
        raise DataError(f"{path}: not what `yolo9000 detect --json` writes")
    records = [one for one in records if not (isinstance(one, dict) and set(one) == {"skipped"})]
    return [_picture(record, f"{path}: picture {k}", least) for k, record in enumerate(records, 1)]


def class_labels(detections: Iterable[Any], names: bool = True) -> Callable[[Any], str]:
    """What the class of each box is called: by its display name, but where other classes found here go by
    that too (two species of one common name), by its id; without `names` always by its id. So there are as
    many labels as classes. "Something", which has no id, goes by its name."""
    classes = {(_id(one), one.name) for found in detections for one in found}
    uses = Counter(text for both in classes for text in set(both))
    return lambda one: one.name if names and uses[one.name] == 1 else _id(one)


def _id(one: Any) -> str:
    return one.path[-1] if one.path else one.name


def _lines(path: Path, text: str, whole: Exception) -> list[Any]:
    """Records of JSON lines; whole: why all of the text is no JSON."""
    records: list[Any] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                # Without a single line in front it was to be one JSON, whose own error says where it ends.
                where, why = (f"{path}:{number}", error) if records else (path, whole)
                raise DataError(f"{where}: not JSON ({why}); if it was cut off, detect again") from error
    return records


def _picture(record: Any, where: str, least: float) -> Predictions:
    if not isinstance(record, dict) or not isinstance(record.get("detections"), list):
        raise DataError(f"{where}: not a record of `yolo9000 detect --json`")
    size = record.get("width"), record.get("height")
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**31 for side in size):
        raise DataError(f"{where}: width and height are no size of a picture")
    source = record.get("source")
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}: source is no text")
    found = [_one(one, f"{where}, box {k}") for k, one in enumerate(record["detections"], 1)]
    return Predictions(source, size, tuple(one for one in found if one.score >= least))


def _one(record: Any, where: str) -> Prediction:
    record = record if isinstance(record, dict) else {}
    box, path, name = (record.get(key) for key in ("box_xyxy", "path", "name"))
    numbers = [*box, record.get("score")] if isinstance(box, list) and len(box) == 4 else [None]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**31 for v in numbers)
    texts = isinstance(path, list) and all(isinstance(v, str) for v in [*path, name])
    if not good or not texts or not name or any(map(math.isnan, numbers)):
        raise DataError(f"{where}: wanted name, path, score and box_xyxy of four numbers")
    left, top, right, bottom, score = map(float, numbers)
    if right < left or bottom < top:
        raise DataError(f"{where}: {box} is no box")
    return Prediction((left, top, right, bottom), name, tuple(path), score)
