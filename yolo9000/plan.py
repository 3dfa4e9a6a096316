"""Which layers of a network run for which outputs, in what order, and which may rest: of two experts the
second need not run where its gate does not hear it. And whether grids are of sizes that layers can run.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolo9000.errors import ModelError
from yolo9000.layers import IMAGE, AveragePool, Convolution, External, Gate, Layer, MaxPool, Reorg
from yolo9000.spec import NetworkSpec

# Gate's share of the second expert, clip(1/2 + v / 6, 0, 1), is zero up to here.
_SILENT = -3.0

# Runs one layer of a network: its number and inputs, to its output.
Step = Callable[[int, list[Tensor]], Tensor]


@dataclass(frozen=True)
class Second:
    """The second of two experts, for names or for boxes or both. gates: what weighs it and the other, in the
    layer before the gate and in the gate's `first`; layers: those that run for the second alone; reads: the
    others whose outputs these take."""

    spec: NetworkSpec
    gates: tuple[tuple[int, Gate], ...]
    layers: frozenset[int]
    reads: frozenset[int]

    def settled(
        self, share: int, outputs: dict[int, Tensor], modules: nn.ModuleList, step: Step
    ) -> dict[int, Tensor] | None:
        """What gates take for the second, by layer, or None where its layers are to run like all others.

        share: the layer that says how far it is heard, the last that ran; outputs: by layer; modules: the
        network's; step: runs one layer. Zeros where it rests; in an exported program what is decided there.
        """
        if self._rests(outputs[share], modules):
            return {i: _zeros(outputs[gate.first], shape) for i, gate, shape in self._said(outputs)}
        if torch.compiler.is_exporting() and outputs.keys() >= self.reads:
            return self._branch(outputs[share], outputs, step)
        return None

    def _rests(self, share: Tensor, modules: nn.ModuleList) -> bool:
        """Whether it can be left out: by the gate's v, `share`, it is heard nowhere, and neither the gate nor
        it, of the network's `modules`, learns.

        Only on a processor, where looking costs nothing, and not while the network is traced."""
        if share.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if torch.is_grad_enabled() and (share.requires_grad or self._learns(modules)):
            return False
        return bool(_unheard(share))

    def _branch(self, share: Tensor, outputs: dict[int, Tensor], step: Step) -> dict[int, Tensor]:
        """The same choice in an exported program: what the second says, if it is heard, else zeros."""
        reads, layers = sorted(self.reads), sorted(self.layers)
        said, _, empty = zip(*self._said(outputs), strict=True)
        shapes = [tuple(outputs[j].shape) for j in reads]  # fixed; else the exporter leaves them open inside

        def heard(*read: Tensor) -> tuple[Tensor, ...]:
            known = {j: x.view(shape) for j, x, shape in zip(reads, read, shapes, strict=True)}
            for i in layers:
                known[i] = step(i, [known[j] for j in self.spec.inputs(i)])
            return tuple(known[i].contiguous() for i in said)

        def silent(*read: Tensor) -> tuple[Tensor, ...]:
            return tuple(read[0].new_zeros(shape) for shape in empty)

        found = torch.cond(~_unheard(share), heard, silent, tuple(outputs[j] for j in reads))
        return dict(zip(said, found, strict=True))

    def _said(self, outputs: dict[int, Tensor]) -> list[tuple[int, Gate, tuple[int, ...]]]:
        """For each gate the second's layer before it, the gate, and the shape of what that layer says."""
        firsts = [(i - 1, gate, outputs[gate.first]) for i, gate in self.gates]
        return [(i, gate, (len(x), self.spec.outputs[i].channels, *x.shape[2:])) for i, gate, x in firsts]

    def _learns(self, modules: nn.ModuleList) -> bool:
        return any(weight.requires_grad for i in self.layers for weight in modules[i].parameters())


