"""Anchors: k-means over box sizes with the distance 1 - IoU about a common centre. Arrays only.

Source: Redmon and Farhadi 2016, section 2, "Dimension Clusters".
"""

from dataclasses import dataclass

import numpy as np

_MOST_POINTS = 50_000  # k-means of so many sizes takes seconds
_BIN = 0.01  # width and height of bins of sizes, in natural logarithms
_LAST_ROUNDS = 10  # over all sizes, from what their bins gave


@dataclass(frozen=True, eq=False)
class Anchors:
    """sizes: float64 (k, 2) width and height, smallest area first. average_iou: mean over boxes of the IoU
    with the best anchor."""

    sizes: np.ndarray
    average_iou: float


def iou_of_sizes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (n, k) of boxes of sizes a (n, 2) and b (k, 2) laid about a common centre."""
    both = np.minimum(a[:, None, 0], b[None, :, 0]) * np.minimum(a[:, None, 1], b[None, :, 1])
    return both / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None, :] - both)


def kmeans(
    sizes: np.ndarray,
    k: int,
    *,
    restarts: int = 5,
    rounds: int = 100,
    seed: int = 0,
    warm: Anchors | None = None,
) -> Anchors:
    """Cluster box sizes into k anchors.

    The mean of widths and heights does not minimise 1 - IoU, so other middles are tried beside it (_lloyd).
    More than _MOST_POINTS distinct sizes are clustered in bins first; the average IoU is that of all boxes
    even so.

    Args:
        sizes: (n, 2) positive, in any one unit; the anchors are in the same.
        k: at least 1. With fewer than k distinct sizes (or bins) there are as many anchors as those.
        restarts: starts from other k-means++ seeds. warm: anchors for k - 1; one more start is those and the
            worst covered box, so that the average IoU never falls as k grows.

    Raises:
        ValueError: no boxes, sizes that are not finite and positive, or k below 1.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ValueError(f"sizes must be (n, 2) with n of at least 1, found {sizes.shape}")
    if k < 1 or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"k must be at least 1 (is {k}) and sizes finite and positive")
    pairs, counts = np.unique(_pairs(sizes), return_counts=True)  # annotation in whole pixels repeats sizes
    every = pairs.view(np.float64).reshape(-1, 2)
    points, weights = _binned(every, counts)
    k = min(k, len(points))
    generator = np.random.default_rng(seed)
    starts = [_spread(points, weights, k, generator) for _ in range(restarts)]
    if warm is not None and len(warm.sizes) == k - 1:
        worst = points[iou_of_sizes(points, warm.sizes).max(axis=1).argmin()]
        starts.append(np.concatenate([warm.sizes, worst[None]]))
    found = [_lloyd(points, weights, start, rounds) for start in starts]
    if warm is not None:
        found.append(starts[-1])  # anchors that are better for the bins may be worse for the boxes
    best = max(found, key=lambda anchors: _average_iou(every, counts, anchors))
    if len(points) < len(every):
        best = _lloyd(every, counts, best, _LAST_ROUNDS)
    best = best[np.argsort(best.prod(axis=1), kind="stable")]
    return Anchors(best, _average_iou(every, counts, best))


def _pairs(rows: np.ndarray) -> np.ndarray:
    """Rows (n, 2) as complex numbers (n,), which sort as they do, at a tenth of the time."""
    return np.ascontiguousarray(rows, np.float64).view(np.complex128)[:, 0]


def _binned(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (n, 2) and their weights (n,); where they are too many, the geometric means of those in each
    bin."""
    logs, step = np.log(points), _BIN
    bins, shares = points, weights
    while len(bins) > _MOST_POINTS:
        owner = np.unique(_pairs(np.round(logs / step)), return_inverse=True)[1]
        shares = np.bincount(owner, weights)
        sums = [np.bincount(owner, weights * logs[:, side]) for side in (0, 1)]
        bins = np.exp(np.stack(sums, axis=1) / shares[:, None])
        step *= 2
    return bins, shares


def _average_iou(points: np.ndarray, weights: np.ndarray, anchors: np.ndarray) -> float:
    starts = range(0, len(points), _MOST_POINTS)  # all at once, millions of boxes would take gigabytes
    best = [iou_of_sizes(points[start : start + _MOST_POINTS], anchors).max(axis=1) for start in starts]
    return float(np.average(np.concatenate(best), weights=weights))


def _spread(points: np.ndarray, weights: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """k-means++: each further seed is drawn with a chance in proportion to its squared distance from the
    seeds so far."""
    chosen = [int(generator.choice(len(points), p=weights / weights.sum()))]
    distance = 1 - iou_of_sizes(points, points[chosen])[:, 0]
    while len(chosen) < k:
        chance = weights * distance**2
        chance[chosen] = 0
        if not chance.sum():
            chance = np.ones(len(points))
            chance[chosen] = 0
        chosen.append(int(generator.choice(len(points), p=chance / chance.sum())))
        distance = np.minimum(distance, 1 - iou_of_sizes(points, points[chosen[-1:]])[:, 0])
    return points[chosen].astype(np.float64)


def _lloyd(points: np.ndarray, weights: np.ndarray, anchors: np.ndarray, rounds: int) -> np.ndarray:
    """Boxes to their nearest anchor, anchors to the middle of their boxes, until nothing gets better.

    Of several middles the one with the largest sum of IoU is taken, the anchor as it was among them, so each
    round covers the boxes at least as well as the one before.
    """
    average = -1.0
    for _ in range(rounds):
        iou = iou_of_sizes(points, anchors)
        now = float(np.average(iou.max(axis=1), weights=weights))
        if now <= average + 1e-9:
            break
        average = now
        owner = iou.argmax(axis=1)
        choices = np.stack([anchors, *_middles(points, weights, owner, anchors)])  # (choices, k, 2)
        sums = [
            np.bincount(owner, weights * _iou_of_pairs(points, choice[owner]), minlength=len(anchors))
            for choice in choices
        ]
        anchors = choices[np.argmax(sums, axis=0), np.arange(len(anchors))]
    return anchors


def _middles(
    points: np.ndarray, weights: np.ndarray, owner: np.ndarray, anchors: np.ndarray
) -> list[np.ndarray]:
    """Arithmetic and geometric means and medians of the boxes of each anchor, (k, 2) each.

    An anchor that no box is nearest to stays where it is.
    """
    total = np.bincount(owner, weights, minlength=len(anchors))
    some = total > 0

    def mean(values: np.ndarray) -> np.ndarray:
        sums = [np.bincount(owner, weights * values[:, c], minlength=len(anchors)) for c in (0, 1)]
        return np.stack(sums, axis=1) / np.maximum(total, 1)[:, None]

    medians = anchors.copy()
    for k in np.flatnonzero(some):
        medians[k] = np.median(points[owner == k], axis=0)
    means = mean(points), np.exp(mean(np.log(points)))
    return [np.where(some[:, None], values, anchors) for values in (*means, medians)]


def _iou_of_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (n,) of boxes of sizes a and b, (n, 2) each, pair by pair about a common centre."""
    both = np.minimum(a, b).prod(axis=1)
    return both / (a.prod(axis=1) + b.prod(axis=1) - both)
