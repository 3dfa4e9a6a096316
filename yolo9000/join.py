"""One detector of several that were trained apart from the same one: what the twin (twin.py) of each says of
a picture is heard, and class rows give the mean of their logits. Networks that saw the pictures in another
order err in different places; the mean is right more often than any of them ("deep ensembles",
Lakshminarayanan et al., 2017). Where the gate leaves twins out nothing changes and nothing more runs.

Not here: the mean of weights (average.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from yolo9000.average import drop_fitted
from yolo9000.blocks import ClassRows, LogSumExpUnit, RegionRows
from yolo9000.errors import ModelError
from yolo9000.layers import Add, Gate, Layer, Region, RoiAverage, Route
from yolo9000.network import Network
from yolo9000.plan import needed

# Values that both have, where each may have been stored as float16: 11 bits, rounded twice.
_ROUNDED = {"rtol": 2.0**-10, "atol": 2.0**-23}


def join_twins(nets: Sequence[Network]) -> tuple[Network, tuple[str, ...]]:
    """A network with the twins for names of all, which hears them as far as the first's gate says. Where it
    hears them alone its logits are the means of theirs (sums of evidence: those of the means). All else is
    the first's: its boxes, its other expert, tree, record and defaults, but for what calibration had fitted.

    Returns it in evaluation mode, and the names of the defaults that were dropped. Raises ModelError for
    fewer than two networks, for one without a twin or with several already, for other classes than the
    first's, and for twins that read something else.
    """
    if len(nets) < 2:
        raise ModelError("two models or more can be joined")
    first = nets[0]
    begin, gate = _twin(first, 1)
    for k, net in enumerate(nets[1:], 2):
        if _twin(net, k) != (begin, gate):
            raise ModelError(f"model {k} has its twin elsewhere than the first")
        _check(first, net, k)
    layers, modules = list(first.spec.layers[:gate]), list(first.layers[:gate])
    for net in nets[1:]:
        layers += net.spec.layers[begin:gate]
        modules += net.layers[begin:gate]
    layers.append(Route(tuple(gate - 1 + k * (gate - begin) for k in range(len(nets)))))
    modules.append(None)  # what joins has no weights
    shift = len(layers) - gate
    layers += [_moved(layer, gate, shift) for layer in first.spec.layers[gate:]]
    modules += first.layers[gate:]
    spec = replace(first.spec, layers=tuple(layers))
    made = Network(spec, first.tree, external=first.external, init=False)
    own = first.spec.outputs[first.spec.layers[gate].first].channels
    with torch.no_grad():
        for module, theirs in zip(made.layers, modules, strict=True):
            if theirs is not None and not isinstance(theirs, LogSumExpUnit | RegionRows):
                module.load_state_dict(theirs.state_dict())
        for reader, *theirs in zip(_readers(made), *map(_readers, nets), strict=True):
            reader.bias.copy_(theirs[0].bias)
            twins = [reader.weight[..., own : 2 * own] / len(nets) for reader in theirs]
            parts = (theirs[0].weight[..., :own], *twins, theirs[0].weight[..., 2 * own :])
            reader.weight.copy_(torch.cat(parts, -1))
    made.carry(first)
    return made.eval(), drop_fitted(made)


def _twin(net: Network, number: int) -> tuple[int, int]:
    """The first layer of a network's twin for names, and the gate after its last."""
    region = net.spec.region
    gate = net.feature_layer if region is not None and region.features is not None else 0
    layer = net.spec.layers[gate]
    if not isinstance(layer, Gate):
        raise ModelError(f"model {number} has no twin; model.twin of a training configuration makes one")
    if isinstance(net.spec.layers[gate - 1], Route):
        raise ModelError(f"model {number} has several twins; join those that it was made of")
    return layer.share + 1, gate


def _readers(net: Network) -> list[ClassRows | LogSumExpUnit]:
    """What has weights for both experts for names: class rows and, if there are any, sums of evidence."""
    sums = [layer for layer in net.layers if isinstance(layer, LogSumExpUnit)]
    return [net.layers[-1].rows, *sums]


def _check(first: Network, other: Network, number: int) -> None:
    """ModelError unless the other's twin can stand beside the first's."""
    begin, gate = _twin(first, 1)
    ours, theirs = (net.tree.fingerprint if net.tree is not None else None for net in (first, other))
    nodes = [net.spec.region.nodes for net in (first, other)]
    if ours != theirs or first.names != other.names or list(nodes[0]) != list(nodes[1]):
        raise ModelError(f"model {number} has other classes than the first, or in another order")
    for i in sorted(needed(first.spec, [gate - 1]) | needed(other.spec, [gate - 1])):
        same = first.spec.layers[i] == other.spec.layers[i]
        if same and i < begin:  # what the twin reads
            states = (net.layers[i].state_dict().values() for net in (first, other))
            same = all(_equal(a, b) for a, b in zip(*states, strict=True))
        if not same:
            raise ModelError(
                f"model {number} has another layer {i} than the first; they must have begun alike"
            )
    own = first.spec.outputs[first.spec.layers[gate].first].channels
    readers = zip(_readers(first), _readers(other), strict=False)
    for ours, theirs in readers:
        rest = [reader.weight[..., 2 * own :] for reader in (ours, theirs)]
        if not _equal(ours.bias, theirs.bias) or not _equal(*rest):
            raise ModelError(
                f"model {number} learnt more than its twin: class rows differ from the first's in what they "
                "share; train it with model.hold"
            )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), **_ROUNDED)


def _moved(layer: Layer, begin: int, shift: int) -> Layer:
    """The layer where all from `begin` on stand `shift` later."""

    def at(index: int) -> int:
        return index + shift if index >= begin else index

    match layer:
        case Route():
            return Route(tuple(map(at, layer.layers)))
        case Add():
            return replace(layer, layer=at(layer.layer))
        case Gate():
            return Gate(at(layer.first), at(layer.share))
        case RoiAverage():
            return replace(layer, boxes=at(layer.boxes))
        case Region():
            return replace(layer, boxes=at(layer.boxes), features=at(layer.features))
    return layer
