"""A twin of the trunk: two experts for names and a gate; all that was there stays, only the twin learns."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from tests.yolo9000.test_distill import KNOWN, LABELS, batch, classifier, detector, started
from tests.yolo9000.test_loss import TREE
from yolo9000 import presets
from yolo9000.config import ModelConfig, OptimiserConfig
from yolo9000.detector import Detector
from yolo9000.distill import DistillTask, class_branch
from yolo9000.errors import TrainingError
from yolo9000.layers import AveragePool, Convolution, GlobalAveragePool, RoiAverage
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.optim import make_optimiser
from yolo9000.start import follow_boxes
from yolo9000.twin import add_box_twin, add_twin, hold_first_expert, hold_second_expert


def gate_of(made: Network) -> torch.nn.Conv2d:
    """The convolution that says how far the second expert is heard."""
    return made.layers[made.spec.inputs(made.feature_layer)[-1] - 1].conv


def difference_learnt(net: Network) -> Network:
    """Some difference, as training makes: a new one is zero."""
    torch.manual_seed(3)
    torch.nn.init.normal_(net.layers[class_branch(net)[1] - 1].conv.weight, 0, 0.1)
    return net


@pytest.mark.parametrize("first", [1, 4, 9, 14, 18])
@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_it_says_at_first_what_the_detector_says(first, shared):
    net = difference_learnt(started(shared=shared)[1])
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(add_twin(net, first)(images), net(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_gate_decides_between_two_experts():
    """Logits by hand, of a twin that has learnt: its last layer says the double."""
    net = difference_learnt(started()[1])
    made = add_twin(net, 9)
    images = torch.rand(2, 3, 64, 96)
    averaged, own = class_branch(net)
    copy = [i for i, s in enumerate(made.spec) if isinstance(s, AveragePool)][-1] - 1
    for values in made.layers[copy].parameters():  # positively homogeneous: leaky
        values *= 2
    maps = net.outputs(images, (averaged, own))
    gate = gate_of(made)
    for bias, share in ((1e4, 1.0), (-1e4, 0.0), (0.0, 0.5)):
        gate.bias.fill_(bias)
        features = maps[own] + share * maps[averaged]
        expected = net.lazy_from(net.lazy(images).boxes, features).dense()
        torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_sums_of_evidence_too():
    torch.manual_seed(1)
    net = Network(presets.tiny9000(TREE, ((1.5, 2.0),), neck=8, dilations=(1, 2), branch=16), TREE).eval()
    net.layers[-1].rows.weight.normal_()
    made = add_twin(net, 9)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(made(images), net(images), rtol=1e-4, atol=1e-4)


def test_only_the_twin_the_gate_and_the_rows_learn_and_boxes_stay():
    flat, net = started()
    made = add_twin(difference_learnt(net).fuse(), 9)
    begin = class_branch(net)[1] + 1
    made.freeze(begin).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        boxes = net.eval().lazy(images).boxes
    task = DistillTask(made, TREE, flat, LABELS, per_picture=3, boxes=True)
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.01)
    for _ in range(3):  # a gate between equals learns nothing, nor what stands before a convolution of zeros
        optimizer.zero_grad()
        task.loss(made, batch(boxes=True))["loss"].backward()
        optimizer.step()
    changed = {int(k.split(".")[1]) for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    learning = {i for i, s in enumerate(made.spec) if i >= begin and isinstance(s, Convolution)}
    assert learning and learning <= changed and min(changed) >= begin
    with torch.no_grad():
        torch.testing.assert_close(made.eval().lazy(images).boxes, boxes, rtol=1e-4, atol=1e-5)


def test_the_first_expert_held_names_stay_where_the_gate_hears_it():
    flat, net = started()
    difference_learnt(net)
    made = add_twin(net, 9)
    made.freeze(class_branch(net)[1] + 1).train()
    hold_first_expert(made)
    task = DistillTask(made, TREE, flat, LABELS, per_picture=3, boxes=True)
    optimiser = make_optimiser(made, OptimiserConfig(name="adamw", lr=0.01, weight_decay=0.0))
    for _ in range(3):
        optimiser.zero_grad()
        task.loss(made, batch(boxes=True))["loss"].backward()
        optimiser.step()
    images = torch.rand(2, 3, 64, 64)
    gate = gate_of(made.eval())
    with torch.no_grad():
        before = net.eval()(images)
        gate.bias.fill_(-1e4)
        torch.testing.assert_close(made(images), before, rtol=1e-5, atol=1e-5)
        gate.bias.fill_(1e4)
        assert not torch.allclose(made(images), before, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "shares, runs", [((-3.0, -3.1), 0), ((-3.1, 0.0), 1), ((-2.9, -3.1), 1), ((3.0, 3.0), 1)]
)
def test_a_twin_that_no_gate_hears_does_not_run(shares, runs):
    """What is said is the same as where something could learn; then it runs."""
    made = add_twin(difference_learnt(started()[1]), 9)
    twin = next(i for i, layer in enumerate(made.spec) if getattr(layer, "twin_of", None) == 9)
    ran = []
    made.layers[twin].register_forward_hook(lambda *_: ran.append(twin))
    said = torch.tensor(shares).view(2, 1, 1, 1)
    gate_of(made).register_forward_hook(lambda module, given, found: said.expand_as(found))
    images = torch.rand(2, 3, 64, 96)
    running = made(images)
    assert ran == [twin]
    with torch.no_grad():
        assert torch.equal(made(images), running)
    assert len(ran) == 1 + runs


@torch.no_grad()
def test_the_teacher_judges_what_the_trunk_sees():
    made = add_twin(started()[1], 9)
    images = torch.rand(1, 3, 64, 64)
    averaged, gate = class_branch(made)
    trunk = made.outputs(images, (18, averaged))
    expected = avg_pool2d(trunk[18], 7, 1, 3, count_include_pad=False)
    torch.testing.assert_close(trunk[averaged], expected, rtol=1e-5, atol=1e-6)
    assert gate == made.feature_layer


@torch.no_grad()
def test_the_gate_learns_to_hear_the_twin_where_the_teacher_does_not_judge():
    """Its cross entropy by hand, for a batch of two parts; undecided it is log 2 for each picture."""
    flat, net = started()
    made = add_twin(net, 9)
    task = DistillTask(made, TREE, flat, LABELS, boxes=True, parts=[1], gate_weight=3.0)
    given = batch(boxes=True)
    given.parts = torch.tensor([0, 1, 1])
    one = math.log(2)
    found = task.loss(made, given)
    torch.testing.assert_close(found["gate"], torch.tensor((one + 9 * one + 9 * one) / 3))
    gate_of(made).bias.fill_(2.0)
    moved = task.loss(made, given)
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    torch.testing.assert_close(moved["gate"], torch.tensor((right + 18 * wrong) / 3))
    others = DistillTask(made, TREE, flat, LABELS, boxes=True, parts=[1]).loss(made, given)
    torch.testing.assert_close(moved["loss"] - 3 * moved["gate"], others["loss"], rtol=1e-3, atol=1e-3)


def test_a_gate_that_is_not_there_or_has_no_parts_to_tell_apart():
    flat, net = started()
    for made, parts in ((net, [0]), (add_twin(net, 9), None)):
        with pytest.raises(
            TrainingError, match=r"gate_weight needs a network with a twin, and distill\.parts"
        ):
            DistillTask(made, TREE, flat, LABELS, boxes=True, parts=parts, gate_weight=1.0)


def test_a_twin_goes_through_a_file_and_detects(tmp_path):
    made = add_twin(difference_learnt(started()[1]), 9)
    save_model(made, tmp_path / "twin.safetensors")
    read = load_model(tmp_path / "twin.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(images), read(images))
        torch.testing.assert_close(read.fuse()(images), made(images), rtol=1e-4, atol=1e-4)
    detector = Detector(read, precision="float32")
    assert len(detector(torch.zeros(60, 60, 3, dtype=torch.uint8).numpy(), threshold=0.0, size=64))


def boxes_learnt() -> Network:
    """A detector with a twin for names whose boxes depend on the picture, as a new one's do not."""
    net = difference_learnt(started()[1])
    torch.nn.init.normal_(net.layers[net.spec.region.boxes].conv.weight, 0, 0.3)
    return add_twin(net, 9)


