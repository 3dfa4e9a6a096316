"""Dense targets there and back, their loss against a loop and RegionLoss, predictions against a loop."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.boxes import iou_xyxy
from yolo9000.detections import Detections
from yolo9000.errors import TrainingError
from yolo9000.loss import RegionLoss
from yolo9000.targets import DenseLoss, decode_targets, encode_targets, predict, prediction_dicts

ANCHORS = [[0.8, 1.1], [2.0, 1.0], [1.5, 3.0]]
share = st.floats(1 / 64, 63 / 64, width=32)
side = st.floats(1 / 16, 7 / 8, width=32)
truth_lists = st.lists(st.tuples(share, share, side, side, st.integers(0, 3)), max_size=4)


def make_targets(lists) -> list[dict]:
    return [
        {
            "boxes": torch.tensor([t[:4] for t in truths]).reshape(-1, 4),
            "labels": torch.tensor([t[4] for t in truths]).long(),
        }
        for truths in lists
    ]


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(truth_lists, min_size=1, max_size=3),
    st.sampled_from(["log", "cells"]),
    st.sampled_from([3, (2, 5)]),
)
def test_there_and_back(lists, sizes, grid):
    targets = make_targets(lists)
    dense = encode_targets(targets, ANCHORS, 4, grid, sizes)
    H, W = (grid, grid) if isinstance(grid, int) else grid
    assert dense.shape == (len(targets), H, W, 3 * 9)
    back = decode_targets(dense, ANCHORS, sizes)
    for target, found in zip(targets, back, strict=True):
        # What is found was there; what was there and is not found, was overwritten by a later one of its
        # cell.
        there = torch.cat((target["boxes"], target["labels"][:, None]), 1)
        for box in torch.cat((found["boxes"], found["labels"][:, None]), 1):
            assert (there - box).abs().amax(1).min() < 1e-5
        cells = {tuple(c) for c in (target["boxes"][:, :2] * torch.tensor([W, H])).long().tolist()}
        assert len(cells) <= len(found["boxes"]) <= len(there)
    # The matching is the loss's: a second pass changes nothing.
    torch.testing.assert_close(encode_targets(back, ANCHORS, 4, grid, sizes), dense, rtol=1e-4, atol=1e-4)


def test_one_box_by_hand():
    target = {"boxes": torch.tensor([[0.5, 0.25, 0.4, 0.2]]), "labels": torch.tensor([1])}
    dense = encode_targets([target], ANCHORS, 2, 5).view(5, 5, 3, 7)
    assert dense[..., 4].nonzero().tolist() == [[1, 2, 1]]  # 2.5, 1.25 in cells; 2 x 1 is the second anchor
    torch.testing.assert_close(dense[1, 2, 1], torch.tensor([0.5, 0.25, 0, 0, 1, 0, 1]), atol=1e-6, rtol=0)
    cells = encode_targets([target], ANCHORS, 2, 5, sizes="cells").view(5, 5, 3, 7)
    torch.testing.assert_close(cells[1, 2, 1], torch.tensor([0.5, 0.25, 2, 1, 1, 0, 1]))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(truth_lists, min_size=1, max_size=2),
    st.sampled_from(["log", "cells"]),
    st.sampled_from(["sigmoid", "softmax"]),
    st.integers(0, 10**6),
)
def test_loss_equals_a_loop(lists, sizes, class_loss, seed):
    torch.manual_seed(seed)
    dense = encode_targets(make_targets(lists), ANCHORS, 4, (2, 3), sizes)
    raw = torch.randn(len(lists), 3 * 9, 2, 3)
    losses = DenseLoss(ANCHORS, 4, lambda_coord=3.0, lambda_noobj=0.7, class_loss=class_loss, sizes=sizes)(
        raw, dense
    )
    expected = 0.0
    for b in range(len(lists)):
        for j in range(2):
            for i in range(3):
                for a in range(3):
                    p = raw.view(-1, 3, 9, 2, 3)[b, a, :, j, i].tolist()
                    t = dense.view(-1, 2, 3, 3, 9)[b, j, i, a].tolist()
                    if not t[4]:
                        expected += 0.7 * sigmoid(p[4]) ** 2
                        continue
                    wh = p[2:4] if sizes == "log" else [math.exp(p[2 + k]) * ANCHORS[a][k] for k in (0, 1)]
                    has = [sigmoid(p[0]), sigmoid(p[1]), *wh]
                    expected += 3 * sum((u - v) ** 2 for u, v in zip(has, t[:4], strict=True))
                    expected += (1 - sigmoid(p[4])) ** 2
                    if class_loss == "softmax":
                        expected += math.log(sum(map(math.exp, p[5:]))) - p[5 + t[5:].index(1)]
                    else:
                        expected -= sum(
                            math.log(sigmoid(v if u else -v)) for u, v in zip(t[5:], p[5:], strict=True)
                        )
    assert losses["loss"].item() == pytest.approx(expected / len(lists), rel=1e-4)
    parts = ("box", "objectness", "no_objectness", "classification")
    torch.testing.assert_close(losses["loss"], sum(losses[part] for part in parts))


@pytest.mark.parametrize("class_loss", ["sigmoid", "softmax"])
def test_dense_loss_is_region_loss_where_they_mean_the_same(class_loss):
    """Without IoU targets and the ignore threshold, RegionLoss's scales of 2 cancel its halves."""
    targets = make_targets([[(0.2, 0.3, 0.4, 0.3, 1), (0.8, 0.7, 0.3, 0.6, 2)], []])
    raw = torch.randn(2, 3 * 9, 4, 3)
    scales = {"object_scale": 2, "noobject_scale": 1.0, "thresh": 1.0, "rescore": False}
    region = RegionLoss(ANCHORS, classes=4, class_loss=class_loss, **scales)(raw, targets, images_seen=10**6)
    dense = DenseLoss(ANCHORS, 4, class_loss=class_loss)(raw, encode_targets(targets, ANCHORS, 4, (4, 3)))
    for part in ("objectness", "no_objectness", "classification"):
        torch.testing.assert_close(region[part], dense[part])
    assert region["box"] > 0 and dense["box"] > 0


