"""The small detector that begins as what a classifier knows: class features computed only where they are
asked for, held against the plain layers run over every cell.
"""

from dataclasses import replace

import pytest
import torch

from tests.yolo9000.test_loss import TREE
from yolo9000 import Network, presets
from yolo9000.blocks import BatchNorm
from yolo9000.conditionals import LazyConditionals
from yolo9000.descent import RULES, descend
from yolo9000.detector import Detector
from yolo9000.distill import known_below
from yolo9000.errors import ModelError
from yolo9000.hierarchy import Hierarchy
from yolo9000.loss import RegionLoss
from yolo9000.modelfile import load_model, save_model
from yolo9000.spec import LogSumExp, Route

# 0 (3 (8, 9, 10), 4), 1 (5, 6, 7), 2; 8 (11)
KNOWN = (9, 4, 6, 5, 11, 3)  # the nodes of the classifier's classes, in its own order; 3 is an inner one
STORED = (0, 1, 2, 3, 4, 5, 6, 8, 9, 11)
ANCHORS = ((1.5, 2.0), (3.0, 2.5))
KINDS = [(True, None), (False, None), (True, STORED), (False, STORED)]


def small(shared: bool = True, stored: tuple[int, ...] | None = None, seed: int = 0) -> Network:
    """A tiny9000 of random weights, whose learnt difference and batch norms do something."""
    torch.manual_seed(seed)
    spec = presets.tiny9000(
        TREE, ANCHORS, known=KNOWN, stored=stored, shared_rows=shared, neck=8, dilations=(1, 2), image_size=64
    )
    net = Network(spec, TREE)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        net.layers[-1].rows.weight.normal_(0, 0.5)
        net.layers[spec.region.boxes].conv.bias.normal_()
    return net.eval()


def layer_by_layer(net: Network, images: torch.Tensor) -> torch.Tensor:
    """What enters the region layer, (N, A, 5+C, H, W): every layer run everywhere, the class rows by hand."""
    region = net.spec.region
    found = net.outputs(images, (region.boxes, region.features))
    boxes, features = found[region.boxes], found[region.features]
    rows, A = net.layers[-1].rows, len(region.anchors)
    out = features.new_full((len(images), A, 5 + net.classes, *features.shape[2:]), -torch.inf)
    out[:, :, :5] = boxes.unflatten(1, (A, 5))
    nodes = torch.tensor(region.stored if region.stored else range(net.classes))
    for a in range(A):
        s = 0 if region.shared_rows else a
        values = torch.einsum("kd,ndhw->nkhw", rows.weight[s], features) + rows.bias[s][:, None, None]
        out[:, a, 5 + nodes] = values
    return out


