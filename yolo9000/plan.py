"""Which layers of a network run for which outputs, in what order, and which may rest: of two experts the
second need not run where its gate does not hear it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yolo9000.layers import IMAGE, Gate
from yolo9000.spec import NetworkSpec

# Gate's share of the second expert, clip(1/2 + v / 6, 0, 1), is zero up to here.
_SILENT = -3.0


@dataclass(frozen=True)
class Second:
    """The second of two experts, for names or for boxes or both. gates: what weighs it and the other, in the
    layer before the gate and in the gate's `first`; layers: those that run for the second alone."""

    gates: tuple[tuple[int, Gate], ...]
    layers: frozenset[int]

    def rests(self, share: Tensor, modules: nn.ModuleList) -> bool:
        """Whether it can be left out: by the gate's v, `share`, it is heard nowhere, and neither the gate nor
        it, of the network's `modules`, learns.

        Only on a processor, where looking costs nothing, and not while the network is traced."""
        if share.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if torch.is_grad_enabled() and (share.requires_grad or self._learns(modules)):
            return False
        return bool((share <= _SILENT).all())

    def silence(self, outputs: dict[int, Tensor], spec: NetworkSpec) -> dict[int, Tensor]:
        """Zeros for what it would have said, by layer: beside the first of each gate in `outputs`, and laid
        out in memory as that is, so that the gate joins them without a copy into another layout.
        """
        zeros = {}
        for i, gate in self.gates:
            first = outputs[gate.first]
            shape = (len(first), spec.outputs[i - 1].channels, *first.shape[2:])
            last = first.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            zeros[i - 1] = torch.empty(
                shape, dtype=first.dtype, device=first.device, memory_format=layout
            ).zero_()
        return zeros

    def _learns(self, modules: nn.ModuleList) -> bool:
        return any(weight.requires_grad for i in self.layers for weight in modules[i].parameters())


@dataclass(frozen=True)
class Plan:
    """layers: those to run, ascending. last_use: of each layer used, the last that uses it. seconds: experts
    that can be left out, by the layer that says how far they are heard."""

    layers: tuple[int, ...]
    last_use: dict[int, int]
    seconds: dict[int, Second]


def make_plan(spec: NetworkSpec, wanted: tuple[int, ...]) -> Plan:
    """How to come to the outputs of the layers `wanted`."""
    layers = needed(spec, wanted)
    gates = [(i, layer) for i in sorted(layers) if isinstance(layer := spec.layers[i], Gate)]
    seconds = {}
    for share in {gate.share for _, gate in gates}:
        mine = tuple((i, gate) for i, gate in gates if gate.share == share)
        alone = layers - needed(spec, wanted, without={(i - 1, i) for i, _ in mine})
        # What is known in time: the share, and the shape of what stays zero.
        if all(i - 1 in alone and max(gate.first, share) < min(alone) for i, gate in mine):
            seconds[share] = Second(mine, frozenset(alone))
    ordered = tuple(sorted(layers))
    return Plan(ordered, {j: i for i in ordered for j in spec.inputs(i)}, seconds)


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
