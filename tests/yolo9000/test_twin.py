"""A twin of the trunk: what was there stays, what is known is known to both halves, only the twin learns."""

import pytest
import torch

from tests.yolo9000.test_distill import KNOWN, LABELS, batch, classifier, detector, started
from tests.yolo9000.test_loss import TREE
from yolo9000 import presets
from yolo9000.detector import Detector
from yolo9000.distill import DistillTask
from yolo9000.errors import TrainingError
from yolo9000.layers import Convolution, Route
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.twin import add_twin


@pytest.mark.parametrize("first", [1, 4, 9, 14, 18])
@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_averaged_like_the_trunk_it_says_at_first_what_the_detector_says(first, shared):
    _, net = started(shared=shared)
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(add_twin(net, first, pool=7)(images), net(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_sums_of_evidence_too():
    torch.manual_seed(1)
    net = Network(presets.tiny9000(TREE, ((1.5, 2.0),), neck=8, dilations=(1, 2), branch=16), TREE).eval()
    net.layers[-1].rows.weight.normal_()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(add_twin(net, 9, pool=7)(images), net(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_class_rows_read_the_trunk_the_twin_and_the_sums():
    """The logits by hand, from each half's own features; nothing learnt, windows of 3 x 3."""
    _, net = started()
    twin = add_twin(net, 9, pool=3)
    images = torch.rand(1, 3, 64, 64)
    trunk = net.outputs(images, (18, net.feature_layer))
    averaged = torch.nn.functional.avg_pool2d(trunk[18], 3, 1, 1, count_include_pad=False)
    mean = (trunk[net.feature_layer] + averaged) / 2
    expected = net.lazy_from(net.lazy(images).boxes, mean).dense()
    torch.testing.assert_close(twin(images), expected, rtol=1e-4, atol=1e-4)


def test_only_the_twin_and_the_rows_learn_and_boxes_stay():
    flat, net = started()
    made = add_twin(net.fuse(), 9)
    begin = made.spec.layers.index(Route((8,)), net.feature_layer)
    made.freeze(begin).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        boxes = net.eval().lazy(images).boxes
    task = DistillTask(made, TREE, flat, LABELS, per_picture=3, boxes=True)
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.01)
    task.loss(made, batch(boxes=True))["loss"].backward()
    optimizer.step()
    changed = {int(k.split(".")[1]) for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    learning = {i for i, s in enumerate(made.spec) if i > begin and isinstance(s, Convolution)}
    assert learning and learning <= changed and min(changed) > begin
    with torch.no_grad():
        torch.testing.assert_close(made.eval().lazy(images).boxes, boxes, rtol=1e-4, atol=1e-5)


def test_a_twin_goes_through_a_file_and_detects(tmp_path):
    made = add_twin(started()[1], 9)
    save_model(made, tmp_path / "twin.safetensors")
    read = load_model(tmp_path / "twin.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(images), read(images))
    detector = Detector(read, precision="float32")
    assert len(detector(torch.zeros(60, 60, 3, dtype=torch.uint8).numpy(), threshold=0.0, size=64))


@pytest.mark.parametrize("first", [-1, 0, 19, 40])
def test_a_layer_that_is_not_the_trunks(first):
    with pytest.raises(TrainingError, match="here 1 to 18"):
        add_twin(detector(), first)


def test_networks_of_another_kind():
    with pytest.raises(TrainingError, match="has none yet"):
        add_twin(add_twin(detector(), 9), 9)
    with pytest.raises(TrainingError, match="an average plus a difference"):
        add_twin(classifier(len(KNOWN)), 9)
    with pytest.raises(TrainingError, match="only together with boxes"):
        DistillTask(add_twin(detector(), 9), TREE, classifier(), LABELS)
