"""Where a network keeps its class rows, the linear values that become class logits: one view of three forms.

A region layer that owns rows; a detector in Darknet's form, whose last convolution holds them behind each
anchor's five box channels; a classifier's last convolution. Nothing here knows a tree.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.spec import AveragePool, Convolution, Dropout, GlobalAveragePool, NetworkSpec


def class_layer(spec: NetworkSpec) -> int:
    """The index of the layer that holds the class rows.

    Raises ModelError for a bare trunk, and where the classes do not come straight out of a linear convolution
    (after batch norm or an activation a row is no longer a class's own).
    """
    if spec.region is not None and spec.region.features is not None:
        return len(spec) - 1
    if spec.region is None and spec.softmax is None:
        raise ModelError("this network is a bare trunk: it ends in no region layer and no softmax")
    i = len(spec) - 2
    while i > 0 and isinstance(spec.layers[i], GlobalAveragePool | AveragePool | Dropout):
        i = spec.inputs(i)[0]
    wanted = {"activation": "linear", "batch_normalize": False, "groups": 1}
    conv = spec.layers[i] if i >= 0 else None
    if not isinstance(conv, Convolution) or any(getattr(conv, k) != v for k, v in wanted.items()):
        raise ModelError("the classes do not come from a linear convolution without batch norm")
    return i


def row_nodes(spec: NetworkSpec) -> Sequence[int]:
    """The classes that have a row, ascending: K of them."""
    return spec.region.nodes if spec.region is not None else range(spec.classes)


def row_parameters(net: Network) -> tuple[nn.Parameter, nn.Parameter]:
    """The parameters (weight, bias) that hold the class rows, perhaps among other things."""
    layer = net.layers[class_layer(net.spec)]
    held = layer.conv if hasattr(layer, "conv") else layer.rows
    return held.weight, held.bias


def view_rows(spec: NetworkSpec, values: Tensor) -> Tensor:
    """The class rows within a tensor of the shape of one of `row_parameters`, without a copy.

    Returns (S, K, ...): S sets of rows, one per anchor, or 1 where there is one for all; then what a row is
    made of, nothing for the bias.
    """
    region = spec.region
    if region is None:
        return values.unsqueeze(0)  # (C, ...) -> (1, C, ...)
    if region.features is not None:
        return values
    return values.unflatten(0, (len(region.anchors), -1))[:, 5:]  # (A*(5+C), ...) -> (A, C, ...)
