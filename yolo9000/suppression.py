"""Non-maximum suppression: of boxes on the same object keep the best. Which boxes may suppress one another is
the mode:

    "related"   one's node is the other's or lies above it in the tree ("horse" and "wild horse" on one
                animal); the more specific stays if its evidence bears it, see `nms`
    "class"     the same node only, as Darknet does
    "agnostic"  any two boxes
    "none"      nothing is suppressed

NumPy only. Few boxes are compared all at once, many a row of overlaps at a time: memory grows with the boxes,
not with their square."""

from collections.abc import Callable

import numpy as np

MODES = ("related", "class", "agnostic", "none")

# Boxes up to which all pairs are compared at once: 256 x 256 overlaps in float64, half a MiB, lie in a cache.
_AT_ONCE = 256


def nms(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    nodes: np.ndarray,
    iou: float,
    mode: str = "related",
    parents: np.ndarray | None = None,
    evidence: np.ndarray | None = None,
) -> np.ndarray:
    """Indices (k,) of the boxes that stay, best score first; equal scores keep their order.

    boxes_xyxy (n, 4) in any unit, scores (n,), nodes (n,) class indices. Going down the scores, each box
    still standing removes the later ones that it overlaps by *more* than `iou` (0..1) and may suppress by
    `mode`. `parents` (classes,), -1 at a root, is needed for "related"; for a flat list, where no class lies
    above another, "related" and "class" are the same. Node -1 lies above all.

    evidence (n, 1 + L), for "related": the score that each box would have as node -1 and at the node of depth
    0, 1, ... of its path, NaN below its own node. A general answer scores more than a special one merely
    for stopping earlier, so they are compared where both have an opinion: a box whose turn it is gives way to
    one of a node further down, which it overlaps, if that one's evidence for the upper node is at least its
    score. That one then stays in its place, or gives way likewise.
    """
    if mode not in MODES:
        raise ValueError(f"suppression is one of {', '.join(MODES)}, not {mode!r}")
    if not 0 <= iou <= 1:
        raise ValueError(f"the overlap for suppression lies in 0..1, not {iou}")
    order = np.argsort(-np.asarray(scores), kind="stable")
    if mode == "none" or len(order) < 2:
        return order
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)[order]
    # Few distinct nodes, whatever the tree's size.
    mine = np.asarray(nodes)[order].tolist()
    position = {node: k for k, node in enumerate(dict.fromkeys(mine))}
    kinds, kind = np.array(list(position)), np.array([position[node] for node in mine])
    overlapped = _overlaps(boxes, kind, _rivals(kinds, mode, parents), iou)
    standing = np.ones(len(order), dtype=bool)
    waiting = np.ones(len(order), dtype=bool)  # neither kept nor suppressed
    depths = None
    if mode == "related" and evidence is not None:
        evidence = np.asarray(evidence, dtype=np.float64)[order]
        depths = _depths(kinds, parents)[kind]
        scores = np.asarray(scores, dtype=np.float64)[order]
    for i in range(len(order)):
        if not waiting[i]:
            continue
        best = i
        rival = np.flatnonzero(overlapped(best) & waiting)
        while depths is not None and len(rival):
            lower = rival[depths[rival] > depths[best]]
            lower = lower[evidence[lower, 1 + depths[best]] >= scores[best]]
            if not len(lower):
                break
            waiting[best] = standing[best] = False
            best = lower[0]  # of several the one of highest score
            rival = np.flatnonzero(overlapped(best) & waiting)
        waiting[best] = False
        waiting[rival] = standing[rival] = False
    return order[standing]


def _overlaps(
    boxes: np.ndarray, kind: np.ndarray, rivals: np.ndarray, iou: float
) -> Callable[[int], np.ndarray]:
    """For the index of a box: which of the others (n,) bool it overlaps by more than `iou` and may suppress.

    boxes (n, 4), kind (n,) in 0..k-1, rivals (k, k) bool.
    """
    if len(boxes) <= _AT_ONCE:
        found = (_iou(boxes[:, None], boxes) > iou) & rivals[kind[:, None], kind]  # (n, n)
        np.fill_diagonal(found, False)
        return found.__getitem__

    def row(i: int) -> np.ndarray:
        found = rivals[kind[i], kind]
        found[i] = False
        others = np.flatnonzero(found)
        found[others] = _iou(boxes[i], boxes[others]) > iou
        return found

    return row


def _depths(kinds: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Depths of the nodes (k,): 0 for roots, -1 for node -1."""
    depths = []
    for node in kinds:
        depth, above = -1, int(node)
        while above >= 0:
            depth, above = depth + 1, int(parents[above])
        depths.append(depth)
    return np.array(depths, dtype=np.int64)


def _rivals(kinds: np.ndarray, mode: str, parents: np.ndarray | None) -> np.ndarray:
    """Which of the distinct nodes may suppress which, (k, k) bool, symmetric."""
    if mode == "agnostic":
        return np.ones((len(kinds), len(kinds)), dtype=bool)
    rivals = np.eye(len(kinds), dtype=bool)
    if mode == "class":
        return rivals
    if parents is None:
        raise ValueError("suppression of related classes needs the tree's parents")
    position = {int(node): i for i, node in enumerate(kinds)}
    for i, node in enumerate(kinds):
        above = int(node)
        while above >= 0:
            above = int(parents[above])  # -1, the virtual root, at last
            j = position.get(above)
            if j is not None:
                rivals[i, j] = rivals[j, i] = True
    return rivals


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Overlaps of boxes (..., 4) with boxes that broadcast, float64; 0 where the union has no area."""
    # Coordinate by coordinate: a row of four is no work for vector instructions.
    left, top, right, bottom = (box[..., k] for k in range(4))
    left2, top2, right2, bottom2 = (boxes[..., k] for k in range(4))
    width = np.minimum(right, right2) - np.maximum(left, left2)
    height = np.minimum(bottom, bottom2) - np.maximum(top, top2)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
