"""Open Images' CSV files into records: boxes, labels of pictures, verified negatives. No pictures are touched
here."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, is_marked, number
from data_prep.record import Category, Fault, Record, Records

_BOX = ("XMin", "YMin", "XMax", "YMax")

_BOXES, _LABELS = 1, 2  # the files that have an ImageID, as bits of one number: there are millions


def read_openimages(
    boxes: Path | str | None,
    pictures: Lookup,
    image_labels: Path | str | None = None,
    class_names: Path | str | None = None,
) -> Records:
    """Read Open Images' boxes and labels of pictures.

    Boxes are in 0..1 of the picture. `IsGroupOf` is kept as crowd. Of the labels, `Confidence` 1 is a class
    that people saw in the picture and 0 one that they looked for in vain (kept as negative); what lies
    between is a machine's guess and is left aside. A class seen in a picture with boxes, none of them of it,
    is also listed as not exhaustive. A picture without boxes is one that nobody drew boxes in. Of several
    ImageIDs of one file for one picture the one that comes closest to its name has it, of equals the first;
    the two files may each call it otherwise.

    Args:
        boxes: the CSV with ImageID, LabelName, XMin, XMax, YMin, YMax. Decimal commas, as some exporters
            write, are understood.
        pictures: those of the data set; ImageID has no ending.
        image_labels: the CSV with ImageID, LabelName, Confidence.
        class_names: the CSV "/m/01g317,Person" without header; otherwise LabelName is the class's name.

    Raises:
        DataError: a file cannot be read or lacks a column. What is wrong with single lines is a fault.
    """
    names = _names(Path(class_names)) if class_names else {}
    faults: list[Fault] = []
    categories: dict[str, Category] = {}
    # ImageIDs in order of appearance, with those files that have them; what is gathered goes by ImageIDs.
    images: dict[str, int] = defaultdict(int)

    def entry(file: int, where: str, row: dict) -> tuple[str, str] | None:
        image, key = (row["ImageID"] or "").strip(), (row["LabelName"] or "").strip()
        if not image or not key:
            faults.append(Fault("malformed annotation", "", f"{where}: no ImageID or LabelName"))
            return None
        images[image] |= file
        categories.setdefault(key, Category(names.get(key, key)))
        return image, key

    drawn: dict[str, list[tuple]] = defaultdict(list)
    for where, row in _rows(boxes, ("ImageID", "LabelName", *_BOX)):
        if (of := entry(_BOXES, where, row)) is None:
            continue
        box = [number((row[key] or "").replace(",", ".")) for key in _BOX]
        if None in box:
            faults.append(Fault("malformed annotation", of[0], f"{where}: a box needs four numbers"))
            drawn[of[0]] += []  # somebody drew boxes here
            continue
        drawn[of[0]].append((box, of[1], is_marked(row.get("IsGroupOf") or "")))

    seen: dict[str, list[str]] = defaultdict(list)
    absent: dict[str, list[str]] = defaultdict(list)
    for where, row in _rows(image_labels, ("ImageID", "LabelName", "Confidence")):
        if (of := entry(_LABELS, where, row)) is None:
            continue
        sure = number((row["Confidence"] or "").replace(",", "."))
        if sure is None or not 0 <= sure <= 1:
            faults.append(Fault("malformed annotation", of[0], f"{where}: Confidence must lie in 0..1"))
        elif sure in (0, 1):
            (seen if sure else absent)[of[0]].append(of[1])

    called = _called(images, pictures)
    faults = [replace(fault, picture=called.get(fault.picture, "")) for fault in faults]
    having: dict[str, list[str]] = defaultdict(list)  # picture -> its ImageIDs, no two of one file
    for image, name in called.items():
        if image not in drawn and image not in seen and image not in absent:  # guesses alone
            continue
        if any(images[image] & images[other] for other in having[name]):
            faults.append(Fault("repeated id", name, f"ImageID {image!r}: another means the same picture"))
            continue
        having[name].append(image)
    records = []
    for name, ids in sorted(having.items()):
        rows = next((drawn[image] for image in ids if image in drawn), None)
        labels, negatives = ([key for image in ids for key in of.get(image, ())] for of in (seen, absent))
        records.append(_record(name, rows, labels, negatives))
    return Records(tuple(records), categories, tuple(faults))


def _called(images: Mapping[str, int], pictures: Lookup) -> dict[str, str]:
    """ImageID -> the picture that it means, itself where there is none. images: ImageIDs with the files that
    have them. One that is outdone in one of its files (another comes closer to the picture's name) means none
    in the other either."""
    among = {
        file: pictures.among((image,) for image, files in images.items() if files & file)
        for file in (_BOXES, _LABELS)
    }

    def meant(image: str) -> str:
        found = [near.find(image) for file, near in among.items() if images[image] & file]
        return image if None in found else found[0]

    return {image: meant(image) for image in images}


def _record(name: str, rows: list[tuple] | None, seen: Sequence[str], absent: Sequence[str]) -> Record:
    boxed, rows = rows is not None, rows or []
    with_box = {row[1] for row in rows}
    unseen = tuple(key for key in dict.fromkeys(seen) if key not in with_box)
    return Record(
        name=name,
        boxes_xyxy=np.asarray([row[0] for row in rows], np.float64).reshape(-1, 4),
        categories=tuple(row[1] for row in rows),
        crowd=np.asarray([row[2] for row in rows], bool),
        difficult=np.zeros(len(rows), bool),
        image_categories=tuple(dict.fromkeys(seen)),
        negative_categories=tuple(dict.fromkeys(absent)),
        not_exhaustive_categories=unseen if boxed else (),
        boxed=boxed,
        in_shares=True,
    )


def _rows(path: Path | str | None, needed: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """("file: line n", row) of a CSV file with a header, nothing without a file; DataError without a column
    in `needed`."""
    if path is None:
        return
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: line 1: not Open Images' CSV: no column {', '.join(missing)}")
            for row in reader:
                yield f"{path}: line {reader.line_num}", row
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error


def _names(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the class names cannot be read ({error})") from error
    for line, row in enumerate(rows, 1):
        if row and (len(row) < 2 or not row[0].strip() or not row[1].strip()):
            raise DataError(f"{path}: line {line}: wanted class id, name; found {row!r}")
    return {row[0].strip(): row[1].strip() for row in rows if row}
