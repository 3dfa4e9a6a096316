"""Descriptions of networks: checked when made, the same after JSON, and telling the truth about shapes."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.spec import (
    Add,
    AveragePool,
    Convolution,
    Dropout,
    Gate,
    GlobalAveragePool,
    LogSumExp,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    RoiAverage,
    Route,
    Softmax,
)

HEAD = Convolution(14, 1, activation="linear", batch_normalize=False)
ANCHORS = ((1.0, 2.0), (3.5, 2.25))
ENDING = (HEAD, Region(ANCHORS, 2))


@st.composite
def specs(draw) -> NetworkSpec:
    """Small networks of random layers, with references to earlier ones."""
    layers = [Convolution(draw(st.sampled_from([4, 8])), 3)]
    for _ in range(draw(st.integers(0, 6))):
        spec = NetworkSpec(32, 32, tuple(layers))
        stride, channels = spec.outputs[-1].stride, spec.outputs[-1].channels
        alike = [i for i, out in enumerate(spec.outputs) if out.stride == stride]
        same = [i for i in alike if spec.outputs[i].channels == channels]
        choices = [
            Convolution(
                draw(st.sampled_from([4, 8])),
                draw(st.sampled_from([1, 3, 5])),
                dilation=draw(st.integers(1, 2)),
                groups=draw(st.sampled_from([1, 2])),
                activation=draw(st.sampled_from(["leaky", "linear", "relu", "silu", "logistic"])),
                batch_normalize=draw(st.booleans()),
            ),
            MaxPool(2, 1),
            AveragePool(3),
            Dropout(0.25),
            LogSumExp(5, ((0, 1), (4,), (2, 3, 4), (0,))),
            Add(draw(st.sampled_from(same))),
            Gate(draw(st.sampled_from(alike)), len(layers)),
            Route(tuple(draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2)))),
        ]
        if stride < 8:
            choices += [
                MaxPool(2, 2),
                Convolution(8, 3, 2),
                Reorg(2, draw(st.sampled_from(["darknet", "space_to_depth"]))),
            ]
        layer = draw(st.sampled_from(choices))
        if isinstance(layer, Gate):
            layers += [Convolution(1, 1), Route((len(layers) - 1,))]
        layers.append(layer)
    end = draw(st.sampled_from(["trunk", "classifier", "region", "split"]))
    if end == "classifier":
        layers += [GlobalAveragePool(), Softmax(temperature=2)]
    elif end == "region":
        layers += ENDING
    elif end == "split":
        stored = draw(st.sampled_from([None, (0, 2, 6)]))
        layers.append(Convolution(10, 1, activation="linear", batch_normalize=False))
        boxes = features = len(layers) - 1
        if draw(st.booleans()):
            layers += [Route((boxes - 1,)), RoiAverage(boxes, draw(st.integers(1, 3)))]
            features = len(layers)
        shared = draw(st.booleans())
        layers.append(
            Region(ANCHORS, 7, boxes=boxes, features=features - 1, stored=stored, shared_rows=shared)
        )
    return NetworkSpec(32, 32, tuple(layers), bn=draw(st.sampled_from(["darknet-cpu", "darknet-gpu"])))


@settings(max_examples=60, deadline=None)
@given(specs())
def test_json_gives_the_same_description_and_modules_give_the_shapes_it_says(spec):
    again = NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and again.outputs == spec.outputs
    net = Network(again).eval()
    stored = sum(t.numel() for key, t in net.state_dict().items() if not key.endswith("num_batches_tracked"))
    assert stored == spec.values
    images = torch.rand(2, 3, 32, 16)
    with torch.no_grad():
        for i, out in enumerate(spec.outputs):
            x = net.features(images, i)
            cells = (32 // out.stride, 16 // out.stride) if out.stride else ()
            assert tuple(x.shape) == (2, out.channels, *cells)
        assert torch.equal(net.features(images, -1).nan_to_num(), net(images).nan_to_num())
        if spec.region:
            assert tuple(net(images).shape) == (
                2,
                2 * (5 + spec.classes),
                32 // spec.stride,
                16 // spec.stride,
            )


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Convolution(0, 3), "filters"),
        (lambda: Convolution(8.0, 3), "filters"),
        (lambda: Convolution(True, 3), "filters"),
        (lambda: Convolution(10**9, 3), "filters"),
        (lambda: Convolution(8, 3, activation="gelu"), "activation must be one of"),
        (lambda: Convolution(8, 3, padding=-1), "padding"),
        (lambda: Convolution(9, 3, groups=2), "9 filters do not divide into 2 groups"),
        (lambda: MaxPool(2, 0), "stride"),
        (lambda: MaxPool(2, 2, 2), "padding"),
        (lambda: AveragePool(4), "odd size"),
        (lambda: RoiAverage(0, 0), "least must be a whole number from 1"),
        (lambda: NetworkSpec(32, 32, (HEAD, RoiAverage(0))), "wants a network with a region layer"),
        (lambda: NetworkSpec(32, 32, (Convolution(9, 1), RoiAverage(0), *ENDING)), "channels of boxes"),
        (lambda: NetworkSpec(32, 32, (HEAD, MaxPool(2, 2), RoiAverage(0), *ENDING)), "boxes at stride 1"),
        (lambda: Reorg(2, "pixel_unshuffle"), "order must be one of darknet, space_to_depth"),
        (lambda: Route(()), "no layers"),
        (lambda: Route("12"), "whole numbers"),
        (lambda: Dropout(1.0), "below 1"),
        (lambda: Dropout(float("nan")), "finite"),
        (lambda: LogSumExp(3, ()), "at least one"),
        (lambda: LogSumExp(3, ((0, 3),)), "row numbers from 0 to 2"),
        (lambda: LogSumExp(3, ((),)), "row numbers"),
        (lambda: LogSumExp(3, (("a",),)), "whole numbers"),
        (lambda: Softmax(temperature=0), "above 0"),
        (lambda: Region((), 2), "1 to 1000 pairs"),
        (lambda: Region(((1, -1),), 2), "positive"),
        (lambda: Region(((1, float("nan")),), 2), "positive"),
        (lambda: Region(((1, 2, 3),), 2), "pairs"),
        (lambda: Region(7, 2), "pairs"),
        (lambda: Region(ANCHORS, 2, boxes=1), "together"),
        (lambda: Region(ANCHORS, 2, shared_rows=True), "need `boxes`"),
        (lambda: Region(ANCHORS, 2, boxes=0, features=0, stored=(1, 1)), "ascending"),
        (lambda: Region(ANCHORS, 2, boxes=0, features=0, stored=(0, 2)), "stored node 2 of only 2"),
        (lambda: Region(ANCHORS, 2, thresh=float("inf")), "thresh"),
        (lambda: Region(ANCHORS, 2, tree=3), "tree"),
        (lambda: NetworkSpec(0, 32, (HEAD,)), "width"),
        (lambda: NetworkSpec(32, 10**6, (HEAD,)), "height"),
        (lambda: NetworkSpec(32, 32, ()), "0 layers"),
        (lambda: NetworkSpec(32, 32, (HEAD,), bn="keras"), "bn must be one of"),
        (lambda: NetworkSpec(32, 32, ("conv",)), "not a layer but str"),
        (lambda: NetworkSpec(32, 32, (HEAD, Route((1,)))), "refers to layer 1; only 0 to 0"),
        (lambda: NetworkSpec(32, 32, (HEAD, Route((-2,)))), "refers to layer -2"),
        (
            lambda: NetworkSpec(33, 32, (MaxPool(2, 2), HEAD, Region(ANCHORS, 2))),
            "multiples of 2, not 33 x 32",
        ),
        (lambda: NetworkSpec(32, 32, (HEAD, Region(ANCHORS, 3))), "2 anchors and 3 classes need 16 filters"),
        (lambda: NetworkSpec(32, 32, (HEAD, Region(ANCHORS, 2), HEAD)), "must be the last"),
        (lambda: NetworkSpec(32, 32, (HEAD, MaxPool(2, 2), Route((0, 1)))), "different strides"),
        (lambda: NetworkSpec(32, 32, (HEAD, Convolution(8, 1), Add(0))), "must be the same"),
        (
            lambda: NetworkSpec(32, 32, (HEAD, MaxPool(2, 2), Convolution(1, 1), Gate(0, 2))),
            "wanted two of the same stride",
        ),
        (lambda: NetworkSpec(32, 32, (HEAD, Gate(0, 0))), "and one channel"),
        (
            lambda: NetworkSpec(32, 32, (HEAD, Convolution(1, 1), Gate(0, 2))),
            "refers to layer 2; only 0 to 1",
        ),
        (lambda: NetworkSpec(32, 32, (HEAD, Reorg(2))), "divisible by 4, found 14"),
        (lambda: NetworkSpec(32, 32, (HEAD, GlobalAveragePool(), HEAD)), "needs cells"),
        (lambda: NetworkSpec(32, 32, (HEAD, GlobalAveragePool(), Softmax(groups=4))), "into 4 groups"),
        (lambda: NetworkSpec(32, 32, (LogSumExp(2**20, ((0,),) * 2**12),)), "1,048,576 rows and 4,096 sets"),
        (
            lambda: NetworkSpec(32, 32, (Convolution(2**20, 99), Convolution(2**20, 99))),
            "parameters; at most",
        ),
        (lambda: NetworkSpec(32, 32, (HEAD, Region(ANCHORS, 2, boxes=0, features=0))), "wanted 10"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, says):
    with pytest.raises(ModelError, match=says):
        make()


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda d: d.pop("layers"), "missing layers"),
        (lambda d: d.update(layers="conv"), "layers must be a list"),
        (lambda d: d.update(depth=3), "unknown depth"),
        (lambda d: d["layers"][0].pop("filters"), "layer 0 .convolution.: fields are missing"),
        (lambda d: d["layers"][0].update(kind="lstm"), "layer 0: unknown kind 'lstm'"),
        (lambda d: d["layers"][0].update(kind=["convolution"]), "unknown kind"),
        (lambda d: d["layers"].append(None), "layer 2: unknown kind None"),
        (lambda d: d["layers"][0].update(flipped=1), "unknown flipped"),
        (lambda d: d["layers"][1].update(anchors="12"), "layer 1: region: anchors"),
        (lambda d: d["layers"][1].update(anchors=None), "layer 1: region: anchors"),
        (lambda d: d["layers"][1].update(stored=3), "layer 1"),
        (lambda d: d["layers"][0].update(size="3"), "layer 0: convolution: size"),
    ],
)
def test_a_damaged_dict_is_refused_in_words(change, says):
    data = json.loads(json.dumps(NetworkSpec(32, 32, (HEAD, Region(ANCHORS, 2))).to_dict()))
    assert NetworkSpec.from_dict(data).classes == 2
    change(data)
    with pytest.raises(ModelError, match=says):
        NetworkSpec.from_dict(data)


@pytest.mark.parametrize("data", [None, 3, "x", [], [1]])
def test_what_is_no_dict_is_refused(data):
    with pytest.raises(ModelError):
        NetworkSpec.from_dict(data)
