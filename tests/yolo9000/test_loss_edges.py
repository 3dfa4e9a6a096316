"""RegionLoss at the edges: images without labels, ignored boxes, label variants, extremes, bad targets."""

import math

import pytest
import torch

from tests.yolo9000.test_loss import ANCHORS, TREE, mixed_targets, sigmoid
from wordtree import WordTree
from yolo9000.errors import TrainingError
from yolo9000.head import LazyOutput
from yolo9000.loss import CLASS_LOSSES, LABEL_OBJECTNESS, RegionLoss, check_finite


def test_unlabelled_image_teaches_nothing_and_empty_one_background():
    loss = RegionLoss(ANCHORS, TREE, label_objectness="darknet")
    raw = torch.randn(1, 3 * 17, 3, 3, requires_grad=True)
    for target in (
        {"unlabelled": True},
        {},
        {"image_labels": []},
        {"image_labels": [], "negative_labels": []},
    ):
        losses = loss(raw, [target])
        assert losses["loss"] == 0
        assert not torch.autograd.grad(losses["loss"], raw)[0].any()
    empty = loss(raw, [{"boxes": [], "labels": []}], images_seen=10**6)
    objectness = raw.view(3, 17, 3, 3)[:, 4].sigmoid()
    torch.testing.assert_close(empty["loss"], objectness.square().sum() / 2)


def test_ignore_boxes_cost_no_objectness_but_truths_inside_still_train():
    loss = RegionLoss(ANCHORS, TREE)
    raw = torch.randn(1, 3 * 17, 4, 4, requires_grad=True)
    truth = {"boxes": torch.tensor([[0.5, 0.5, 0.3, 0.3]]), "labels": torch.tensor([4])}
    everywhere = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    plain, ignoring = loss(raw, [truth]), loss(raw, [truth | {"ignore_boxes": everywhere}])
    assert plain["no_objectness"] > 0 and ignoring["no_objectness"] == 0
    for part in ("box", "objectness", "classification"):
        assert torch.equal(plain[part], ignoring[part])


def test_label_at_the_largest_proposal():
    """Of the boxes that are sure enough the largest within the picture learns the label, though another has
    more of it; a negative label stays at its own best box; without a sure box the best learns."""
    loss = RegionLoss([[0.5, 0.5], [1.0, 1.0]], classes=4, label_box="largest")
    raw = torch.zeros(1, 2, 9, 2, 2)
    raw[:, :, 4] = -3.0
    raw[0, 0, 4, 0, 1] = raw[0, 1, 4, 1, 1] = 0.0  # two proposals: a small one and one of 4 x its area,
    raw[0, 1, 2, 0, 0] = 3.0  # larger than which is one that nothing is sure of,
    raw[0, 0, 4, 1, 0], raw[0, 0, 0, 1, 0], raw[0, 0, 2, 1, 0] = 0.0, -50.0, 2.0  # and one half outside.
    raw[0, 0, 5 + 2, 0, 1] = 9.0  # the label, best by far at the small one
    raw[0, 1, 5 + 3, 0, 0], raw[0, 1, 4, 0, 0] = 9.0, -0.9  # the negative label, at no proposal

    def learning(target):
        values = raw.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(values.flatten(1, 2), [target])["loss"], values)
        assert not grad[:, :, :5].any()
        return [tuple(at) for at in grad[0, :, 5:].abs().sum(1).nonzero().tolist()]

    assert learning({"label": 2}) == [(1, 1, 1)]
    both = {"image_labels": torch.tensor([2]), "negative_labels": torch.tensor([3])}
    assert learning(both) == [(1, 0, 0), (1, 1, 1)]
    raw[:, :, 4] = -3.0
    assert learning({"label": 2}) == [(0, 0, 1)]


@pytest.mark.parametrize("label_objectness", LABEL_OBJECTNESS)
def test_label_objectness(label_objectness):
    """What each variant does, on an image where one box is far the best for the label."""
    loss = RegionLoss(ANCHORS, classes=4, label_objectness=label_objectness)
    raw = torch.full((1, 3, 9, 2, 2), -1.0)
    raw[0, 1, 5 + 2, 1, 0] = 9.0  # the label, in this box alone
    raw.requires_grad_()
    losses = loss(raw.flatten(1, 2), [{"label": 2}])
    (grad,) = torch.autograd.grad(losses["loss"], raw)
    o = sigmoid(-1.0)
    at, others = grad[0, 1, 4, 1, 0], grad[:, :, 4].clone()
    others[0, 1, 1, 0] = 0
    up = {"paper": 5 * (o - 0.3) * o * (1 - o), "darknet2017": 5 * (o - 0.3) * o * (1 - o)}.get(
        label_objectness, 0
    )
    down = {"darknet2017": o * o * (1 - o), "darknet": o * o * (1 - o)}.get(label_objectness, 0)
    assert at.item() == pytest.approx(up, rel=1e-4)
    assert others.sum().item() == pytest.approx(11 * down, rel=1e-4)
    assert (grad[0, 1, 5:, 1, 0] != 0).all() and grad[:, :, 5:].count_nonzero() == 4
    assert not grad[:, :, :4].any()
    # Above the assumed overlap nothing pushes, whatever the variant.
    raw = raw.detach().clone()
    raw[0, 1, 4, 1, 0] = 0.5
    assert loss(raw.flatten(1, 2), [{"label": 2}])["objectness"] == 0


