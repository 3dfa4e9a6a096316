"""A flat classifier's knowledge carried into a tree: exact where rows are copied, finite and right in sign
where it is learnt.
"""

import math
from dataclasses import replace

import pytest
import torch

from tests.yolo9000.test_loss import TREE
from wordtree import WordTree
from yolo9000 import Network, presets
from yolo9000.batches import Batch
from yolo9000.blocks import BatchNorm
from yolo9000.config import ModelConfig
from yolo9000.distill import (
    DistillTask,
    Teacher,
    class_branch,
    copy_class_rows,
    last_rows,
    stored_tree,
)
from yolo9000.errors import ModelError, TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.modelfile import save_model
from yolo9000.spec import AveragePool, LogSumExp
from yolo9000.start import build_network, copy_trunk

# 0 (3 (8, 9, 10), 4), 1 (5, 6, 7), 2; 8 (11)
KNOWN = (9, 4, 6, 5, 11, 2, 10)  # leaves, in the classifier's own order; 7 is unknown to it
LABELS = [TREE.ids[node] for node in KNOWN]
STORED = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11)  # all but 7
ANCHORS = ((1.5, 2.0), (3.0, 2.5))


def classifier(classes: int = len(KNOWN), seed: int = 0) -> Network:
    torch.manual_seed(seed)
    net = Network(presets.tiny_darknet(classes, bn="darknet-cpu"))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        net.layers[-3].conv.weight.normal_(0, 0.3)
        net.layers[-3].conv.bias.normal_()
    return net.eval()


def detector(
    known=KNOWN, stored=STORED, tree: WordTree = TREE, shared: bool = True, twin: int = 0
) -> Network:
    torch.manual_seed(1)
    form = {"neck": 8, "dilations": (1, 2), "branch": 16, "twin": twin, "image_size": 64}
    spec = presets.tiny9000(tree, ANCHORS, known=known, stored=stored, shared_rows=shared, **form)
    return Network(spec, tree).eval()


def started(
    known=KNOWN, stored=STORED, tree: WordTree = TREE, shared: bool = True, twin: int = 0
) -> tuple[Network, Network]:
    """A classifier, and a detector that begins as what it knows."""
    flat, net = classifier(len(known)), detector(known, stored, tree, shared, twin)
    assert copy_trunk(flat, net) == 19
    copy_class_rows(flat, known, net, tree)
    return flat, net


def batch(boxes: bool = False) -> Batch:
    """Three pictures: boxes or labels, a label, neither."""
    torch.manual_seed(5)
    first = {"image_labels": torch.tensor([9, 6])}
    if boxes:
        first = {"boxes": torch.tensor([[0.4, 0.5, 0.3, 0.6]]), "labels": torch.tensor([9])}
    targets = [
        first,
        {"image_labels": torch.tensor([5])},
        {"image_labels": torch.tensor([], dtype=torch.long)},
    ]
    return Batch(0, torch.rand(3, 3, 64, 64), targets, ["a", "b", "c"], torch.zeros(3, dtype=torch.long))


def by_hand(flat: torch.Tensor, known, tree: WordTree, nodes) -> torch.Tensor:
    """Flat probabilities (..., classes) -> Pr(node) (..., len(nodes)), one sum at a time."""
    sums = []
    for node in nodes:
        below = [k for k, leaf in enumerate(known) if node in tree.path_nodes(leaf)]
        sums.append(flat[..., below].sum(-1))
    return torch.stack(sums, -1)


@pytest.mark.parametrize("shared, twin", [(True, 0), (False, 0), (True, 4), (False, 14)])
@torch.no_grad()
def test_the_tree_begins_as_what_the_classifier_knows(shared, twin):
    flat, net = started(shared=shared, twin=twin)
    out = net.lazy(torch.rand(2, 3, 64, 64))
    features = out.features.movedim(1, -1)[..., :128]  # (N, H, W, 128); a twin's branch has more
    assert out.features.shape[1] == (128 + 16 if twin else 128)
    weight, bias = last_rows(flat)
    expected = by_hand((features @ weight.T + bias).softmax(-1), KNOWN, TREE, STORED)  # (N, H, W, K)
    hierarchy = Hierarchy(TREE)
    logits = out.dense().unflatten(1, (2, -1))[:, :, 5:].movedim(2, -1)  # (N, A, H, W, C)
    probabilities = hierarchy.log_probabilities(hierarchy.log_conditionals(logits)).exp()
    for a in range(2):
        torch.testing.assert_close(probabilities[:, a][..., list(STORED)], expected, rtol=1e-4, atol=1e-6)
    assert (probabilities[..., 7] == 0).all()


