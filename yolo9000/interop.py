"""Detections as other packages hold them, and back: supervision, pandas, torchvision's dicts. None of the
packages is needed unless its function is called. COCO's rows and JSON are detections.py's, words of other
packages habits.py's, data sets of other tools data_prep's.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from yolo9000.detections import SOMETHING, Detections

if TYPE_CHECKING:
    import pandas
    import supervision
    import torch

    from wordtree import WordTree

# Columns of a table, one row an object; `path` and `path_names` root first, with " > " between.
COLUMNS = (
    *("name", "id", "node", "score", "objectness", "probability", "conditional"),
    *("left", "top", "right", "bottom", "path", "path_names", "source"),
)
_BETWEEN = " > "

# Beside supervision's own `class_name`, what it has no place for, so that nothing is lost on the way back.
_ROWS = ("objectness", "probability", "conditional", "node_id", "path", "path_names", "path_probabilities")


def to_supervision(found: Detections) -> "supervision.Detections":
    """supervision's container: xyxy, confidence (the scores), class_id (the nodes, -1 is "something"), and in
    `data` class_name and all else that is known of each box, so that its annotators, trackers and metrics
    take it and `from_supervision` gives the same back. Its `metadata` stay empty: supervision refuses to
    merge where they differ, as sizes of slices do. Raises ImportError where it is not installed."""
    sv = _wanted("supervision")
    columns = {
        "class_name": np.array(found.names, dtype=str),
        "objectness": found.objectness.copy(),
        "probability": found.probabilities.copy(),
        "conditional": found.conditionals.copy(),
        "node_id": np.array([path[-1] if path else "" for path in found.paths], dtype=str),
        "path": _objects(found.paths),
        "path_names": _objects(found.path_names),
        "path_probabilities": _objects(found.path_probabilities),
    }
    return sv.Detections(
        xyxy=found.boxes_xyxy.copy(),
        confidence=found.scores.copy(),
        class_id=found.nodes.copy(),
        data=columns,
    )


def from_supervision(
    found: "supervision.Detections",
    image_size: tuple[int, int],
    tree: "WordTree | None" = None,
    source: str | None = None,
) -> Detections:
    """Detections of supervision's container, best score first, equal ones as they were; tracker_id is not
    kept.

    image_size: (width, height) of the picture. What `to_supervision` wrote comes back as it was; with a
    `tree` as the nodes that have its ids there, and of paths that differ nothing but box and score is kept.
    Of other containers, class_id is the class and class_name its name; with a `tree` they are nodes of it: by
    name or id where there are names, else by number; without one each class is a path of its own. No
    confidence is confidence 1. Raises ValueError for what cannot be understood.
    """
    data = found.data or {}
    scores = np.ones(len(found.xyxy)) if found.confidence is None else np.asarray(found.confidence)
    names = [str(name) for name in data["class_name"]] if "class_name" in data else None
    if all(name in data for name in _ROWS) and found.class_id is not None:
        nodes = found.class_id
        if tree is not None:  # by ids: names need not be unique
            nodes = np.array([_node(tree, str(one) or SOMETHING) for one in data["node_id"]], np.int64)
            paths = [tree.path(node) if node >= 0 else () for node in nodes]
            if paths != [tuple(path) for path in data["path"]]:
                return plain(found.xyxy, scores, nodes, None, image_size, tree, source)
        return _sorted(
            Detections(
                boxes_xyxy=found.xyxy,
                objectness=data["objectness"],
                scores=scores,
                nodes=nodes,
                names=names,
                paths=list(data["path"]),
                image_size=image_size,
                probabilities=data["probability"],
                path_names=list(data["path_names"]),
                path_probabilities=list(data["path_probabilities"]),
                source=source,
                conditionals=data["conditional"],
            )
        )
    return plain(found.xyxy, scores, found.class_id, names, image_size, tree, source)


def to_torchvision(found: Detections) -> dict[str, "torch.Tensor"]:
    """torchvision's form: boxes float32 (n, 4) xyxy in pixels, labels int64 (n,), scores float32 (n,). The
    labels are nodes, -1 is "something"; torchvision's own models count classes from 1 and have 0 for the
    background, which is no business of this form."""
    import torch

    return {
        "boxes": torch.from_numpy(found.boxes_xyxy.copy()),
        "labels": torch.from_numpy(found.nodes.copy()),
        "scores": torch.from_numpy(found.scores.copy()),
    }


def from_torchvision(
    found: Mapping[str, "torch.Tensor"],
    image_size: tuple[int, int],
    tree: "WordTree | None" = None,
    names: Sequence[str] | None = None,
    source: str | None = None,
) -> Detections:
    """Detections of a dict of boxes (n, 4) xyxy, labels (n,) and, if there are any, scores (n,), tensors or
    arrays; best score first.

    labels: nodes of the `tree`, or places in `names`; without both they name themselves; -1 is "something".
    Raises ValueError for what cannot be understood.
    """
    if not isinstance(found, Mapping) or not {"boxes", "labels"} <= set(found):
        raise ValueError("torchvision's form is a dict with boxes and labels, and scores if there are any")
    boxes, labels = _array(found["boxes"]).reshape(-1, 4), _array(found["labels"])
    scores = _array(found["scores"]) if "scores" in found else np.ones(len(boxes))
    named = None
    if tree is None and names is not None:
        outside = [int(k) for k in labels if not -1 <= k < len(names)]
        if outside:
            raise ValueError(f"label {outside[0]} of {len(names)} names")
        named = [names[int(k)] if k >= 0 else SOMETHING for k in labels]
    return plain(boxes, scores, labels, named, image_size, tree, source)


def to_pandas(found: Detections) -> "pandas.DataFrame":
    """A table with a row for each object and COLUMNS; boxes in pixels. Raises ImportError where pandas is
    not installed."""
    pandas = _wanted("pandas")
    rows = [
        (
            *(one.name, one.path[-1] if one.path else None, one.node, one.score, one.objectness),
            *(one.probability, one.conditional, *one.box_xyxy),
            *(_BETWEEN.join(one.path), _BETWEEN.join(one.path_names), found.source),
        )
        for one in found
    ]
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    numbers = ("score", "objectness", "probability", "conditional", "left", "top", "right", "bottom")
    return table.astype({**dict.fromkeys(numbers, float), "node": "int64"})


def plain(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray | None,
    names: Sequence[str] | None,
    image_size: tuple[int, int],
    tree: "WordTree | None" = None,
    source: str | None = None,
) -> Detections:
    """Detections of which only boxes, scores and classes are known: objectness is the score, every
    conditional 1. Raises ValueError for classes that the tree has not, or boxes without any class."""
    count = len(boxes_xyxy)
    if classes is None and names is None and count:
        raise ValueError("boxes without a class: neither class_id nor class_name")
    numbers = None if classes is None else [int(k) for k in classes]
    given = list(names) if names is not None else numbers or []
    if tree is not None:
        nodes = [_node(tree, one) for one in given]
        paths = [tree.path(node) if node >= 0 else () for node in nodes]
        titles = [tree.names[node] if node >= 0 else SOMETHING for node in nodes]
        path_names = [tuple(tree.names[k] for k in tree.path_nodes(n)) if n >= 0 else () for n in nodes]
    else:
        titles = [SOMETHING if one == -1 else str(one) for one in given]
        number = {title: k for k, title in enumerate(dict.fromkeys(titles))}
        nodes = [number[t] for t in titles] if numbers is None else numbers
        paths = path_names = [(title,) if n >= 0 else () for title, n in zip(titles, nodes, strict=True)]
    scores = np.asarray(scores, np.float32)
    return _sorted(
        Detections(
            boxes_xyxy=boxes_xyxy,
            objectness=scores,
            scores=scores,
            nodes=nodes,
            names=titles,
            paths=paths,
            image_size=image_size,
            probabilities=np.ones(count),
            path_names=path_names,
            path_probabilities=[(1.0,) * len(path) for path in paths],
            source=source,
        )
    )


def _node(tree: "WordTree", name: str | int) -> int:
    from wordtree import TreeError

    if name in (-1, SOMETHING):
        return -1
    try:
        return int(tree.index(name))
    except TreeError as error:
        raise ValueError(str(error)) from error


def _sorted(found: Detections) -> Detections:
    """Best score first; equal ones as they were."""
    return found[np.argsort(-found.scores, kind="stable")]


def _objects(rows: Sequence[tuple]) -> np.ndarray:
    """Tuples as entries of an (n,) array, whatever their lengths."""
    array = np.empty(len(rows), dtype=object)
    for k, row in enumerate(rows):
        array[k] = row
    return array


def _array(values: Any) -> np.ndarray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16


def _wanted(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"this needs {package}: pip install 'yolo9000[{package}]'") from error