def _unheard(share: Tensor) -> Tensor:
    """Whether a gate's v leaves the second out everywhere, (); a v that is no number does not."""
    return (share <= _SILENT).all()


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Laid out in memory as the first expert's: a gate joins the two without a copy into another layout."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout).zero_()


@dataclass(frozen=True)
class Plan:
    """steps: of each layer to run its number, ascending, the layers whose outputs it takes, and those whose
    outputs nobody takes after it. seconds: experts that can be left out, by the layer that says how far they
    are heard. external: whether outputs of the user's backbone are among them."""

    steps: tuple[tuple[int, tuple[int, ...], frozenset[int]], ...]
    seconds: dict[int, Second]
    external: bool


def make_plan(spec: NetworkSpec, wanted: tuple[int, ...]) -> Plan:
    """How to come to the outputs of the layers `wanted`."""
    layers = needed(spec, wanted)
    gates = [(i, layer) for i in sorted(layers) if isinstance(layer := spec.layers[i], Gate)]
    seconds = {}
    for share in {gate.share for _, gate in gates}:
        mine = tuple((i, gate) for i, gate in gates if gate.share == share)
        alone = layers - needed(spec, wanted, without={(i - 1, i) for i, _ in mine})
        # Known in time: the share, and the shape of what stays zero. A backbone of the user's runs once.
        known = all(i - 1 in alone and max(gate.first, share) < min(alone) for i, gate in mine)
        if known and not any(isinstance(spec.layers[i], External) for i in alone):
            reads = {j for i in alone for j in spec.inputs(i)} - alone
            seconds[share] = Second(spec, mine, frozenset(alone), frozenset(reads))
    sources = {i: spec.inputs(i) for i in sorted(layers)}
    last_use = {j: i for i, inputs in sources.items() for j in inputs}
    steps = [
        (i, inputs, frozenset(j for j in inputs if last_use[j] == i and j not in wanted))
        for i, inputs in sources.items()
    ]
    return Plan(tuple(steps), seconds, any(isinstance(spec.layers[i], External) for i in layers))


class Plans:
    """The plans of one network, each made once; but a program that is being compiled keeps nothing."""

    def __init__(self, spec: NetworkSpec) -> None:
        self._spec = spec
        self._made: dict[tuple[int, ...], Plan] = {}

    def __call__(self, wanted: tuple[int, ...]) -> Plan:
        if torch.compiler.is_compiling():
            return make_plan(self._spec, wanted)
        if wanted not in self._made:
            self._made[wanted] = make_plan(self._spec, wanted)
        return self._made[wanted]


def needed(spec: NetworkSpec, wanted: Iterable[int], without: Collection[tuple[int, int]] = ()) -> set[int]:
    """What `wanted` depend on, themselves among it. without: ways not to go, (from, to)."""
    found: set[int] = set()
    pending = list(wanted)
    while pending:
        i = pending.pop()
        if i not in found and i != IMAGE:
            found.add(i)
            pending += [j for j in spec.inputs(i) if (j, i) not in without]
    return found


def check_fit(index: int, layer: Layer, inputs: list[Tensor]) -> None:
    """ModelError where the grids, whose sizes depend on the image's, do not fit this layer."""
    shapes = [tuple(x.shape[2:]) for x in inputs if x.dim() == 4] or [()]
    needed, multiple = 1, 1
    match layer:
        case Convolution():
            needed = layer.dilation * (layer.size - 1) + 1 - 2 * layer.padding
        case MaxPool():
            needed = layer.size - layer.padding
        case AveragePool(padded=False):
            needed = layer.size
        case Reorg():
            multiple = layer.stride
    if len(set(shapes)) > 1:
        raise ModelError(f"layer {index} ({layer.kind}): joins grids of different sizes {shapes}")
    if shapes[0] and (min(shapes[0]) < max(1, needed) or any(extent % multiple for extent in shapes[0])):
        what = f"at least {needed}" if multiple == 1 else f"a multiple of {multiple}"
        raise ModelError(f"layer {index} ({layer.kind}): a grid of {shapes[0]}; wanted {what} a side")
