"""A network made ready for inference. `part_rows`: class rows apart from the box channels, so that they need
not take part; `fuse`: the same without a second copy of them. `pack`, for a processor: convolutions by
oneDNN, which PyTorch carries, with weights laid out once as its kernels read them and activations inside,
pools without the indices that only training needs. Outputs are the same but for rounding. No folding of batch
norm (network.py) and no choice of precision (detector.py).
"""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolo9000.blocks import ConvolutionUnit, activate, max_pool
from yolo9000.errors import ModelError
from yolo9000.layers import Convolution, Layer, MaxPool
from yolo9000.program import Programmed, Run

if TYPE_CHECKING:
    from yolo9000.network import Network

# oneDNN's names and parameters of the activations of blocks.activate.
_ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "leaky": ("leaky_relu", [0.1]),
    "relu": ("relu", []),
    "logistic": ("sigmoid", []),
    "silu": ("swish", []),
}

# Convolutions that have a program. Up to so many multiplications, 0.6 ms on one core: what it saves at a
# call, some tens of microseconds, counts. Larger ones where several threads share each, up to so many
# weights, 4 MiB as bfloat16, which it would hold twice: 4% of the network's time; nothing in lanes of one
# thread.
_MOST_WORK, _MOST_WEIGHTS = 2**28, 2**21


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and this processor can run packed convolutions of that type."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    # Private names, those that torch.compile's own generated code calls; without them nothing is packed.
    operations = torch.ops.mkldnn
    wanted = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")
    if not all(hasattr(operations, name) for name in wanted):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and operations._is_mkldnn_bf16_supported())


def part_rows(net: "Network") -> "Network":
    """A detector whose last convolution, linear and 1x1, makes boxes and classes -> the same with a
    convolution for boxes alone and class rows that the region layer owns; any other as it is. Layers and
    parameters are those of `net`, not copies: to be fused, which copies them.
    """
    from yolo9000.network import Network  # which does without this file

    spec, region, last = net.spec, net.spec.region, len(net.spec) - 2
    if region.features is not None or last < 1 or not _is_rows(spec.layers[last]):
        return net
    count = len(region.anchors)
    boxes = replace(spec.layers[last], filters=5 * count)
    region = replace(region, boxes=last, features=last - 1, shared_rows=False)
    spec = replace(spec, layers=(*spec.layers[:last], boxes, region))
    # Without memory: every parameter is given one that is there already.
    with torch.device("meta"):
        parted = Network(spec, net.tree, external=net.external, init=False)
    weight, bias = (p.detach() for p in (net.layers[last].conv.weight, net.layers[last].conv.bias))
    weight = weight.unflatten(0, (count, -1))  # (A*(5+C), D, 1, 1) -> (A, 5+C, D, 1, 1)
    bias = bias.unflatten(0, (count, -1))  # (A*(5+C),) -> (A, 5+C)
    for index in range(last):
        parted.layers[index] = net.layers[index]
    conv, rows = parted.layers[last].conv, parted.layers[-1].rows
    conv.weight, conv.bias = nn.Parameter(weight[:, :5].flatten(0, 1)), nn.Parameter(bias[:, :5].flatten())
    rows.weight, rows.bias = nn.Parameter(weight[:, 5:, :, 0, 0]), nn.Parameter(bias[:, 5:])
    return parted.carry(net)


def _is_rows(layer: Layer) -> bool:
    if not isinstance(layer, Convolution) or layer.batch_normalize or layer.activation != "linear":
        return False
    return (layer.size, layer.stride, layer.padding, layer.groups) == (1, 1, 0, 1)


class Loan:
    """Class rows that another network owns, and whether it has changed them since: as far as PyTorch counts
    changes, which is all in-place operations and steps of SGD, but no steps of a fused AdamW.
    """

    def __init__(self, *rows: Tensor) -> None:
        self._rows = rows
        self._versions = [values._version for values in rows]

    def check(self) -> None:
        """Raises ModelError if the rows are no longer what was lent."""
        if [values._version for values in self._rows] != self._versions:
            raise ModelError("the class rows of the network have changed since this detector was made of it")

    def __reduce__(self) -> tuple[type, tuple[Tensor, ...]]:  # a copy's count starts anew
        return Loan, self._rows


def fuse(net: "Network", device: torch.device) -> tuple["Network", Loan | None]:
    """A detector's `part_rows`, fused and on the device. Class rows are those of `net` itself, lent, unless
    it is being trained, lies on another device, or is made of tensors whose changes nobody counts.
    """
    parted = part_rows(net)
    rows = getattr(parted.layers[-1], "rows", None)
    if rows is None or net.training or rows.weight.device != device or rows.weight.is_inference():
        return parted.fuse().to(device).requires_grad_(False), None
    fused = parted.fuse(share_rows=True).requires_grad_(False)  # of its own; the network's still learn
    return fused, Loan(*fused.layers[-1].rows.parameters())


