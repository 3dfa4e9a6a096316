"""Average precision per node of the tree: a box of a husky is also one of a dog, a canine and an animal.

Truths count for all nodes on their paths (as Open Images expands its annotations), detections with their
score at each node. Per node it is COCO's average precision, number for number: pycocotools gives the same for
the same boxes, but takes minutes and gigabytes where there are thousands of nodes.

Where it is known what was looked for in a picture, only that counts: a node not asked about in a picture is
neither right nor wrong there (LVIS, Open Images). `Asked` holds it. Evaluation of a model on packed data is
evaluate.py's."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from yolo9000.hierarchy import ranges
from yolo9000.scoring import MOST_DETECTIONS, Boxes

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy

IOUS = np.linspace(0.5, 0.95, 10)  # COCO's overlaps
_RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision


@dataclass(frozen=True)
class Asked:
    """What was looked for. exhaustive: (images,) bool, pictures in which all boxes of all nodes were drawn;
    in the others only nodes that are true there (of their boxes, and above) and nodes that were verified to
    be absent count. absent_image, absent_node: (k,) pairs; with a node all below it are absent.
    """

    exhaustive: np.ndarray
    absent_image: np.ndarray
    absent_node: np.ndarray

    @classmethod
    def everything(cls, images: int) -> "Asked":
        none = np.zeros(0, np.int64)
        return cls(np.ones(images, bool), none, none)


@dataclass(frozen=True)
class NodePrecision:
    """nodes: (K,) that have a truth that counts, ascending; truths: (K,) how many; AP: (K,) mean over IoU 0.5
    to 0.95; AP50, AP75: (K,); recall: (K,) mean over the same, of 100 detections a picture; curves: (K, 101)
    precision at IoU 0.5 for a recall of 0.00, 0.01, ... 1.00, as COCO reads it."""

    nodes: np.ndarray
    truths: np.ndarray
    AP: np.ndarray
    AP50: np.ndarray
    AP75: np.ndarray
    recall: np.ndarray
    curves: np.ndarray

    def means(self, nodes: Sequence[int] | np.ndarray | None = None) -> dict[str, float | int | None]:
        """Means over all nodes that have truths, or over those of a few."""
        chosen = np.ones(len(self.nodes), bool) if nodes is None else np.isin(self.nodes, nodes)
        names = {"AP": self.AP, "AP50": self.AP50, "AP75": self.AP75, "AR100": self.recall}
        means = {k: float(v[chosen].mean()) if chosen.any() else None for k, v in names.items()}
        return {"nodes": int(chosen.sum()), **means}


def expand_truth(hierarchy: "Hierarchy", truth: Boxes) -> Boxes:
    """Each box once for every node on its path. truth.kind: nodes."""
    rows, nodes = _on_paths(hierarchy, truth.kind)
    return Boxes(truth.image[rows], nodes, truth.boxes_xyxy[rows], truth.score[rows], truth.ignored[rows])


def node_precision(
    hierarchy: "Hierarchy", truth: Boxes, found: Boxes, images: int, asked: Asked | None = None
) -> NodePrecision:
    """AP of every node that has a truth in one of the pictures 0..images-1.

    truth.kind: the boxes' own nodes, which are expanded here; boxes `ignored` (crowds) are neither to be
    found nor wrong to find. found.kind, found.score: a row for each node of a detection, with its score
    there; 100 count a picture and node. asked: None = everything everywhere.
    """
    truth = expand_truth(hierarchy, truth)
    nodes = np.unique(truth.kind[~truth.ignored])
    known = np.isin(found.kind, nodes)
    if asked is not None:
        known &= _was_asked(hierarchy, truth, found, asked)
    found = Boxes(*(getattr(found, f)[known] for f in ("image", "kind", "boxes_xyxy", "score", "ignored")))
    kept = np.isin(truth.kind, nodes)
    truth = Boxes(*(getattr(truth, f)[kept] for f in ("image", "kind", "boxes_xyxy", "score", "ignored")))
    found_cell, truth_cell = found.kind * images + found.image, truth.kind * images + truth.image

    # Detections by cell (node, picture), best first, at most 100; truths by cell, ignored ones last.
    order = np.lexsort((-found.score, found_cell))
    rank = _rank(found_cell[order])
    order = order[rank < MOST_DETECTIONS]
    cell, rank = found_cell[order], rank[rank < MOST_DETECTIONS]
    truth_order = np.lexsort((truth.ignored, truth_cell))
    truth_cell, ignored = truth_cell[truth_order], truth.ignored[truth_order]
    boxes, truths = found.boxes_xyxy[order], truth.boxes_xyxy[truth_order]
    matched, passed = _match(cell, rank, boxes, truth_cell, truths, ignored)

    # By node, best first; equal scores in the order of pictures, as pycocotools.
    kind, score = found.kind[order], found.score[order]
    order = np.lexsort((cell, -score, kind))  # lexsort is stable: rank breaks what is left
    kind, matched, passed = kind[order], matched[:, order], passed[:, order]
    starts = np.searchsorted(kind, nodes)
    ends = np.searchsorted(kind, nodes, side="right")
    counts = np.bincount(np.searchsorted(nodes, truth.kind[~truth.ignored]), minlength=len(nodes))
    precision = np.zeros((len(IOUS), len(nodes)))
    recall = np.zeros((len(IOUS), len(nodes)))
    curves = np.zeros((len(nodes), len(_RECALLS)))
    for k, (start, end, count) in enumerate(zip(starts, ends, counts, strict=True)):
        if start == end:
            continue
        right = np.cumsum(matched[:, start:end] & ~passed[:, start:end], axis=1).astype(float)
        wrong = np.cumsum(~matched[:, start:end] & ~passed[:, start:end], axis=1)
        recall[:, k] = right[:, -1] / count
        curve = right / (right + wrong + np.spacing(1))
        curve = np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
        curve = np.concatenate([curve, np.zeros((len(IOUS), 1))], axis=1)
        for t in range(len(IOUS)):
            place = np.searchsorted(right[t] / count, _RECALLS, side="left")
            precision[t, k] = curve[t, place].mean()
            if t == 0:
                curves[k] = curve[t, place]
    means = precision.mean(0), precision[0], precision[5], recall.mean(0)
    return NodePrecision(nodes, counts, *means, curves)


def _match(
    cell: np.ndarray,
    rank: np.ndarray,
    boxes: np.ndarray,
    truth_cell: np.ndarray,
    truths: np.ndarray,
    ignored: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections match a truth, and which of those one that is ignored: two (10, d) bool.

    Detections of a cell take turns, best first; each takes the free truth it overlaps most, an ignored one
    only if there is no other, of equal ones the last. Ignored truths are never used up, and a detection's
    overlap with one is the share of the detection inside it. All cells go through their turns at once.
    """
    matched = np.zeros((len(IOUS), len(cell)), bool)
    passed = np.zeros_like(matched)
    taken = np.zeros((len(IOUS), len(truths)), bool)
    first = np.searchsorted(truth_cell, cell)
    several = np.searchsorted(truth_cell, cell, side="right") - first
    limits = np.minimum(IOUS, 1 - 1e-10)[:, None]
    turns = np.argsort(rank, kind="stable")
    turns = turns[several[turns] > 0]  # the others are wrong anyhow
    bounds = np.searchsorted(rank[turns], np.arange(MOST_DETECTIONS + 1))
    for start, end in itertools.pairwise(bounds.tolist()):
        now = turns[start:end]  # at most one of each cell
        if not len(now):
            continue
        lengths = several[now]
        which = np.repeat(np.arange(len(now)), lengths)
        begins = np.cumsum(lengths) - lengths
        pair = np.arange(len(which)) - begins[which] + first[now][which]
        overlap = _overlaps(boxes[now][which], truths[pair], ignored[pair])
        usable = (overlap >= limits) & (~taken[:, pair] | ignored[pair])
        # Truths that count come before ignored ones, whatever the overlap.
        value = np.where(usable, overlap + 2.0 * ~ignored[pair], -1.0)
        best = np.maximum.reduceat(value, begins, axis=1)  # (10, detections now)
        last = np.where((value == best[:, which]) & usable, np.arange(len(which)), -1)
        chosen = np.maximum.reduceat(last, begins, axis=1)
        hit = chosen >= 0
        matched[:, now] = hit
        t, column = hit.nonzero()
        target = pair[chosen[t, column]]
        passed[t, now[column]] = ignored[target]
        taken[t, target] = True
    return matched, passed