@pytest.mark.parametrize("label_objectness", LABEL_OBJECTNESS)
def test_negative_labels_move_no_objectness(label_objectness):
    loss = RegionLoss(ANCHORS, TREE, label_objectness=label_objectness, label_iou=0.9)
    raw = torch.randn(1, 3 * 17, 3, 4)
    label = {"image_labels": [11]}
    plain, beside = (loss(raw, [label | more]) for more in ({}, {"negative_labels": [4, 2, 6]}))
    assert beside["classification"] > plain["classification"]
    for part in ("objectness", "no_objectness", "avg_label_probability"):
        assert torch.equal(plain[part], beside[part]), part


@pytest.mark.parametrize("label_objectness", LABEL_OBJECTNESS)
def test_a_box_that_two_labels_choose_is_pushed_once(label_objectness):
    loss = RegionLoss(ANCHORS, classes=4, label_objectness=label_objectness, label_iou=0.9)
    raw = torch.zeros(1, 3, 9, 3, 4)
    raw[:, :, 4] = -3.0
    raw[0, 1, 4, 2, 2] = 0.0  # one box is surer than the others, all classes are alike
    one, two = (loss(raw.flatten(1, 2), [{"image_labels": labels}]) for labels in ([1], [1, 3]))
    for part in ("objectness", "no_objectness"):
        assert torch.equal(one[part], two[part]), part


@pytest.mark.parametrize("class_loss", CLASS_LOSSES)
def test_only_the_last_and_named_truth_of_a_box_teaches_its_class(class_loss):
    loss = RegionLoss(ANCHORS, classes=4, class_loss=class_loss)
    raw, box = torch.randn(1, 3 * 9, 3, 4), [[0.5, 0.5, 0.2, 0.3]]
    assert loss(raw, [{"boxes": box, "labels": [1], "named": [False]}])["classification"] == 0
    last = loss(raw, [{"boxes": box, "labels": [2]}])["classification"]
    both = loss(raw, [{"boxes": box * 2, "labels": [1, 2]}])["classification"]
    torch.testing.assert_close(both, last)


@pytest.mark.parametrize("flat", [False, True])
def test_negative_label_is_pushed_down_at_its_best_box(flat):
    loss = RegionLoss(ANCHORS, WordTree.flat(TREE.ids) if flat else TREE, label_objectness="darknet")
    raw = torch.randn(1, 3 * 17, 2, 2, requires_grad=True)
    logs = loss.hierarchy.log_conditionals(raw.view(3, 17, 2, 2)[:, 5:], dim=1)
    pr = loss.hierarchy.log_probabilities(logs, dim=1).exp()[:, 9]  # (A, H, W)
    best = (pr * raw.view(3, 17, 2, 2)[:, 4].sigmoid()).flatten().argmax()
    losses = loss(raw, [{"negative_labels": torch.tensor([9])}])
    torch.testing.assert_close(losses["loss"], -(1 - pr.flatten()[best]).log())
    assert losses["classification"] == losses["loss"]


@pytest.mark.parametrize("margin", [0.0, 5.0, 12.0, 60.0])
def test_certain_of_a_negative_label_is_still_finite(margin):
    """The slope of -log(1 - p) along the label's logit is p, however near 1 it is, as far as float32 can
    tell.
    """
    loss = RegionLoss(ANCHORS, classes=3)
    raw = torch.zeros(1, 3 * 8, 1, 1)
    raw.view(3, 8)[0, 4:6] = torch.tensor([1.0, margin])
    raw.requires_grad_()
    losses = loss(raw, [{"negative_labels": torch.tensor([0])}])
    (grad,) = torch.autograd.grad(losses["loss"], raw)
    assert losses["loss"].isfinite() and grad.isfinite().all()
    if margin < 15:
        p = math.exp(margin) / (math.exp(margin) + 2)
        assert losses["loss"].item() == pytest.approx(-math.log(1 - p), rel=0.02)
        assert grad.view(3, 8)[0, 5].item() == pytest.approx(p, rel=0.05)


