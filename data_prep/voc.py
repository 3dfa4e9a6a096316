"""Pascal VOC's XML, a file for each picture, into records; also what ImageNet, LabelImg and CVAT write in
that form. No pictures are touched here."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data_prep.errors import DataError
from data_prep.lookup import Lookup, is_marked, number, side, tidy
from data_prep.pictures import files_below
from data_prep.record import Category, Fault, Record, Records
from data_prep.xmlfile import read_xml, text_of

_LIMIT = 1 << 24  # bytes a file: 16 MiB are 50,000 objects in one picture

# Folders that only say that annotations are in them, beside those of the pictures: VOC's own, and others'
# (Oxford's pets: annotations/xmls). A split's name in it (labels_train) makes one another folder.
_WORDS = r"annotat(ions?|ed)|annot?s?|labels?|xmls?|bboxe?s?|bounding|boxes|ground|truths?|gt"
_BESIDE = re.compile(rf"(({_WORDS})[-_ .]*)+", re.IGNORECASE)
# The same of pictures (JPEGImages).
_PICTURES = re.compile(r"((jpe?gs?|pngs?|images?|imgs?|pictures?|pics?|photos?|frames?)[-_ .]*)+")


def read_voc(path: Path | str, pictures: Lookup, corners: str = "edges") -> Records:
    """Read a folder of VOC XML files (or a folder that has them in `Annotations`), folders below it too.

    A file's picture is the one of the same name; only if there is none, the one its <filename> names, which
    without a folder means a picture in a folder that goes with the file's own. <difficult> is kept.
    Categories are named, their keys are the names. <truncated>, <occluded>, <pose> and the boxes of parts are
    not used.

    Args:
        path: the folder. pictures: those of the data set. corners: one of recipe.CORNERS.

    Raises:
        DataError: no such folder, or not one XML file in it can be read. What is wrong with one of them is a
        fault.
    """
    path = Path(path)
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder of VOC's XML files")
    names = files_below(folder, lambda name: name.lower().endswith(".xml"))
    if not names:
        raise DataError(f"{path}: no .xml files in it")
    categories: dict[str, Category] = {}
    faults: list[Fault] = []
    records: dict[str, Record] = {}
    owns = {inside: inside[: -len(".xml")] for inside in names}
    folders = _Folders(pictures.folders, {own.rpartition("/")[0] for own in owns.values()})
    # Files of a picture's very name come first: one that only speaks of it is then the second.
    closeness = {inside: pictures.closeness(own) for inside, own in owns.items()}
    for inside in sorted(names, key=lambda inside: (closeness[inside] is None, closeness[inside] or ())):
        file, own = folder / inside, owns[inside]
        found: list[Element] = []
        try:
            read_xml(file, "annotation", {"annotation": found.append}, _LIMIT)
        except DataError as error:
            faults.append(Fault("malformed annotation", pictures.find(own) or "", str(error)))
            continue
        name = _picture_of(own, found[0], pictures, folders)
        if name in records:
            faults.append(Fault("repeated id", name, f"{file}: the picture has another annotation already"))
            continue
        records[name] = _record(name, found[0], corners, categories, faults)
    if not records:
        raise DataError(f"{path}: not one file can be read; the first: {faults[0].detail}")
    return Records(tuple(records[name] for name in sorted(records)), categories, tuple(faults))


def _picture_of(own: str, root: Element, pictures: Lookup, folders: "_Folders") -> str:
    """The picture that a file is about; where there is none such, what it calls it. own: the file's own name,
    without its ending, in the folder of all. A bare <filename> means the picture of that name in the
    file's own folder, otherwise the one in those folders that go with it."""
    inner, called = own.rpartition("/")[0], tidy(text_of(root.find("filename")))
    bare = "" if "/" in called else called
    whole = "/".join((*_saying(inner), bare)) if bare else called
    names = [own, whole] if whole else [own]
    # A folder whose name says that annotations are in it (boxes, a class) may have pictures, too.
    here = pictures.find(f"{inner}/{bare}") if bare and inner else None
    if here is not None and _parts(here.split("/")[:-1]) == _parts(inner.split("/")):
        names.insert(1, here)
    name = pictures.find(*names)
    if name is None and bare:
        near = {folder: pictures.find(f"{folder}/{bare}") for folder in folders.that_go_with(inner)}
        fitting = [found for folder, found in near.items() if found and found.rpartition("/")[0] == folder]
        name = fitting[0] if len(fitting) == 1 else None
    return name or whole or own


def _saying(inner: str) -> list[str]:
    """The folders of a path that say more than that annotations are in them."""
    return [part for part in inner.split("/") if part and not _BESIDE.fullmatch(part)]


class _Folders:
    """Which of the pictures' folders go with one of XML files."""

    def __init__(self, pictures: Iterable[str], files: Iterable[str]):
        self._pictures = {folder: _parts(folder.split("/")) for folder in pictures}
        self._files = [_parts(_saying(folder)) for folder in files]
        self._known: dict[str, list[str]] = {}

    def that_go_with(self, inner: str) -> list[str]:
        """Those of the same name, capitals aside, or with that of the files and more (train/labels and
        train/images, n01 and train/n01). A name that says something else (train/voc) goes with train/images,
        unless it may be that of a split or class: others of files lie beside it, or pictures in one of
        another name. None goes with a name that says nothing: there the picture's alone has to tell."""
        if inner not in self._known:
            said = _parts(_saying(inner))
            self._known[inner] = (self._called(said) or self._beside(said)) if said else []
        return self._known[inner]

    def _called(self, said: list[str]) -> list[str]:
        count = len(said)
        return [folder for folder, of in self._pictures.items() if said in (of[:count], of[-count:])]

    def _beside(self, said: list[str]) -> list[str]:
        *front, last = said
        count = len(front)
        if any(of[:count] == front and of[count : count + 1] not in ([], [last]) for of in self._files):
            return []
        below = {folder: of[count:] for folder, of in self._pictures.items() if of[:count] == front}
        if any(of and of[0] and not _PICTURES.fullmatch(of[0]) for of in below.values()):
            return []
        return [folder for folder, of in below.items() if len(of) == 1 and of[0]]


def _parts(folders: Iterable[str]) -> list[str]:
    return [unicodedata.normalize("NFC", folder).casefold() for folder in folders]


def _record(
    name: str, root: Element, corners: str, categories: dict[str, Category], faults: list[Fault]
) -> Record:
    size = root.find("size")
    sides = [side(text_of(size.find(tag))) if size is not None else None for tag in ("width", "height")]
    boxes, keys, difficult = [], [], []
    for position, thing in enumerate(root.findall("object")):
        box = thing.find("bndbox")
        corner = [
            number(text_of(box.find(tag))) if box is not None else None
            for tag in ("xmin", "ymin", "xmax", "ymax")
        ]
        key = text_of(thing.find("name"))
        if not key or None in corner:
            faults.append(
                Fault("malformed annotation", name, f"object {position} lacks a name or a number of its box")
            )
            continue
        categories.setdefault(key, Category(key))
        boxes.append(corner)
        keys.append(key)
        difficult.append(is_marked(text_of(thing.find("difficult"))))
    boxes_xyxy = np.asarray(boxes, np.float64).reshape(-1, 4)
    if corners == "pixels":
        boxes_xyxy[:, :2] -= 1
    return Record(
        name=name,
        boxes_xyxy=boxes_xyxy,
        categories=tuple(keys),
        crowd=np.zeros(len(boxes), bool),
        difficult=np.asarray(difficult, bool),
        size=(sides[0], sides[1]) if None not in sides else None,
    )
