"""Single layers against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from yolo9000.blocks import BatchNorm, max_pool, reorg
from yolo9000.network import Network
from yolo9000.spec import (
    Add,
    AveragePool,
    Convolution,
    Gate,
    GlobalAveragePool,
    LogSumExp,
    MaxPool,
    NetworkSpec,
    Route,
)

LINEAR = {"activation": "linear", "batch_normalize": False}


@pytest.mark.parametrize("c, h, w, s", [(4, 4, 6, 2), (8, 2, 2, 2), (9, 6, 3, 3), (16, 8, 4, 4)])
def test_darknets_reorg_equals_its_loop(c, h, w, s):
    """Darknet's index arithmetic on flat memory, value by value."""
    x = torch.randn(c * h * w)
    out = torch.empty(c * h * w)
    deep = c // (s * s)
    for k in range(c):
        for j in range(h):
            for i in range(w):
                c2, offset = k % deep, k // deep
                w2, h2 = i * s + offset % s, j * s + offset // s
                out[i + w * (j + h * k)] = x[w2 + w * s * (h2 + h * s * c2)]
    assert torch.equal(reorg(x.view(1, c, h, w), s, "darknet"), out.view(1, c * s * s, h // s, w // s))


@pytest.mark.parametrize("c, h, w, s", [(1, 2, 2, 2), (3, 4, 6, 2), (5, 6, 3, 3)])
def test_space_to_depth_equals_slices(c, h, w, s):
    x = torch.randn(2, c, h, w)
    expected = torch.cat([x[:, :, dy::s, dx::s] for dy in range(s) for dx in range(s)], 1)
    assert torch.equal(reorg(x, s, "space_to_depth"), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 9), st.integers(1, 9))
def test_max_pool_equals_a_loop(size, stride, padding, h, w):
    padding = min(padding, size - 1)
    if min(h, w) + padding < size:
        return
    x = torch.randn(1, 2, h, w)
    high, wide = (h + padding - size) // stride + 1, (w + padding - size) // stride + 1
    out = torch.empty(1, 2, high, wide)
    for i in range(high):
        for j in range(wide):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            out[0, :, i, j] = x[0, :, max(0, top) : top + size, max(0, left) : left + size].amax((1, 2))
    assert torch.equal(max_pool(x, MaxPool(size, stride, padding)), out)


def test_padded_average_pool_takes_only_real_cells():
    x = torch.randn(1, 2, 5, 9)
    net = Network(NetworkSpec(9, 5, (AveragePool(7),), channels=2))
    out = net(x)
    for i in range(5):
        for j in range(9):
            cells = x[0, :, max(0, i - 3) : i + 4, max(0, j - 3) : j + 4]
            torch.testing.assert_close(out[0, :, i, j], cells.mean((1, 2)))


@pytest.mark.parametrize("rule", ["darknet-cpu", "darknet-gpu"])
def test_batch_norm_divides_as_named(rule):
    norm = BatchNorm(3, rule).eval()
    norm.running_var.copy_(torch.tensor([1e-8, 1e-5, 4.0]))
    norm.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
    norm.weight.data.copy_(torch.tensor([1.0, 2.0, -3.0]))
    norm.bias.data.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(2, 3, 4, 4)
    var = norm.running_var.double().numpy()
    divisor = np.sqrt(var) + 1e-6 if rule == "darknet-cpu" else np.sqrt(var + 1e-5)
    scale = norm.weight.detach().double().numpy() / divisor
    expected = (x.double().numpy() - norm.running_mean.double().numpy()[:, None, None]) * scale[:, None, None]
    expected += norm.bias.detach().double().numpy()[:, None, None]
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rule", ["darknet-cpu", "darknet-gpu"])
def test_batch_norm_evaluates_as_it_trained_even_for_a_dying_channel(rule):
    norm = BatchNorm(2, rule)
    norm.momentum = 1.0  # the running statistics are then those of the batch
    x = torch.randn(64, 2, 8, 8) * torch.tensor([1e-4, 1.0])[:, None, None]
    trained = norm(x)
    torch.testing.assert_close(norm.eval()(x), trained, rtol=0.02, atol=0.02)


def test_dilation_groups_and_references():
    layers = (
        Convolution(6, 3, dilation=2, groups=3, activation="relu", batch_normalize=False),
        Convolution(6, 1, **LINEAR),
        Add(0, "silu"),
        Route((2, -1)),
    )
    net = Network(NetworkSpec(16, 16, layers))
    x = torch.rand(2, 3, 16, 16)
    a = nn.functional.conv2d(x, net.layers[0].conv.weight, net.layers[0].conv.bias, 1, 2, 2, 3).relu()
    b = nn.functional.conv2d(a, net.layers[1].conv.weight, net.layers[1].conv.bias)
    expected = torch.cat((nn.functional.silu(a + b), x), 1)
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.features(x, 0), a)


def test_a_gate_weighs_two_layers_cell_by_cell():
    layers = (
        Convolution(4, 1, **LINEAR),
        Convolution(1, 3, **LINEAR),
        Route((0,)),
        Convolution(4, 3, **LINEAR),
        Gate(0, 1),
    )
    net = Network(NetworkSpec(16, 16, layers))
    x = torch.rand(2, 3, 5, 7)
    first, gate, second = (net.features(x, i) for i in (0, 1, 3))
    share = (gate / 6 + 0.5).clamp(0, 1)  # (N, 1, H, W)
    torch.testing.assert_close(net(x), torch.cat(((1 - share) * first, share * second), 1))
    none = torch.zeros_like(first)
    for bias, expected in ((1e4, (none, second)), (-1e4, (first, none))):
        net.layers[1].conv.bias.data.fill_(bias)
        assert torch.equal(net(x), torch.cat(expected, 1))


def test_a_gate_for_the_whole_picture():
    layers = (
        Convolution(4, 1, **LINEAR),
        Convolution(1, 3, **LINEAR),
        GlobalAveragePool(),
        Route((0,)),
        Convolution(4, 3, **LINEAR),
        Gate(0, 2),
    )
    net = Network(NetworkSpec(16, 16, layers))
    x = torch.rand(2, 3, 5, 7)
    first, gate, second = (net.features(x, i) for i in (0, 1, 4))
    share = (gate.mean((2, 3), keepdim=True) / 6 + 0.5).clamp(0, 1)  # (N, 1, 1, 1)
    torch.testing.assert_close(net(x), torch.cat(((1 - share) * first, share * second), 1))


def test_log_sum_exp_of_sets_of_rows():
    torch.manual_seed(0)
    sets = ((0, 1, 2), (4,), (0, 2, 3, 4))
    net = Network(NetworkSpec(8, 8, (LogSumExp(5, sets),), channels=6))
    layer = net.layers[0]
    layer.bias.data.normal_()
    x = torch.randn(2, 6, 3, 4)
    rows = torch.einsum("kd,ndhw->nkhw", layer.weight, x) + layer.bias[:, None, None]
    expected = torch.stack([rows[:, list(members)].logsumexp(1) for members in sets], 1)
    torch.testing.assert_close(net(x), expected)
    gradients = (
        torch.autograd.grad(y.square().sum(), (layer.weight, layer.bias)) for y in (net(x), expected)
    )
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.fuse()(x), expected)
    assert net.spec.values == sum(p.numel() for p in net.parameters())