def _overlaps(boxes: np.ndarray, truths: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (p, 4) each with its truth (p, 4), or over the box's area where the
    truth is ignored; float64, 0 where nothing is common."""
    sides = np.minimum(boxes[:, 2:], truths[:, 2:]) - np.maximum(boxes[:, :2], truths[:, :2])
    common = np.prod(np.clip(sides, 0, None), axis=1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    other = np.prod(truths[:, 2:] - truths[:, :2], axis=1)
    whole = np.where(ignored, area, area + other - common)
    return np.divide(common, whole, out=np.zeros_like(common), where=(common > 0) & (whole > 0))


def _was_asked(hierarchy: "Hierarchy", truth: Boxes, found: Boxes, asked: Asked) -> np.ndarray:
    """Whether each found row's node was looked for in its picture, (d,) bool."""
    n = hierarchy.nodes
    present = np.unique(truth.image * n + truth.kind)
    absent = np.unique(asked.absent_image * n + asked.absent_node)
    counts = asked.exhaustive[found.image] | _isin(found.image * n + found.kind, present)
    open_ = np.flatnonzero(~counts)
    rows, nodes = _on_paths(hierarchy, found.kind[open_])
    hit = _isin(found.image[open_][rows] * n + nodes, absent)
    counts[open_[rows[hit]]] = True
    return counts


def _isin(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values


def _on_paths(hierarchy: "Hierarchy", nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each node of all paths to `nodes` (m,): which of the m, and the node."""
    import torch

    starts = hierarchy.path_starts.cpu()
    given = torch.from_numpy(np.ascontiguousarray(nodes, np.int64))
    entries, which = ranges(starts[given], starts[given + 1] - starts[given])
    return which.numpy(), hierarchy.path_nodes.cpu()[entries].numpy()


def _rank(cells: np.ndarray) -> np.ndarray:
    """Each entry's place among those of its cell; equal cells stand side by side."""
    first = np.searchsorted(cells, cells)
    return np.arange(len(cells)) - first