def boxes_of(net: Network, count: int, images: int, grid: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    tops = (images, len(net.spec.region.anchors), grid, grid)
    return tuple(torch.randint(0, top, (count,), generator=generator) for top in tops)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_features_are_the_layers_before_the_sums():
    net = small()
    region = net.spec.region
    assert isinstance(net.spec.layers[region.features], Route)
    assert net.feature_layer == region.features - 2
    assert net.lazy(torch.rand(1, 3, 64, 64)).features.shape[1] == 128  # without the sums of evidence
    plain = Network(presets.tiny9000(TREE, ANCHORS, neck=8, dilations=(1,)), TREE)
    assert plain.feature_layer == plain.spec.region.features
    assert plain.lazy(torch.rand(1, 3, 64, 64)).expand is None


def test_features_joined_in_another_order_are_computed_everywhere():
    spec = presets.tiny9000(TREE, ANCHORS, known=KNOWN, neck=8, dilations=(1,), image_size=64)
    route = spec.layers[-2]
    turned = replace(spec, layers=(*spec.layers[:-2], Route(route.layers[::-1]), spec.layers[-1]))
    net = Network(turned, TREE).eval()
    images = torch.rand(1, 3, 64, 64)
    assert net.feature_layer == turned.region.features and net.lazy(images).expand is None
    close(net(images), layer_by_layer(net, images).flatten(1, 2))


@pytest.mark.parametrize("shared, stored", KINDS)
@torch.no_grad()
def test_every_way_of_asking_gives_what_the_layers_give_everywhere(shared, stored):
    net = small(shared, stored)
    images = torch.rand(3, 3, 64, 64)
    expected = layer_by_layer(net, images)
    close(net(images), expected.flatten(1, 2))
    lazy = net.lazy(images)
    assert lazy.expand is not None
    close(lazy.dense(), expected.flatten(1, 2))
    close(lazy.expanded().dense(), expected.flatten(1, 2))
    assert lazy.expanded().expanded().expand is None
    close(lazy.detach().dense(), expected.flatten(1, 2))
    nodes = torch.tensor([11, 0, 7, 4])
    close(lazy.logits_of(nodes), expected[:, :, 5 + nodes])
    for count in (0, 1, 30):
        image, anchor, row, col = at = boxes_of(net, count, 3)
        wanted = expected[image, anchor, 5:, row, col]
        close(lazy.logits(*at), wanted)
        close(lazy.logits(*at, nodes), wanted[:, nodes])
        close(lazy.expanded().logits(*at), wanted)
    for chosen in (slice(1, 3), torch.tensor([2, 1]), torch.tensor([False, True, False]), slice(0, 0)):
        close(lazy.select(chosen).dense(), expected[chosen].flatten(1, 2))
    assert lazy.select(slice(0, 0)).logits_of(nodes).shape[:3] == (0, 2, 4)


def test_detached_output_has_no_gradient():
    out = small().train().lazy(torch.rand(2, 3, 64, 64))
    at = boxes_of(small(), 3, 2)
    nodes = torch.tensor([0, 3])
    assert out.logits(*at).requires_grad and out.dense().requires_grad
    out = out.detach()
    assert not any(t.requires_grad for t in (out.dense(), out.logits(*at), out.logits_of(nodes)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shared, stored", KINDS)
@torch.no_grad()
def test_descent_computes_only_what_it_asks_for_and_answers_the_same(shared, stored, rule):
    net = small(shared, stored)
    hierarchy = Hierarchy(TREE)
    images = torch.rand(2, 3, 64, 64)
    image, anchor, row, col = at = boxes_of(net, 40, 2)
    dense = hierarchy.log_conditionals(layer_by_layer(net, images)[image, anchor, 5:, row, col])
    expected = descend(hierarchy, dense, rule, 0.3)
    found = descend(hierarchy, LazyConditionals(net.lazy(images), *at), rule, 0.3)
    assert torch.equal(found.nodes, expected.nodes)
    torch.testing.assert_close(found.log_path, expected.log_path, rtol=1e-4, atol=1e-4, equal_nan=True)


TARGETS = [
    {"boxes": torch.tensor([[0.3, 0.4, 0.5, 0.6], [0.8, 0.1, 0.2, 0.1]]), "labels": torch.tensor([11, 6])},
    {"label": 9, "negative_labels": torch.tensor([1, 5])},
    {"image_labels": torch.tensor([], dtype=torch.long)},
]


@pytest.mark.parametrize("shared, stored", KINDS)
@pytest.mark.parametrize("kind", ["paper", "darknet"])
def test_the_loss_and_its_gradients_are_those_of_the_layers_run_everywhere(shared, stored, kind):
    net = small(shared, stored)
    images = torch.rand(3, 3, 64, 64)
    loss = RegionLoss(net.anchors, tree=TREE, label_objectness=kind)
    results = []
    for output in (net.lazy(images), net(images), layer_by_layer(net, images).flatten(1, 2)):
        net.zero_grad(set_to_none=True)
        losses = loss(output, TARGETS)
        losses["loss"].backward()
        gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        results.append((losses, gradients))
    for losses, gradients in results[:2]:
        for name, value in losses.items():
            torch.testing.assert_close(value, results[2][0][name], rtol=1e-4, atol=1e-5)
        assert gradients.keys() == results[2][1].keys()
        for name, gradient in gradients.items():
            size = float(results[2][1][name].abs().max())
            torch.testing.assert_close(gradient, results[2][1][name], rtol=1e-3, atol=1e-4 * max(1e-3, size))
    sums = next(i for i, layer in enumerate(net.spec) if isinstance(layer, LogSumExp))
    assert results[0][1][f"layers.{sums}.weight"].abs().sum() > 0  # the sums themselves learn


@pytest.mark.parametrize("layers", [0, 5, 19, None])
@torch.no_grad()
def test_folding_the_first_layers_changes_nothing(layers):
    net = small()
    net.seen = 5
    folded = net.fuse(layers)
    images = torch.rand(2, 3, 64, 96)
    close(folded(images), net(images))
    close(folded.lazy(images).dense(), net(images))
    end = len(net.spec) if layers is None else layers
    for i, (ours, theirs) in enumerate(zip(net.layers, folded.layers, strict=True)):
        kept = getattr(ours, "norm", None) is not None and i >= end
        assert (getattr(theirs, "norm", None) is not None) == kept
    assert folded.seen == 5 and not folded.training
    for parameter in folded.parameters():
        parameter.zero_()
    assert all(p.any() for name, p in net.named_parameters() if name.endswith("conv.weight"))


def test_a_folded_trunk_still_trains_the_rest():
    folded = small().fuse(19).freeze(19).train()
    loss = RegionLoss(folded.anchors, tree=TREE)(folded.lazy(torch.rand(3, 3, 64, 64)), TARGETS)["loss"]
    loss.backward()
    for i, layer in enumerate(folded.layers):
        if any(True for _ in layer.parameters()):
            assert any(p.grad is not None and p.grad.any() for p in layer.parameters()) == (i >= 19)


def test_layers_that_cannot_be_folded_are_refused():
    for layers in (-1, 1000):
        with pytest.raises(ModelError, match=f"cannot fold {layers} of"):
            small().fuse(layers)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0), ("float16", 2e-2)])
