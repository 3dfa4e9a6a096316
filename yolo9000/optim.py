"""Optimiser, learning-rate schedule and averaged weights. No loop, no files."""

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from yolo9000.config import OptimiserConfig, ScheduleConfig
from yolo9000.errors import TrainingError


def make_optimiser(net: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that learn; weight decay on weights of convolutions, class rows
    and sums of evidence only (SPEC 3.3). Parameters whose scale is 0 stop learning: see `training_mode`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    used = set()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = config.weight_decay if name.endswith("weight") and parameter.dim() > 1 else 0.0
        scale = 1.0
        for prefix, factor in config.scales.items():
            if fnmatchcase(name, prefix + "*"):
                scale, _ = factor, used.add(prefix)
        groups.setdefault((decay, scale), []).append(parameter)
        if not scale:
            parameter.requires_grad_(False)
    if not any(scale for _, scale in groups):
        raise TrainingError("nothing is left to train: every parameter is frozen")
    if unused := set(config.scales) - used:
        raise TrainingError(
            f"optimiser.scales: no parameter that learns begins with {', '.join(sorted(unused))}"
        )
    lists = [
        {"params": parameters, "weight_decay": decay, "scale": scale}
        for (decay, scale), parameters in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            lists, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov and config.momentum > 0
        )
    # fused: one pass over memory for all of its steps, several times as fast as one operation after another
    return torch.optim.AdamW(lists, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)


def training_mode(net: nn.Module) -> None:
    """`net.train()`, but for modules that have parameters of which none learns: their batch norms' statistics
    stand still, too, so that what depends on nothing else stays to the bit.
    """
    net.train()
    for module in net.modules():
        if _stands_still(module):
            module.eval()


def _stands_still(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)


def rate_factor(config: ScheduleConfig, batch: int, total: int) -> float:
    """The learning rate's factor for batch number `batch` (0 first) of `total`.

    During burn-in Darknet's (batch / burn_in) ** power, counted so that the first batch is not wasted on a
    rate of zero.
    """
    if batch < config.burn_in:
        return ((batch + 1) / config.burn_in) ** config.burn_in_power
    done = min(1.0, batch / max(1, total))
    if config.name == "steps":
        return config.factor ** sum(done >= step for step in config.steps)
    if config.name == "polynomial":
        return (1.0 - done) ** config.power
    if config.name == "cosine":
        return config.final + (1.0 - config.final) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives every parameter group the learning rate `rate` times its own scale."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


class Average:
    """Exponential moving average of what a network learns: parameters that are not frozen, and their
    batch-norm statistics.

    The decay is min(decay, (1 + updates) / (10 + updates)), so that the random start is soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.values = {name: value.detach().clone() for name, value in _learning(net)}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        floats, news = [], []
        for name, value in _learning(net):
            if value.is_floating_point():
                floats.append(self.values[name])
                news.append(value.detach())
            else:
                self.values[name].copy_(value)
        torch._foreach_lerp_(floats, news, 1 - decay)

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Puts the averages in place of the network's own values."""
        for name, value in _learning(net):
            value.copy_(self.values[name])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not set(self.values) <= set(state["values"]):  # what has a rate of zero once was averaged, too
            raise TrainingError("the averaged weights of the checkpoint are of another network")
        self.updates = state["updates"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def _learning(net: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters with gradients, and the saved buffers of modules that do not stand still, by name."""
    found = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    saved = set(net.state_dict(keep_vars=True))
    for prefix, module in net.named_modules():
        if _stands_still(module):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if full in saved:
                found.append((full, buffer))
    return found
