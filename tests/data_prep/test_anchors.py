"""Anchors: IoU of sizes against pycocotools, clusters against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from data_prep import anchors
from data_prep.anchors import iou_of_sizes, kmeans

SIZES = st.lists(st.tuples(st.floats(0.5, 500), st.floats(0.5, 500)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(a=SIZES, b=SIZES)
def test_iou_of_sizes_is_that_of_boxes_about_one_centre(a, b):
    boxes = [np.asarray([[1000 - w / 2, 1000 - h / 2, w, h] for w, h in sizes]) for sizes in (a, b)]
    reference = mask.iou(boxes[0], boxes[1], [0] * len(b))
    assert np.allclose(iou_of_sizes(np.asarray(a), np.asarray(b)), reference, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES)
def test_more_anchors_never_cover_worse_and_enough_cover_all(sizes):
    sizes = np.asarray(sizes)
    curve, found = [], None
    for k in range(1, len(np.unique(sizes, axis=0)) + 1):
        found = kmeans(sizes, k, restarts=1, warm=found)
        curve.append(found.average_iou)
        assert found.average_iou == pytest.approx(iou_of_sizes(sizes, found.sizes).max(axis=1).mean())
        assert (np.diff(found.sizes.prod(axis=1)) >= 0).all()
        assert len(found.sizes) == k
    assert (np.diff(curve) >= -1e-12).all()
    assert curve[-1] == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_not_worse_than_the_best_choice_of_boxes_as_anchors_nearly(k):
    sizes = np.random.default_rng(k).uniform(5, 100, (12, 2))
    best = max(iou_of_sizes(sizes, sizes[list(c)]).max(axis=1).mean() for c in combinations(range(12), k))
    assert kmeans(sizes, k, restarts=20).average_iou > best - 0.02  # no middle need be the optimum under IoU


def test_finds_well_parted_clusters():
    rng = np.random.default_rng(0)
    centres = np.asarray([[10, 10], [20, 100], [150, 40], [300, 300]])
    sizes = np.concatenate([centre * rng.uniform(0.95, 1.05, (50, 2)) for centre in centres])
    found = kmeans(sizes, 4).sizes
    order = np.argsort(centres.prod(axis=1))
    assert np.allclose(found, centres[order], rtol=0.03)


def test_the_same_every_time_and_in_any_unit():
    sizes = np.random.default_rng(0).uniform(5, 100, (200, 2))
    first = kmeans(sizes, 5)
    assert kmeans(sizes, 5).sizes.tolist() == first.sizes.tolist()
    assert np.allclose(kmeans(sizes / 32, 5).sizes * 32, first.sizes)


def test_bins_of_many_sizes_cover_as_well_as_the_sizes(monkeypatch):
    sizes = np.random.default_rng(0).uniform(20, 100, (3000, 2))
    plain = [kmeans(sizes, k).average_iou for k in range(1, 6)]
    monkeypatch.setattr(anchors, "_MOST_POINTS", 500)
    bins, weights = anchors._binned(sizes, np.ones(3000))
    assert len(bins) <= 500 and weights.sum() == 3000
    assert np.allclose(weights @ np.log(bins), np.log(sizes).sum(axis=0))
    curve, found = [], None
    for k in range(1, 6):
        found = kmeans(sizes, k, warm=found)
        curve.append(found.average_iou)
        assert found.average_iou == pytest.approx(iou_of_sizes(sizes, found.sizes).max(axis=1).mean())
    assert np.allclose(curve, plain, atol=0.005)
    assert (np.diff(curve) >= 0).all()


def test_fewer_sizes_than_anchors():
    found = kmeans(np.asarray([[3.0, 4.0]] * 9), 5)
    assert found.sizes.tolist() == [[3.0, 4.0]]
    assert found.average_iou == 1


@pytest.mark.parametrize(
    ("sizes", "k"),
    [
        (np.zeros((0, 2)), 1),
        (np.ones((3, 3)), 1),
        (np.ones((3, 2)), 0),
        (np.asarray([[1.0, 0.0]]), 1),
        (np.asarray([[1.0, np.nan]]), 1),
    ],
)
def test_nonsense_is_refused(sizes, k):
    with pytest.raises(ValueError, match=r"size|k must"):
        kmeans(sizes, k)
