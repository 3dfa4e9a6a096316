"""Packed networks give what the networks they were made of give."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.small import FORMS, TREE, detector_spec, picture, randomise, small_detector
from yolo9000 import packed
from yolo9000.blocks import ConvolutionUnit, max_pool
from yolo9000.detector import Detector
from yolo9000.device import has_bfloat16
from yolo9000.errors import ModelError
from yolo9000.layers import Convolution, MaxPool
from yolo9000.network import Network
from yolo9000.packed import PackedConvolution, PackedMaxPool, can_pack, pack, part_rows

ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "silu")
needs_onednn = pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no oneDNN")


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.3
    return values.contiguous(memory_format=torch.channels_last)


@needs_onednn
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 0, 1), (3, 1, 2, 2), (5, 3, 2, 1)]),
    st.integers(1, 3),
    st.tuples(st.integers(5, 17), st.integers(5, 17)),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_packed_convolution_equals_its_unit(activation, channels, filters, form, batch, grid, dtype):
    if not can_pack(dtype):
        dtype = torch.float32
    size, stride, padding, dilation = form
    spec = Convolution(filters, size, stride, padding, activation, batch_normalize=False, dilation=dilation)
    unit = ConvolutionUnit(spec, channels, "darknet-gpu", init=True)
    with torch.no_grad():
        unit.conv.bias.normal_(generator=torch.Generator().manual_seed(1))
    x = images(batch, channels, *grid)
    with torch.inference_mode():
        unit, x = unit.to(dtype), x.to(dtype)
        # laid out for one grid, run on another
        found = PackedConvolution(unit, (8, 8))(x)
        expected = unit.float()(x.float())
    assert found.dtype == dtype and found.shape == expected.shape
    rounding = 1e-5 if dtype == torch.float32 else 2**-8  # half a unit in bfloat16's last place, relative
    assert torch.allclose(found.float(), expected, rtol=2 * rounding, atol=2 * rounding)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(4, 11), st.integers(4, 11)),
    st.booleans(),
)
def test_a_packed_pool_equals_darknets(size, stride, padding, shape, last):
    layer = MaxPool(size, stride, min(padding, size - 1))
    x = images(*shape)
    x = x if last else x.contiguous()
    x[0, 0, 0, 0], x[0, 0, 0, 1], x[0, -1, -1, -1] = -torch.inf, -0.0, torch.inf
    assert torch.equal(PackedMaxPool(layer)(x), max_pool(x, layer))


def test_a_value_that_is_none_stays_none_in_a_pool():
    x = images(1, 2, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    found = PackedMaxPool(MaxPool(2, 2))(x)
    assert found[0, 0, 0, 0].isnan() and found.isnan().sum() == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 96, 40)])
@torch.inference_mode()
def test_a_packed_network_equals_the_network(form, shape):
    net = small_detector(form)
    ready = pack(part_rows(net).fuse(), (64, 64))
    x = images(*shape, seed=3)
    assert torch.allclose(ready(x), net(x), rtol=1e-4, atol=1e-4)
    mine, plain = ready.lazy(x), net.lazy(x)
    for part in ("boxes", "features", "bias"):
        assert torch.allclose(getattr(mine, part), getattr(plain, part), rtol=1e-4, atol=1e-4)
    assert torch.equal(mine.weight, plain.weight)


@pytest.mark.parametrize("form", FORMS)
def test_parted_rows_are_the_networks_own(form):
    net = small_detector(form).train()
    parted = part_rows(net)
    assert net.training and all(layer.training for layer in net.layers)
    if form not in ("darknet", "flat"):
        assert parted is net
        return
    assert parted.tree is net.tree and parted.stride == net.stride and parted.classes == net.classes
    assert torch.equal(parted.anchors, net.anchors)
    rows, fused = parted.layers[-1].rows.weight, parted.fuse().layers[-1].rows.weight
    assert rows.data_ptr() == net.layers[-2].conv.weight[5].data_ptr()
    assert torch.equal(fused, rows) and fused.data_ptr() != rows.data_ptr() and fused.is_contiguous()


@needs_onednn
def test_what_is_packed_and_what_is_not():
    spec = detector_spec("darknet")
    grouped = Convolution(16, 3, groups=4)
    layers = (*spec.layers[:-2], grouped, *spec.layers[-2:])
    net = randomise(Network(type(spec)(64, 64, layers), TREE), 0).fuse()
    ready = pack(net, (64, 64))
    kinds = [type(layer).__name__ for layer in ready.layers]
    packed_ones = ["PackedConvolution", "PackedMaxPool"] * 2 + ["PackedConvolution"]
    assert kinds == [*packed_ones, "ConvolutionUnit", "ConvolutionUnit", "Identity"]


def test_without_onednn_nothing_changes(monkeypatch):
    net = small_detector("darknet")
    x = images(2, 3, 64, 64)
    expected = Detector(net, precision="float32").run(x)
    monkeypatch.setattr(packed, "can_pack", lambda dtype: False)
    plain = Detector(net, precision="float32")
    assert not any(isinstance(layer, PackedConvolution) for layer in plain._running.layers)
    found = plain.run(x)
    assert torch.allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.features, expected.features, rtol=1e-4, atol=1e-4)


def test_class_rows_stay_float32_beside_a_bfloat16_network():
    net = small_detector("darknet")
    out = Detector(net, precision="bfloat16").run(images(1, 3, 64, 64))
    assert out.boxes.dtype == out.weight.dtype == torch.float32 and out.features.dtype == torch.bfloat16
    assert torch.equal(out.weight, net.lazy(images(1, 3, 64, 64)).weight)


@pytest.mark.parametrize("instructions", ["none", "AVX512-BF16", "AMX"])
def test_a_processor_without_fast_bfloat16_computes_in_float32(instructions, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions == "AVX512-BF16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: instructions == "AMX")
    wanted = "float32" if instructions == "none" else "bfloat16"
    assert has_bfloat16(torch.device("cpu")) == (wanted == "bfloat16")
    detector = Detector(small_detector("darknet"))
    assert detector.precision == wanted
    assert detector.run(images(1, 3, 64, 64)).features.dtype == getattr(torch, wanted)
    assert Detector(small_detector("darknet"), precision="bfloat16").precision == "bfloat16"


@pytest.mark.parametrize("form", FORMS)
def test_class_rows_are_held_once(form):
    net = small_detector(form)
    detector = Detector(net)
    held = {values.untyped_storage().data_ptr() for values in net.parameters()}
    rows = detector._running.layers[-1].rows
    assert all(values.untyped_storage().data_ptr() in held for values in rows.parameters())
    x = images(1, 3, 64, 64)
    copied = Detector(net.train())  # a network that learns keeps its own
    assert all(v.untyped_storage().data_ptr() not in held for v in copied._running.layers[-1].parameters())
    mine, other = detector.run(x), copied.run(x)
    nodes = torch.arange(net.classes)
    assert torch.equal(mine.logits_of(nodes), other.logits_of(nodes))
    assert torch.equal(mine.boxes, other.boxes)
    state = {name: values.clone() for name, values in net.state_dict().items()}
    net.half().float()  # a network that goes elsewhere takes nothing along
    assert torch.equal(detector.run(x).weight, mine.weight)
    assert state.keys() == net.state_dict().keys()


@pytest.mark.parametrize("form", ["darknet", "shared"])
@pytest.mark.parametrize("change", ["in place", "sgd", "load"])
def test_lent_rows_that_change_are_noticed(form, change):
    net = small_detector(form)
    lender, learner = Detector(net), Detector(net.train())
    x = images(1, 3, 64, 64)
    expected = learner.run(x).dense()
    assert torch.equal(lender.run(x).dense(), expected)
    values = (net.layers[-1].rows if hasattr(net.layers[-1], "rows") else net.layers[-2].conv).weight
    if change == "in place":
        with torch.no_grad():
            values.add_(1)
    elif change == "sgd":
        values.grad = torch.ones_like(values)
        torch.optim.SGD([values], lr=0.1).step()
    else:
        net.load_state_dict({name: values + 1 for name, values in net.state_dict().items()})
    with pytest.raises(ModelError, match="changed"):
        lender.run(x)
    assert torch.equal(learner.run(x).dense(), expected)
    assert not torch.equal(Detector(net.eval()).run(x).dense(), expected)


def test_rows_whose_changes_nobody_counts_are_copied():
    with torch.inference_mode():
        net = small_detector("shared").double().float()
    assert net.layers[-1].rows.weight.is_inference()
    detector = Detector(net)
    assert detector._loan is None and detector.run(images(1, 3, 64, 64)).weight.dtype == torch.float32


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_detector_is_copied_whole(precision, copied):
    detector = Detector(small_detector("shared"), precision=precision)
    wanted = detector(picture(), threshold=0.1).to_dict()
    for _ in range(2):  # also one that has run
        twin = copied(detector)
        assert twin(picture(), threshold=0.1).to_dict() == wanted and wanted["detections"]
        for _ in range(45):
            detector(picture())


def test_a_copied_loan_goes_by_its_own_rows():
    rows = torch.zeros(2)
    rows += 1
    loan = packed.Loan(rows)
    mine, copied = copy.deepcopy((rows, loan))
    copied.check()
    rows += 1
    copied.check()
    with pytest.raises(ModelError):
        loan.check()
    mine += 1
    with pytest.raises(ModelError):
        copied.check()
