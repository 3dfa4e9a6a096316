"""Every object that a detector finds on pictures nobody drew boxes on, as boxes to train on (self-training,
as STAC: Sohn et al., 2020). Sure ones become boxes; unsure ones are marked difficult, so that training takes
them neither for objects nor for background.

One box for each label, and nothing else, is propose.py's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from yolo9000.boxes import iou_xyxy
from yolo9000.errors import ImageError, TrainingError
from yolo9000.parts import Samples
from yolo9000.propose import nodes_of

if TYPE_CHECKING:
    from data_prep.sample import Sample
    from yolo9000.detector import Detector

_SAME = 0.5  # overlap from which boxes found at two sizes are one object
_LEAST = 1e-2  # share of the picture: a side below this is too small to have been seen well


@dataclass(frozen=True)
class ObjectSettings:
    """sizes: sides of the square inputs in pixels, () = the detector's own; an object found at several has
    the mean of its boxes, weighted by objectness, and the mean objectness, 0 where it was not found.
    threshold: an object from this objectness on is a box; from `unsure` on it is marked difficult.
    """

    sizes: tuple[int, ...] = ()
    threshold: float = 0.5
    unsure: float = 0.08


def propose_objects(
    detector: "Detector", store: Samples, settings: ObjectSettings | None = None, progress: bool = False
) -> "Iterator[Sample]":
    """The samples of `store` in order: those without boxes get all objects that the detector finds.

    A box is labelled with the node that the detector answers; the surest whose answer lies on the way to one
    of the picture's labels, or below it, gets the deeper of the two, once for each label. Other labels stay
    labels of the picture; answers that the data's tree has not are left out. Pictures with boxes, without any
    object, or that cannot be decoded stay as they were. Raises TrainingError for a size that does not fit and
    thresholds outside 0..1.
    """
    settings = settings or ObjectSettings()
    if not 0 <= settings.unsure <= settings.threshold <= 1:
        raise TrainingError(
            f"unsure and threshold are objectnesses, 0 to 1, the first not larger; they are "
            f"{settings.unsure:g} and {settings.threshold:g}"
        )
    try:
        sizes = [detector.checked_size(size) for size in settings.sizes or [detector.size]]
    except ValueError as error:
        raise TrainingError(str(error)) from None
    own = nodes_of(detector, store)
    to = np.full(len(detector.tree), -1)
    to[own[own >= 0]] = np.flatnonzero(own >= 0)
    for i in tqdm(range(len(store)), unit=" pictures", disable=not progress):
        sample = store[i]
        yield sample if sample.boxed else _found(detector, sample, sizes, settings, store, to)


def _found(
    detector: "Detector",
    sample: "Sample",
    sizes: Sequence[tuple[int, int]],
    settings: ObjectSettings,
    store: Samples,
    to: np.ndarray,
) -> "Sample":
    try:
        answers = [
            detector(sample.image, threshold=settings.unsure, size=size, nms="agnostic") for size in sizes
        ]
    except ImageError:
        return sample  # training says so when it meets the picture
    scale = np.array([*answers[0].image_size] * 2, float)
    boxes = np.concatenate([found.boxes_xyxy / scale for found in answers])
    nodes = np.concatenate([found.nodes for found in answers])
    objectness = np.concatenate([found.objectness for found in answers])
    nodes = np.where(nodes < 0, -1, to[nodes])
    boxes, objectness, first = merge(np.clip(boxes, 0, 1), objectness, len(sizes))
    nodes, sides = nodes[first], boxes[:, 2:] - boxes[:, :2]
    kept = (objectness >= settings.unsure) & (nodes >= 0) & (sides > _LEAST).all(1)
    if not kept.any():
        return sample
    labels, left = named(nodes[kept], sample.image_labels.tolist(), store)
    centre = (boxes[kept, :2] + boxes[kept, 2:]) / 2
    return replace(
        sample,
        boxed=True,
        boxes_cxcywh=np.concatenate([centre, sides[kept]], 1).astype(np.float32),
        labels=labels,
        image_labels=left,
        crowd=np.zeros(kept.sum(), bool),
        difficult=objectness[kept] < settings.threshold,
    )


def merge(
    boxes_xyxy: np.ndarray, objectness: np.ndarray, looks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) found in `looks` looks at one picture, those that overlap the surest left of them joined:
    boxes (m, 4), surest first, their objectness (m,), and of each the position of its surest part (m,).
    """
    left = np.argsort(-objectness, kind="stable")
    joined, scores, first = [], [], []
    while len(left):
        surest, rest = torch.from_numpy(boxes_xyxy[left[:1]]), torch.from_numpy(boxes_xyxy[left])
        same = (iou_xyxy(surest, rest)[0] >= _SAME).numpy()
        same[0] = True  # an empty box overlaps nothing, not even itself
        mine, first = left[same], [*first, left[0]]
        weight = objectness[mine]
        joined.append((boxes_xyxy[mine] * weight[:, None]).sum(0) / max(weight.sum(), 1e-9))
        scores.append(weight.sum() / max(looks, len(mine)))
        left = left[~same]
    order = np.argsort(-np.array(scores), kind="stable")
    return (
        np.array(joined).reshape(-1, 4)[order],
        np.array(scores)[order],
        np.array(first, np.int64)[order],
    )


def named(nodes: np.ndarray, labels: Sequence[int], store: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Labels of boxes, surest first, from the nodes (n,) that were answered and the picture's own labels: as
    propose_objects says. Returns them, and the labels that no box got."""
    path = store.tree.path_nodes
    given, left = nodes.astype(np.int64), list(labels)
    for k, node in enumerate(nodes.tolist()):
        label = next((n for n in left if node in path(n) or n in path(node)), None)
        if label is not None:
            given[k] = label if node in path(label) else node
            left.remove(label)
    return given, np.array(left, np.int64)
