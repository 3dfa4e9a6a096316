"""What a detector found as a data set in COCO's JSON, with a score to each box: what any tool that reads COCO
shows, and `data-prep pack --coco` reads back. Reading COCO is coco.py's, predictions predictions.py's."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.errors import DataError
from data_prep.predictions import class_labels
from wordtree.files import written_whole


def write_coco(path: Path | str, detections: Iterable[Any], names: bool = True) -> int:
    """Write predictions as images, annotations and categories; returns how many boxes.

    detections: yolo9000.Detections with a `source`, one a picture. names: categories are called by display
    names where these are unique, else by ids. Pictures are numbered from 1 in order, `file_name` is relative
    to the folder that all have in common; categories are numbered from 1 by name. bbox is [left, top, width,
    height] in pixels of the upright picture. "Something", which is no category, is left out. Raises DataError
    for a picture without a name, two of one name, and what the file system refuses.
    """
    detections = list(detections)
    files = _relative([found.source for found in detections])
    label = class_labels(detections, names)
    kinds = sorted({label(one) for found in detections for one in found if one.path})
    number = {kind: k for k, kind in enumerate(kinds, 1)}
    images, annotations = [], []
    for place, (found, name) in enumerate(zip(detections, files, strict=True), 1):
        width, height = found.image_size
        images.append({"id": place, "file_name": name, "width": width, "height": height})
        for one in found:
            if not one.path:
                continue
            left, top, right, bottom = (round(float(value), 2) for value in one.box_xyxy)
            wide, high = round(right - left, 2), round(bottom - top, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": place,
                    "category_id": number[label(one)],
                    "bbox": [left, top, wide, high],
                    "area": round(wide * high, 2),
                    "iscrowd": 0,
                    "score": round(float(one.score), 5),
                }
            )
    categories = [{"id": k, "name": kind} for kind, k in number.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with written_whole(path, DataError) as part:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
    return len(annotations)


def _relative(sources: list[str | None]) -> list[str]:
    """Names of files relative to the folder that all have in common."""
    if not all(sources):
        raise DataError("detections without a source: COCO's pictures have names")
    parts = [PurePosixPath(source.replace("\\", "/")).parts for source in sources if source]
    common = 0
    while parts and all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    files = ["/".join(p[common:]) for p in parts]
    if len(set(files)) < len(files):
        twice = next(name for k, name in enumerate(files) if name in files[:k])
        raise DataError(f"two pictures are called {twice!r}; look at each once")
    return files
