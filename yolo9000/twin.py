"""A trained detector gets a twin of part of its trunk, which learns names while boxes stay as they are.

The network is of presets.tiny9000's kind: class features that are an average of the trunk's plus a
difference. How the twin then learns is the training configuration's (configs/default-twin.toml).
"""

from dataclasses import replace

import torch
from torch import Tensor

from yolo9000.distill import class_branch
from yolo9000.errors import ModelError, TrainingError
from yolo9000.layers import AveragePool, Convolution, Layer, MaxPool, Region, Route
from yolo9000.network import Network


def add_twin(net: Network, first: int, pool: int = 5) -> Network:
    """A copy of a detector whose class rows read a second trunk, too, from layer `first` of the first on.

    The twin begins with the trunk's own weights and is averaged over `pool` x `pool` cells (odd; the trunk
    learnt to be averaged over whole pictures, what goes on learning needs fewer). What class rows, and the
    sums of evidence before them, read of the trunk's features they now read half there and half in the
    twin's: so all that is known shapes the twin's gradient from the first step on, which columns of zeros
    would not let through. Boxes see nothing of the twin. Its convolutions have no batch norm of their own:
    statistics would run with the data. Raises TrainingError for a network of another kind.
    """
    averaged, own = class_branch(net)
    trunk = net.spec.inputs(averaged)[0]
    while isinstance(net.spec.layers[trunk], Route):
        trunk = net.spec.inputs(trunk)[0]
    if net.feature_layer != own or not 0 < first <= trunk:
        raise TrainingError(
            f"model.twin: {first}; a twin begins at one of the trunk's layers, here 1 to {trunk}, of a "
            "detector of the preset tiny9000 that has none yet"
        )
    layers: list[Layer] = [*net.spec.layers[: own + 1], Route((first - 1,))]
    start = len(layers) - first  # where layer 0 of the twin would be
    layers += [_twin_of(i, net.spec.layers[i]) for i in range(first, trunk + 1)]
    layers += [AveragePool(pool, padded=True), Route((own, len(layers)))]
    joined = len(layers) - 1
    for layer in net.spec.layers[own + 1 :]:  # the sums of evidence and their join, if any; the region
        match layer:
            case Route():
                layer = Route((joined, joined + 1))
            case Region():
                layer = replace(layer, features=len(layers) - 1)
        layers.append(layer)
    made = Network(replace(net.spec, layers=tuple(layers)), net.tree, external=net.external, init=False)
    width = net.spec.outputs[own].channels
    with torch.no_grad():
        for i, theirs in enumerate(net.layers):
            state = {key: value.clone() for key, value in theirs.state_dict().items()}
            ours = made.layers[i if i <= own else i + joined - own]
            if i > own:
                state = {key: _halved(value, width, ours.state_dict()[key]) for key, value in state.items()}
            ours.load_state_dict(state)
        for i in range(first, trunk + 1):
            if isinstance(net.spec.layers[i], Convolution):
                weight, bias = net.layers[i].folded()
                made.layers[start + i].conv.weight.copy_(weight)
                made.layers[start + i].conv.bias.copy_(bias)
    for name in ("class_map", "stored", "seen", "version", "names", "record", "defaults"):
        setattr(made, name, getattr(net, name))
    return made.eval()


def _twin_of(index: int, layer: Layer) -> Layer:
    if isinstance(layer, Convolution):
        return replace(layer, batch_normalize=False)
    if isinstance(layer, MaxPool):
        return layer
    raise ModelError(f"layer {index} ({layer.kind}) cannot be in a twin: only convolutions and max-pools can")


def _halved(values: Tensor, width: int, like: Tensor) -> Tensor:
    """(..., width + rest) -> (..., width, width, rest), the first two half of what was there; what has the
    right shape already stays.
    """
    if values.shape == like.shape:
        return values
    own, rest = values[..., :width] / 2, values[..., width:]
    return torch.cat((own, own, rest), -1)
