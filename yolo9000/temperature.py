"""Temperatures, one for each depth of the tree, that make conditionals say how often they are right.

C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: logits
are divided by a number above 1 where a model is too sure of itself, below 1 where it is too modest. Softmax
takes no notice of what all logits of a group have in common, so log conditionals serve as logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from yolo9000.conditionals import log_softmax_runs
from yolo9000.hierarchy import log_softmax_segments

if TYPE_CHECKING:
    from yolo9000.conditionals import Conditionals, Looks
    from yolo9000.hierarchy import Hierarchy, Restriction

# Where a best temperature is looked for; beyond, a level's scores say nothing or are not to be mended.
_LEAST, _MOST = 0.1, 10.0

# A temperature is kept only if it helps by more than twice the error of the mean help, over so many answers.
_SIGMAS, _FEWEST = 2.0, 50


def temper(hierarchy: "Hierarchy", log_conditionals: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Log conditionals (..., C) with those of depth d divided by temperatures[d] and normalised again; depths
    beyond the list stay as they are. -inf stays -inf."""
    divisor = by_depth(temperatures, hierarchy.depths).to(log_conditionals)
    return hierarchy.log_conditionals(log_conditionals / divisor)


class TemperedConditionals:
    """Conditionals softened as they are asked for; see conditionals.Conditionals."""

    def __init__(
        self, conditionals: "Conditionals", hierarchy: "Hierarchy", temperatures: Sequence[float]
    ) -> None:
        self._inner, self._temperatures = conditionals, tuple(temperatures)
        self._depths = hierarchy.depths
        self.count, self.device = conditionals.count, conditionals.device

    def groups(self, looks: "Looks") -> np.ndarray:
        divisor = by_depth(self._temperatures, self._depths).cpu().numpy()[looks.first]
        sizes = looks.sizes
        values = self._inner.groups(looks) / divisor.repeat(looks.counts).repeat(sizes)
        return log_softmax_runs(values, sizes)

    def some(self, few: "Restriction") -> Tensor:
        values = self._inner.some(few).float()
        divisor = by_depth(self._temperatures, self._depths)[few.columns]
        return log_softmax_segments(values / divisor[:, None], few.segment_of, few.segments)

    def all(self, hierarchy: "Hierarchy") -> Tensor:
        return temper(hierarchy, self._inner.all(hierarchy).float(), self._temperatures)


@dataclass(frozen=True)
class Fit:
    """What a temperature does at one depth. answers: how many were looked at; temperature: the best one;
    before, after: mean -log Pr(true node | its parent), in nats; kept: whether it is worth having."""

    depth: int
    answers: int
    temperature: float
    before: float
    after: float
    kept: bool


def fit_temperatures(hierarchy: "Hierarchy", log_conditionals: Tensor, truths: Tensor) -> tuple[Fit, ...]:
    """The best temperature of each depth for conditionals (M, C) of boxes whose true nodes (M,) are known.

    Groups of one member and true nodes without a row teach nothing and are left out. The loss is convex in
    1/temperature, which is found by golden section.
    """
    fits = []
    deepest = int(hierarchy.depths[truths].max()) if len(truths) else -1
    for depth in range(deepest + 1):
        boxes = (hierarchy.depths[truths] >= depth).nonzero().squeeze(1)
        nodes = hierarchy.path_nodes[hierarchy.path_starts[truths[boxes]] + depth]
        groups = hierarchy.group_of[nodes]
        several = hierarchy.group_starts[groups + 1] - hierarchy.group_starts[groups] > 1
        known = several & ~torch.isneginf(log_conditionals[boxes, nodes])
        boxes, nodes, groups = boxes[known], nodes[known], groups[known]
        members, which = hierarchy.members(groups)
        values = log_conditionals[boxes[which], members].double()
        target = (members == nodes[which]).nonzero().squeeze(1)
        fits.append(_fit(depth, values, which, target))
    return tuple(fits)


def kept_temperatures(fits: Sequence[Fit]) -> tuple[float, ...]:
    """One temperature a depth, 1 where none is worth having; empty if that is everywhere."""
    values = [fit.temperature if fit.kept else 1.0 for fit in fits]
    while values and values[-1] == 1.0:
        values.pop()
    return tuple(values)


def _fit(depth: int, values: Tensor, which: Tensor, target: Tensor) -> Fit:
    count = len(target)
    if not count:
        return Fit(depth, 0, 1.0, 0.0, 0.0, False)

    def losses(sharpness: float) -> Tensor:
        return -log_softmax_segments(values * sharpness, which, count)[target]

    low, high = 1 / _MOST, 1 / _LEAST
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if losses(left).mean() <= losses(right).mean():
            high = right
        else:
            low = left
    best = (low + high) / 2
    before, after = losses(1.0), losses(best)
    help_ = before - after
    error = float(help_.std()) / math.sqrt(count) if count > 1 else math.inf
    kept = count >= _FEWEST and float(help_.mean()) > _SIGMAS * error
    return Fit(depth, count, round(1 / best, 4), float(before.mean()), float(after.mean()), kept)


def by_depth(temperatures: Sequence[float], depths: Tensor) -> Tensor:
    """Each node's temperature (n,) float32: temperatures[d] at depth d of depths (n,), 1 beyond the list."""
    deepest = int(depths.max()) if len(depths) else 0
    values = torch.ones(deepest + 1, device=depths.device)
    given = torch.tensor([float(t) for t in temperatures][: deepest + 1], device=depths.device)
    values[: len(given)] = given
    return values[depths]
