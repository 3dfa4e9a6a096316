"""Networks run: the whole against itself fused, frozen and in parts. Single layers are test_blocks.py's."""

import weakref

import pytest
import torch
from torch import nn

from wordtree import WordTree
from yolo9000 import presets
from yolo9000.blocks import BatchNorm
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.packed import pack
from yolo9000.spec import (
    Add,
    AveragePool,
    Convolution,
    External,
    GlobalAveragePool,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    Route,
    Softmax,
)

TREE = WordTree(["a", "b", "c", "d", "e"], [-1, -1, 0, 0, 0])
LINEAR = {"activation": "linear", "batch_normalize": False}


def randomised(net: Network) -> Network:
    """Batch norm as after some training: all of it differs from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, BatchNorm):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.2)):
                tensor.data.uniform_(low, low + 1, generator=generator)
            module.running_var.uniform_(0.2, 2, generator=generator)
    return net.eval()


def small(**settings) -> Network:
    torch.manual_seed(0)
    return randomised(Network(presets.yolov2(3, ((1, 2), (3, 1)), slim=1 / 16, image_size=64, **settings)))


@pytest.mark.parametrize("order", ["darknet", "space_to_depth"])
@pytest.mark.parametrize("size", [(32, 32), (96, 160), (224, 64)])
def test_lazy_fused_and_channels_last_give_the_same(order, size):
    net = small(reorg=order)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        y = net(x)
        assert y.shape == (2, 2 * 8, size[0] // 32, size[1] // 32)
        torch.testing.assert_close(net.lazy(x).dense(), y, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(net.fuse()(x), y, rtol=1e-3, atol=1e-3)
        last = net.fuse().to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            last(x.contiguous(memory_format=torch.channels_last)), y, rtol=1e-3, atol=1e-3
        )
        for i in range(2):
            torch.testing.assert_close(net(x[i : i + 1]), y[i : i + 1], rtol=1e-3, atol=1e-3)


def test_orders_of_the_pass_through_differ():
    x = torch.rand(1, 3, 64, 64)
    a, b = small(reorg="darknet"), small(reorg="space_to_depth")
    b.load_state_dict(a.state_dict())
    assert (a(x) - b(x)).abs().max() > 1e-3


def test_fused_is_a_copy_without_batch_norm():
    net = small()
    net.seen, net.class_map = 77, torch.tensor([1])
    net.names, net.record, net.defaults = ("a", "b", "c"), {"licence": "MIT"}, {"threshold": 0.3}
    fused = net.fuse()
    assert (fused.names, fused.record, fused.defaults) == (net.names, net.record, net.defaults)
    assert not any(isinstance(m, BatchNorm) for m in fused.modules()) and not fused.training
    assert fused.seen == 77 and fused.class_map is net.class_map and torch.equal(fused.anchors, net.anchors)
    assert NetworkSpec.from_dict(fused.spec.to_dict()) == fused.spec
    for p in fused.parameters():
        p.data.zero_()
    assert all(p.abs().sum() > 0 for n, p in net.named_parameters() if n.endswith("conv.weight"))


def split_head(shared: bool = False, stored: tuple[int, ...] | None = None) -> Network:
    layers = (
        Convolution(8, 3, 2),
        Convolution(10, 1, **LINEAR),
        Convolution(6, 1),
        Route((0,)),
        Convolution(6, 3, dilation=2),
        Add(2),
        Region(((1, 1), (2, 3)), 5, boxes=1, features=5, shared_rows=shared, stored=stored),
    )
    torch.manual_seed(3)
    return randomised(Network(NetworkSpec(32, 32, layers)))


@pytest.mark.parametrize("shared, stored", [(False, None), (True, None), (False, (1, 4)), (True, (0, 2, 3))])
def test_a_head_of_its_own_rows(shared, stored):
    net = split_head(shared, stored)
    x = torch.rand(2, 3, 32, 48)
    y = net(x)
    assert y.shape == (2, 2 * 10, 16, 24)
    y = y.unflatten(1, (2, 10))
    boxes, features = net.features(x, 1), net.features(x, 5)
    torch.testing.assert_close(y[:, :, :5].flatten(1, 2), boxes)
    rows = net.layers[-1].rows
    nodes = list(range(5) if stored is None else stored)
    for a in range(2):
        s = 0 if shared else a
        expected = torch.einsum("kd,ndhw->nkhw", rows.weight[s], features) + rows.bias[s][:, None, None]
        torch.testing.assert_close(y[:, a, [5 + k for k in nodes]], expected)
    missing = [5 + k for k in range(5) if k not in nodes]
    assert torch.isneginf(y[:, :, missing]).all()
    copy = Network(NetworkSpec.from_dict(net.spec.to_dict())).eval()
    copy.load_state_dict(net.state_dict())
    torch.testing.assert_close(copy(x), net(x))
    torch.testing.assert_close(net.fuse()(x), net(x), rtol=1e-4, atol=1e-4)


def test_frozen_layers_neither_learn_nor_drift():
    net = small().freeze(5).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    for key, value in net.state_dict().items():
        frozen = int(key.split(".")[1]) < 5
        assert torch.equal(value, before[key]) == frozen, key
    assert not net.layers[0].training and net.layers[5].training
    net.eval().train()
    assert not net.layers[0].norm.training
    net.freeze(0).train()
    assert net.layers[0].norm.training and all(p.requires_grad for p in net.parameters())


def test_training_reaches_every_parameter():
    torch.manual_seed(0)
    for spec in (presets.tiny9000(TREE, known=(1, 2, 3), neck=8), presets.yolov2(2, slim=1 / 16)):
        net = Network(spec).train()
        net(torch.rand(2, 3, 64, 64)).square().mean().backward()
        silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert silent == []


@pytest.mark.parametrize("bn", ["darknet-cpu", "darknet-gpu"])
def test_evaluation_gives_what_training_saw(bn):
    torch.manual_seed(0)
    net = Network(NetworkSpec(32, 32, (Convolution(8, 3), Convolution(8, 3)), bn=bn)).train()
    x = torch.rand(4, 3, 32, 32)
    for _ in range(100):  # the running averages reach this batch's: 0.9^100 = 3e-5 of the start is left
        trained = net(x)
    torch.testing.assert_close(net.eval()(x), trained, rtol=1e-3, atol=1e-3)


def test_bfloat16_autocast_runs_and_is_near():
    net = small().fuse()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        y = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            z = net(x)
            out = net.lazy(x)
            assert out.boxes.dtype == torch.bfloat16
            assert out.logits_of(torch.tensor([0])).shape == (2, 2, 1, 2, 2)
        assert (z.float() - y).abs().max() < 0.05 * y.abs().max()
        assert (out.dense() - y).abs().max() < 0.05 * y.abs().max()
        low = net.bfloat16()(x.bfloat16())
        assert low.dtype == torch.bfloat16 and (low.float() - y).abs().max() < 0.05 * y.abs().max()
    train = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = train(x).float().square().mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in train.parameters())


def test_outputs_are_dropped_after_their_last_use(monkeypatch):
    net = small()
    alive, most = [], []
    step = Network._step

    def watched(self, index, inputs):
        out = step(self, index, inputs)
        alive.append(weakref.ref(out))
        most.append(sum(ref() is not None for ref in alive))
        return out

    monkeypatch.setattr(Network, "_step", watched)
    with torch.no_grad():
        net(torch.rand(1, 3, 64, 64))
    # An input, its output, and from layer 16 to the pass-through the one kept for it; of 30 in all.
    assert max(most) <= 4 and len(most) > 25


def test_only_what_is_asked_for_runs(monkeypatch):
    net, ran, step = split_head(), [], Network._step
    monkeypatch.setattr(Network, "_step", lambda self, i, inputs: ran.append(i) or step(self, i, inputs))
    net.features(torch.rand(1, 3, 32, 32), 1)
    assert ran == [0, 1]


def test_classifier_softmax_over_siblings_and_flat():
    spec = NetworkSpec(8, 8, (Convolution(5, 1, **LINEAR), GlobalAveragePool(), Softmax()))
    net = Network(spec, TREE).eval()
    x = torch.rand(3, 3, 8, 8)
    p, logits = net(x), net.logits(x)
    torch.testing.assert_close(p[:, :2], logits[:, :2].softmax(1))
    torch.testing.assert_close(p[:, 2:], logits[:, 2:].softmax(1))
    net.tree = None
    torch.testing.assert_close(net(x), logits.softmax(1))
    assert sorted(net.state_dict()) == ["layers.0.conv.bias", "layers.0.conv.weight"]
    grouped = NetworkSpec(
        8, 8, (Convolution(6, 1, **LINEAR), GlobalAveragePool(), Softmax(groups=2, temperature=4))
    )
    net = Network(grouped)
    torch.testing.assert_close(net.logits(x), net.features(x, 1) / 4)
    expected = (net.features(x, 1) / 4).view(3, 2, 3).softmax(-1).flatten(1)
    torch.testing.assert_close(net(x), expected)


def test_a_backbone_of_ones_own():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3, 16, 1), nn.Conv2d(6, 12, 3, 2, 1)

        def forward(self, x):
            x = self.a(x)
            return x, self.b(x)

    spec = presets.yolov2(2, ((1, 1),), (External(6, 16), External(12, 32, 1)), slim=1 / 16)
    assert spec.stride == 32
    net = Network(spec, external=Backbone())
    assert net(torch.rand(2, 3, 64, 96)).shape == (2, 7, 2, 3)
    assert any(key.startswith("external.a") for key in net.state_dict())
    with pytest.raises(ModelError, match="external backbone"):
        Network(spec)
    with pytest.raises(ModelError, match="external backbone"):
        Network(presets.tiny_yolov2(slim=1 / 16), external=Backbone())
    with pytest.raises(ModelError, match="gave 1 outputs; layer 1 wants number 1"):
        Network(spec, external=nn.Conv2d(3, 6, 3, 16, 1))(torch.rand(1, 3, 64, 64))
    wrong = presets.yolov2(2, ((1, 1),), (External(6, 16), External(11, 32, 1)), slim=1 / 16)
    with pytest.raises(ModelError, match=r"not \(1, 11, 2, 2\)"):
        Network(wrong, external=Backbone())(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    "images, says",
    [
        (torch.rand(3, 64, 64), r"images must be \(N, 3, H, W\)"),
        (torch.rand(1, 1, 64, 64), r"images must be \(N, 3, H, W\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "divide 0..255 by 255"),
        (torch.rand(1, 3, 64, 65), "multiples of 32, not 65 x 64"),
        (torch.rand(1, 3, 0, 64), "multiples of 32"),
    ],
)
def test_images_that_cannot_be_run(images, says):
    with pytest.raises(ModelError, match=says):
        small()(images)


@pytest.mark.parametrize(
    "layers, size, says",
    [
        (
            (Convolution(4, 3, padding=0),),
            2,
            r"layer 0 \(convolution\): a grid of \(2, 2\); wanted at least 3",
        ),
        ((MaxPool(3, 1, 0),), 2, "wanted at least 3"),
        ((AveragePool(3, padded=False),), 2, "wanted at least 3"),
        ((Reorg(2, "space_to_depth"),), 5, "wanted a multiple of 2"),
        ((Convolution(3, 3, padding=0), Add(-1)), 8, r"different sizes \[\(6, 6\), \(8, 8\)\]"),
        ((Convolution(3, 3, padding=0), Route((0, -1))), 8, "layer 1 .* different sizes"),
        ((MaxPool(2, 2, 0), MaxPool(2, 2, 0), MaxPool(2, 2, 0)), 4, "layer 2"),
        ((GlobalAveragePool(),), 0, "at least 1"),
    ],
)
def test_images_too_small_for_a_layer(layers, size, says):
    with pytest.raises(ModelError, match=says):
        Network(NetworkSpec(32, 32, layers)).eval()(torch.rand(1, 3, size, size))


@pytest.mark.parametrize("packed", [False, True])
def test_a_size_that_fits_is_looked_at_once_and_one_that_does_not_each_time(packed, monkeypatch):
    layers = (Convolution(4, 1), MaxPool(2, 2), Convolution(4, 5, padding=0), MaxPool(2, 2, 0))
    net = Network(NetworkSpec(32, 32, layers)).eval()
    image, tiny = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        expected = net(image)
        net = pack(net.fuse(), (32, 32)) if packed else net
        for _ in range(2):
            assert net.features(tiny, 1).shape == (1, 4, 4, 4)  # so far it fits
            with pytest.raises(ModelError, match=r"layer 2 .*wanted at least 5"):
                net(tiny)
        torch.testing.assert_close(net(image), expected)
        monkeypatch.setattr("yolo9000.network.check_fit", None)  # not to be called
        for _ in range(2):
            torch.testing.assert_close(net(image), expected)
            assert net.features(tiny, 1).shape == (1, 4, 4, 4)


def test_anchors_stay_exact_in_bfloat16():
    net = small().bfloat16()
    assert net.anchors.dtype == torch.float32 and net.anchors.tolist() == [[1, 2], [3, 1]]
    exact = Network(presets.yolo9000(classes=3, slim=1 / 64)).bfloat16().anchors
    assert torch.equal(exact, torch.tensor(presets.YOLO9000_ANCHORS))
    assert Network(presets.tiny_darknet()).anchors.shape == (0, 2)


def test_requests_that_make_no_sense():
    net = small()
    x = torch.rand(1, 3, 64, 64)
    with pytest.raises(ModelError, match="no layer 99"):
        net.features(x, 99)
    with pytest.raises(ModelError, match="logits are a classifier's"):
        net.logits(x)
    with pytest.raises(ModelError, match="freeze 99"):
        net.freeze(99)
    with pytest.raises(ModelError, match="tree has 1 nodes, the network 3"):
        net.tree = WordTree(["a"], [-1])
    with pytest.raises(ModelError, match="only a detector"):
        Network(presets.tiny_darknet()).lazy(x)
    kernel3 = NetworkSpec(8, 8, (Convolution(6, 3, **LINEAR), Region(((1, 1),), 1)))
    with pytest.raises(ModelError, match="linear 1x1 convolution"):
        Network(kernel3).lazy(x)
    assert Network(kernel3)(x).shape == (1, 6, 64, 64)


def test_new_weights_are_darknets():
    torch.manual_seed(0)
    layers = (
        Convolution(64, 3),
        Convolution(256, 3, groups=2),
        Convolution(9, 1, start="zero", batch_normalize=False),
    )
    net = Network(NetworkSpec(8, 8, layers))
    for i, fan_in in ((0, 27), (1, 32 * 9)):
        weight = net.layers[i].conv.weight.detach()
        assert abs(float(weight.std()) / (2 / fan_in) ** 0.5 - 1) < 0.05 and abs(float(weight.mean())) < 0.02
    assert not net.layers[2].conv.weight.any() and not net.layers[2].conv.bias.any()
    assert torch.equal(net.layers[0].norm.weight, torch.ones(64)) and not net.layers[0].norm.bias.any()


def test_no_images_is_no_error():
    assert small()(torch.rand(0, 3, 64, 64)).shape == (0, 16, 2, 2)
