"""Detection by the lazy head against the dense form of the same output: same boxes, nodes and scores.

Features and rows are fractions of 1024 and small, so that every sum of products is exact in float32 and both
forms see the very same logits, whatever order they add in.
"""

from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from tests.yolo9000.trees import random_tree
from yolo9000.detector import Detector
from yolo9000.head import LazyOutput, apply_rows
from yolo9000.network import Network
from yolo9000.options import Options
from yolo9000.spec import Convolution, MaxPool, NetworkSpec, Region

ANCHORS = ((0.8, 1.1), (2.0, 1.5), (3.0, 3.0))


def random_detector(random: np.random.Generator, form: str) -> Detector:
    """A small network over a random tree, with class rows among the box channels, as rows of its own for each
    anchor, or shared; perhaps not for all nodes."""
    tree = random_tree(random, int(random.integers(0, 20)))
    trunk = (Convolution(6, 3), MaxPool(2, 2), Convolution(8, 3), MaxPool(2, 2))
    if form == "channels":
        width = len(ANCHORS) * (5 + len(tree))
        head = (Convolution(width, 1, activation="linear", batch_normalize=False), Region(ANCHORS, len(tree)))
    else:
        stored = np.flatnonzero(random.random(len(tree)) < 0.7).tolist() if random.random() < 0.5 else None
        rows = {"boxes": 4, "features": 3, "stored": tuple(stored) if stored else None}
        boxes = Convolution(len(ANCHORS) * 5, 1, activation="linear", batch_normalize=False)
        head = (boxes, Region(ANCHORS, len(tree), shared_rows=form == "shared", **rows))
    net = Network(NetworkSpec(32, 32, (*trunk, *head)), tree)
    seed = torch.Generator().manual_seed(int(random.integers(2**31)))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.7, generator=seed)
    return Detector(net, precision="float32")


def exact(output: LazyOutput) -> LazyOutput:
    """With features in -2..2 and rows in -1..1, all in steps of 1/1024."""

    def stepped(values: torch.Tensor, limit: int) -> torch.Tensor:
        return (values.clamp(-limit, limit) * 1024).round() / 1024

    features, weight, bias = (stepped(output.features, 2), stepped(output.weight, 1), stepped(output.bias, 1))
    return replace(output, features=features, weight=weight, bias=bias)


@pytest.mark.parametrize("form", ["channels", "anchors", "shared"])
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from(["threshold", "darknet", "greedy", "leaf", "hedge", "mapped", "level", "vocabulary"]),
    st.sampled_from([0.5, 1.0]),
)
def test_equals_the_dense_form(form, seed, batch, threshold, tree_threshold, rule, vote_iou):
    random = np.random.default_rng(seed)
    detector = random_detector(random, form)
    options = Options(threshold=threshold, tree_threshold=tree_threshold, hedge_lambda=3.0, vote_iou=vote_iou)
    if rule == "mapped":
        options = replace(options, mapped=True)
        detector.class_map = torch.from_numpy(random.permutation(len(detector.tree))[:5])
    else:
        listed = random.permutation(len(detector.tree))[:3].tolist()
        level = listed if random.random() < 0.5 else int(random.integers(0, 3))
        options = replace(options, rule=rule, level=level, vocabulary=listed)
    assert detector.lazy
    images = torch.from_numpy(random.random((batch, 3, 16, 16), np.float32))
    output = exact(detector.run(images))
    lazy = detector.candidates(output, options)
    with torch.inference_mode():
        dense = detector.candidates(output.dense(), options)
    assert torch.equal(lazy.image, dense.image) and torch.equal(lazy.node, dense.node)
    torch.testing.assert_close(lazy.boxes_cxcywh, dense.boxes_cxcywh, rtol=1e-6, atol=0)
    torch.testing.assert_close(lazy.objectness, dense.objectness, rtol=1e-6, atol=0)
    torch.testing.assert_close(lazy.score, dense.score, rtol=1e-4, atol=1e-6)
    width = max(lazy.log_path.shape[1], dense.log_path.shape[1])
    probabilities = [
        pad(x.log_path.exp(), (0, width - x.log_path.shape[1]), value=nan) for x in (lazy, dense)
    ]
    torch.testing.assert_close(*probabilities, rtol=1e-4, atol=1e-6, equal_nan=True)
    if threshold == 1:
        assert len(lazy.node) == 0  # no objectness is above 1
    if threshold == 0 and rule == "greedy":
        assert len(lazy.node) == int((lazy.objectness > 0).sum()) == batch * len(ANCHORS) * 4 * 4


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("boxes", [0, 1, 5])
def test_rows_apply_as_a_product(rows, boxes):
    """Learning or not, of any precision."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        torch.manual_seed(0)
        features, weight, bias = torch.randn(boxes, 9), torch.randn(rows, 9), torch.randn(rows)
        features, weight, bias = (t.to(dtype) for t in (features, weight, bias))
        expected = (features.double() @ weight.double().T + bias.double()).to(dtype)
        close = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(apply_rows(features, weight, bias), expected, **close)
        learning = weight.clone().requires_grad_()
        found = apply_rows(features, learning, bias)
        torch.testing.assert_close(found.detach(), expected, **close)
        found.sum().backward()
        torch.testing.assert_close(learning.grad, features.sum(0).expand(rows, -1), **close)
