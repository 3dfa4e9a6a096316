"""One detector of several that were trained apart from the same one: what the twin (twin.py) of each says of
a picture is heard, and class rows give the mean of their logits. Networks that saw the pictures in another
order err in different places; the mean is right more often than any of them ("deep ensembles",
Lakshminarayanan et al., 2017). Where the gate leaves twins out nothing changes and nothing more runs. And a
twin that looks at the picture's mirror image as well.

Not here: the mean of weights (average.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from yolo9000.average import drop_fitted
from yolo9000.blocks import ClassRows, LogSumExpUnit, RegionRows
from yolo9000.errors import ModelError
from yolo9000.layers import IMAGE, Add, Convolution, Gate, Layer, MaxPool, Region, RoiAverage, Route
from yolo9000.network import Network
from yolo9000.plan import needed

# Values that both have, where each may have been stored as float16: 11 bits, rounded twice.
_ROUNDED = {"rtol": 2.0**-10, "atol": 2.0**-23}
_HOMOGENEOUS = ("linear", "relu", "leaky")  # f(x / 2) = f(x) / 2


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
    for k, net in enumerate(nets[1:], 1):
        layers += [_moved(layer, begin, k * (gate - begin)) for layer in net.spec.layers[begin:gate]]
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


def mirror_twin(net: Network) -> Network:
    """A copy of a network whose twin for names looks at the picture and at its mirror image: what it had for
    each cell is now the mean of what it says of the cell and of that cell's mirror image. No pixels are
    turned: kernels are, in a second copy of all layers from the image to the twin's last.

    Returns it in evaluation mode. Raises ModelError for a network without a twin, with several, or with one
    that does so already, and where a mean cannot be made of two halves or a layer not be mirrored.
    """
    begin, gate = _twin(net, 1)
    old = net.spec.layers
    window = gate - 2  # what averages the twin; then comes the difference
    if isinstance(old[window - 1], Add):
        raise ModelError("the twin looks at the picture's mirror image already")
    source = old[begin].layers[0]  # what the twin reads
    seen = (*range(source + 1), *range(begin + 1, window))
    _check_mirrored([old[i] for i in seen])
    layers, states = list(old[:window]), [module.state_dict() for module in net.layers[:window]]
    layers.append(Route((IMAGE,)))
    states.append({})
    for i in seen:
        layer, state = old[i], {}
        if isinstance(layer, Convolution):
            weight, bias = net.layers[i].folded()
            state = {"conv.weight": weight.flip(-1), "conv.bias": bias}
            layer = replace(layer, batch_normalize=False, twin_of=None)
        layers.append(layer)
        states.append(state)
    for k in (window - 1, len(layers) - 1):  # leaky: of half the weights and bias comes half of the output
        states[k] = {name: value / 2 for name, value in states[k].items()}
    layers.append(Add(window - 1))
    states.append({})
    shift = len(layers) - window
    layers += [_moved(layer, window, shift) for layer in old[window:]]
    states += [module.state_dict() for module in net.layers[window:]]
    made = Network(replace(net.spec, layers=tuple(layers)), net.tree, external=net.external, init=False)
    for module, state in zip(made.layers, states, strict=True):
        module.load_state_dict(state)
    return made.carry(net).eval()


def _check_mirrored(layers: Sequence[Layer]) -> None:
    """ModelError unless turned kernels see what the layers would see in a mirror, and the last, halved, gives
    the half."""
    last = layers[-1]
    if not isinstance(last, Convolution) or last.batch_normalize or last.activation not in _HOMOGENEOUS:
        raise ModelError(
            f"a twin that ends in {last.kind} cannot be halved, as a mean with its mirror image wants"
        )
    for layer in layers:
        turns = isinstance(layer, Convolution) and layer.stride == 1 and layer.size % 2 == 1
        if not turns and layer != MaxPool(2, 2):  # of even grids, as every stride's are
            raise ModelError(f"a layer of the twin ({layer.kind}) cannot be mirrored")


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
