"""What single layers compute: convolution with batch norm, pooling, reorg, activations, class rows.

No wiring; that is network.py's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo9000.errors import ModelError
from yolo9000.layers import Convolution, LogSumExp, MaxPool


def activate(x: Tensor, name: str) -> Tensor:
    """The activation of that name. Leaky and relu work in place: nothing else may need `x`."""
    match name:
        case "linear":
            return x
        case "leaky":
            return F.leaky_relu(x, 0.1, inplace=True)  # Darknet's slope
        case "relu":
            return F.relu(x, inplace=True)
        case "logistic":
            return torch.sigmoid(x)
        case "silu":
            return F.silu(x)
    raise ModelError(f"unknown activation {name!r}")


def reorg(x: Tensor, stride: int, order: str) -> Tensor:
    """(N, C, H, W) -> (N, C*s*s, H/s, W/s), in Darknet's order or plain space to depth (docs/darknet.md)."""
    n, c, h, w = x.shape
    s = stride
    if order == "darknet":
        # Its memory is read as (C/s^2, H*s, W*s), moved space to depth, and the result's memory read as
        # (C*s^2, H/s, W/s).
        x = x.reshape(n, c // s**2, h, s, w, s)  # (N, C, H, W) -> (N, C/s^2, H, s, W, s)
    else:
        x = x.reshape(n, c, h // s, s, w // s, s)  # (N, C, H, W) -> (N, C, H/s, s, W/s, s)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)  # channels (dy, dx, c)


def max_pool(x: Tensor, layer: MaxPool) -> Tensor:
    """Darknet's max pooling: `padding` in total, the smaller half before, windows only as far as they fit."""
    before = layer.padding // 2
    pads = []
    for extent in (x.shape[3], x.shape[2]):
        windows = (extent + layer.padding - layer.size) // layer.stride + 1
        reach = (windows - 1) * layer.stride + layer.size  # cells covered, counted from the padded start
        pads += [before, max(0, reach - before - extent)]
    if any(pads):
        x = F.pad(x, pads, value=-torch.inf)
    return F.max_pool2d(x, layer.size, layer.stride)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that divides as the spec's `bn` says; in training mode as PyTorch does, with the same small
    constant.

    Running averages move by 0.1 a batch (PyTorch's default).
    """

    def __init__(self, channels: int, rule: str) -> None:
        # darknet-cpu: an epsilon under the root as negligible as 1e-6 beside it, so that training and
        # evaluation agree.
        super().__init__(channels, eps=1e-5 if rule == "darknet-gpu" else 1e-12)
        self.rule = rule

    def variance(self) -> Tensor:
        """(C,) what to take the root of in evaluation."""
        if self.rule == "darknet-gpu":
            return self.running_var + 1e-5
        return (self.running_var.sqrt() + 1e-6).square()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.variance(), self.weight, self.bias, False, 0.0, 0.0)


class BareConv2d(nn.Conv2d):
    """A convolution whose weights are unset until `initialise` or a file sets them.

    torch's skip_init does the same by way of its symbolic shapes, whose import takes a third of a second.
    """

    def reset_parameters(self) -> None:
        pass


class ConvolutionUnit(nn.Module):
    """Convolution, batch norm if any, activation."""

    def __init__(self, spec: Convolution, channels: int, bn: str, init: bool) -> None:
        super().__init__()
        self.spec = spec
        settings = {"padding": spec.padding, "dilation": spec.dilation, "groups": spec.groups}
        self.conv = BareConv2d(
            channels, spec.filters, spec.size, spec.stride, bias=not spec.batch_normalize, **settings
        )
        self.norm = BatchNorm(spec.filters, bn) if spec.batch_normalize else None
        if init:
            initialise(self.conv.weight, self.conv.bias, spec.size**2 * channels // spec.groups)
            if spec.start != "darknet":
                nn.init.zeros_(self.conv.weight)
            if spec.start == "boxes":
                with torch.no_grad():  # (A*5,): x, y, w, h, objectness of each anchor
                    self.conv.bias[4::5] = math.log(0.01 / 0.99)  # the prior of RetinaNet (Lin et al. 2017)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution with its batch norm folded in, as evaluation applies it."""
        if self.norm is None:
            return self.conv.weight, self.conv.bias
        scale = self.norm.weight / self.norm.variance().sqrt()
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return activate(x, self.spec.activation)


class LogSumExpUnit(nn.Module):
    """weight (rows, D), bias (rows,); x (N, D, H, W) -> (N, sets, H, W), always in full precision."""

    def __init__(self, spec: LogSumExp, channels: int, init: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(spec.rows, channels))
        self.bias = nn.Parameter(torch.empty(spec.rows))
        sums = torch.zeros(spec.rows, len(spec.sets))
        for k, members in enumerate(spec.sets):
            sums[list(members), k] = 1
        self.register_buffer("sums", sums, persistent=False)
        if init:
            initialise(self.weight, self.bias, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.at(x.movedim(1, -1)).movedim(-1, 1)

    def at(self, x: Tensor) -> Tensor:
        """The same for single cells: (..., D) -> (..., sets)."""
        with torch.autocast(x.device.type, enabled=False):
            values = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
            highest = values.detach().amax(-1, keepdim=True)
            # Below this share of the largest, 69 in logits, a sum says no more than "far away".
            totals = ((values - highest).exp() @ self.sums).clamp_min(1e-30)
            return totals.log() + highest


class ClassRows(nn.Module):
    """The class rows of a region layer that holds its own: weight (A or 1, K, D), bias (A or 1, K)."""

    def __init__(self, sets: int, rows: int, channels: int, init: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(sets, rows, channels))
        self.bias = nn.Parameter(torch.empty(sets, rows))
        if init:
            initialise(self.weight, self.bias, channels)


class RegionRows(nn.Module):
    """Holder of `rows`, so that they are found in a state dict as `layers.<i>.rows`."""

    def __init__(self, rows: ClassRows) -> None:
        super().__init__()
        self.rows = rows


def initialise(weight: Tensor, bias: Tensor | None, fan_in: int) -> None:
    """Darknet's start: normal values of standard deviation sqrt(2 / fan in), biases zero."""
    nn.init.normal_(weight, std=math.sqrt(2 / fan_in))
    if bias is not None:
        nn.init.zeros_(bias)
