"""Boxes proposed for pictures that have only labels, so that they can teach as pictures with boxes do.

The paper (section 4) trains such pictures by their labels alone. Here the box of highest objectness x
Pr(label) becomes the label's, if its objectness is enough: what it shows is known, only the place is guessed.
Reading and writing of packed files is data_prep's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from yolo9000 import augment
from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.canvas import as_input, placed
from yolo9000.errors import ImageError, TrainingError
from yolo9000.node_pairs import node_shares
from yolo9000.parts import Samples, by_name, label_map
from yolo9000.tasks import full_precision
from yolo9000.temperature import by_depth
from yolo9000.voting import vote

if TYPE_CHECKING:
    from data_prep.sample import Sample
    from yolo9000.detector import Detector

_LEAST = 1e-3  # share of the picture: a side below this is no box that anything could learn from


@dataclass(frozen=True)
class ProposeSettings:
    """size: side of the square input in pixels, a multiple of the network's stride; 0 = the detector's own,
    square or not. threshold: a box whose objectness is below is no box. batch: pictures at a time."""

    size: int = 0
    threshold: float = 0.3
    batch: int = 32


def propose(
    detector: "Detector", store: Samples, settings: ProposeSettings | None = None, progress: bool = False
) -> "Iterator[Sample]":
    """The samples of `store` in order: those with labels only get a box for each label that has one.

    A sample that got a box for every label is `boxed` and has no image labels left; any other stays as it
    was, so does one that has boxes already, has no label, or whose picture cannot be decoded. Raises
    TrainingError for a size that does not fit, a threshold outside 0..1, and labels that the detector's tree
    has not.
    """
    settings = settings or ProposeSettings()
    if not 0 <= settings.threshold <= 1:
        raise TrainingError(f"the threshold is an objectness, 0 to 1, not {settings.threshold:g}")
    try:
        size = detector.checked_size(settings.size or detector.size)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    nodes = nodes_of(detector, store)
    for first in tqdm(range(0, len(store), settings.batch), unit=" batches", disable=not progress):
        samples = [store[i] for i in range(first, min(first + settings.batch, len(store)))]
        yield from _boxed(detector, samples, nodes, size, settings.threshold)


def nodes_of(detector: "Detector", store: Samples) -> np.ndarray:
    """The detector's node for each node of the data, (n,) int64, -1 where it has none: by id, and where lists
    of classes share no name or have some twice in the same order, as `eval` reads them. Raises TrainingError
    for lists of different lengths that share no name."""
    found, names = label_map(store.tree.ids, detector.tree.ids), detector.tree.names
    is_list = found is not None and detector.net.tree is None
    if is_list and ((found < 0).all() or len(set(names)) < len(names)):
        found = by_name(names, len(names), store.tree.ids)
    return np.arange(len(store.tree.ids)) if found is None else found


def _boxed(
    detector: "Detector", samples: "list[Sample]", nodes: np.ndarray, size: tuple[int, int], threshold: float
) -> "Iterator[Sample]":
    """The same samples, with boxes where one was found for every label."""
    drawn, rows = [], []
    for sample in samples:
        if sample.boxed or not len(sample.image_labels):
            continue
        if (nodes[sample.image_labels] < 0).any():
            missing = int(sample.image_labels[nodes[sample.image_labels] < 0][0])
            raise TrainingError(
                f"{sample.name}: its label (node {missing} of the data's tree) is not in the model's"
            )
        try:
            drawn.append(placed(sample.image, size, detector.resize))
        except (ImageError, OSError):
            continue  # training says so when it meets the picture
        rows.append(sample)
    found: dict[int, Sample] = {}
    if rows:
        images = as_input(torch.stack([canvas for canvas, _ in drawn]))
        labels = [[int(nodes[k]) for k in sample.image_labels] for sample in rows]
        boxes = best_boxes(detector, images, labels, threshold)
        for sample, (_, placement), proposed in zip(rows, drawn, boxes, strict=True):
            shares = _in_picture(proposed, placement)
            if shares is not None:
                found[id(sample)] = _with_boxes(sample, shares)
    for sample in samples:
        yield found.get(id(sample), sample)


@torch.inference_mode()
def best_boxes(
    detector: "Detector", images: Tensor, labels: Sequence[Sequence[int]], threshold: float
) -> list[Tensor | None]:
    """For each picture (N, 3, H, W) the box of highest objectness x Pr(label) of each of its labels, nodes of
    the detector's tree: boxes_xyxy (labels, 4) in 0..1 of the input; None where one label has none.
    """
    out = full_precision(detector.run(images))
    options = detector.options()
    decoded, objectness = vote(*decode(out.boxes, detector.anchors), options.vote_iou)
    image, anchor, row, column = (objectness >= threshold).nonzero(as_tuple=True)
    asked = torch.tensor(sorted({node for some in labels for node in some}))
    few = detector.hierarchy.restrict(asked)  # only the sibling groups on the paths of these labels
    temperatures = by_depth(options.temperatures or (), detector.hierarchy.depths)
    at = image, anchor, row, column
    probability = node_shares(few, out, at, temperatures)  # (M, labels asked)
    score = objectness[image, anchor, row, column][:, None] * probability
    boxes_xyxy = cxcywh_to_xyxy(decoded[image, anchor, row, column])
    result: list[Tensor | None] = []
    for k, some in enumerate(labels):
        mine = (image == k).nonzero()[:, 0]
        columns = torch.searchsorted(asked, torch.tensor(some))
        best = score[mine][:, columns].max(0) if len(mine) else None
        # Every box has 0 for a node without a class row: none is its box.
        found = best is not None and bool((best.values > 0).all())
        result.append(boxes_xyxy[mine[best.indices]] if found else None)
    return result


def _in_picture(boxes_xyxy: Tensor | None, placement: augment.Placement) -> np.ndarray | None:
    """Boxes in 0..1 of the input -> boxes_cxcywh in 0..1 of the picture, cut to it; None if one is empty."""
    if boxes_xyxy is None:
        return None
    shares = augment.in_picture(boxes_xyxy.numpy(), placement)
    sides = shares[:, 2:] - shares[:, :2]
    if not (sides > _LEAST).all():  # NaN is not either
        return None
    return np.concatenate([shares[:, :2] + sides / 2, sides], 1).astype(np.float32)


def _with_boxes(sample: "Sample", boxes_cxcywh: np.ndarray) -> "Sample":
    none = np.zeros(len(boxes_cxcywh), bool)
    return replace(
        sample,
        boxed=True,
        boxes_cxcywh=boxes_cxcywh,
        labels=sample.image_labels,
        image_labels=np.zeros(0, np.int64),
        crowd=none,
        difficult=none,
    )
