"""Recipe: which data sets go into a packed file and how, as read from TOML or JSON.

Nothing of the data itself is read here.
"""

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import DataError

KINDS = (
    *("coco", "voc", "cvat", "fiftyone", "labelstudio"),
    *("openimages", "yolo", "darknet", "folders", "unlabelled"),
)

# How corners in VOC's XML are to be read. "edges": as they stand, right - left is the width, as COCO's
# conversions and most tools take them. "pixels": the VOC development kit's own words: pixels counted from 1,
# the last one included, so a box around the whole picture is 1, 1, width, height.
CORNERS = ("edges", "pixels")

# Key of a source -> the kinds that take it.
_GOES_WITH = {
    "classes": ("folders",),
    "class_names": ("openimages", "yolo", "darknet"),
    "image_labels": ("openimages",),
    "labels": ("darknet",),
    "corners": ("voc",),
    "field": ("fiftyone", "labelstudio"),
}


@dataclass(frozen=True)
class Source:
    """One data set of a recipe. Paths are relative to the recipe's root.

    name: what samples of it are called in the store.
    kind: one of KINDS: "folders" is `<class>/<file>`, labels only (see folders.py); "unlabelled" pictures
        alone; all others have annotations and images.
    images: a folder, a tar or a folder of tars.
    annotations: the file (coco, cvat, fiftyone, labelstudio), list of pictures (darknet), CSV of boxes
        (openimages) or folder of files (voc, yolo).
    class_names, image_labels, labels, corners, field: see yolo.py, openimages.py, voc.py, fiftyone.py and
        labelstudio.py.
    map: see mapping.map_categories; of "darknet" also a .map file. drop_unmapped: go on without what
        cannot be mapped.
    classes: of "folders", the only classes taken (a list, see selection.read_list).
    only, leave_out: lists of picture names. holdout_*: see selection.select.
    """

    name: str
    kind: str
    images: str
    annotations: str | None = None
    map: str | None = None
    classes: str | None = None
    only: str | None = None
    leave_out: str | None = None
    holdout_every: int = 0
    holdout_first: int = 0
    holdout_part: str = "rest"
    drop_unmapped: bool = False
    class_names: str | None = None
    image_labels: str | None = None
    labels: str | None = None
    corners: str = "edges"
    field: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"source {self.name!r}: kind {self.kind!r}, wanted one of {', '.join(KINDS)}")
        alone = self.kind in ("folders", "unlabelled")
        if alone == (self.annotations is not None) and not (self.kind == "openimages" and self.image_labels):
            wants = "takes no" if alone else "needs"
            raise DataError(f"source {self.name!r}: kind {self.kind} {wants} annotations")
        for key, kinds in _GOES_WITH.items():
            if getattr(self, key) not in (None, "edges") and self.kind not in kinds:
                raise DataError(f"source {self.name!r}: {key} goes with kind {' or '.join(kinds)} only")
        if self.corners not in CORNERS:
            raise DataError(f"source {self.name!r}: corners {self.corners!r}, wanted {' or '.join(CORNERS)}")

    @property
    def node_map(self) -> str | None:
        """Darknet's .map file, node numbers of classes."""
        return self.map if self.kind == "darknet" and (self.map or "").endswith(".map") else None

    @property
    def class_map(self) -> str | None:
        """What maps classes to nodes, for mapping.map_categories."""
        return None if self.node_map else self.map


@dataclass(frozen=True)
class Recipe:
    """What goes into one packed file.

    tree: "default", "flat" (the classes of the sources, or those in the file `names`, one a line) or a file:
        any form of tree that WordTree.load reads.
    root: the folder that paths are relative to.
    """

    sources: tuple[Source, ...]
    tree: str = "default"
    names: str | None = None
    root: Path = Path()

    def __post_init__(self) -> None:
        if not self.sources:
            raise DataError("a recipe needs at least one source")
        twice = {s.name for s in self.sources if [t.name for t in self.sources].count(s.name) > 1}
        if twice:
            raise DataError(f"sources need names of their own; {', '.join(sorted(twice))} is there twice")
        if self.names is not None and self.tree != "flat":
            raise DataError('`names` lists the classes of a flat model: it goes with tree = "flat"')

    @classmethod
    def load(cls, path: Path | str, root: Path | str | None = None) -> "Recipe":
        """Read a recipe in TOML, or JSON where the name ends in .json.

            root = "../../../shared/data"      # relative to the recipe; its own folder if not given
            tree = "default"
            [[source]]
            name = "coco"
            kind = "coco"
            annotations = "coco128/instances.json"
            images = "coco128/images"
            map = "coco"

        Args:
            path: the file. root: takes the place of the recipe's `root`.

        Raises:
            DataError: cannot be read, unknown or missing keys, values of the wrong type.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such recipe") from error
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{path}: not a readable recipe ({error})") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: a recipe is a table of keys, found {type(content).__name__}")
        entries = content.pop("source", None)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: a recipe needs [[source]] entries")
        inside = content.pop("root", ".")
        if not isinstance(inside, str):
            raise DataError(f"{path}: root = {inside!r}: wanted str")
        try:
            sources = tuple(_make(Source, entry, f"source {n}") for n, entry in enumerate(entries, 1))
            content["root"] = Path(root) if root is not None else path.parent / inside
            content["sources"] = sources
            return _make(cls, content, "recipe")
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _make(kind: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass from a table, unknown keys, missing keys and wrong types refused."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise DataError(f"{where}: unknown key {', '.join(unknown)}; there are {', '.join(fields)}")
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
    if missing:
        raise DataError(f"{where}: needs {', '.join(missing)}")
    for name, value in values.items():
        wanted = fields[name].type
        if wanted in (int, bool, str) and type(value) is not wanted:
            raise DataError(f"{where}: {name} = {value!r}: wanted {wanted.__name__}")
        if wanted == (str | None) and not isinstance(value, str):
            raise DataError(f"{where}: {name} = {value!r}: wanted str")
    return kind(**values)
