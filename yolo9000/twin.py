"""A trained detector gets a twin of part of its trunk, which learns names while all that was there stays.

The network is of presets.tiny9000's kind: class features that are an average of the trunk's plus a learnt
difference. How the twin then learns is the training configuration's (configs/default-names.toml).
"""

from dataclasses import replace

import torch

from yolo9000.distill import class_branch
from yolo9000.errors import TrainingError
from yolo9000.layers import Add, AveragePool, Blend, Convolution, Layer, MaxPool, Region, Reorg, Route
from yolo9000.network import Network

_WINDOW = 9  # cells; at 224 px names read off the trunk are best over 9 x 9 to 11 x 11 of its 14 x 14
_NARROW = 16  # channels of the gate: it tells kinds of picture apart, not classes


def add_twin(net: Network, first: int, window: int = _WINDOW) -> Network:
    """A copy of a detector with two experts for names and, at every cell, a gate between them.

    One expert is the trunk as it is, averaged over `window` x `window` cells (odd). The other is what there
    was: an average plus a difference, but the average is of a twin, a copy of the trunk's layers from `first`
    on that is there to learn. The gate, a few channels of the trunk's last grid of twice as many cells a
    side, averaged as well, begins at one half of each. Boxes see nothing of it. New convolutions have no
    batch norm: its statistics would run with the data. Raises TrainingError for a network of another kind.
    """
    averaged, own = class_branch(net)
    old = net.spec.layers
    head = averaged - 1  # the route to the trunk, from where on everything is class features
    trunk = net.spec.inputs(head)[0]
    if not (isinstance(old[head], Route) and isinstance(old[own], Add) and net.feature_layer == own):
        raise TrainingError("model.twin: wanted a detector of the preset tiny9000 that has no twin yet")
    if not 0 < first <= trunk:
        raise TrainingError(f"model.twin: {first}; a twin begins at one of the trunk's layers, 1 to {trunk}")
    copied = old[first : trunk + 1]
    if any(not isinstance(layer, Convolution | MaxPool) for layer in copied):
        raise TrainingError("model.twin: only convolutions and max-pools can have a twin")
    stride = net.spec.outputs[trunk].stride
    fine = max(i for i in range(trunk) if net.spec.outputs[i].stride * 2 == stride)
    layers: list[Layer] = [*old[:head], Route((first - 1,))]
    twin = len(layers)
    layers += [_unnormalised(layer) for layer in copied]
    layers.append(old[averaged])
    difference = len(layers) - averaged - 1  # how far the layers of the difference move
    layers += [*old[averaged + 1 : own], Add(averaged + difference)]
    learning = len(layers) - 1
    layers += [Route((trunk,)), AveragePool(window, padded=True)]
    layers += [Route((fine,)), _unnormalised(Convolution(_NARROW, 1)), Reorg(2, "space_to_depth")]
    layers += [_unnormalised(Convolution(_NARROW, 3)), AveragePool(window, padded=True)]
    layers.append(_unnormalised(Convolution(1, 1, activation="linear", start="zero")))
    layers.append(Blend(learning + 2, learning))
    blend = len(layers) - 1
    for layer in old[own + 1 :]:  # the sums of evidence and their join, if any; the region
        match layer:
            case Route():
                layer = Route((blend, blend + 1))
            case Region():
                layer = replace(layer, features=len(layers) - 1)
        layers.append(layer)
    made = Network(replace(net.spec, layers=tuple(layers)), net.tree, external=net.external)
    moved = {i: i for i in range(head)} | {i: i + difference for i in range(averaged + 1, own)}
    moved |= {i: i + blend - own for i in range(own + 1, len(old))}
    with torch.no_grad():
        for i, place in moved.items():
            made.layers[place].load_state_dict(net.layers[i].state_dict())
        for i, layer in enumerate(copied):
            if isinstance(layer, Convolution):
                weight, bias = net.layers[first + i].folded()
                made.layers[twin + i].conv.weight.copy_(weight)
                made.layers[twin + i].conv.bias.copy_(bias)
    for name in ("class_map", "stored", "seen", "version", "names", "record", "defaults"):
        setattr(made, name, getattr(net, name))
    return made.eval()


def _unnormalised(layer: Layer) -> Layer:
    return replace(layer, batch_normalize=False) if isinstance(layer, Convolution) else layer
