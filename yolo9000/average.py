"""One model of several that began as the same one: the mean of their weights ("model soups", Wortsman et al.,
2022). It runs as fast as any of them and is often righter than each, most of all where there was little data.

Not here: the average that training keeps of a run's last batches (optim.py).
"""

from collections.abc import Mapping, Sequence

import torch

from yolo9000.distill import difference_branch
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.options import drop_options

# Fitted to one model's outputs by `yolo9000 calibrate`; the mean's are others.
_FITTED = ("temperatures", "lambdas")


def average(nets: Sequence[Network]) -> tuple[Network, tuple[str, ...]]:
    """A network with the means of all weights and statistics, in float64 until the last; of one network, a
    copy. All else is the first's: its tree, names, record and defaults, but for what calibration had fitted.

    Returns it in evaluation mode, and the names of the defaults that were dropped. Raises ModelError for no
    network at all, for networks of different layers or trees, and for weights that are not finite.
    """
    if not nets:
        raise ModelError("a mean wants one model at least")
    first = nets[0]
    for k, net in enumerate(nets[1:], 2):
        if net.spec != first.spec:
            raise ModelError(
                f"model {k} {_difference(first, net)}; only those of the same layers have a mean"
            )
        check_classes(first, net, k)
    made = Network(first.spec, first.tree, external=first.external, init=False).carry(first)
    made.load_state_dict(_means([net.state_dict() for net in nets]))
    return made.eval(), drop_fitted(made) if len(nets) > 1 else ()


def shrink_difference(net: Network, share: float) -> tuple[Network, tuple[str, ...]]:
    """A copy of a detector of presets.tiny9000's kind whose class features have only the share `share`, 0..1,
    of the difference that they learnt beside the windows' means, which began as 0: some of the way back
    ("robust fine-tuning", Wortsman et al., 2021, of that layer alone). What is learnt from few pictures is
    learnt by heart in part, and half of it may serve others better. Of two experts both have it.

    Returns it and the names of the defaults that were dropped, as `average`. Raises ModelError for another
    kind of network and an impossible share.
    """
    if not 0 <= share <= 1:  # also refuses NaN
        raise ModelError(f"the share of the difference lies in 0..1, not {share}")
    branch = difference_branch(net)
    made, _ = average([net])
    with torch.no_grad():
        for value in made.layers[branch].conv.parameters():
            value.mul_(share)
    return made, drop_fitted(made)


def drop_fitted(net: Network) -> tuple[str, ...]:
    """Leaves out of a network's defaults what was fitted to the outputs of the one that they were taken from,
    and a rule that needs it. Returns the names of what was there. The other's own record and defaults stay as
    they are.
    """
    net.record, net.defaults = dict(net.record), dict(net.defaults)
    return drop_options(net.defaults, _FITTED)


def _means(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    means = {}
    for name, value in states[0].items():
        if value.is_floating_point():
            means[name] = sum(state[name].double() for state in states).div(len(states)).to(value.dtype)
            if not means[name].isfinite().all():
                raise ModelError(f"{name} has values that are not finite; one of the models is damaged")
        else:
            means[name] = value
    return means


def check_classes(first: Network, other: Network, number: int) -> None:
    """ModelError unless the other, model `number`, names the same classes as the first."""
    if _fingerprint(other) != _fingerprint(first) or other.names != first.names:
        raise ModelError(f"model {number} names other classes than the first, or in another order")


def _fingerprint(net: Network) -> str | None:
    return net.tree.fingerprint if net.tree is not None else None


def _difference(first: Network, other: Network) -> str:
    """Where two descriptions part."""
    if len(first.spec) != len(other.spec):
        return f"has {len(other.spec)} layers, the first {len(first.spec)}"
    for i, (ours, theirs) in enumerate(zip(first.spec, other.spec, strict=True)):
        if ours != theirs:
            return f"has another layer {i} ({theirs.kind}) than the first ({ours.kind})"
    return "is described otherwise than the first"
