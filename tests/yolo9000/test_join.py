"""yolo9000.join and `yolo9000 average --twins`: one detector with the twins of several."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from tests.yolo9000.test_distill import classifier, detector, started
from tests.yolo9000.test_loss import TREE
from tests.yolo9000.test_twin import boxes_learnt, difference_learnt, gate_of
from yolo9000 import presets
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.join import join_twins, mirror_twin
from yolo9000.layers import Convolution, LogSumExp, MaxPool
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.twin import add_box_twin, add_twin, hold_first_expert, hold_second_expert


def learnt(seed: int, box_twin: bool = False, first: int = 9) -> Network:
    """A detector whose twin, its readers' weights for it and its gate have learnt, each seed something else.
    Without a twin for boxes all say the same boxes."""
    net = difference_learnt(started()[1])
    torch.manual_seed(4)
    torch.nn.init.normal_(net.layers[net.spec.region.boxes].conv.weight, 0, 0.3)
    made = add_twin(net, first)
    own = made.spec.outputs[made.feature_layer].channels // 2
    torch.manual_seed(seed)
    with torch.no_grad():
        for layer, module in zip(made.spec, made.layers, strict=True):
            if getattr(layer, "twin_of", None) is not None:
                module.conv.bias.normal_(0, 0.3)
            readers = [module.rows] if module is made.layers[-1] else []
            for reader in readers + ([module] if isinstance(layer, LogSumExp) else []):
                twin = reader.weight[..., own : 2 * own]
                twin += torch.randn_like(twin) * 0.1
    return (add_box_twin(made) if box_twin else made).eval()


def leaf_logits(net: Network, images: torch.Tensor) -> torch.Tensor:
    """Logits of the stored rows from the experts' features alone, without sums of evidence: (N, H, W, K)."""
    said = net.lazy(images)
    features = said.features.movedim(1, -1)  # (N, D, H, W) -> (N, H, W, D)
    return linear(features, said.weight[0, :, : features.shape[-1]], said.bias[0])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("box_twin", [False, True])