@torch.no_grad()
def test_at_the_centre_of_a_small_picture_the_tree_says_what_the_classifier_says_of_it():
    flat, net = started()
    images = torch.rand(2, 3, 64, 64)  # 4 x 4 cells, which lie in every window of 7 x 7 about the middle
    out = net.lazy(images)
    middle = torch.tensor([1, 1])
    logits = out.logits(torch.tensor([0, 1]), torch.tensor([0, 0]), middle, middle)
    hierarchy = Hierarchy(TREE)
    found = hierarchy.log_probabilities(hierarchy.log_conditionals(logits)).exp()
    expected = by_hand(flat(images), KNOWN, TREE, STORED)
    torch.testing.assert_close(found[:, list(STORED)], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_class_that_is_an_inner_node_counts_with_those_below_it():
    known = (3, 9, 10, 4, 11)
    flat, net = started(known, stored=(0, 3, 4, 8, 9, 10, 11))
    out = net.lazy(torch.rand(1, 3, 64, 64))
    weight, bias = last_rows(flat)
    p = (out.features.movedim(1, -1) @ weight.T + bias).softmax(-1)
    hierarchy = Hierarchy(TREE)
    logits = out.dense().unflatten(1, (2, -1))[:, 0, 5:].movedim(1, -1)
    found = hierarchy.log_probabilities(hierarchy.log_conditionals(logits)).exp()
    torch.testing.assert_close(found[..., 3], p[..., [0, 1, 2, 4]].sum(-1), rtol=1e-4, atol=1e-6)
    children = found[..., [8, 9, 10]].sum(-1)  # what the classifier says of 3 itself is shared out among them
    torch.testing.assert_close(children, found[..., 3], rtol=1e-4, atol=1e-6)


def test_the_number_of_rows_set_and_what_does_not_fit():
    flat, net = classifier(), detector()
    assert copy_class_rows(flat, KNOWN, net, TREE) == len(STORED)
    with pytest.raises(ModelError, match="7 classes, 6 nodes"):
        copy_class_rows(flat, KNOWN[:-1], net, TREE)
    with pytest.raises(ModelError, match="n00000009 stands for 2 or more"):
        copy_class_rows(flat, (9, 4, 6, 5, 11, 2, 9), net, TREE)
    with pytest.raises(ModelError, match="owns rows"):
        copy_class_rows(flat, KNOWN, Network(presets.yolo9000(TREE, slim=0.02), TREE), TREE)
    with pytest.raises(ModelError, match="made for other known"):
        copy_class_rows(flat, KNOWN, detector(known=KNOWN[1:]), TREE)
    with pytest.raises(ModelError, match="a teacher is a classifier"):
        last_rows(net)


@torch.no_grad()
def test_rows_that_pictures_taught_can_be_the_classifiers_again(tmp_path):
    """A detector goes on from its file, what the classifier knows as it was, 7 as it has learnt."""
    flat, net = started(stored=range(12))
    before = net.lazy(images := torch.rand(1, 3, 64, 64)).dense()
    taught, sums = net.layers[-1].rows, next(s for s in net.spec if isinstance(s, LogSumExp))
    for values in (taught.weight, taught.bias, *net.layers[net.spec.layers.index(sums)].parameters()):
        values += torch.randn_like(values)
    learnt = taught.weight[0, 7].clone(), taught.bias[0, 7].clone()
    save_model(net, tmp_path / "learnt.safetensors")
    save_model(flat, tmp_path / "flat.safetensors")
    (tmp_path / "ids").write_text("\n".join(LABELS))
    files = {"start": "learnt.safetensors", "trunk": "flat.safetensors", "known": "ids"}
    config = ModelConfig(**{key: str(tmp_path / name) for key, name in files.items()})
    again, _, _ = build_network(config, [])
    rows = again.layers[-1].rows
    assert torch.equal(rows.weight[0, 7], learnt[0]) and torch.equal(rows.bias[0, 7], learnt[1])
    after = again.lazy(images).dense()
    others = [c for c in range(before.shape[1]) if c % (5 + 12) != 5 + 7]
    assert torch.equal(after[:, others], before[:, others])
    save_model(Network(presets.tiny_yolov2(3, image_size=32, slim=0.05)), tmp_path / "flat list.safetensors")
    with pytest.raises(TrainingError, match="wants a network over a tree"):
        build_network(replace(config, start=str(tmp_path / "flat list.safetensors")), [])
    with pytest.raises(TrainingError, match=r"model\.trunk is the start of a preset"):
        ModelConfig(start="a", trunk="b")


@torch.no_grad()
def test_without_sums_only_rows_of_known_leaves_are_set():
    flat = classifier()
    net = Network(presets.tiny9000(TREE, ANCHORS, neck=8, dilations=(1,), image_size=64), TREE)
    assert copy_class_rows(flat, KNOWN, net, TREE) == len(KNOWN)
    weight, bias = last_rows(flat)
    rows = net.layers[-1].rows
    for k, node in enumerate(KNOWN):
        assert torch.equal(rows.weight[0, node], weight[k]) and rows.bias[0, node] == bias[k]
    assert not rows.weight[0, [0, 1, 3, 7, 8]].any()


@torch.no_grad()
def test_the_teacher_gives_sums_over_classes():
    flat = classifier()
    features = torch.randn(5, 128)
    weight, bias = last_rows(flat)
    p = (features @ weight.T + bias).softmax(-1)
    torch.testing.assert_close(Teacher(flat, LABELS, TREE, STORED)(features), by_hand(p, KNOWN, TREE, STORED))
    outside = ["n99999999", *LABELS[1:]]  # its opinion of a class that the tree has not is left out
    found = Teacher(flat, outside, TREE, STORED)(features)
    torch.testing.assert_close(found, by_hand(p[:, 1:], KNOWN[1:], TREE, STORED))
    with pytest.raises(TrainingError, match="7 classes, its list of labels 2"):
        Teacher(flat, LABELS[:2], TREE, STORED)


def test_the_tree_of_the_stored_nodes():
    small = stored_tree(TREE, STORED)
    assert small.ids == tuple(TREE.ids[k] for k in STORED)
    for k, node in enumerate(STORED):
        assert small.path(k) == TREE.path(node)
    assert stored_tree(TREE, range(len(TREE))).fingerprint == TREE.fingerprint
    with pytest.raises(TrainingError, match="ancestors"):
        stored_tree(TREE, (0, 8))


@pytest.mark.parametrize("twin", [1, 4, 9, 14, 17])
@torch.no_grad()
def test_the_twin_begins_as_the_trunk_and_the_trunk_stays_when_it_learns(twin):
    flat, net = started(twin=twin)
    last = next(i for i, layer in enumerate(net.spec) if getattr(layer, "twin_of", None) == 18)
    images = torch.rand(2, 3, 64, 64)
    found = net.outputs(images, (18, last))
    torch.testing.assert_close(found[last], found[18], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[18], flat.outputs(images, (18,))[18])
    for parameter in net.freeze(19).train().parameters():
        if parameter.requires_grad:  # what begins at zero lets no gradient through in the first step
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    task = DistillTask(net, TREE, flat, LABELS, per_picture=3, boxes=True)
    with torch.enable_grad():
        task.loss(net, batch(boxes=True))["loss"].backward()
    learns = {name.split(".")[1] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    convolutions = {str(i) for i, layer in enumerate(net.spec) if getattr(layer, "twin_of", None) is not None}
    assert convolutions <= learns and not learns & {str(i) for i in range(19)}


def test_a_twin_of_another_kind_is_refused():
    for twin in (-1, 18, 40):
        with pytest.raises(ModelError, match="twin must be one of"):
            presets.tiny9000(TREE, ANCHORS, twin=twin)
    spec = detector(twin=14).spec
    twins = [i for i, layer in enumerate(spec) if getattr(layer, "twin_of", None) is not None]
    for change in ({"twin_of": 1}, {"batch_normalize": True}, {"twin_of": 15}):
        layers = list(spec.layers)
        layers[twins[0]] = replace(layers[twins[0]], **change)
        with pytest.raises(TrainingError, match=f"layer {twins[0]} cannot be the twin of layer"):
            copy_trunk(classifier(), Network(replace(spec, layers=tuple(layers)), TREE))
    with pytest.raises(TrainingError, match="only together with boxes"):
        DistillTask(detector(twin=4), TREE, classifier(), LABELS)


def test_class_branch_is_the_average_and_its_addition():
    net = detector()
    averaged, joined = class_branch(net)
    assert isinstance(net.spec.layers[averaged], AveragePool) and joined == net.feature_layer
    with pytest.raises(TrainingError, match="average plus a difference"):
        class_branch(classifier())


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("trust", [False, True])
def test_losses_are_finite_and_teach_what_they_should(boxes, trust):
    flat, net = started()
    net.freeze(19).train()
    task = DistillTask(net, TREE, flat, LABELS, windows=(2, 3, 9), per_picture=3, boxes=boxes, trust=trust)
    with torch.no_grad():
        net.layers[-1].rows.weight.add_(0.05 * torch.randn_like(net.layers[-1].rows.weight))
    losses = task.loss(net, batch(boxes))
    assert all(math.isfinite(float(value.detach())) for value in losses.values() if value.requires_grad)
    names = {"loss", "teacher"} | ({"box", "classification"} if boxes else {"labels"})
    assert names <= losses.keys() and float(losses["teacher"].detach()) > 0
    losses["loss"].backward()
    touched = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    sums = next(i for i, layer in enumerate(net.spec) if isinstance(layer, LogSumExp))
    assert {f"layers.{len(net.spec) - 1}.rows.weight", f"layers.{sums}.weight"} <= touched
    assert not any(int(name.split(".")[1]) < 19 for name in touched)
    box_layer = f"layers.{net.spec.region.boxes}.conv.weight"
    assert (box_layer in touched) == boxes  # without boxes only class layers learn


def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn_from_it():
    flat, net = started()
    task = DistillTask(net, TREE, flat, LABELS, windows=(2,), label_weight=0, trust=False)
    losses = task.loss(net, batch())
    assert float(losses["loss"].detach()) == pytest.approx(0, abs=1e-4)
    losses["loss"].backward()
    assert float(net.layers[-1].rows.weight.grad.abs().max()) < 1e-4


@pytest.mark.parametrize("boxes", [False, True])
def test_learning_brings_a_student_near_its_teacher(boxes):
    flat, net = started()
    with torch.no_grad():
        net.layers[-1].rows.weight.normal_(0, 0.1)
    net.freeze(19).train()
    task = DistillTask(net, TREE, flat, LABELS, windows=(2,), label_weight=0, boxes=boxes, trust=False)
    optimiser = torch.optim.Adam(net.layers[-1].parameters(), 0.05)
    seen = []
    for _ in range(40):
        losses = task.loss(net, batch(boxes))
        optimiser.zero_grad()
        losses["teacher"].backward()
        optimiser.step()
        seen.append(float(losses["teacher"].detach()))
    assert seen[-1] < 0.2 * seen[0]


def test_a_teacher_is_trusted_as_far_as_it_believes_the_label():
    flat, net = started()
    with torch.no_grad():
        net.layers[-1].rows.weight.add_(torch.randn_like(net.layers[-1].rows.weight))
    few = batch()
    settings = {"windows": (2,), "label_weight": 0}
    losses = {}
    for trust in (False, True):
        torch.manual_seed(2)
        task = DistillTask(net, TREE, flat, LABELS, trust=trust, **settings)
        losses[trust] = float(task.loss(net, few)["teacher"].detach())
    assert 0 < losses[True] < losses[False]
    unlabelled = Batch(0, few.images, [few.targets[2]] * 3, few.names, few.parts)
    torch.manual_seed(2)
    trusted = DistillTask(net, TREE, flat, LABELS, **settings).loss(net, unlabelled)
    torch.manual_seed(2)
    plain = DistillTask(net, TREE, flat, LABELS, trust=False, **settings).loss(net, few)
    torch.testing.assert_close(trusted["teacher"], plain["teacher"])


def test_labels_outside_the_stored_nodes_teach_nothing():
    flat, net = started()
    task = DistillTask(net, TREE, flat, LABELS, windows=())
    few = batch()
    outside = Batch(0, few.images, [{"image_labels": torch.tensor([7])}] * 3, few.names, few.parts)
    losses = task.loss(net, outside)
    assert "labels" not in losses and math.isfinite(float(losses["loss"].detach()))


def test_networks_of_another_form_are_refused():
    flat = classifier()
    with pytest.raises(TrainingError, match="average plus a difference"):
        DistillTask(Network(presets.yolo9000(TREE, slim=0.02), TREE), TREE, flat, LABELS)
    apart = detector(shared=False)
    with pytest.raises(TrainingError, match="share"):
        DistillTask(apart, TREE, flat, LABELS)


def test_features_of_one_picture_in_a_line_are_judged_alike():
    """The trick of `loss`, a batch of windows as one picture one row high, changes no logit."""
    _, net = started()
    features = torch.randn(6, 128)
    line = net.lazy_from(torch.zeros(1, 10, 1, 6), features.T[None, :, None])
    assert isinstance(line, LazyOutput)
    zero = torch.zeros(6, dtype=torch.long)
    logits = line.logits(zero, zero, zero, torch.arange(6))
    for k in range(6):
        alone = net.lazy_from(torch.zeros(1, 10, 1, 1), features[k][None, :, None, None])
        torch.testing.assert_close(alone.logits(*[torch.zeros(1, dtype=torch.long)] * 4)[0], logits[k])