def test_a_picture_without_boxes():
    dense = encode_targets([{"boxes": [], "labels": []}], ANCHORS, 4, 3)
    assert not dense.any()
    losses = DenseLoss(ANCHORS, 4)(torch.zeros(1, 27, 3, 3), dense)
    assert losses["loss"].item() == pytest.approx(0.5 * 27 / 4)
    assert decode_targets(dense, ANCHORS)[0]["boxes"].shape == (0, 4)


@pytest.mark.parametrize("classes", ["softmax", "sigmoid"])
def test_predictions_equal_a_loop(classes):
    raw = torch.randn(2, 3 * 7, 3, 4) * 2
    found = predict(raw, ANCHORS, (128, 96), conf_thresh=0.3, iou_thresh=0.4, classes=classes)
    assert sum(map(len, found)) > 3
    for b, predictions in enumerate(found):
        every = []
        for a in range(3):
            for j in range(3):
                for i in range(4):
                    x, y, w, h, o, *z = raw.view(2, 3, 7, 3, 4)[b, a, :, j, i].tolist()
                    p = (
                        [math.exp(v) / sum(map(math.exp, z)) for v in z]
                        if classes == "softmax"
                        else list(map(sigmoid, z))
                    )
                    cx, cy = (i + sigmoid(x)) * 32, (j + sigmoid(y)) * 32
                    bw, bh = ANCHORS[a][0] * math.exp(w) * 32, ANCHORS[a][1] * math.exp(h) * 32
                    box = [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2]
                    every += [(sigmoid(o) * p[k], k, box) for k in range(2) if sigmoid(o) * p[k] > 0.3]
        kept = []
        for score, k, box in sorted(every, key=lambda e: -e[0]):
            rivals = [other for _, label, other in kept if label == k]
            if all(iou_xyxy(torch.tensor([box]), torch.tensor([other])).item() <= 0.4 for other in rivals):
                kept.append((score, k, box))
        assert len(kept) == len(predictions)
        for (score, k, box), one in zip(kept, predictions, strict=True):
            assert one["class_id"] == k and one["score"] == pytest.approx(score, rel=1e-4)
            assert one["box"] == pytest.approx(box, rel=1e-4, abs=1e-3)
    assert predict(raw, ANCHORS, 128, conf_thresh=1.0) == [[], []]


def test_detections_as_dicts():
    found = Detections(
        boxes_xyxy=np.array([[1, 2, 30, 40], [5, 6, 7, 8]], np.float32),
        objectness=np.array([0.9, 0.5], np.float32),
        scores=np.array([0.75, 0.25], np.float32),
        probabilities=np.array([0.8, 0.5], np.float32),
        nodes=np.array([3, 1]),
        names=("dog", "cat"),
        paths=(("n1", "n2"), ("n1",)),
        path_names=(("animal", "dog"), ("animal",)),
        path_probabilities=((0.9, 0.8), (0.5,)),
        image_size=(50, 50),
    )
    expected = [
        {"box": [1.0, 2.0, 30.0, 40.0], "score": 0.75, "class_id": 3},
        {"box": [5.0, 6.0, 7.0, 8.0], "score": 0.25, "class_id": 1},
    ]
    assert prediction_dicts(found) == expected
    assert prediction_dicts([found, found]) == [expected, expected]
    assert prediction_dicts([]) == []


def test_bad_input():
    with pytest.raises(TrainingError, match="labels only"):
        encode_targets([{"label": 1}], ANCHORS, 4, 3)
    with pytest.raises(TrainingError, match="label 4; there are 4"):
        encode_targets([{"boxes": torch.full((1, 4), 0.5), "labels": torch.tensor([4])}], ANCHORS, 4, 3)
    with pytest.raises(TrainingError, match="wanted a target of"):
        DenseLoss(ANCHORS, 4)(torch.zeros(1, 27, 3, 3), torch.zeros(1, 3, 4, 27))
    with pytest.raises(TrainingError, match="a dense target of 3 anchors"):
        decode_targets(torch.zeros(1, 3, 3, 26), ANCHORS)
    for wrong in ({"sizes": "feet"}, {"class_loss": "hinge"}):
        with pytest.raises(ValueError, match="wanted one of"):
            DenseLoss(ANCHORS, 4, **wrong)


def test_the_page_for_lucids_users_runs():
    page = Path(__file__).parents[2] / "docs" / "from_lucid.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    first, second = {}, {}
    exec(blocks[0], first)
    assert len(first["found"]) == 2 and first["losses"]["loss"].isfinite()
    exec(blocks[1], second)
    assert second["raw"].shape == (1, 40, 2, 2)
