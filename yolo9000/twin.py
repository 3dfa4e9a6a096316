"""A trained detector gets a twin of part of its trunk, which learns names while all that was there stays.

The network is of presets.tiny9000's kind: class features that are an average of the trunk's plus a learnt
difference. How the twin then learns is the training configuration's (configs/default-names.toml).
"""

from dataclasses import replace

import torch
from torch import nn

from yolo9000.blocks import ConvolutionUnit
from yolo9000.distill import class_branch
from yolo9000.errors import TrainingError
from yolo9000.layers import (
    Add,
    AveragePool,
    Convolution,
    Gate,
    GlobalAveragePool,
    Layer,
    LogSumExp,
    MaxPool,
    Region,
    Reorg,
    RoiAverage,
    Route,
    twin_of,
)
from yolo9000.network import Network
from yolo9000.plan import needed
from yolo9000.spec import moved

_NARROW = 16  # channels of the gate: it tells kinds of picture apart, not classes


def add_twin(net: Network, first: int) -> Network:
    """A copy of a detector with two experts for names and, for each picture, a gate between them.

    One expert is what there was: the trunk's features averaged, plus a difference. The other has the same
    difference, but averages a twin, a copy of the trunk's layers from `first` on that is there to learn. The
    gate, a few channels of the trunk's last grid of twice as many cells a side, averaged over the picture,
    begins at one half of each. Class rows and sums of evidence get weights for both experts, the twin's being
    copies; so both say the same at first, and what the detector says is unchanged. Boxes see nothing of it.
    New convolutions have no batch norm: its statistics would run with the data. Raises TrainingError for a
    network of another kind.
    """
    averaged, own = class_branch(net)
    old = net.spec.layers
    trunk = _trunk_end(net, averaged)
    if not isinstance(old[own], Add) or net.feature_layer != own:
        raise TrainingError("model.twin: wanted a detector of the preset tiny9000 that has no twin yet")
    if not 0 < first <= trunk:
        raise TrainingError(f"model.twin: {first}; a twin begins at one of the trunk's layers, 1 to {trunk}")
    if any(not isinstance(layer, Convolution | MaxPool) for layer in old[first : trunk + 1]):
        raise TrainingError("model.twin: only convolutions and max-pools can have a twin")
    stride = net.spec.outputs[trunk].stride
    fine = max(i for i in range(trunk) if net.spec.outputs[i].stride * 2 == stride)
    difference = next(i for i in net.spec.inputs(own) if i != averaged)
    layers: list[Layer] = [*old[: own + 1], Route((fine,)), Convolution(_NARROW, 1, batch_normalize=False)]
    layers += [Reorg(2, "space_to_depth"), Convolution(_NARROW, 3, batch_normalize=False)]
    layers.append(Convolution(1, 1, activation="linear", batch_normalize=False, start="zero"))
    layers.append(GlobalAveragePool())
    share = len(layers) - 1
    layers.append(Route((first - 1,)))
    layers += [twin_of(i, old[i]) for i in range(first, trunk + 1)]
    window = old[averaged]
    if isinstance(window, RoiAverage):  # it would follow the first expert's boxes: the least that it looks at
        window = AveragePool(window.least | 1)  # odd, as those about a cell are
    layers += [window, Add(difference), Gate(own, share)]
    gate = len(layers) - 1
    for layer in old[own + 1 :]:  # the sums of evidence and their join, if any; the region
        match layer:
            case Route():
                layer = Route((gate, gate + 1))
            case Region():
                layer = replace(layer, features=len(layers) - 1)
        layers.append(layer)
    made = Network(replace(net.spec, layers=tuple(layers)), net.tree, external=net.external)
    channels = net.spec.outputs[own].channels
    for i, theirs in enumerate(net.layers):
        state = theirs.state_dict()
        if i > own:  # weights for the first expert, the same for its twin, then those for sums of evidence
            state = {
                key: torch.cat((value[..., :channels], value), -1) if key.endswith("weight") else value
                for key, value in state.items()
            }
        made.layers[i if i <= own else i + gate - own].load_state_dict(state)
    for i, layer in enumerate(layers):
        if i > own and isinstance(layer, Convolution) and layer.twin_of is not None:
            copy_twin(i, made.layers[i], net.layers[layer.twin_of])
    return made.carry(net).eval()