def both_twins() -> Network:
    """A twin for names and one for boxes, which have learnt: they say something else than their models."""
    made = add_box_twin(boxes_learnt())
    for layer, module in zip(made.spec, made.layers, strict=True):
        if getattr(layer, "twin_of", None) is not None:
            torch.nn.init.normal_(module.conv.bias, 0, 0.3)
    return made.eval()


@torch.no_grad()
def test_with_a_twin_for_boxes_too_the_same_is_said_at_first():
    made = boxes_learnt()
    images = torch.rand(2, 3, 64, 96)
    both = add_box_twin(made)
    torch.testing.assert_close(both(images), made(images), rtol=1e-4, atol=1e-4)


def test_a_box_twin_that_no_gate_hears_does_not_run_and_changes_nothing():
    made, both, images, ran = boxes_learnt(), both_twins(), torch.rand(2, 3, 64, 96), []
    for layer, module in zip(both.spec, both.layers, strict=True):
        if getattr(layer, "twin_of", None) is not None:
            module.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        made.layers[made.spec.layers.index(GlobalAveragePool()) - 1].conv.bias.fill_(-1e4)
        gate_of(both).bias.fill_(-1e4)
        torch.testing.assert_close(both(images), made(images), rtol=1e-5, atol=1e-5)
        assert not ran
        for wanted in (both.spec.region.boxes, both.feature_layer):  # one of the two gates
            both.outputs(images, (wanted,))
        assert not ran
        gate_of(both).bias.fill_(1e4)
        heard = both.lazy(images)
        assert len(ran) == sum(getattr(layer, "twin_of", None) is not None for layer in both.spec)
        for found, first in (
            (heard.boxes, made.lazy(images).boxes),
            (heard.features, made.lazy(images).features),
        ):
            assert (found - first).abs().max() > 0.01


