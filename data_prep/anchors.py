"""Anchors: k-means over box sizes with the distance 1 - IoU about a common centre (paper, section 2,
"Dimension clusters"). Arrays only."""

from dataclasses import dataclass

import numpy as np


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

    A mean of widths and heights does not minimise 1 - IoU exactly, so the best anchors met on the way count,
    not the last ones.

    Args:
        sizes: (n, 2) positive, in any one unit; the anchors are in the same.
        k: at least 1. With fewer than k distinct sizes there are as many anchors as distinct sizes.
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
    points, weights = np.unique(sizes, axis=0, return_counts=True)  # annotation in whole pixels repeats sizes
    k = min(k, len(points))
    generator = np.random.default_rng(seed)
    starts = [_spread(points, weights, k, generator) for _ in range(restarts)]
    if warm is not None and len(warm.sizes) == k - 1:
        worst = points[iou_of_sizes(points, warm.sizes).max(axis=1).argmin()]
        starts.append(np.concatenate([warm.sizes, worst[None]]))
    best = max(
        (_lloyd(points, weights, start, rounds) for start in starts), key=lambda found: found.average_iou
    )
    return Anchors(best.sizes[np.argsort(best.sizes.prod(axis=1), kind="stable")], best.average_iou)


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


def _lloyd(points: np.ndarray, weights: np.ndarray, anchors: np.ndarray, rounds: int) -> Anchors:
    best, owners = Anchors(anchors, -1.0), None
    for _ in range(rounds):
        iou = iou_of_sizes(points, anchors)
        nearest = iou.argmax(axis=1)
        average = float(np.average(iou.max(axis=1), weights=weights))
        if average > best.average_iou:
            best = Anchors(anchors, average)
        if owners is not None and (nearest == owners).all():
            break
        owners = nearest
        total = np.bincount(nearest, weights, minlength=len(anchors))
        sums = np.stack(
            [np.bincount(nearest, weights * points[:, c], minlength=len(anchors)) for c in (0, 1)], axis=1
        )
        # An anchor that no box is nearest to stays where it is.
        anchors = np.where(total[:, None] > 0, sums / np.maximum(total, 1)[:, None], anchors)
    return best
