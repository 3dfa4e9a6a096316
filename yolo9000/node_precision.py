"""Average precision per node of the tree: a box of a husky is also one of a dog, a canine and an animal.

Truths count for all nodes on their paths (as Open Images expands its annotations), detections with their
score at each node. Per node it is COCO's average precision, number for number: pycocotools gives the same for
the same boxes, but takes minutes and gigabytes where there are thousands of nodes.

Where it is known what was looked for in a picture (LVIS, Open Images), only that counts; asked.py says what
it is. Evaluation of a model on packed data is evaluate.py's."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from yolo9000.asked import Asked, asked_for, on_paths
from yolo9000.scoring import MOST_DETECTIONS, Boxes

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy

IOUS = np.linspace(0.5, 0.95, 10)  # COCO's overlaps
_RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision


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
    rows, nodes = on_paths(hierarchy, truth.kind)
    return Boxes(truth.image[rows], nodes, truth.boxes_xyxy[rows], truth.score[rows], truth.ignored[rows])


def node_precision(
    hierarchy: "Hierarchy", truth: Boxes, found: Boxes, images: int, asked: Asked | None = None
) -> NodePrecision:
    """AP of every node that has a truth in one of the pictures 0..images-1.

    truth.kind: the boxes' own nodes, which are expanded here; boxes `ignored` (crowds) are neither to be
    found nor wrong to find. found.kind, found.score: a row for each node of a detection, with its score
    there; 100 count a picture and node; those `ignored` are not wrong where they match no box. asked: None =
    everything everywhere.
    """
    if asked is not None and not asked.is_everything:
        found = found.where_asked(*asked_for(hierarchy, asked, truth, found))
    truth = expand_truth(hierarchy, truth)
    nodes = np.unique(truth.kind[~truth.ignored])
    found = found.rows(np.isin(found.kind, nodes))
    truth = truth.rows(np.isin(truth.kind, nodes))
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
    passed |= ~matched & found.ignored[order]

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


def _rank(cells: np.ndarray) -> np.ndarray:
    """Each entry's place among those of its cell; equal cells stand side by side."""
    first = np.searchsorted(cells, cells)
    return np.arange(len(cells)) - first