def add_box_twin(net: Network) -> Network:
    """A copy of a detector with twin and gate that has two experts for boxes as well: a twin of the neck,
    from the end of the trunk to the features that boxes are made of, heard as far as the names' second is.
    It begins as a copy, so what the detector says is unchanged. Raises TrainingError for a network of another
    kind.
    """
    old, region = net.spec.layers, net.spec.region
    gates = [layer for layer in old if isinstance(layer, Gate)]
    if len(gates) != 1 or region is None or region.boxes is None:
        raise TrainingError("model.box_twin: wanted a detector with a twin for names and none for boxes")
    first, last = _trunk_end(net, class_branch(net)[0]) + 1, net.spec.inputs(region.boxes)[0]
    shift = len(old) - 1 - first
    copies = [_moved(i, old[i], first, shift) for i in range(first, last + 1)]
    gate = Gate(last, gates[0].share)
    boxes = len(old) + len(copies)
    layers = (*old[:-1], *copies, gate, old[region.boxes], replace(region, boxes=boxes))
    made = Network(replace(net.spec, layers=layers), net.tree, external=net.external)
    for i, theirs in enumerate(net.layers):
        made.layers[i if i < len(old) - 1 else -1].load_state_dict(theirs.state_dict())
    for i in range(first, last + 1):
        if isinstance(old[i], Convolution):
            copy_twin(i + shift, made.layers[i + shift], net.layers[i])
    state = net.layers[region.boxes].state_dict()
    state["conv.weight"] = torch.cat((state["conv.weight"],) * 2, 1)
    made.layers[boxes].load_state_dict(state)
    return made.carry(net).eval()


def _trunk_end(net: Network, averaged: int) -> int:
    """The trunk's last layer, whose features the layer `averaged` averages."""
    trunk = net.spec.inputs(averaged)[0]
    while isinstance(net.spec.layers[trunk], Route):
        trunk = net.spec.inputs(trunk)[0]
    return trunk


def _moved(index: int, layer: Layer, first: int, shift: int) -> Layer:
    """A copy of layer `index` that stands `shift` later, as all from `first` on do; others stay."""
    match layer:
        case Convolution():
            return twin_of(index, layer)
        case Route() | Add() | Reorg():
            return moved(layer, lambda i: i + shift if i >= first else i)
    raise TrainingError(f"model.box_twin: layer {index} ({layer.kind}) of the neck cannot have a twin")


def hold_first_expert(net: Network) -> None:
    """Only gates and the second of a network's two experts may learn from now on: of what reads both, class
    rows and sums of evidence and boxes, the weights for the second alone. Where a gate hears the first, what
    is said then stays what it was, exactly, if weight decay is zero. Raises TrainingError for a network
    without a gate.
    """
    _hold_in_readers(net, learns=1)


def hold_second_expert(net: Network) -> None:
    """Only the first of a network's two experts may learn from now on, and of it what the second does not use
    as well: gates stay, and what is said where a gate hears the second, exactly, if weight decay is zero.
    Raises TrainingError for a network without a gate.
    """
    learning = _hold_in_readers(net, learns=0)
    gates = [(i, layer) for i, layer in enumerate(net.spec) if isinstance(layer, Gate)]
    second = needed(net.spec, [k for i, gate in gates for k in (i - 1, gate.share)])
    learning |= needed(net.spec, [gate.first for _, gate in gates]) - second
    for i, layer in enumerate(net.layers):
        if i not in learning:
            layer.requires_grad_(False)


def _hold_in_readers(net: Network, learns: int) -> set[int]:
    """Of the weights of layers that read a gate only those for its expert `learns`, 0 or 1, may learn from
    now on. Returns these layers.
    """
    gates = [i for i, layer in enumerate(net.spec) if isinstance(layer, Gate)]
    if not gates:
        raise TrainingError("model.hold is for one of two experts; this network has one: see model.twin")
    readers = set()
    for i, (layer, module) in enumerate(zip(net.spec, net.layers, strict=True)):
        read = net.spec.inputs(i)[0]
        match layer:  # whatever has weights; dim: the dimension of its channels
            case Convolution():
                rows, dim = module.conv, 1
            case LogSumExp():
                rows, dim = module, -1
            case Region() if layer.features is not None:
                rows, dim, read = module.rows, -1, net.feature_layer
            case _:
                continue
        if read not in gates:
            continue
        readers.add(i)
        if rows.weight.requires_grad:  # else it is frozen altogether
            rows.bias.requires_grad_(False)
            own = net.spec.outputs[net.spec.layers[read].first].channels
            channels = (own, net.spec.outputs[read].channels - own)[learns]
            learning = torch.zeros_like(rows.weight)
            learning.narrow(dim, learns * own, channels).fill_(1)
            rows.weight.register_hook(learning.mul)
    return readers


def copy_twin(index: int, twin: nn.Module, model: nn.Module) -> None:
    """Layer `index`, a twin, begins as its model, batch norm folded. TrainingError where it cannot."""
    weight, bias = model.folded() if isinstance(model, ConvolutionUnit) else (None, None)
    if weight is None or twin.norm is not None or weight.shape != twin.conv.weight.shape:
        raise TrainingError(
            f"layer {index} cannot be the twin of layer {twin.spec.twin_of}: a twin is a convolution of the "
            "same shape, without batch norm"
        )
    with torch.no_grad():
        twin.conv.weight.copy_(weight)
        twin.conv.bias.copy_(bias)
