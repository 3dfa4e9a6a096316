"""What was found on one picture: boxes, scores, nodes of the tree and their paths. One container, checked
once, and its conversions.

Finding is detector.py, drawing is draw.py."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import pandas
    import supervision
    import torch
    from PIL import Image

    from wordtree import WordTree


# The name of node -1, the virtual root above all roots: something is there, and no more is said.
SOMETHING = "something"


@dataclass(frozen=True)
class Detection:
    """One object. box_xyxy: left, top, right, bottom in pixels of the original picture; score, objectness,
    probability, conditional in 0..1; node: class index, -1 for "something"; path, path_names,
    path_probabilities: root first, the node itself last, empty for "something"."""

    box_xyxy: tuple[float, float, float, float]
    score: float
    objectness: float
    probability: float
    node: int
    name: str
    path: tuple[str, ...]
    path_names: tuple[str, ...]
    path_probabilities: tuple[float, ...]
    conditional: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; numbers rounded to what they are good for (a hundredth of a pixel, 1e-5)."""
        return {
            "name": self.name,
            "id": self.path[-1] if self.path else None,
            "node": self.node,
            "score": _short(self.score, 5),
            "objectness": _short(self.objectness, 5),
            "probability": _short(self.probability, 5),
            "conditional": _short(self.conditional, 5),
            "box_xyxy": [_short(value, 2) for value in self.box_xyxy],
            "path": list(self.path),
            "path_names": list(self.path_names),
            "path_probabilities": [_short(value, 5) for value in self.path_probabilities],
        }