@pytest.mark.parametrize("stored", [None, STORED])
@torch.no_grad()
def test_there_and_back_as_a_model_file(dtype, tolerance, stored, tmp_path):
    net = small(stored=stored)
    save_model(net, tmp_path / "x.safetensors", dtype=dtype)
    again = load_model(tmp_path / "x.safetensors")
    assert again.spec == net.spec and again.tree == net.tree
    images = torch.rand(2, 3, 64, 64)
    at = boxes_of(net, 20, 2)
    scale = float(net(images).nan_to_num(neginf=0).abs().max())
    for ask in (lambda n: n(images), lambda n: n.lazy(images).logits(*at)):
        torch.testing.assert_close(ask(again), ask(net), rtol=0, atol=tolerance * scale)


@torch.no_grad()
def test_a_lazy_output_is_made_of_the_outputs_of_two_layers():
    net = small()
    images = torch.rand(1, 3, 64, 64)
    found = net.outputs(images, (net.spec.region.boxes, net.feature_layer))
    close(net.lazy_from(*found.values()).dense(), net(images))


def test_only_a_network_with_class_rows_makes_a_lazy_output_of_features():
    net = Network(presets.yolo9000(TREE, slim=0.02, image_size=64), TREE)
    with pytest.raises(ModelError, match="owns class rows"):
        net.lazy_from(torch.zeros(1, 15, 2, 2), torch.zeros(1, 20, 2, 2))


@pytest.mark.parametrize("stored", [None, STORED])
def test_a_detector_finds_what_the_layers_say(stored):
    net = small(stored=stored)
    with torch.no_grad():
        net.layers[net.spec.region.boxes].conv.bias.view(2, 5)[:, 4] = 1  # enough objectness for boxes
    pictures = [torch.rand(3, 50, 60, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    detector = Detector(net, precision="float32")
    found = detector(pictures, threshold=0.5, nms="none", tree_threshold=0.2)
    assert sum(map(len, found)) > 3
    dense = Detector(net, precision="float32")
    dense.lazy = False  # runs the network's forward
    for one, other in zip(found, dense(pictures, threshold=0.5, nms="none", tree_threshold=0.2), strict=True):
        assert one.nodes.tolist() == other.nodes.tolist()
        torch.testing.assert_close(torch.tensor(one.scores), torch.tensor(other.scores), rtol=1e-4, atol=1e-5)
    rough = Detector(net, precision="bfloat16")
    assert rough.run(torch.rand(1, 3, 64, 64)).logits(*boxes_of(net, 3, 1)).dtype == torch.float32


def test_known_below_by_hand():
    assert known_below(TREE, KNOWN) == {0: [0, 1, 4, 5], 1: [2, 3], 3: [0, 4, 5], 8: [4]}
    assert known_below(TREE, KNOWN, stored=(0, 3)) == {0: [0, 1, 4, 5], 3: [0, 4, 5]}
    assert known_below(TREE, (2,)) == {} == known_below(TREE, ())