@pytest.mark.parametrize("scale", [1e4, 80.0])
@pytest.mark.parametrize("class_loss", ["softmax", "sigmoid"])
def test_extreme_outputs_give_finite_gradients(scale, class_loss):
    loss = RegionLoss(ANCHORS, classes=12, class_loss=class_loss)
    raw = (torch.randn(7, 3 * 17, 3, 3) * scale).requires_grad_()
    losses = loss(raw, mixed_targets())
    assert losses["loss"].isfinite()
    assert torch.autograd.grad(losses["loss"], raw)[0].isfinite().all()


def test_sigmoid_is_binary_cross_entropy():
    loss = RegionLoss(ANCHORS, classes=4, class_loss="sigmoid")
    raw = torch.randn(1, 3 * 9, 2, 2)
    target = {
        "boxes": torch.tensor([[0.3, 0.8, 0.4, 0.55]]),
        "labels": torch.tensor([1]),
    }  # the first anchor's size
    logits = raw.view(3, 9, 2, 2)[0, 5:, 1, 0]
    onehot = torch.tensor([0.0, 1, 0, 0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, onehot, reduction="sum")
    torch.testing.assert_close(loss(raw, [target])["classification"], expected)


def test_half_precision_and_channels_last():
    loss = RegionLoss(ANCHORS, TREE)
    targets = mixed_targets()
    raw = torch.randn(7, 3 * 17, 3, 3).bfloat16()
    plain = loss(raw.float(), targets)
    for other in (raw, raw.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(loss(other, targets)["loss"], plain["loss"])
    assert plain["loss"].dtype == torch.float32


def test_autocast_around_it_changes_nothing():
    loss, targets = RegionLoss(ANCHORS, TREE), mixed_targets()
    shapes = ((7, 15, 3, 3), (7, 6, 3, 3), (1, 12, 6), (1, 12))
    out = LazyOutput(*(torch.randn(shape) for shape in shapes), None, 12, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(out, targets)
    assert torch.equal(inside["loss"], loss(out, targets)["loss"])


@pytest.mark.parametrize("at_once", [1, 100])
def test_labels_looked_at_one_by_one_or_together(at_once, monkeypatch):
    loss, targets = RegionLoss(ANCHORS, TREE), mixed_targets()
    raw = torch.randn(7, 3 * 17, 3, 3)
    together = loss(raw, targets)
    monkeypatch.setattr("yolo9000.claims._LOGITS_AT_ONCE", at_once)
    torch.testing.assert_close(loss(raw, targets)["loss"], together["loss"])


def test_centre_on_the_border_and_a_side_beyond_the_picture():
    loss = RegionLoss(ANCHORS, classes=3)
    raw = torch.randn(1, 3 * 8, 2, 2)
    boxes = torch.tensor([[1.0, 1.0, 0.2, 0.2], [0.0, 0.0, 1.4, 1e-5]])
    assert loss(raw, [{"boxes": boxes, "labels": torch.tensor([0, 2])}])["loss"].isfinite()


def box(*values):
    return {"boxes": torch.tensor([[0.5, 0.5, 0.1, 0.1], list(values)]), "labels": torch.tensor([0, 1])}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (box(0.5, 0.5, 0.0, 0.2), "target 1 .* box"),
        (box(0.5, 0.5, -0.1, 0.2), "target 1 .* box"),
        (box(0.5, 1.5, 0.1, 0.2), "target 1 .* box"),
        (box(100, 120, 50, 60), "target 1 .* box"),
        (box(math.nan, 0.5, 0.1, 0.2), "target 1 .* box"),
        (box(0.5, 0.5, math.inf, 0.2), "target 1 .* box"),
        ({"boxes": torch.rand(2, 5), "labels": torch.tensor([0, 1])}, r"shape \(2, 5\)"),
        ({"boxes": torch.rand(2, 4), "labels": torch.tensor([0])}, "2 boxes and another number of labels"),
        ({"boxes": torch.rand(2, 4)}, 'no "labels"'),
        ({"boxes": torch.rand(1, 4), "labels": torch.tensor([12])}, "label 12; there are 12"),
        ({"boxes": torch.rand(1, 4), "labels": torch.tensor([-1])}, "label -1"),
        ({"boxes": torch.rand(1, 4), "labels": torch.tensor([0.5])}, "wanted integers"),
        ({"label": 99}, "label 99"),
        ({"image_labels": [1, -2]}, "label -2"),
        ({"negative_labels": [12]}, "label 12"),
        ({"image_labels": [[1, 2]]}, "wanted integers"),
        ({"label": 1, "shown_labels": [12]}, "label 12"),
        ({"label": 1, "shown_labels": [-1]}, "label -1"),
        (box(0.5, 0.5, 0.1, 0.2) | {"not_exhaustive_labels": [12]}, "label 12"),
        (box(0.5, 0.5, 0.1, 0.2) | {"not_exhaustive_labels": [-1]}, "label -1"),
        ({"boxes": torch.rand(1, 4), "labels": [1], "named": [1]}, "1 times true or false"),
        ({"boxes": torch.rand(1, 4), "labels": [1], "named": [True, False]}, "1 times true or false"),
        ({"label": "dog"}, '"image_labels" of target 1 is no array'),
        ({"boxes": [[0.1, 0.2], [0.3]], "labels": [1, 2]}, '"boxes" of target 1 is no array'),
        (None, "target 1 .* no dict"),
    ],
)
def test_impossible_targets_are_named(target, message):
    loss = RegionLoss(ANCHORS, TREE)
    with pytest.raises(TrainingError, match=message):
        loss(torch.zeros(2, 3 * 17, 2, 2), [{"label": 0}, target])


def test_map_applies_to_boxes_only_and_is_checked():
    loss = RegionLoss(ANCHORS, TREE, map=[11, 4])
    raw = torch.randn(1, 3 * 17, 2, 2)
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2]])
    plain = RegionLoss(ANCHORS, TREE)
    mapped = loss(raw, [{"boxes": boxes, "labels": torch.tensor([1])}])
    assert torch.equal(mapped["loss"], plain(raw, [{"boxes": boxes, "labels": torch.tensor([4])}])["loss"])
    assert torch.equal(loss(raw, [{"label": 9}])["loss"], plain(raw, [{"label": 9}])["loss"])
    with pytest.raises(TrainingError, match="label 2; there are 2 data set classes"):
        loss(raw, [{"boxes": boxes, "labels": torch.tensor([2])}])


