"""Average precision per node: pycocotools' numbers on a flat list and on truths expanded by hand."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import random_tree
from wordtree import WordTree
from yolo9000.hierarchy import Hierarchy
from yolo9000.node_precision import Asked, expand_truth, node_precision
from yolo9000.scoring import Boxes, average_precision

# 0 animal: 2 dog (4 husky), 3 cat; 1 vehicle
TREE = WordTree(["animal", "vehicle", "dog", "cat", "husky"], [-1, -1, 0, 0, 2])


def boxes(random: np.random.Generator, n: int, images: int, kinds: int, whole: bool, crowds: float) -> Boxes:
    corners = random.uniform(0, 20, (n, 2, 2)) if not whole else random.integers(0, 6, (n, 2, 2)) * 4.0
    corners.sort(axis=1)
    xyxy = corners.reshape(n, 4)  # (n, 2, 2) -> (n, 4)
    score = np.round(random.random(n), 1 if whole else 6)  # many equal scores, or none
    ignored = random.random(n) < crowds
    return Boxes(random.integers(0, images, n), random.integers(0, kinds, n), xyxy, score, ignored)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(0, 60),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([0.0, 0.3]),
)
def test_equals_pycocotools(seed, truths, detections, groups, whole, crowds):
    """A tree of one group, as it is; a deeper one with truths expanded beforehand."""
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy = Hierarchy(tree)
    truth = boxes(random, truths, 4, len(tree), whole, crowds)
    found = boxes(random, detections, 4, len(tree), whole, 0.0)
    ours = node_precision(hierarchy, truth, found, 4)
    theirs = average_precision(expand_truth(hierarchy, truth), found, 4, range(len(tree)))
    expected = {k: v for k, v in theirs["per_class"].items() if v > -1}
    assert ours.nodes.tolist() == sorted(expected)
    assert dict(zip(ours.nodes.tolist(), ours.AP50.tolist(), strict=True)) == pytest.approx(expected)
    for name, value in ours.means().items():
        if name != "nodes":
            assert (theirs[name] if theirs[name] > -1 else None) == pytest.approx(value)


def test_more_than_a_hundred_detections_a_picture():
    random = np.random.default_rng(0)
    hierarchy = Hierarchy(WordTree.flat(["a", "b"]))
    truth, found = boxes(random, 60, 2, 2, False, 0), boxes(random, 900, 2, 2, False, 0)
    ours, theirs = node_precision(hierarchy, truth, found, 2), average_precision(truth, found, 2, range(2))
    assert ours.means()["AP"] == pytest.approx(theirs["AP"]) and ours.means()["AR100"] < 1


def rows(*entries) -> Boxes:
    """(image, node, left, score) of boxes 10 wide."""
    image, kind, left, score = map(np.array, zip(*entries, strict=True))
    xyxy = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1).astype(float)
    return Boxes(image, kind, xyxy, score.astype(float), np.zeros(len(image), bool))


def test_a_husky_found_as_a_dog():
    hierarchy = Hierarchy(TREE)
    truth = rows((0, 4, 0, 1), (1, 3, 0, 1))
    found = rows((0, 0, 0, 0.9), (0, 2, 0, 0.8), (0, 4, 0, 0.1), (1, 0, 0, 0.7), (1, 4, 0, 0.6))
    ours = node_precision(hierarchy, truth, found, 2)
    assert ours.nodes.tolist() == [0, 2, 3, 4] and ours.truths.tolist() == [2, 1, 1, 1]
    # Animal and dog are right everywhere; no cat is found; the cat is the likelier husky.
    assert ours.AP50.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.5])
    assert ours.means([0, 2])["AP50"] == pytest.approx(1.0) and ours.means([1])["AP"] is None


def test_only_what_was_asked_counts():
    hierarchy = Hierarchy(TREE)
    truth = rows((0, 4, 0, 1), (1, 1, 0, 1))
    # A dog is also seen on picture 1, surer than the true one, where only a vehicle was drawn.
    found = rows((0, 2, 0, 0.5), (1, 2, 50, 0.9), (1, 1, 0, 0.9))
    none = np.zeros(0, np.int64)

    def dog(asked: Asked | None) -> float:
        ours = node_precision(hierarchy, truth, found, 2, asked)
        return float(ours.AP50[ours.nodes == 2][0])

    assert dog(None) == dog(Asked.everything(2)) == pytest.approx(0.5)
    assert dog(Asked(np.array([True, False]), none, none)) == pytest.approx(1.0)
    # No animal is there: so no dog either.
    assert dog(Asked(np.zeros(2, bool), np.array([1]), np.array([0]))) == pytest.approx(0.5)
    # No husky is there: that says nothing of dogs.
    assert dog(Asked(np.zeros(2, bool), np.array([1]), np.array([4]))) == pytest.approx(1.0)


def test_nothing():
    hierarchy, none = Hierarchy(TREE), Boxes.join([])
    none = Boxes(none.image.astype(int), none.kind.astype(int), none.boxes_xyxy, none.score, none.ignored)
    assert node_precision(hierarchy, none, rows((0, 1, 0, 1)), 1).means()["AP"] is None
    assert node_precision(hierarchy, rows((0, 1, 0, 1)), none, 1).means()["AP"] == 0.0


@pytest.mark.slow
def test_thousands_of_nodes_and_a_hundred_thousand_detections():
    random = np.random.default_rng(0)
    tree = WordTree.default()
    hierarchy = Hierarchy(tree)
    truth = boxes(random, 20_000, 5000, len(tree), False, 0.05)
    single = boxes(random, 100_000, 5000, len(tree), False, 0)
    found = expand_truth(hierarchy, single)
    start = time.process_time()
    tracemalloc.start()
    ours = node_precision(hierarchy, truth, found, 5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ours.nodes) > 5000 and peak < 2 << 30
    assert time.process_time() - start < 60