@torch.no_grad()
def test_where_twins_are_heard_logits_are_the_means_of_theirs_and_boxes_the_firsts(count, box_twin):
    nets = [learnt(seed, box_twin and seed == 0) for seed in range(count)]
    joined, dropped = join_twins(nets)
    assert not dropped and not joined.training
    images = torch.rand(2, 3, 64, 96)
    for bias in (-1e4, 0.0, 1e4):
        for net in (joined, *nets):
            gate_of(net).bias.fill_(bias)
            gate_of(net).weight.zero_()
        assert torch.equal(joined.lazy(images).boxes, nets[0].lazy(images).boxes)
        expected = sum(leaf_logits(net, images) for net in nets) / count
        torch.testing.assert_close(leaf_logits(joined, images), expected, rtol=1e-4, atol=1e-4)
    twice = join_twins([nets[0], nets[0]])[0]
    torch.testing.assert_close(twice(images), nets[0](images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mirrored", [False, True])
@torch.no_grad()
def test_boxes_are_the_means_of_those_that_have_a_twin_for_them(mirrored):
    nets = [learnt(0, box_twin=True), learnt(1), learnt(2, box_twin=True), learnt(3, box_twin=True)]
    for seed, net in enumerate(nets):
        torch.manual_seed(10 + seed)
        for layer, module in zip(net.spec, net.layers, strict=True):
            if getattr(layer, "twin_of", None) is not None:
                module.conv.bias.normal_(0, 0.3)
    images = torch.rand(2, 3, 64, 96)
    joined = join_twins([mirror_twin(net) for net in nets] if mirrored else nets)[0]
    for bias in (-1e4, 0.0, 1e4):
        for net in (joined, *nets):
            gate_of(net).bias.fill_(bias)
            gate_of(net).weight.zero_()
        raw = [net.lazy(images).boxes for net in nets]
        torch.testing.assert_close(joined.lazy(images).boxes, (raw[0] + raw[2] + raw[3]) / 3)
    assert (raw[0] - raw[2]).abs().max() > 0.01
    assert torch.equal(join_twins(nets[1:])[0].lazy(images).boxes, nets[1].lazy(images).boxes)


@torch.no_grad()
def test_the_firsts_gate_decides_and_twins_that_it_does_not_hear_do_not_run():
    nets = [learnt(0, box_twin=True), learnt(1), learnt(2, box_twin=True)]
    gate_of(nets[0]).bias.fill_(-1e4)
    gate_of(nets[2]).bias.fill_(1e4)
    joined, ran = join_twins(nets)[0], []
    for layer, module in zip(joined.spec, joined.layers, strict=True):
        if getattr(layer, "twin_of", None) is not None:
            module.register_forward_hook(lambda *_: ran.append(1))
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.rand(2, 3, 64, 96).contiguous(memory_format=layout)
        torch.testing.assert_close(joined(images), nets[0](images), rtol=1e-5, atol=1e-5)
    assert not ran
    gate_of(joined).bias.fill_(1e4)
    joined(images)
    assert len(ran) == sum(getattr(layer, "twin_of", None) is not None for layer in joined.spec)


@torch.no_grad()
def test_without_sums_of_evidence_too():
    torch.manual_seed(1)
    net = Network(presets.tiny9000(TREE, ((1.5, 2.0),), neck=8, dilations=(1, 2), branch=16), TREE).eval()
    nets = [add_twin(net, 9), add_twin(net, 9)]
    for values in nets[1].layers[-1].parameters():
        values[..., -5:] += 0.1  # of the twin's weights
    nets[1].layers[-1].rows.bias.copy_(nets[0].layers[-1].rows.bias)
    images = torch.rand(1, 3, 64, 64)
    expected = (leaf_logits(nets[0], images) + leaf_logits(nets[1], images)) / 2
    joined = join_twins(nets)[0]
    torch.testing.assert_close(leaf_logits(joined, images), expected, rtol=1e-4, atol=1e-4)


def test_either_expert_of_a_joined_network_can_be_held():
    """Where the first is held weights for all twins learn, and the other way round."""
    for hold, learns in ((hold_first_expert, 1), (hold_second_expert, 0)):
        joined = join_twins([learnt(0), learnt(1)])[0].train()
        hold(joined)
        own = joined.spec.outputs[joined.feature_layer].channels // 3
        weight = joined.layers[-1].rows.weight
        joined(torch.rand(1, 3, 64, 64)).square().sum().backward()
        first, twins = weight.grad[..., :own], weight.grad[..., own : 3 * own]
        assert bool(first.any()) == (learns == 0) and bool(twins.any()) == (learns == 1)


def test_the_command_writes_a_file_that_detects(run, tmp_path):
    nets = [learnt(0, box_twin=True), learnt(1)]
    nets[0].defaults = {"size": 64, "lambdas": [0.5], "threshold": 0.0}
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for net, path in zip(nets, paths, strict=True):
        save_model(net, path, {"licence": "MIT"}, dtype="float16" if net is nets[0] else "float32")
    out = tmp_path / "joined.safetensors"
    status, text, error = run("average", "--twins", *paths, "--out", out)
    assert status == 0, error
    assert "lambdas (yolo9000 calibrate)" in text and "the twins of 2 models written to" in text
    read = load_model(out)
    assert read.record["twins_of"] == ["a.safetensors", "b.safetensors"] and read.record["licence"] == "MIT"
    assert read.defaults == {"size": 64, "threshold": 0.0}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = join_twins([load_model(path) for path in paths])[0](images)
        assert torch.equal(read(images), expected)
        torch.testing.assert_close(read.fuse()(images), expected, rtol=1e-4, atol=1e-4)
    status, _, error = run("average", "--twins", "--mirrored", *paths, "--out", tmp_path / "m.safetensors")
    assert status == 0, error
    nets = [mirror_twin(load_model(path)) for path in paths]
    assert load_model(tmp_path / "m.safetensors").spec == join_twins(nets)[0].spec
    status, _, error = run("average", "--mirrored", *paths, "--out", out)
    assert status == 2 and "--mirrored is for --twins" in error
    detections = Detector(read, precision="float32")(torch.zeros(60, 60, 3, dtype=torch.uint8).numpy())
    assert len(detections)


@pytest.mark.parametrize("first", [1, 4, 9, 18])
@torch.no_grad()
def test_a_mirrored_twin_says_the_mean_of_what_it_says_of_both_pictures(first):
    """By turning pixels: features of a picture and of its mirror image, the difference between the experts'
    features left out, which is not the twin's."""
    net = learnt(0, box_twin=True, first=first)
    mirrored, images = mirror_twin(net), torch.rand(2, 3, 64, 96)
    for k in (net, mirrored):
        gate_of(k).bias.fill_(1e4)
        k.layers[net.spec.layers[net.feature_layer - 1].layer].conv.weight.zero_()
    own = net.spec.outputs[net.feature_layer].channels // 2
    seen, turned = (net.lazy(pixels).features[:, own:] for pixels in (images, images.flip(-1)))
    said = mirrored.lazy(images)
    torch.testing.assert_close(said.features[:, own:], (seen + turned.flip(-1)) / 2, rtol=1e-4, atol=1e-5)
    assert torch.equal(said.boxes, net.lazy(images).boxes)
    again = mirrored.lazy(images.flip(-1)).features[:, own:]
    torch.testing.assert_close(again.flip(-1), said.features[:, own:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mirrored_twins_joined_say_the_mean_too_and_rest_together():
    nets = [mirror_twin(learnt(seed, box_twin=seed == 0)) for seed in range(2)]
    joined, images = join_twins(nets)[0], torch.rand(1, 3, 64, 96)
    for net in (joined, *nets):
        gate_of(net).bias.fill_(1e4)
    expected = (leaf_logits(nets[0], images) + leaf_logits(nets[1], images)) / 2
    torch.testing.assert_close(leaf_logits(joined, images), expected, rtol=1e-4, atol=1e-4)
    ran = []
    gate_of(joined).bias.fill_(-1e4)
    begin = joined.spec.layers[joined.feature_layer].share + 1
    for layer, module in zip(joined.spec.layers[begin:], joined.layers[begin:], strict=True):
        if isinstance(layer, Convolution) and layer != joined.spec.layers[joined.spec.region.boxes]:
            module.register_forward_hook(lambda *_: ran.append(1))
    joined(images)
    assert not ran


def test_twins_that_have_no_mirror_image():
    def changed(change) -> Network:
        net = learnt(0)
        layers = [change(layer) if getattr(layer, "twin_of", None) else layer for layer in net.spec.layers]
        return Network(replace(net.spec, layers=tuple(layers)), net.tree)

    once = mirror_twin(learnt(0))
    for net, message in (
        (started()[1], "model 1 has no twin"),
        (once, "mirror image already"),
        (join_twins([once, once])[0], "several twins"),
        (changed(lambda layer: replace(layer, activation="silu")), "ends in convolution cannot be halved"),
    ):
        with pytest.raises(ModelError, match=message):
            mirror_twin(net)
    pools = learnt(0).spec
    layers = [MaxPool(3, 2) if layer == MaxPool(2, 2) else layer for layer in pools.layers]
    with pytest.raises(ModelError, match=r"\(maxpool\) cannot be mirrored"):
        mirror_twin(Network(replace(pools, layers=tuple(layers)), learnt(0).tree))


def test_twins_that_cannot_be_joined():
    one = learnt(0)
    for nets, message in (
        ([], "two models or more"),
        ([one], "two models or more"),
        ([one, started()[1]], "model 2 has no twin"),
        ([classifier(), one], "model 1 has no twin"),
        ([one, learnt(1, first=4)], "model 2 has its twin elsewhere"),
        ([one, learnt(1, first=10)], "model 2 has its twin elsewhere"),
        ([one, join_twins([one, one])[0]], "model 2 has several twins; join those"),
        ([one, one, add_twin(detector(known=()), 9)], "model 3"),
    ):
        with pytest.raises(ModelError, match=message):
            join_twins(nets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.layers[5].conv.weight.mul_(1.01), "model 2 has another layer 5 than the first"),
        (lambda net: net.layers[5].norm.running_mean.add_(0.1), "model 2 has another layer 5 than the first"),
        (lambda net: net.layers[-1].rows.bias.add_(0.1), "model 2 learnt more than its twin"),
        (lambda net: net.layers[-2].conv.bias.add_(0.1), "model 2 learnt more than its twin"),
        (lambda net: net.layers[-1].rows.weight[..., -1].add_(0.1), "model 2 learnt more than its twin"),
    ],
)
@torch.no_grad()
def test_what_else_has_learnt_is_seen(change, message):
    one, other = learnt(0, box_twin=True), learnt(1, box_twin=True)
    change(other)
    with pytest.raises(ModelError, match=message):
        join_twins([one, other])


def test_boxes_that_learnt_are_the_firsts():
    """Where there is no twin for boxes a neck that went on with the first alone is no reason to refuse."""
    one, other = learnt(0), learnt(1)
    with torch.no_grad():
        one.layers[one.spec.region.boxes].conv.bias += 0.5
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(join_twins([one, other])[0].lazy(images).boxes, one.lazy(images).boxes)
    assert boxes_learnt().spec == other.spec