def test_of_two_experts_for_boxes_the_first_is_held():
    both = both_twins()
    begin = both.spec.layers.index(both.spec.region) - 1  # the last layer before: boxes
    both.freeze(class_branch(started()[1])[1] + 1).train()
    hold_first_expert(both)
    flat, _ = started()
    optimiser = make_optimiser(both, OptimiserConfig(name="adamw", lr=0.01, weight_decay=0.0))
    before = both.layers[begin].conv.weight.detach().clone()
    DistillTask(both, TREE, flat, LABELS, boxes=True).loss(both, batch(boxes=True))["loss"].backward()
    optimiser.step()
    after, half = both.layers[begin].conv.weight.detach(), before.shape[1] // 2
    assert torch.equal(after[:, :half], before[:, :half])
    assert not torch.equal(after[:, half:], before[:, half:])


def test_of_two_experts_the_second_is_held_and_rests_where_it_is_not_heard():
    """Where the gate hears the second alone, names and boxes stay what they were; the gate itself, too."""
    flat, _ = started()
    both = both_twins().fuse().train()  # no batch norm: its statistics follow the data, held or not
    hold_second_expert(both)
    images, gate = torch.rand(2, 3, 64, 64), gate_of(both)
    weights = {name: value.clone() for name, value in both.state_dict().items()}

    def heard(only: float) -> torch.Tensor:
        kept = gate.bias.detach().clone()
        with torch.no_grad():
            gate.bias.fill_(only)
            said = both.eval()(images)
            gate.bias.copy_(kept)
        return said

    second, first = heard(1e4), heard(-1e4)
    ran = []
    twin = next(i for i, layer in enumerate(both.spec) if getattr(layer, "twin_of", None) == 9)
    both.layers[twin].register_forward_hook(lambda *_: ran.append(twin))
    task = DistillTask(both, TREE, flat, LABELS, boxes=True)
    optimiser = make_optimiser(both, OptimiserConfig(name="adamw", lr=0.01, weight_decay=0.0))
    both.train()
    task.loss(both, batch(boxes=True))["loss"].backward()
    optimiser.step()
    changed = {name for name, value in both.state_dict().items() if not torch.equal(value, weights[name])}
    assert any(name.startswith("layers.20.") for name in changed)  # the first's neck
    ran.clear()
    assert torch.equal(heard(1e4), second) and not torch.allclose(heard(-1e4), first, atol=1e-3)
    assert len(ran) == 1
    gate.bias.data.fill_(-1e4)
    ran.clear()
    both.train()(images).sum().backward()
    assert not ran


@torch.no_grad()
def test_windows_of_the_first_of_two_experts_follow_its_own_boxes():
    one = boxes_learnt()
    images = torch.rand(2, 3, 64, 96)
    both = add_box_twin(one)
    torch.testing.assert_close(
        follow_boxes(both, 3)(images), follow_boxes(one, 3)(images), rtol=1e-5, atol=1e-5
    )
    heard, own = follow_boxes(both_twins(), 3), one.spec.region.boxes
    assert [layer.boxes for layer in heard.spec if isinstance(layer, RoiAverage)] == [own]
    both.layers[both.spec.region.boxes].conv.bias += 0.1
    with pytest.raises(TrainingError, match="have learnt since"):
        follow_boxes(both, 3)


def test_a_twin_beside_windows_that_follow_boxes_looks_at_fixed_ones():
    followed = follow_boxes(difference_learnt(started()[1]), 4)
    made = add_twin(followed, 9)
    windows = [layer for layer in made.spec if isinstance(layer, AveragePool | RoiAverage)]
    assert [type(layer) for layer in windows] == [RoiAverage, AveragePool] and windows[1].size == 5
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        gate_of(made).bias.fill_(-1e4)
        torch.testing.assert_close(made(images), followed.eval()(images), rtol=1e-5, atol=1e-5)


def test_a_box_twin_of_another_network_is_refused():
    for net in (detector(), both_twins(), classifier(len(KNOWN))):
        with pytest.raises(TrainingError, match="a twin for names and none for boxes"):
            add_box_twin(net)


@pytest.mark.parametrize("first", [-1, 0, 19, 40])
def test_a_layer_that_is_not_the_trunks(first):
    with pytest.raises(TrainingError, match="one of the trunk's layers, 1 to 18"):
        add_twin(detector(), first)


def test_networks_of_another_kind():
    with pytest.raises(TrainingError, match="has no twin yet"):
        add_twin(add_twin(detector(), 9), 9)
    with pytest.raises(TrainingError, match="an average plus a difference"):
        add_twin(classifier(len(KNOWN)), 9)
    with pytest.raises(TrainingError, match="leave neither expert to learn"):
        ModelConfig(start="x.safetensors", hold=True, hold_second=True)
    for hold in (hold_first_expert, hold_second_expert):
        with pytest.raises(TrainingError, match="one of two experts"):
            hold(detector())
    with pytest.raises(TrainingError, match="only together with boxes"):
        DistillTask(add_twin(detector(), 9), TREE, classifier(), LABELS)
