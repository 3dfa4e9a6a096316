"""Presets: layer by layer the reference cfg files, with counts that are known, and one's own backbone."""

from dataclasses import replace

import pytest
import torch

from wordtree import WordTree
from yolo9000 import cfg, presets
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.spec import Convolution, External, MaxPool, NetworkSpec, Reorg

CFGS = {
    "darknet19.cfg": presets.darknet19(),
    "darknet19_448.cfg": presets.darknet19(image_size=448),
    "darknet9000.cfg": presets.darknet19(9418, 448),
    "yolov2.cfg": presets.yolov2(image_size=608),
    "yolov2-voc.cfg": presets.yolov2(20, presets.VOC_ANCHORS),
    "yolov2-tiny.cfg": presets.tiny_yolov2(80, presets.COCO_ANCHORS, last=512),
    "yolov2-tiny-voc.cfg": presets.tiny_yolov2(),
    "yolo9000.cfg": presets.yolo9000(classes=9418),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", CFGS)
def test_a_preset_is_the_reference_cfg(shared, name):
    theirs = cfg.read(shared / "darknet" / "cfg" / name)
    last = replace(theirs.layers[-1], tree=None)  # the one thing a preset leaves to the caller: file names
    if theirs.region:
        # yolov2-tiny.cfg alone says rescore=0, which is a setting of training
        last = replace(last, map=None, rescore=True)
    assert replace(theirs, layers=(*theirs.layers[:-1], last), bn="darknet-gpu") == CFGS[name]


@pytest.mark.reference
def test_every_reference_cfg_is_a_preset(shared):
    assert {path.name for path in (shared / "darknet" / "cfg").glob("*.cfg")} == set(CFGS)


@pytest.mark.reference
def test_tiny_darknet_is_the_cfg_of_its_weights(shared):
    theirs = cfg.read(shared / "weights" / "tiny-darknet" / "tiny.cfg")
    assert theirs == presets.tiny_darknet(bn="darknet-cpu")
    assert theirs.layers[:19] == presets.tiny9000(classes=2).layers[:19]


def test_published_sizes():
    """Bytes of Darknet's published files, less their headers, in values."""
    assert presets.yolo9000(classes=9418).values == 48_807_501
    assert presets.darknet19().trunk(23).values == presets.yolo9000(classes=9418).trunk(23).values
    spec = presets.darknet19()
    assert spec.trunk(23).outputs[-1].channels == 1024 and spec.stride == 32 and len(spec.trunk(23)) == 23


def test_operations_of_darknet19_are_the_papers():
    """5.58 billion at 224 x 224 (paper, table 6), a multiplication and an addition counted as two."""
    spec, count = presets.darknet19(image_size=224), 0
    for i, layer in enumerate(spec):
        if isinstance(layer, Convolution):
            cells = (224 // spec.outputs[i].stride) ** 2
            count += 2 * cells * layer.filters * spec.channels_into(i) * layer.size**2
    assert count / 1e9 == pytest.approx(5.58, abs=0.01)


def test_trees_give_the_classes():
    tree = WordTree(["a", "b", "c"], [-1, 0, 0])
    assert (
        presets.yolo9000(tree).classes
        == presets.darknet9000(tree).classes
        == presets.tiny9000(tree).classes
        == 3
    )
    for preset in (presets.yolo9000, presets.tiny9000):
        with pytest.raises(ModelError, match="needs a tree"):
            preset()


@pytest.mark.parametrize(
    "backbone, route_layer, channels",
    [
        (None, None, 512),
        (None, 16, 512),
        (presets.darknet19(), 16, 512),
        (presets.tiny_darknet(), None, 256),
        (NetworkSpec(64, 64, (Convolution(8, 3, 16), Convolution(9, 3, 2)), bn="darknet-gpu"), 0, 8),
        ((External(24, 8), External(48, 16, 1)), None, 24),
        ((External(24, 8), MaxPool(2, 2)), 0, 24),
    ],
)
def test_own_backbone_and_route_layer(backbone, route_layer, channels):
    spec = presets.yolov2(3, ((1, 1), (2, 2)), backbone, route_layer)
    (reorg,) = [i for i, layer in enumerate(spec) if isinstance(layer, Reorg)]
    assert spec.channels_into(reorg - 1) == channels and spec.outputs[-1].channels == 2 * 8
    joined = spec.outputs[reorg + 1].channels
    assert joined == 4 * 64 + 1024 and spec.inputs(reorg + 1) == (reorg, reorg - 3)


def test_without_a_pass_through():
    spec = presets.yolov2(3, use_passthrough=False)
    assert not any(isinstance(layer, Reorg) for layer in spec)
    net = Network(presets.yolov2(3, slim=1 / 16, use_passthrough=False)).eval()
    assert net(torch.rand(1, 3, 32, 32)).shape == (1, 5 * 8, 1, 1)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"route_layer": 99}, "route_layer must be one of"),
        ({"route_layer": 10}, "has stride 8; the pass-through wants 16"),
        ({"backbone": NetworkSpec(8, 8, (Convolution(8, 3, 32),))}, "no layer of the backbone has stride 16"),
        ({"backbone": presets.yolo9000(classes=3)}, "not a detector"),
        ({"num_classes": 0}, "classes must be a whole number"),
        ({"anchors": [(1, 0)]}, "positive"),
        ({"slim": 0}, "slim is a factor .* above 0; it is 0"),
        ({"slim": -1.0}, "slim is a factor"),
        ({"slim": float("inf")}, "slim is a factor"),
        ({"slim": float("nan")}, "slim is a factor"),
    ],
)
def test_what_does_not_fit_is_said(arguments, says):
    with pytest.raises(ModelError, match=says):
        presets.yolov2(**arguments)


def test_tiny9000_starts_with_the_averaged_features_of_its_trunk():
    """The learnt difference starts at zero, so at first the rows see the trunk, averaged over 7 x 7 cells."""
    torch.manual_seed(0)
    net = Network(presets.tiny9000(classes=5, stored=(0, 2, 4), neck=16)).eval()
    x = torch.rand(1, 3, 96, 128)
    out = net.lazy(x)
    trunk = net.features(x, 18)
    torch.testing.assert_close(
        out.features, torch.nn.functional.avg_pool2d(trunk, 7, 1, 3, count_include_pad=False)
    )
    assert net.stride == 16 and out.weight.shape == (1, 3, 128)
