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

KINDS = ("coco", "folders", "unlabelled")


@dataclass(frozen=True)
class Source:
    """One data set of a recipe. Paths are relative to the recipe's root.

    name: what samples of it are called in the store.
    kind: "coco" (annotations and images), "folders" (`<class>/<file>`, labels only) or "unlabelled".
    images: a folder, a tar or a folder of tars.
    map: see mapping.map_categories. drop_unmapped: go on without what cannot be mapped.
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"source {self.name!r}: kind {self.kind!r}, wanted one of {', '.join(KINDS)}")
        if (self.kind == "coco") != (self.annotations is not None):
            raise DataError(f"source {self.name!r}: kind coco, and no other, needs annotations")
        if self.classes is not None and self.kind != "folders":
            raise DataError(f"source {self.name!r}: only kind folders takes a list of classes")


@dataclass(frozen=True)
class Recipe:
    """What goes into one packed file.

    tree: "default", "flat" (the classes of the sources, or those in the file `names`, one a line) or a file:
        a tree's JSON or Darknet's .tree.
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
            text = path.read_text(encoding="utf-8")
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
