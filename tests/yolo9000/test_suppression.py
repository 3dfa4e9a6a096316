"""Suppression against a direct transcription of its definition, and the cases at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import WordTree
from yolo9000 import suppression
from yolo9000.suppression import MODES, nms

# 0 animal: 1 horse (3 wild horse), 2 dog; 4 vehicle
TREE = WordTree(["animal", "vehicle", "horse", "dog", "wild horse"], [-1, -1, 0, 0, 2])
SAME = np.array([[0, 0, 10, 10]], np.float32)


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def by_definition(boxes, scores, nodes, iou, mode):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        rivals = {
            "none": lambda a, b: False,
            "agnostic": lambda a, b: True,
            "class": lambda a, b: a == b,
            "related": lambda a, b: a in TREE.path_nodes(b) or b in TREE.path_nodes(a),
        }[mode]
        if not any(rivals(int(nodes[i]), int(nodes[k])) and overlap(boxes[i], boxes[k]) > iou for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 40),
    st.sampled_from(MODES),
    st.sampled_from([0.0, 0.2, 0.45, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(n, mode, iou, seed):
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (n, 2, 2)).astype(
        np.float64
    )  # small whole numbers: many equal overlaps and empty boxes
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    scores = random.permutation(n) / max(n, 1)
    nodes = random.integers(0, 5, n)
    assert nms(boxes, scores, nodes, iou, mode, TREE.parents).tolist() == by_definition(
        boxes, scores, nodes, iou, mode
    )


@pytest.mark.parametrize("mode", MODES)
def test_many_boxes_row_by_row_as_few_all_at_once(mode, monkeypatch):
    random = np.random.default_rng(0)
    for n in (0, 1, 2, 60):
        corners = random.uniform(0, 12, (n, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        scores, nodes, evidence = random.random(n), random.integers(0, 5, n), random.random((n, 4))
        found = []
        for at_once in (0, 60):
            monkeypatch.setattr(suppression, "_AT_ONCE", at_once)
            found.append(nms(boxes, scores, nodes, 0.2, mode, TREE.parents, evidence).tolist())
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("a", "b", "mode", "left"),
    [
        ("horse", "wild horse", "related", 1),
        ("wild horse", "animal", "related", 1),
        ("horse", "dog", "related", 2),
        ("horse", "wild horse", "class", 2),
        ("horse", "horse", "class", 1),
        ("horse", "vehicle", "agnostic", 1),
        ("horse", "horse", "none", 2),
    ],
)
def test_relations(a, b, mode, left):
    nodes = np.array([TREE.index(a), TREE.index(b)])
    for scores in ([0.9, 0.8], [0.8, 0.9]):
        kept = nms(np.repeat(SAME, 2, 0), np.array(scores), nodes, 0.4, mode, TREE.parents)
        assert len(kept) == left and kept[0] == np.argmax(scores)


def test_overlap_must_exceed_the_limit():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # exactly one half
    for iou, left in ((0.5, 2), (0.499, 1)):
        assert len(nms(boxes, np.array([0.9, 0.8]), np.zeros(2, int), iou, "class")) == left


@pytest.mark.parametrize("mode", MODES)
def test_empty_and_single(mode):
    assert nms(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0.4, mode, TREE.parents).tolist() == []
    assert nms(SAME, np.array([0.1]), np.array([3]), 0.4, mode, TREE.parents).tolist() == [0]


def test_equal_scores_keep_their_order():
    assert nms(np.repeat(SAME, 3, 0), np.full(3, 0.5), np.zeros(3, int), 0.4, "class").tolist() == [0]
    assert nms(np.repeat(SAME, 3, 0), np.full(3, 0.5), np.arange(3), 0.4, "class").tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [40, 400])  # compared all at once, and row by row
def test_many_equal_scores_keep_their_order(count):
    scores = np.random.default_rng(0).integers(0, 3, count) / 3
    kept = nms(np.repeat(SAME, count, 0), scores, np.arange(count), 0.4, "class")
    assert kept.tolist() == sorted(range(count), key=lambda k: -scores[k])


def test_bad_options():
    with pytest.raises(ValueError, match="related, class"):
        nms(SAME, np.ones(1), np.zeros(1, int), 0.4, "soft")
    with pytest.raises(ValueError, match=r"0\.\.1"):
        nms(SAME, np.ones(1), np.zeros(1, int), 1.4)
    with pytest.raises(ValueError, match="parents"):
        nms(np.repeat(SAME, 2, 0), np.ones(2), np.arange(2), 0.4)


def related(nodes, scores, evidence):
    nodes = np.array([-1 if name == "" else TREE.index(name) for name in nodes])
    boxes = np.repeat(SAME, len(nodes), 0)
    return nms(boxes, np.array(scores), nodes, 0.4, "related", TREE.parents, np.array(evidence)).tolist()


NAN = np.nan


def test_the_more_specific_stays_if_its_evidence_bears_it():
    # The wild horse's box is as sure of a horse as the horse's: what is reported says more.
    horse, wild = [0.9, 0.8, 0.7, NAN], [0.9, 0.85, 0.7, 0.6]
    assert related(["horse", "wild horse"], [0.7, 0.6], [horse, wild]) == [1]
    # It is less sure: the horse stays.
    wild = [0.9, 0.85, 0.69, 0.6]
    assert related(["horse", "wild horse"], [0.7, 0.6], [horse, wild]) == [0]
    # "something" gives way to the animal, and that to the wild horse.
    animal = [0.9, 0.85, NAN, NAN]
    rows = [[0.9, NAN, NAN, NAN], animal, [0.95, 0.9, 0.7, 0.6]]
    assert related(["", "animal", "wild horse"], [0.9, 0.85, 0.6], rows) == [2]
    assert related(["", "animal", "wild horse"], [0.96, 0.85, 0.6], rows) == [0]
    # Nodes that are no relatives do not mind.
    assert related(["horse", "dog"], [0.7, 0.6], [horse, [0.9, 0.9, 0.6, NAN]]) == [0, 1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 25), st.integers(0, 2**32 - 1))
def test_with_evidence_the_kept_are_no_rivals_and_explain_the_rest(n, seed):
    random = np.random.default_rng(seed)
    corners = random.integers(0, 8, (n, 2, 2)).astype(float)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    nodes = random.integers(-1, 5, n)
    steps = np.cumprod(random.uniform(0.5, 1, (n, 4)), axis=1)
    depths = np.array([-1 if k < 0 else TREE.depth(int(k)) for k in nodes], int)
    evidence = np.where(np.arange(-1, 3) <= depths[:, None], steps, np.nan)
    scores = evidence[np.arange(n), depths + 1]
    kept = nms(boxes, scores, nodes, 0.3, "related", TREE.parents, evidence)
    assert (np.diff(scores[kept]) <= 0).all()

    def rivals(a, b):
        above = [-1, *TREE.path_nodes(int(nodes[b]))] if nodes[b] >= 0 else [-1]
        below = [-1, *TREE.path_nodes(int(nodes[a]))] if nodes[a] >= 0 else [-1]
        return (nodes[a] in above or nodes[b] in below) and overlap(boxes[a], boxes[b]) > 0.3

    for a in kept:
        assert not any(rivals(a, b) for b in kept if b != a)
    for gone in set(range(n)) - set(kept.tolist()):
        assert any(rivals(gone, other) for other in range(n) if other != gone)
