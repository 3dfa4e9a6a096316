"""RegionLoss against a loop over cells that writes gradients one by one, lazy output against dense, and the
extremes.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import WordTree
from yolo9000 import Network, presets
from yolo9000.head import LazyOutput
from yolo9000.loss import LABEL_BOXES, LABEL_OBJECTNESS, RegionLoss

ANCHORS = [[0.8, 1.1], [2.0, 1.0], [1.5, 3.0]]
TREE = WordTree([f"n{k:08d}" for k in range(12)], [-1, -1, -1, 0, 0, 1, 1, 1, 3, 3, 3, 8])
PARTS = ("box", "objectness", "no_objectness", "classification")


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def overlap(a, b) -> float:
    """IoU of two (cx, cy, w, h)."""
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def covered(box) -> float:
    """How much of the image a (cx, cy, w, h) covers."""
    edges = [[min(max(box[k] + side * box[k + 2] / 2, 0), 1) for side in (-1, 1)] for k in (0, 1)]
    return math.prod(high - low for low, high in edges)


def loop(raw: np.ndarray, targets: list[dict], loss: RegionLoss, seen: int) -> np.ndarray:
    """The gradient at raw (N, A, 5+C, H, W), times N: Darknet's rules word by word, one number after
    another.
    """
    raw = raw.astype(np.float64)
    _, A, channels, H, W = raw.shape
    anchors = loss.anchors.tolist()
    group, parent = loss.hierarchy.group_of.tolist(), loss.hierarchy.parents.tolist()
    C = channels - 5
    delta = np.zeros_like(raw)

    def conditionals(z):
        p = np.empty(C)
        for g in set(group):
            members = [k for k in range(C) if group[k] == g]
            e = np.exp(z[members] - z[members].max())
            p[members] = e / e.sum()
        return p

    def path(node):
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = parent[node]
        return nodes

    def teach(d, z, node):
        p = conditionals(z)
        for k in path(node):
            for sibling in range(C):
                if group[sibling] == group[k]:
                    d[5 + sibling] = loss.class_scale * ((sibling == k) - p[sibling])

    for b, target in enumerate(targets):
        predicted, objectness = {}, {}
        for n in range(A):
            for j in range(H):
                for i in range(W):
                    x, y, w, h, o = raw[b, n, :5, j, i]
                    pw, ph = anchors[n]
                    sizes = (pw * math.exp(w) / W, ph * math.exp(h) / H)
                    predicted[n, j, i] = ((i + sigmoid(x)) / W, (j + sigmoid(y)) / H, *sizes)
                    objectness[n, j, i] = sigmoid(o)
        if "label" in target:
            score = {}
            for n, j, i in predicted:
                p = conditionals(raw[b, n, 5:, j, i])
                score[n, j, i] = objectness[n, j, i] * math.prod(p[k] for k in path(target["label"]))
            best = max(score, key=score.get)
            if loss.label_box == "largest":
                area = {at: covered(predicted[at]) for at in predicted if objectness[at] > loss.label_iou}
                largest = max(area.values(), default=0)
                score = {at: score[at] for at in area if area[at] == largest} or score
                best = max(score, key=score.get)
            if loss.label_objectness in ("darknet", "darknet2017"):
                for n, j, i in predicted:
                    delta[b, n, 4, j, i] = loss.noobject_scale * -objectness[n, j, i]
            n, j, i = best
            teach(delta[b, n, :, j, i], raw[b, n, 5:, j, i], target["label"])
            delta[b, n, 4, j, i] = 0
            if loss.label_objectness in ("paper", "darknet2017") and objectness[best] < loss.label_iou:
                delta[b, n, 4, j, i] = loss.object_scale * (loss.label_iou - objectness[best])
        elif "boxes" in target:
            truths = target["boxes"].tolist()
            for (n, j, i), box in predicted.items():
                d = delta[b, n, :, j, i]
                d[4] = loss.noobject_scale * -objectness[n, j, i]
                if max((overlap(box, t) for t in truths), default=0) > loss.thresh:
                    d[4] = 0
                for region in target.get("ignore_boxes", torch.zeros(0, 4)).tolist():
                    inside = all(abs(box[k] - region[k]) <= region[k + 2] / 2 for k in (0, 1))
                    if inside or overlap(box, region) > loss.thresh:
                        d[4] = 0
                if seen < loss.early_images:
                    x, y, w, h = raw[b, n, :4, j, i]
                    d[:4] = [loss.early_scale * v for v in (0.5 - sigmoid(x), 0.5 - sigmoid(y), -w, -h)]
            named = target.get("named", torch.ones(len(truths), dtype=torch.bool)).tolist()
            for t, label, teaches in zip(truths, target["labels"].tolist(), named, strict=True):
                i, j = int(t[0] * W), int(t[1] * H)
                sizes = [
                    predicted[n, j, i][2:] if not loss.bias_match else (anchors[n][0] / W, anchors[n][1] / H)
                    for n in range(A)
                ]
                fits = [overlap((0, 0, *size), (0, 0, *t[2:])) for size in sizes]
                n = fits.index(max(fits))
                d, (x, y, w, h) = delta[b, n, :, j, i], raw[b, n, :4, j, i]
                goals = (
                    t[0] * W - i,
                    t[1] * H - j,
                    math.log(t[2] * W / anchors[n][0]),
                    math.log(t[3] * H / anchors[n][1]),
                )
                has = (sigmoid(x), sigmoid(y), w, h)
                d[:4] = [
                    loss.coord_scale * (2 - t[2] * t[3]) * (g - v) for g, v in zip(goals, has, strict=True)
                ]
                wanted = overlap(predicted[n, j, i], t) if loss.rescore else 1
                d[4] = loss.object_scale * (wanted - objectness[n, j, i])
                node = label if loss.map is None else int(loss.map[label])
                if teaches:
                    teach(d, raw[b, n, 5:, j, i], node)
    for channel in (0, 1, 4):
        o = 1 / (1 + np.exp(-raw[:, :, channel]))
        delta[:, :, channel] *= o * (1 - o)
    return -delta


@st.composite
def target_dicts(draw, classes: int, nodes: int):
    kind = draw(st.sampled_from(["boxes", "boxes", "boxes", "label", "unlabelled"]))
    if kind == "label":
        return {"label": draw(st.integers(0, nodes - 1))}
    if kind == "unlabelled":
        return {"image_labels": torch.zeros(0, dtype=torch.long)}
    # Few cells and many truths, so that truths meet in one cell and anchor.
    share = st.floats(0.02, 0.98)
    boxes = draw(st.lists(st.tuples(share, share, st.floats(0.05, 0.9), st.floats(0.05, 0.9)), max_size=5))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=len(boxes), max_size=len(boxes)))
    result = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.long)}
    if draw(st.booleans()):
        result["ignore_boxes"] = torch.tensor([[draw(share), draw(share), 0.4, 0.3]])
    if draw(st.booleans()):
        named = draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes)))
        result["named"] = torch.tensor(named, dtype=torch.bool)
    return result


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gradient_equals_the_loop(data):
    tree = data.draw(st.sampled_from([TREE, WordTree.flat(["a", "b", "c"])]))
    mapped = data.draw(st.booleans())
    options = {
        "map": [len(tree) - 1, 0] if mapped else None,
        "rescore": data.draw(st.booleans()),
        "bias_match": data.draw(st.booleans()),
        "thresh": data.draw(st.sampled_from([0.2, 0.6])),
        "label_objectness": data.draw(st.sampled_from(["paper", "darknet2017", "darknet", "none"])),
        "label_box": data.draw(st.sampled_from(["best", "largest"])),
        "label_iou": data.draw(st.sampled_from([0.3, 0.9])),
        "coord_scale": 1.5,
        "class_scale": 0.7,
    }
    loss = RegionLoss(ANCHORS, tree, **options)
    targets = data.draw(st.lists(target_dicts(2 if mapped else len(tree), len(tree)), min_size=1, max_size=3))
    seen = data.draw(st.sampled_from([0, 20000]))
    H, W = data.draw(st.sampled_from([(2, 2), (3, 2), (1, 4)]))
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    raw = torch.randn(len(targets), 3, 5 + len(tree), H, W, dtype=torch.float64) * 0.7
    expected = torch.from_numpy(loop(raw.numpy(), targets, loss, seen)) / len(targets)
    raw.requires_grad_()
    losses = loss(raw.flatten(1, 2), targets, images_seen=seen)
    torch.testing.assert_close(losses["loss"], sum(losses[part] for part in PARTS))
    (grad,) = torch.autograd.grad(losses["loss"], raw, allow_unused=True)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def make_lazy(images: int, tree, D=6, H=3, W=4, shared=False, stored=None, seed=0) -> LazyOutput:
    torch.manual_seed(seed)
    rows = len(tree) if stored is None else len(stored)
    A = len(ANCHORS)
    shapes = [
        (images, A * 5, H, W),
        (images, D, H, W),
        (1 if shared else A, rows, D),
        (1 if shared else A, rows),
    ]
    tensors = [torch.randn(shape).requires_grad_() for shape in shapes]
    return LazyOutput(*tensors, None if stored is None else torch.tensor(stored), len(tree), A)


def mixed_targets() -> list[dict]:
    return [
        {
            "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.5], [0.31, 0.41, 0.2, 0.5]]),
            "labels": torch.tensor([11, 9]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
        {"label": 7},
        {"unlabelled": True},
        {"image_labels": torch.tensor([11, 5]), "negative_labels": torch.tensor([4, 2])},
        {
            "boxes": torch.tensor([[0.9, 1.0, 0.4, 0.4]]),
            "labels": torch.tensor([0]),
            "negative_labels": torch.tensor([6]),
        },
        {"negative_labels": torch.tensor([10])},
    ]


@pytest.mark.parametrize("shared", [False, True], ids=["rows per anchor", "shared rows"])
@pytest.mark.parametrize("stored", [None, [0, 1, 2, 3, 4, 6, 8, 9, 11], [0, 1, 4], [1, 5, 7], [11]])
@pytest.mark.parametrize(
    ("options", "flat"),
    [
        ({"label_objectness": "paper"}, False),
        ({"label_objectness": "darknet"}, False),
        ({"label_objectness": "paper"}, True),
        ({"label_objectness": "darknet2017"}, True),
        ({"label_box": "largest"}, False),
        ({"class_loss": "sigmoid", "label_box": "largest"}, True),
        ({"class_loss": "sigmoid"}, True),
    ],
)
def test_lazy_equals_dense(shared, stored, options, flat):
    tree = WordTree.flat(TREE.ids) if flat else TREE
    loss = RegionLoss(ANCHORS, tree, **options)
    targets = mixed_targets()
    out = make_lazy(len(targets), tree, shared=shared, stored=stored)
    leaves = (out.boxes, out.features, out.weight, out.bias)
    lazy, dense = loss(out, targets), loss(out.dense(), targets)
    assert lazy["loss"].isfinite() and lazy["loss"] > 0
    for key in dense:
        torch.testing.assert_close(lazy[key], dense[key], equal_nan=True, msg=key)
    for a, b in zip(
        torch.autograd.grad(lazy["loss"], leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(dense["loss"], leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
        assert a.isfinite().all()


def test_truth_with_an_unstored_node_trains_the_groups_above_it():
    """Path of 11 is 0, 3, 8, 11. Without a row for 8 it teaches what a truth at 3 teaches."""
    stored = [0, 1, 2, 3, 4, 9, 10, 11]
    out = make_lazy(1, TREE, stored=stored)
    loss = RegionLoss(ANCHORS, TREE)
    box = torch.tensor([[0.3, 0.4, 0.2, 0.5]])
    grads = []
    for label in (11, 8, 3):
        losses = loss(out, [{"boxes": box, "labels": torch.tensor([label])}])
        grads.append(torch.autograd.grad(losses["loss"], (out.weight, out.features)))
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            assert torch.equal(a, b)
    assert grads[0][0].abs().sum() > 0


def test_overwritten_truth_keeps_the_groups_that_only_it_has():
    """As Darknet's: the later truth (9: path 0, 3, 9) replaces groups it shares with 11 (0, 3, 8, 11) but for
    11's own.
    """
    loss = RegionLoss(ANCHORS, TREE)
    box = torch.tensor([[0.3, 0.4, 0.2, 0.5]])
    raw = torch.randn(1, 3 * 17, 2, 2, dtype=torch.float64, requires_grad=True)
    both = {"boxes": box.repeat(2, 1), "labels": torch.tensor([11, 9])}
    (two,) = torch.autograd.grad(loss(raw, [both])["classification"], raw)
    ones = []
    for label in (11, 9):
        parts = loss(raw, [{"boxes": box, "labels": torch.tensor([label])}])
        ones.append(torch.autograd.grad(parts["classification"], raw)[0].view(1, 3, 17, 2, 2))
    expected = ones[1].clone()
    expected[:, :, 5 + 11] = ones[0][:, :, 5 + 11]
    torch.testing.assert_close(two.view_as(expected), expected)


@pytest.mark.parametrize("label_box", LABEL_BOXES)
@pytest.mark.parametrize("label_objectness", LABEL_OBJECTNESS)
def test_batch_is_the_mean_of_its_images(label_objectness, label_box):
    loss = RegionLoss(ANCHORS, TREE, label_objectness=label_objectness, label_box=label_box)
    open_ended = {"boxes": [[0.3, 0.4, 0.2, 0.5]], "labels": [9], "not_exhaustive_labels": [5]}
    targets = [*mixed_targets(), open_ended]
    raw = torch.randn(len(targets), 3 * 17, 3, 3, dtype=torch.float64)
    together = loss(raw, targets)
    alone = [loss(raw[b : b + 1], [target]) for b, target in enumerate(targets)]
    for part in (*PARTS, "loss"):
        torch.testing.assert_close(together[part], sum(one[part] for one in alone) / len(targets))


NETWORKS = {
    "yolov2": lambda: presets.yolov2(12, ANCHORS, image_size=64, slim=0.05),
    "yolo9000": lambda: presets.yolo9000(TREE, ANCHORS, image_size=64, slim=0.05),
    "tiny9000": lambda: presets.tiny9000(TREE, ANCHORS, stored=(0, 1, 2, 3, 4, 9, 11), neck=8, image_size=64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_learn_the_same_from_lazy_and_dense_output(name):
    """Every parameter's gradient, through Darknet's form and through a region layer that owns class rows."""
    torch.manual_seed(0)
    net = Network(NETWORKS[name](), None if name == "yolov2" else TREE).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(
                torch.randn_like(parameter) * 0.05
            )  # rows of 0 would give no gradient to what is below
    loss = RegionLoss(net.anchors, classes=12) if name == "yolov2" else RegionLoss(net.anchors, TREE)
    targets = mixed_targets()
    images = torch.rand(len(targets), 3, 64, 64)
    grads = []
    for out in (net.lazy(images), net(images)):
        net.zero_grad()
        loss(out, targets)["loss"].backward()
        grads.append({key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 20
    for key, grad in grads[0].items():
        scale = grads[1][key].abs().max().item()
        torch.testing.assert_close(grad, grads[1][key], rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=key)
