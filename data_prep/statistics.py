"""Statistics of a store: what is in it by source, node and level, and how large its boxes are.

Reads no image.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from data_prep.errors import DataError
from data_prep.store import Store
from wordtree import WordTree

# Edges of the histogram of box sides, in pixels; 32 and 96 are COCO's limits of small and medium.
_SIDES = (0, 8, 16, 32, 64, 96, 192, 384, np.inf)


def box_sizes(store: Store, size: int = 0, sources: Sequence[str] = ()) -> np.ndarray:
    """Widths and heights of boxes that are no crowd, float64 (n, 2), in pixels.

    Args:
        size: side of the square that each picture is fitted into, keeping its shape; 0: pixels of the
        picture. sources: only boxes from these; empty: from all.

    Raises:
        DataError: a source that the store does not have.
    """
    unknown = sorted(set(sources) - set(store.sources))
    if unknown:
        raise DataError(f"{store.path}: no source {', '.join(unknown)}; it has {', '.join(store.sources)}")
    frame = np.stack([store.widths, store.heights], axis=1).astype(np.float64)
    if size:
        frame *= size / frame.max(axis=1, keepdims=True)
    wanted = np.isin(store.source, sources) if sources else np.ones(len(store), bool)
    owner = np.repeat(np.arange(len(store)), store.box_counts)
    keep = wanted[owner] & ~store.all_crowd
    return (store.all_boxes_cxcywh[:, 2:].astype(np.float64) * frame[owner])[keep]


def statistics(store: Store) -> dict:
    """Counts as a JSON-able dict: "pictures", "image_bytes", "sources", "levels" (depth in the tree -> boxes,
    image labels and distinct nodes that end there), "box_sides" (histogram) and "nodes" (id -> name, depth,
    boxes, image_labels, and all_boxes, all_image_labels with those of every node below), in the order of an
    outline: each before what lies below it, siblings by how many."""
    tree, n = store.tree, len(store)
    labels = store.image_label_counts
    sources = {}
    for name in store.sources:
        of = store.source == name
        sources[name] = {
            "pictures": int(of.sum()),
            "boxed": int((of & store.boxed).sum()),
            "boxes": int(store.box_counts[of].sum()),
            "image_labels": int(labels[of].sum()),
            "unlabelled": int((of & ~store.boxed & (labels == 0)).sum()),
        }
    boxes_at = np.bincount(store.all_box_labels, minlength=len(tree))
    labels_at = np.bincount(store.all_image_labels, minlength=len(tree))
    seen = (boxes_at > 0) | (labels_at > 0)
    levels = {}
    for level in range(int(tree.depths.max()) + 1):
        at = tree.depths == level
        levels[level] = {
            "boxes": int(boxes_at[at].sum()),
            "image_labels": int(labels_at[at].sum()),
            "nodes": int((seen & at).sum()),
        }
    sides = np.sqrt(box_sizes(store).prod(axis=1))
    counts, _ = np.histogram(sides, bins=np.asarray(_SIDES))
    names = [f"{low:g}..{high:g}" for low, high in pairwise(_SIDES)]
    return {
        "pictures": n,
        "image_bytes": store.image_bytes,
        "sources": sources,
        "levels": levels,
        "box_sides": dict(zip(names, counts.tolist(), strict=True)),
        "nodes": _outline(tree, boxes_at, labels_at),
    }


def _outline(tree: WordTree, boxes_at: np.ndarray, labels_at: np.ndarray) -> dict[str, dict]:
    """Every node that has examples at it or below it, parents first, siblings by how many."""
    boxes_below, labels_below = boxes_at.copy(), labels_at.copy()
    for k in range(len(tree) - 1, -1, -1):  # children come after their parents
        if tree.parents[k] >= 0:
            boxes_below[tree.parents[k]] += boxes_below[k]
            labels_below[tree.parents[k]] += labels_below[k]
    examples = boxes_below + labels_below
    found: dict[str, dict] = {}
    waiting = _most_first(np.flatnonzero(tree.parents < 0), examples)
    while waiting:
        k = waiting.pop()
        found[tree.ids[k]] = {
            "name": tree.names[k],
            "depth": int(tree.depths[k]),
            "boxes": int(boxes_at[k]),
            "image_labels": int(labels_at[k]),
            "all_boxes": int(boxes_below[k]),
            "all_image_labels": int(labels_below[k]),
        }
        waiting += _most_first(np.asarray(tree.children(k), np.int64), examples)
    return found


def _most_first(nodes: np.ndarray, examples: np.ndarray) -> list[int]:
    """Those with examples, as a stack: the one with the most last, of equal ones the first."""
    nodes = nodes[examples[nodes] > 0]
    return nodes[np.argsort(-examples[nodes], kind="stable")][::-1].tolist()