@dataclass(frozen=True)
class _File:
    """A picture's file, with its size in bytes and time of change in nanoseconds when it was looked at; None
    where it was not there."""

    path: str | Path
    facts: tuple[int, int] | None

    @classmethod
    def now(cls, path: str | Path) -> "_File":
        try:
            found = Path(path).stat()
        except (OSError, ValueError):  # ValueError: a zero byte
            return cls(path, None)
        return cls(path, (found.st_size, found.st_mtime_ns))


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects on one picture, best score first.

    boxes_xyxy: float32 (n, 4), left, top, right, bottom in pixels of the original picture. objectness,
    scores, probabilities: float32 (n,) in 0..1; `scores` is what the order and tables go by, and what it is
    made of depends on the rule (Detector.__call__); probabilities: Pr(node), the product of the conditionals
    on its path, without objectness; conditionals: Pr(node | the nodes that might be answered) under a rule
    that lists them, else Pr(node | parent), made of the path if not given. nodes: int64 (n,) class indices,
    -1 for "something", whose path is empty. names: n display names. paths,
    path_names: n tuples of ids or names, root first; path_probabilities: the Pr of each node on the path.
    image_size: (width, height). source: where the picture came from, if it was a file.

    Pickles have no pixels in them: what was found on a file still knows its file, to `draw` and `save`, what
    was found on an array, image or bytes does not know its picture any more.

    len(), iteration (Detection objects), found[3] (a Detection), found[1:4], found[mask], found[indices]
    (Detections). Raises ValueError, naming the first bad entry, if the parts do not belong together.
    """

    boxes_xyxy: np.ndarray
    objectness: np.ndarray
    scores: np.ndarray
    nodes: np.ndarray
    names: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    image_size: tuple[int, int]
    probabilities: np.ndarray
    path_names: tuple[tuple[str, ...], ...]
    path_probabilities: tuple[tuple[float, ...], ...]
    source: str | None = None
    _picture: Any = field(default=None, repr=False)  # what read_image takes, or a _File; `save` draws on it
    conditionals: np.ndarray | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, kind in (("boxes_xyxy", np.float32), ("nodes", np.int64)):
            put(name, np.array(getattr(self, name), dtype=kind))
        for name in ("objectness", "scores", "probabilities"):
            put(name, np.array(getattr(self, name), dtype=np.float32))
        if self.boxes_xyxy.size == 0:
            put("boxes_xyxy", self.boxes_xyxy.reshape(0, 4))
        put("names", tuple(self.names))
        for name in ("paths", "path_names", "path_probabilities"):
            put(name, tuple(tuple(path) for path in getattr(self, name)))
        if self.conditionals is None:
            put("conditionals", [_last_step(path) for path in self.path_probabilities])
        put("conditionals", np.array(self.conditionals, dtype=np.float32))
        if isinstance(self._picture, str | Path):
            put("_picture", _File.now(self._picture))
        put("image_size", (int(self.image_size[0]), int(self.image_size[1])))
        self._check()
        for name in ("boxes_xyxy", "objectness", "scores", "nodes", "probabilities", "conditionals"):
            getattr(self, name).setflags(write=False)

    def _check(self) -> None:
        n = len(self.boxes_xyxy)
        if self.boxes_xyxy.shape != (n, 4):
            raise ValueError(f"boxes_xyxy is (n, 4), not {self.boxes_xyxy.shape}")
        for name in ("objectness", "scores", "nodes", "probabilities", "conditionals"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} is ({n},) for {n} boxes, not {getattr(self, name).shape}")
        for name in ("names", "paths", "path_names", "path_probabilities"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{len(getattr(self, name))} {name} for {n} boxes")
        if min(self.image_size) < 1:
            raise ValueError(f"a picture of {self.image_size[0]} x {self.image_size[1]} pixels")
        good = np.isfinite(self.boxes_xyxy).all(axis=1)
        good &= (self.boxes_xyxy[:, 2:] >= self.boxes_xyxy[:, :2]).all(axis=1)
        if not good.all():
            bad = int(np.argmin(good))
            raise ValueError(f"box {bad} is no box: {self.boxes_xyxy[bad].tolist()}")
        for name in ("objectness", "scores", "probabilities", "conditionals"):
            values = getattr(self, name)
            inside = (values >= 0) & (values <= 1)
            if not inside.all():
                raise ValueError(
                    f"{name} lie in 0..1, that of box {int(np.argmin(inside))} is {values[~inside][0]}"
                )
        if (self.nodes < -1).any():
            raise ValueError(f"box {int(np.argmin(self.nodes >= -1))} has the node {self.nodes.min()}")
        for i, path in enumerate(self.paths):
            if (
                bool(path) != (self.nodes[i] >= 0)
                or len(path) != len(self.path_names[i])
                or len(path) != len(self.path_probabilities[i])
            ):
                raise ValueError(
                    f"box {i}: path, path_names and path_probabilities differ in length or are empty"
                    " (and only those of node -1 are)"
                )

    @classmethod
    def empty(
        cls, image_size: tuple[int, int], source: str | None = None, picture: Any = None
    ) -> "Detections":
        """Nothing found on a picture of this (width, height)."""
        none = np.zeros(0)
        return cls(none, none, none, none, (), (), image_size, none, (), (), source, picture)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        if not isinstance(self._picture, _File):
            parts["_picture"] = None
        return type(self), tuple(parts.values())

    def __copy__(self) -> "Detections":
        return self  # nothing about it changes

    def __deepcopy__(self, memo: Any) -> "Detections":
        return self

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, which: "int | np.integer[Any]") -> Detection: ...
    @overload
    def __getitem__(self, which: "slice | Sequence[int] | np.ndarray") -> "Detections": ...
    def __getitem__(self, which: "int | slice | Sequence[int] | np.ndarray") -> "Detection | Detections":
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"detection {which} of {len(self)}")
            return Detection(
                tuple(self.boxes_xyxy[which].tolist()),
                float(self.scores[which]),
                float(self.objectness[which]),
                float(self.probabilities[which]),
                int(self.nodes[which]),
                self.names[which],
                self.paths[which],
                self.path_names[which],
                self.path_probabilities[which],
                float(self.conditionals[which]),
            )
        if not isinstance(which, slice):
            which = np.asarray(which)
            which = which.astype(np.int64) if which.size == 0 and which.dtype != bool else which
        rows = np.arange(len(self))[which].tolist()
        parts = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray) and part.name != "_picture":
                parts[part.name] = value[rows]
            elif part.name in ("names", "paths", "path_names", "path_probabilities"):
                parts[part.name] = tuple(value[i] for i in rows)
            else:
                parts[part.name] = value
        return Detections(**parts)

    def below(self, tree: "WordTree", *nodes: str | int) -> "Detections":
        """Those that are one of these nodes of the tree (ids, names or numbers), or lie below one. Raises
        ValueError for what the tree has not."""
        from yolo9000.keep import Keep

        return Keep.of(tree, [nodes])(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: source, width, height, detections (see Detection.to_dict)."""
        width, height = self.image_size
        found = [one.to_dict() for one in self]
        return {"source": self.source, "width": width, "height": height, "detections": found}

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Detections":
        """The inverse of `to_dict`, up to its rounding. Raises ValueError for anything else."""
        try:
            found = record["detections"]
            columns = {
                name: [one[key] for one in found]
                for name, key in (
                    ("boxes_xyxy", "box_xyxy"),
                    ("scores", "score"),
                    ("objectness", "objectness"),
                    ("probabilities", "probability"),
                    ("nodes", "node"),
                    ("names", "name"),
                    ("paths", "path"),
                    ("path_names", "path_names"),
                    ("path_probabilities", "path_probabilities"),
                )
            }
            if all("conditional" in one for one in found):
                columns["conditionals"] = [one["conditional"] for one in found]
            return cls(**columns, image_size=(record["width"], record["height"]), source=record.get("source"))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a record of detections: {type(error).__name__} {error}") from error

    def to_coco(self, image_id: int, categories: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
        """Rows of a COCO results file: image_id, category_id, bbox (x, y, width, height in pixels), score.

        categories: node -> category id; detections of other nodes are left out. Without it the category is
        the node's index. "something" is no category and left out.
        """
        rows = []
        for one in self:
            category = one.node if categories is None else categories.get(one.node)
            if category is not None and one.node >= 0:
                x, y, right, bottom = one.box_xyxy
                box = [_short(value, 2) for value in (x, y, right - x, bottom - y)]
                score = _short(one.score, 5)
                rows.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
        return rows

    def draw(self) -> "Image.Image":
        """The picture with boxes and labels on it; draw.py. Raises ImageError if the picture is not at hand
        any more, or its file has changed."""
        return self.plot()

    def plot(self, scores: bool = True) -> "Image.Image":
        """As `draw`; without `scores` names alone."""
        from yolo9000.draw import draw

        return draw(self.picture(), self, scores)

    def picture(self) -> np.ndarray:
        """The picture itself, uint8 (H, W, 3), RGB. Raises ImageError if it is not at hand any more, or
        its file has changed since."""
        from yolo9000.errors import ImageError
        from yolo9000.images import read_image

        picture = self._picture if self._picture is not None else self.source
        if picture is None:
            raise ImageError(
                "these detections do not know their picture (pixels are not pickled);"
                " use yolo9000.draw.draw(picture, detections)"
            )
        if isinstance(picture, _File):
            now = _File.now(picture.path)
            if None not in (now.facts, picture.facts) and now != picture:
                raise ImageError(
                    f"{picture.path}: has changed since these detections were made; detect again, or use"
                    " yolo9000.draw.draw(picture, detections)"
                )
            picture = picture.path
        return read_image(picture)

    def crop(self, margin: float = 0.0) -> "list[Image.Image]":
        """The parts of the picture inside the boxes, in their order. margin: so much more on every side, as a
        share of the box's sides; whole pixels, at least one, none outside the picture. Raises ImageError as
        `draw`, ValueError for an impossible margin."""
        from yolo9000.draw import crops

        return crops(self.picture(), self, margin)

    def save(self, path: str | Path) -> Path:
        """Write the picture with boxes and labels on it, in the format of the path's suffix (.jpg, .png,
        ...); returns the path.

        An older file is replaced whole. Raises ImageError for a suffix that names no format or a folder that
        cannot be written.
        """
        from yolo9000.draw import save_picture

        return save_picture(self.draw(), path)

    def to_supervision(self) -> "supervision.Detections":
        """supervision's container; interop.to_supervision. Raises ImportError where it is not installed."""
        from yolo9000.interop import to_supervision

        return to_supervision(self)

    @staticmethod
    def from_supervision(
        found: "supervision.Detections", image_size: tuple[int, int], **more: Any
    ) -> "Detections":
        """Of supervision's container; interop.from_supervision. more: tree, source. Raises ValueError."""
        from yolo9000.interop import from_supervision

        return from_supervision(found, image_size, **more)

    def to_torchvision(self) -> "dict[str, torch.Tensor]":
        """torchvision's dict: boxes, labels, scores; interop.to_torchvision."""
        from yolo9000.interop import to_torchvision

        return to_torchvision(self)

    @staticmethod
    def from_torchvision(
        found: "Mapping[str, torch.Tensor]", image_size: tuple[int, int], **more: Any
    ) -> "Detections":
        """Of torchvision's dict; interop.from_torchvision. more: tree, names, source. Raises ValueError."""
        from yolo9000.interop import from_torchvision

        return from_torchvision(found, image_size, **more)

    def to_pandas(self) -> "pandas.DataFrame":
        """A table, a row an object; interop.to_pandas. Raises ImportError where pandas is not installed."""
        from yolo9000.interop import to_pandas

        return to_pandas(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture with its boxes, if it is at hand, and a table; notebook.py."""
        from yolo9000.notebook import as_html

        return as_html(self)


def _last_step(path: Sequence[float]) -> float:
    """Pr(node | parent) of a path's last node, from absolute probabilities."""
    if not path:
        return 1.0
    return min(1.0, path[-1] / path[-2]) if len(path) > 1 and path[-2] > 0 else path[-1]


def _short(value: float, digits: int) -> float:
    return round(float(value), digits) if math.isfinite(value) else float(value)
