"""What may be written over: a file that the same command wrote before, never anybody's annotations. Packed
files have a rule of their own (writer.check_place)."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.labelstudio import labelling_config
from wordtree.files import check_target

_SUFFIXES = {"page": (".html", ".htm"), "chart": (".png",)}


def check_output(path: Path | str, kind: str) -> None:
    """DataError if no file of that kind can be written there, or one of another kind is there.

    kind: "page" and "chart", which are told by their endings; "report" (of `pack`), "coco", "fiftyone",
    "labelstudio" and "config" (of `predictions`), which are told by what is in them. Ground truth in the same
    format is of another kind: it lacks the scores, or has what people corrected. An empty file may go.
    """
    path = Path(path)
    check_target(path, DataError, _SUFFIXES.get(kind, ()))
    if kind in _SUFFIXES or not path.exists():
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error})") from error
    if data and not _is_ours(data, kind):
        raise DataError(
            f"{path}: is there and was not written by this option; give another name, or move it away first"
        )


def _is_ours(data: bytes, kind: str) -> bool:
    if kind == "config":
        return _is_config(data)
    try:
        return _WRITTEN[kind](json.loads(data))
    except (ValueError, RecursionError):
        return False


def _is_config(data: bytes) -> bool:
    """Whether it is `labelling_config` of any labels, to the letter: those that people make begin alike."""
    head, tail = map(re.escape, labelling_config(()).encode().split(b"\n\n"))
    label = rb"""\n    <Label value=("[^"\n]*"|'[^'\n]*')/>"""
    whole = head + b"(" + label + rb")*\n+" + tail
    return re.fullmatch(whole, data.replace(b"\r\n", b"\n")) is not None


def _is_report(content: Any) -> bool:
    return isinstance(content, dict) and {"file", "sources", "faults"} <= set(content)


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or set(content) != {"images", "annotations", "categories"}:
        return False
    rows = content["annotations"]
    # Classes without a box are somebody's who has yet to annotate: written are those found only.
    return _have("score", [rows]) and bool(rows or not content["categories"])


def _is_fiftyone(content: Any) -> bool:
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or "classes" not in content:
        return False
    return _have("confidence", labels.values()) and (any(labels.values()) or not content["classes"])


def _is_labelstudio(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(task, dict) and set(task) == {"data", "predictions"} for task in content
    )


def _have(key: str, lists: Iterable[Any]) -> bool:
    """Whether each of the lists is one, of objects that all have the key."""
    return all(
        isinstance(rows, list) and all(isinstance(row, dict) and key in row for row in rows) for rows in lists
    )


_WRITTEN: dict[str, Callable[[Any], bool]] = {
    "report": _is_report,
    "coco": _is_coco,
    "fiftyone": _is_fiftyone,
    "labelstudio": _is_labelstudio,
}
