"""YOLO's text files, one for each picture, and Darknet's lists of pictures, into records.

A line is `class cx cy w h`, the class a number, the rest in 0..1 of the picture. No pictures are touched
here.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.classnames import beside, read_class_names, read_data_file, read_keypoint_numbers
from data_prep.errors import DataError
from data_prep.lookup import Lookup, comparable, number, span, stem_of, tidy
from data_prep.pictures import files_below
from data_prep.record import Category, Fault, Record, Records
from data_prep.textfile import read_text

_MOST_CLASSES = 1_000_000  # a class number above this is a misread column


def read_yolo(
    labels: Path | str, names: Iterable[str], pictures: Lookup, class_names: Path | str | None = None
) -> Records:
    """Read a folder of label files: of the picture `a/x.jpg` the file `a/x.txt`.

    An empty file says that there is nothing in the picture. A picture without a file is a fault and left out,
    for nobody knows what is in it, as is a file without a picture. Lines of corners (`class x1 y1 x2 y2 x3
    y3 ...`) give the box about them; where a data.yaml has `kpt_shape`, lines with as many keypoints behind
    the box give that box. Keys of categories are class numbers.

    Args:
        labels: the folder. names: of all pictures. class_names: see read_class_names; without it classes are
            called by their numbers.

    Raises:
        DataError: no such folder, not one picture has a file, or the class names cannot be read.
    """
    folder = Path(labels)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of label files")
    reader = _Reader(class_names)
    left: dict[str, Path] = {}
    names, files = sorted(names), files_below(folder, lambda name: name.lower().endswith(".txt"))
    spelt = comparable(names, [file[: -len(".txt")] for file in files])
    for file in files:
        stem = spelt(file[: -len(".txt")])
        if stem in left:
            detail = f"{folder / file}: {left[stem]} differs from it by capitals only, and is taken"
            reader.faults.append(Fault("repeated id", "", detail))
        left.setdefault(stem, folder / file)
    for name in names:
        file = left.pop(stem_of(spelt(name)), None)
        if file is None:
            detail = f"no {stem_of(name)}.txt in {folder}; an empty one says that nothing is in the picture"
            reader.faults.append(Fault("missing labels", name, detail))
        else:
            reader.read(name, file, marks=False)
    for stem, file in left.items():
        if file.name.lower() == "classes.txt":  # where labelling tools put the names, in each folder
            continue
        near = pictures.find(file.stem)
        detail = f"{file}: there is no picture {stem}{f', only {near}' if near else ''}"
        reader.faults.append(Fault("orphan annotation", "", detail))
    return reader.finish(folder)


def read_darknet(
    listing: Path | str,
    images: Path,
    pictures: Lookup,
    labels: Path | None = None,
    class_names: Path | None = None,
    numbers: Path | None = None,
) -> Records:
    """Read one of Darknet's lists: a path of a picture a line.

    A label file whose one line is `id 0 0 0 0` marks a picture without boxes, with a label: id is a node's
    number in the tree, no class number. It becomes a label of the picture.

    Args:
        listing: the list. images: folder of the pictures. pictures: those in it.
        labels: folder of the label files, `a/x.txt` or `x.txt` for `a/x.jpg`. None: Darknet's rule, `images`
            or `JPEGImages` in the picture's path replaced by `labels`, and its ending by `.txt`; or beside
            the picture.
        class_names: see read_class_names. Of a .data file, `labels` is used too: WordNet ids of the tree's
            nodes, so that numbers of nodes mean the same in any tree. Without it they are numbers in the tree
            that the data is packed for.
        numbers: Darknet's .map file, node number of each class, a line each.

    Raises:
        DataError: the list, class names or map cannot be read, or no picture in the list has labels.
    """
    listing = Path(listing)
    data = read_data_file(class_names) if class_names and class_names.suffix == ".data" else {}
    wnids = read_text(beside(class_names, data["labels"])).split() if "labels" in data else None
    reader = _Reader(class_names if not data or "names" in data else None, wnids, numbers)
    lines = read_text(listing).splitlines()
    closest = pictures.among((line,) for line in lines)
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{listing}: line {line_number}"
        name = pictures.find(line)
        if name is None:
            reader.faults.append(Fault("missing picture", "", f"{where}: {line.strip()} is not in {images}"))
            continue
        if name in reader.records or closest.find(line) is None:
            detail = f"{where}: {line.strip()} means {name}, as another line does that is closer or first"
            reader.faults.append(Fault("repeated id", name, detail))
            continue
        spellings = _spellings(name, pictures)
        places = (p for spell in spellings for p in _places(spell(line), spell(name), images, labels))
        file = next((p for p in places if p.is_file()), None)
        if file is None:
            reader.faults.append(Fault("missing labels", name, f"{where}: no label file"))
        else:
            reader.read(name, file, marks=True)
    return reader.finish(listing)


def _spellings(name: str, pictures: Lookup) -> list[Callable[[str], str]]:
    """Ways to write the name of a picture and of its label file: as it is, then with each letter and its
    accent in one and apart (NFC, NFD), but not as another picture is called."""
    if name.isascii():
        return [str]
    forms = [partial(unicodedata.normalize, form) for form in ("NFC", "NFD")]
    return [str, *(form for form in forms if pictures.find(form(name)) == name)]


def _places(line: str, name: str, images: Path, labels: Path | None) -> Iterable[Path]:
    """Where the label file of a picture may lie, the likeliest first."""
    if labels is not None:
        rest = tidy(stem_of(line.strip()))
        yield labels / f"{stem_of(name)}.txt"
        while rest := rest.partition("/")[2]:
            if ".." not in rest.split("/"):
                yield labels / f"{rest}.txt"
        return
    path = (images / stem_of(name)).absolute().as_posix()
    for folder in ("images", "JPEGImages"):  # the last one, as a data set may lie below a folder of that name
        head, found, tail = path.rpartition(f"/{folder}/")
        if found:
            yield Path(f"{head}/labels/{tail}.txt")
    yield Path(f"{path}.txt")


class _Reader:
    """Label files into records, classes and faults."""

    def __init__(
        self, class_names: Path | str | None, wnids: list[str] | None = None, numbers: Path | None = None
    ):
        names = read_class_names(class_names) if class_names is not None else None
        self._keypoint_numbers = read_keypoint_numbers(class_names) if class_names is not None else 0
        self._wnids = wnids
        self._nodes = _numbers(numbers) if numbers is not None else None
        self._named = names is not None or self._nodes is not None
        self.faults: list[Fault] = []
        self.records: dict[str, Record] = {}
        self.categories: dict = {}
        if self._nodes is not None:
            for k, node in enumerate(self._nodes):
                self.categories[k] = self._node(node)
        elif names is not None:
            self.categories = {k: Category(name) for k, name in enumerate(names)}

    def read(self, name: str, file: Path, marks: bool) -> None:
        """One label file, as the record of the picture `name`."""
        try:
            lines = [line.split() for line in read_text(file).splitlines()]
        except DataError as error:
            self._fault(name, str(error))
            return
        boxes, keys, marked = [], [], []
        for position, fields in enumerate(lines, 1):
            if not fields:
                continue
            where = f"{file}: line {position}"
            values = [number(field) for field in fields[1:]]
            # Some tools write class numbers as 3.0.
            whole = re.fullmatch(r"([0-9]{1,9})(\.0*)?", fields[0])
            if whole is None or None in values or int(whole[1]) >= _MOST_CLASSES:
                self._fault(name, f"{where}: wanted `class cx cy w h`, found {' '.join(fields)[:60]!r}")
            elif marks and values == [0, 0, 0, 0]:
                marked.append(int(whole[1]))
            elif (box := self._box(values)) is None:
                self._fault(name, f"{where}: {len(values)} numbers after the class; {self._wanted()}")
            elif (key := self._class(int(whole[1]))) is None:
                self._fault(name, f"{where}: class {whole[1]}, but there are only {len(self.categories)}")
            else:
                boxes.append(box)
                keys.append(key)
        if marked and boxes:
            self._fault(
                name, f"{file}: boxes, and `id 0 0 0 0` that says there are none; the mark is dropped"
            )
            marked = []
        self.records[name] = Record(
            name=name,
            boxes_xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
            categories=tuple(keys),
            crowd=np.zeros(len(boxes), bool),
            difficult=np.zeros(len(boxes), bool),
            image_categories=tuple(dict.fromkeys(self._mark(node) for node in marked)),
            boxed=not marked,
            in_shares=True,
        )

    def _box(self, values: list[float]) -> list[float] | None:
        """Left, top, right, bottom in 0..1 of centre and sides, with keypoints behind them or not; without
        keypoints in the data, also of six and more corners."""
        if len(values) in (4, 4 + self._keypoint_numbers):
            x, y, w, h = values[:4]
            return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        # A polygon may stick out a little; 2 is a keypoint's visibility, and more are pixels.
        corners = len(values) >= 6 and len(values) % 2 == 0 and not any(value >= 2 for value in values)
        if corners and not self._keypoint_numbers:
            (left, right), (top, bottom) = span(values[::2]), span(values[1::2])
            return [left, top, right, bottom]
        return None

    def _wanted(self) -> str:
        if self._keypoint_numbers:
            return f"a box has 4, and its keypoints {self._keypoint_numbers} (kpt_shape)"
        return "a box has 4, a polygon pairs in 0..1; for keypoints give the data.yaml with their kpt_shape"

    def _fault(self, name: str, detail: str) -> None:
        self.faults.append(Fault("malformed annotation", name, detail))

    def _class(self, k: int) -> int | None:
        """The key of class k; None if the names do not go that far."""
        if self._named:
            return k if k in self.categories else None
        self.categories.setdefault(k, Category(str(k)))
        return k

    def _mark(self, node: int) -> tuple[str, int]:
        """The key of a node's number."""
        key = ("node", node)
        if key not in self.categories:
            self.categories[key] = self._node(node)
        return key

    def _node(self, node: int) -> Category:
        """The class that is a node of the tree: by WordNet id where the ids are known."""
        if self._wnids is None:
            return Category(f"node {node}", node=node)
        if node >= len(self._wnids):
            raise DataError(f"node {node} of the tree, but the list of WordNet ids has {len(self._wnids)}")
        return Category(self._wnids[node])

    def finish(self, source: Path) -> Records:
        """All that was read; DataError if that is nothing."""
        if not self.records:
            reason = f"; the first fault: {self.faults[0].detail}" if self.faults else ""
            raise DataError(f"{source}: no picture with labels{reason}")
        ordered = tuple(self.records[name] for name in sorted(self.records))
        return Records(ordered, self.categories, tuple(self.faults))


def _numbers(path: Path) -> list[int]:
    """Darknet's .map file."""
    found = []
    for line_number, line in enumerate(read_text(path).rstrip().splitlines(), 1):
        if not re.fullmatch(r"[0-9]{1,9}", line.strip()):
            raise DataError(f"{path}: line {line_number}: wanted the number of a node, found {line[:60]!r}")
        found.append(int(line))
    return found
