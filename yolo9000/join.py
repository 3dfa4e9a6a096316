"""One detector of several that were trained apart from the same one: what the twin (twin.py) of each says of
a picture is heard, and class rows give the mean of their logits. Networks that saw the pictures in another
order err in different places; the mean is right more often than any of them ("deep ensembles",
Lakshminarayanan et al., 2017). Where the gate leaves twins out nothing changes and nothing more runs. And a
twin that looks at the picture's mirror image as well.

Not here: the mean of weights (average.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from yolo9000.average import check_classes, drop_fitted
from yolo9000.blocks import ClassRows, LogSumExpUnit
from yolo9000.errors import ModelError
from yolo9000.layers import IMAGE, Add, Convolution, Gate, Layer, MaxPool, Route
from yolo9000.network import Network
from yolo9000.plan import needed
from yolo9000.spec import moved

# Values that both have, where each may have been stored as float16: 11 bits, rounded twice.
_ROUNDED = {"rtol": 2.0**-10, "atol": 2.0**-23}
_HOMOGENEOUS = ("linear", "relu", "leaky")  # f(x / 2) = f(x) / 2


def join_twins(nets: Sequence[Network]) -> tuple[Network, tuple[str, ...]]:
    """A network with the twins of all, which hears them as far as the first's gate says. Where it hears them
    alone its logits are the means of theirs (sums of evidence: those of the means), and its raw boxes the
    means of those of all that have a twin for boxes, if the first has one. All else is the first's: its other
    experts, tree, record and defaults, but for what calibration had fitted.

    Returns it in evaluation mode, and the names of the defaults that were dropped. Raises ModelError for
    fewer than two networks, for one without a twin or with several already, for other classes than the
    first's, and for twins that read something else.
    """
    if len(nets) < 2:
        raise ModelError("two models or more can be joined")
    first = nets[0]
    begin, gate = _twin(first, 1)
    joins = {gate: (begin, list(nets))}
    box_twin = _box_twin(first)
    for_boxes = [net for net in nets if _box_twin(net) is not None]
    if box_twin and len(for_boxes) > 1:
        joins[box_twin[1]] = (box_twin[0], for_boxes)
    for k, net in enumerate(nets[1:], 2):
        if _twin(net, k) != (begin, gate) or (box_twin and _box_twin(net) not in (None, box_twin)):
            raise ModelError(f"model {k} has its twin elsewhere than the first")
        _check(first, net, k, {at: start for at, (start, those) in joins.items() if net in those})
    layers, modules = _beside_each_other(first, joins)
    made = Network(replace(first.spec, layers=tuple(layers)), first.tree, external=first.external, init=False)
    with torch.no_grad():
        for module, theirs in zip(made.layers, modules, strict=True):
            shapes = [[value.shape for value in each.state_dict().values()] for each in (module, theirs)]
            if shapes[0] == shapes[1]:  # else it reads a gate
                module.load_state_dict(theirs.state_dict())
        for at, (_, those) in joins.items():
            own = first.spec.outputs[first.spec.layers[at].first].channels
            for reader, *theirs in zip(
                *(_readers(net, box=at != gate) for net in (made, *those)), strict=True
            ):
                reader.bias.copy_(theirs[0].bias)
                reader.weight.copy_(_side_by_side([each.weight for each in theirs], own))
    made.carry(first)
    return made.eval(), drop_fitted(made)


def _beside_each_other(
    first: Network, joins: Mapping[int, tuple[int, list[Network]]]
) -> tuple[list[Layer], list[nn.Module]]:
    """The layers of the joined network and, for each, the module whose weights it has. joins: for each gate
    the first layer of the twin before it, and the networks whose twins are to stand there."""
    layers: list[Layer] = []
    modules: list[nn.Module] = []
    more = {gate: 1 + (gate - begin) * (len(those) - 1) for gate, (begin, those) in joins.items()}

    def at(index: int) -> int:
        return index + sum(count for gate, count in more.items() if index >= gate)

    for i, layer in enumerate(first.spec):
        begin, those = joins.get(i, (i, []))
        ends = [len(layers) - 1]
        for net in those[1:]:
            inside = {k: len(layers) + k - begin for k in range(begin, i)}
            for k in inside:
                layers.append(moved(net.spec.layers[k], lambda j, inside=inside: inside.get(j, at(j))))
                modules.append(net.layers[k])
            ends.append(len(layers) - 1)
        if those:
            layers.append(Route(tuple(ends)))
            modules.append(nn.Identity())
        layers.append(moved(layer, at))
        modules.append(first.layers[i])
    return layers, modules


def _side_by_side(weights: Sequence[Tensor], own: int) -> Tensor:
    """Weights of what reads a gate, of several networks with (..., own + own + more) channels, or these in
    dimension 1 of a convolution's four: for the first expert and for more the first's, for twins a share of
    each."""
    dim = 1 if weights[0].dim() == 4 else -1
    parts = [weight.split([own, own, weight.shape[dim] - 2 * own], dim) for weight in weights]
    twins = [twin / len(weights) for _, twin, _ in parts]
    return torch.cat((parts[0][0], *twins, parts[0][2]), dim)


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
    layers += [moved(layer, lambda j: j + shift if j >= window else j) for layer in old[window:]]
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


def _box_twin(net: Network) -> tuple[int, int] | None:
    """The first layer of a network's twin for boxes and the gate after its last, if it has one."""
    region = net.spec.region
    gate = net.spec.inputs(region.boxes)[0]
    return (region.features + 1, gate) if isinstance(net.spec.layers[gate], Gate) else None


def _readers(net: Network, box: bool) -> list[ClassRows | LogSumExpUnit | nn.Conv2d]:
    """What has weights for both experts, for boxes or for names: class rows and, if there are any, sums of
    evidence."""
    if box:
        return [net.layers[net.spec.region.boxes].conv]
    sums = [layer for layer in net.layers if isinstance(layer, LogSumExpUnit)]
    return [net.layers[-1].rows, *sums]


def _check(first: Network, other: Network, number: int, begins: Mapping[int, int]) -> None:
    """ModelError unless the other's twins can stand beside the first's. begins: of each gate the first layer
    of the twin before it."""
    check_classes(first, other, number)
    if list(first.spec.region.nodes) != list(other.spec.region.nodes):
        raise ModelError(f"model {number} has class rows for other nodes than the first")
    for gate, begin in begins.items():
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
        readers = [_readers(net, box=gate != first.feature_layer) for net in (first, other)]
        for ours, theirs in zip(*readers, strict=False):
            rest = [reader.weight[..., 2 * own :] for reader in (ours, theirs) if reader.weight.dim() < 4]
            if not _equal(ours.bias, theirs.bias) or (rest and not _equal(*rest)):
                raise ModelError(
                    f"model {number} learnt more than its twin: what reads it differs from the first's in "
                    "what they share; train it with model.hold"
                )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), **_ROUNDED)