def pack(net: "Network", size: tuple[int, int]) -> "Network":
    """Packs a fused network in evaluation mode, in place; returns it. Its convolutions' parameters are gone
    afterwards: it can run, and nothing else.

    size: (width, height) of the input that weights are laid out for; others run too. The convolution whose
    rows `Network.lazy` takes apart is left as it is, and so is everything where `can_pack` is False.
    """
    region = net.spec.region
    rows = len(net.spec) - 2 if region is not None and region.features is None else None
    for index, layer in enumerate(net.spec):
        unit = net.layers[index]
        if isinstance(layer, MaxPool):
            net.packed[index] = net.layers[index] = PackedMaxPool(layer, index)
        elif isinstance(unit, ConvolutionUnit) and index != rows and _fits(unit):
            source = net.spec.inputs(index)[0]
            stride = net.spec.outputs[source].stride if source >= 0 else 1
            width, height = (max(1, int(side / stride)) for side in size)
            with suppress(RuntimeError):  # a window larger than its grid: running it says so in words
                net.packed[index] = net.layers[index] = PackedConvolution(unit, (height, width), index)
    return net


def _fits(unit: ConvolutionUnit) -> bool:
    weight = unit.conv.weight
    simple = unit.norm is None and unit.spec.groups == 1 and unit.spec.activation in _ACTIVATIONS
    return simple and weight.device.type == "cpu" and can_pack(weight.dtype)


class PackedConvolution(Programmed):
    """One convolution and its activation, (N, C, H, W) -> (N, filters, H', W') of the same type."""

    def __init__(self, unit: ConvolutionUnit, grid: tuple[int, int], place: int = 0) -> None:
        """grid: (height, width) that the weights are laid out for; place: as Programmed(...)."""
        super().__init__(place)
        spec: Convolution = unit.spec
        self._places = ([spec.padding] * 2, [spec.stride] * 2, [spec.dilation] * 2, spec.groups)
        self._activation = spec.activation
        self._channels = unit.conv.weight.shape[1]
        self._grid = grid
        self._weight = self._laid_out(unit.conv.weight.detach())
        self._bias = unit.conv.bias.detach().clone()

    def _laid_out(self, weight: Tensor) -> Tensor:
        """Opaque to everything but oneDNN, so no buffer, which a state dict would try to read."""
        shape = [1, self._channels, *self._grid]
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self._places, shape)

    def __getstate__(self) -> dict[str, Any]:  # what is opaque cannot be copied
        return {**super().__getstate__(), "_weight": self._weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._weight = self._laid_out(self._weight)

    def packed(self, x: Tensor) -> Tensor:
        name, values = _ACTIVATIONS[self._activation]
        operation = torch.ops.mkldnn._convolution_pointwise
        return operation(x, self._weight, self._bias, *self._places, name, values, "")

    def plain(self, x: Tensor) -> Run | None:
        weights = self._weight.numel()
        work = weights * x.shape[0] * x.shape[2] * x.shape[3] // self._places[1][0] ** 2
        most = _MOST_WEIGHTS if torch.get_num_threads() > 1 else 0
        # In float32 all take too long to gain more than 1%.
        if x.dtype != torch.bfloat16 or (work > _MOST_WORK and weights > most):
            return None
        weight = self._weight.to_dense().contiguous(memory_format=torch.channels_last)
        bias, (padding, stride, dilation, groups), name = self._bias, self._places, self._activation
        return lambda x: activate(F.conv2d(x, weight, bias, stride, padding, dilation, groups), name)


class PackedMaxPool(Programmed):
    """`blocks.max_pool`; where its windows tile the grid, as maxima of whole rows and columns."""

    def __init__(self, layer: MaxPool, place: int = 0) -> None:
        """place: as Programmed(...)."""
        super().__init__(place)
        self.layer = layer
        self._tiles = layer.size == layer.stride == 2 and layer.padding <= 1

    def packed(self, x: Tensor) -> Tensor:
        if not self._tiles or x.shape[2] % 2 or x.shape[3] % 2:
            return max_pool(x, self.layer)
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), as it lies in memory
        x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(x[:, ::2], x[:, 1::2]).permute(0, 3, 1, 2)

    def plain(self, x: Tensor) -> Run | None:
        # Where a side is odd Darknet's has a cell more: then there will be no program.
        return partial(F.max_pool2d, kernel_size=2, stride=2) if self._tiles else None
