"""Votes between boxes: the same box by box, and what must not change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000 import Detector
from yolo9000.boxes import cxcywh_to_xyxy, decode, iou_xyxy
from yolo9000.candidates import candidates
from yolo9000.decision import Decision
from yolo9000.evaluate import EvalSettings
from yolo9000.voting import vote

SHARE = st.floats(0, 1, width=32)
BOXES = st.lists(st.tuples(SHARE, SHARE, SHARE, SHARE, SHARE), min_size=1, max_size=12)


def one_by_one(boxes_cxcywh, objectness, vote_iou):
    """The definition, a box at a time."""
    corners = cxcywh_to_xyxy(boxes_cxcywh)
    moved, sure = boxes_cxcywh.clone(), objectness.clone()
    voters = [k for k in range(len(corners)) if objectness[k] > 0.01]
    for i in voters:
        trust = {}
        for j in voters:
            overlap = 1.0 if i == j else float(iou_xyxy(corners[i : i + 1], corners[j : j + 1])[0, 0])
            if overlap >= vote_iou:
                trust[j] = overlap * float(objectness[j])
        total = sum(t * t for t in trust.values())
        mean = sum(t * t / total * corners[j] for j, t in trust.items())
        moved[i] = torch.cat(((mean[:2] + mean[2:]) / 2, mean[2:] - mean[:2]))
        one_right = 1 - math.prod(1 - t for t in trust.values())
        sure[i] = math.sqrt(float(objectness[i]) * one_right)
    return moved, sure


@settings(deadline=None)
@given(rows=BOXES, vote_iou=st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_equals_box_by_box(rows, vote_iou):
    """In float64: whether tiny boxes hear each other must not hang on rounding."""
    table = torch.tensor(rows, dtype=torch.float64)
    boxes, objectness = vote(table[None, :, :4], table[None, :, 4], vote_iou)
    moved, sure = one_by_one(table[:, :4], table[:, 4], vote_iou)
    assert torch.allclose(boxes[0], moved, rtol=0, atol=1e-9)
    assert torch.allclose(objectness[0], sure, rtol=0, atol=1e-6)  # nobody is trusted by more than 1 - 1e-6


def scattered(pictures: int = 3, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    raw = torch.randn(pictures, 2 * 5, size, size, generator=torch.Generator().manual_seed(2))
    return decode(raw, torch.tensor([[2.0, 3.0], [4.0, 2.0]]))


def test_pictures_do_not_hear_each_other():
    boxes, objectness = scattered()
    together = vote(boxes, objectness, 0.5)
    assert together[0].shape == boxes.shape and together[1].shape == objectness.shape
    for k in range(len(boxes)):
        alone = vote(boxes[k : k + 1], objectness[k : k + 1], 0.5)
        assert torch.allclose(alone[0][0], together[0][k], atol=1e-6)
        assert torch.allclose(alone[1][0], together[1][k], atol=1e-6)
    assert (together[1] > objectness + 0.05).any() and not torch.allclose(together[0], boxes, atol=0.01)


def test_objectness_never_falls_and_stays_below_one():
    boxes, objectness = scattered()
    after = vote(boxes, torch.ones_like(objectness), 0.0)[1]
    assert (after <= 1).all() and (after >= 0.999).all()
    assert (vote(boxes, objectness, 0.3)[1] >= objectness - 1e-6).all()


def test_who_hears_nobody_stays():
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], [0.5, 0.5, 0.0, 0.0]]])
    objectness = torch.tensor([[0.9, 0.02, 0.5]])
    after = vote(boxes, objectness, 0.5)
    assert torch.allclose(after[0], boxes, atol=1e-6) and torch.allclose(after[1], objectness, atol=1e-6)


def test_off_and_nothing_there_are_untouched():
    boxes, objectness = scattered()
    same = vote(boxes, objectness, 1.0)
    assert same[0] is boxes and same[1] is objectness
    none = torch.zeros(2, 0, 4), torch.zeros(2, 0)
    assert vote(*none, 0.5)[0].shape == (2, 0, 4)
    nobody = torch.zeros_like(objectness)
    after = vote(boxes, nobody, 0.5)
    assert torch.equal(after[0], boxes) and torch.equal(after[1], nobody)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_neither_heard_nor_changed(bad):
    boxes, objectness = scattered(1)
    good = vote(boxes, objectness, 0.3)
    worse = torch.cat((boxes.flatten(1, -2), torch.tensor([[[0.5, 0.5, bad, 0.2]] * 2])), 1)
    scores = torch.cat((objectness.flatten(1), torch.tensor([[1.0, bad]])), 1)
    after = vote(worse, scores, 0.3)
    assert torch.allclose(after[0][:, :-2].reshape(boxes.shape), good[0], atol=1e-6)
    assert torch.allclose(after[1][:, :-2].reshape(objectness.shape), good[1], atol=1e-6)
    assert torch.equal(after[0][:, -2:].nan_to_num(7), worse[:, -2:].nan_to_num(7))
    assert float(after[1][0, -2]) == 1.0


def test_more_boxes_than_voters():
    """The rest stays as it was, whatever it overlaps."""
    count = 300
    boxes = torch.tensor([0.5, 0.5, 0.4, 0.4]).repeat(1, count, 1)
    objectness = torch.linspace(0.9, 0.1, count)[None]
    after = vote(boxes, objectness, 0.5)[1]
    assert (after[0, :256] > objectness[0, :256]).all() and torch.equal(after[0, 256:], objectness[0, 256:])


def test_evaluation_and_detector_vote_alike():
    """The embedded model's own vote, in candidates and in what held-out data are judged by."""
    detector = Detector.load()
    own = EvalSettings().of_model(detector.net)
    assert detector.options().vote_iou == own.vote_iou == 0.5
    picture = np.random.default_rng(3).integers(0, 256, (200, 240, 3), dtype=np.uint8)
    picture[60:140, 80:180] //= 4
    output = detector.run(detector.fit(picture).image[None])
    options = detector.options(threshold=0.0, rule="greedy")
    found = candidates(output, detector.anchors, Decision(detector.tree, detector.hierarchy, options))
    boxes, objectness = vote(*decode(output.boxes, detector.anchors), own.vote_iou)
    assert torch.equal(found.objectness, objectness.flatten()[objectness.flatten() > 0])
    assert torch.equal(found.boxes_cxcywh, boxes.reshape(-1, 4)[objectness.flatten() > 0])
    plain = detector.options(threshold=0.0, rule="greedy", vote_iou=1.0)
    before = candidates(output, detector.anchors, Decision(detector.tree, detector.hierarchy, plain))
    assert (before.objectness > 0.01).any() and not torch.equal(before.objectness, found.objectness)


def test_impossible_overlaps_are_refused():
    detector = Detector.load()
    for wrong in (-0.1, 1.5, math.nan, "half"):
        with pytest.raises(ValueError, match=r"vote_iou lies in 0\.\.1"):
            detector.options(vote_iou=wrong)