def test_wrong_shapes_and_settings():
    loss = RegionLoss(ANCHORS, TREE)
    with pytest.raises(TrainingError, match=r"wanted \(N, 3\*\(5\+12\) = 51, H, W\)"):
        loss(torch.zeros(1, 50, 2, 2), [{}])
    with pytest.raises(TrainingError, match="1 images and 2 targets"):
        loss(torch.zeros(1, 51, 2, 2), [{}, {}])
    with pytest.raises(TrainingError, match="without images"):
        loss(torch.zeros(0, 51, 2, 2), [])
    with pytest.raises(TrainingError, match="12 classes"):
        shapes = ((1, 15, 2, 2), (1, 4, 2, 2), (1, 12, 4), (1, 12))
        other = LazyOutput(*(torch.zeros(shape) for shape in shapes), None, 12, 3)
        RegionLoss(ANCHORS, classes=11)(other, [{}])
    for wrong in (
        {"label_objectness": "new"},
        {"label_box": "smallest"},
        {"class_loss": "hinge"},
        {"classes": 3},
    ):
        with pytest.raises(ValueError):
            RegionLoss(ANCHORS, TREE, **wrong)
    with pytest.raises(ValueError, match="flat class lists"):
        RegionLoss(ANCHORS, TREE, class_loss="sigmoid")
    with pytest.raises(ValueError, match="either a tree or"):
        RegionLoss(ANCHORS)
    for anchors in ([[1.0, 0.0]], [[1, 2, 3]], [1, 2], []):
        with pytest.raises(ValueError, match="pairs above 0"):
            RegionLoss(anchors, classes=2)
    for nodes in ([0, 12], [-1]):
        with pytest.raises(ValueError, match="outside the 12"):
            RegionLoss(ANCHORS, TREE, map=nodes)


def test_non_finite_loss_names_the_images():
    loss = RegionLoss(ANCHORS, TREE)
    raw = torch.zeros(1, 51, 2, 2)
    raw[0, 3, 0, 0] = math.nan
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.3, 0.3]]), "labels": torch.tensor([0])}
    losses = loss(raw, [target])
    with pytest.raises(TrainingError, match=r"nan.*box.*a\.jpg"):
        check_finite(losses, ["a.jpg"])
    check_finite(loss(torch.zeros(1, 51, 2, 2), [target]), ["a.jpg"])
    assert not loss.state_dict()


def test_it_can_be_learnt():
    """A few steps of plain gradient descent on the output itself: the truth's box, objectness and label come
    right.
    """
    torch.manual_seed(0)
    loss = RegionLoss(ANCHORS, TREE)
    raw = torch.zeros(2, 51, 3, 3, requires_grad=True)
    targets = [
        {"boxes": torch.tensor([[0.45, 0.55, 0.5, 0.3]]), "labels": torch.tensor([9])},
        {"label": 6},
    ]
    for _ in range(300):
        losses = loss(raw, targets, images_seen=10**6)
        (grad,) = torch.autograd.grad(losses["loss"], raw)
        raw = (raw - grad).detach().requires_grad_()
    assert losses["avg_iou"] > 0.95 and losses["avg_probability"] > 0.9
    assert losses["avg_objectness"] > 0.9 and losses["avg_label_probability"] > 0.9
