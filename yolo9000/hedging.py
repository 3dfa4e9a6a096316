"""How much an answer says, and the answer that says most for the certainty that is asked for.

J. Deng, J. Krause, A. C. Berg and L. Fei-Fei, "Hedging Your Bets: Optimizing Accuracy-Specificity
Trade-offs in Large Scale Visual Recognition", CVPR 2012 (their DARTS). An answer's reward is the information
it gives, log2(leaves of the tree) - log2(leaves below it): 0 for the root, most for a leaf. The answer is the
node with the largest (reward + lambda) x Pr(node). Above several roots stands a virtual root, node -1: reward
0, always right. With lambda 0 the expected information is largest; the larger lambda, the more certain and
the less telling the answers. `fit_lambda` finds the least lambda for a share of right answers on data held
back.

Pure functions of (tree, probabilities). Other rules are descent.py's and cuts.py's; gathering the data is
calibrate.py's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from yolo9000.search import Steps, search, searched_paths

if TYPE_CHECKING:
    from yolo9000.conditionals import Conditionals
    from yolo9000.hierarchy import Hierarchy

# Beyond this every answer whose probability is not 1 in float32 has become the virtual root.
LARGEST_LAMBDA = 1e12

# Bisection stops when lambda is known to a thousandth of itself: answers change far more coarsely.
_CLOSE = 1.001
# A float32 product of an exponential differs from the float64 one by less than this allows.
_ROUGHLY = 1 - 1e-4


def rewards(hierarchy: "Hierarchy") -> Tensor:
    """Information in bits that each node gives as an answer, (n,) float64: log2(leaves) - log2(leaves below).

    A leaf counts as one below itself.
    """
    below = hierarchy.leaves.double()
    return (hierarchy.child_group < 0).sum().double().log2() - below.log2()


def hedge(hierarchy: "Hierarchy", log_probabilities: Tensor, lambda_: float) -> Tensor:
    """Nodes (M,) with the largest (reward + lambda) x Pr(node), -1 for the virtual root.

    log_probabilities: (M, C) of absolute probabilities, -inf where no row is stored. Of nodes that are equal
    the lowest in the tree is answered, and the virtual root last. Raises ValueError unless 0 <= lambda < inf.
    """
    _check_lambda(lambda_)
    weight = rewards(hierarchy).to(log_probabilities.device) + lambda_  # (n,)
    # In float32 first: only what may be largest there, with room for rounding, is looked at in float64.
    rough = log_probabilities.float().exp() * weight.float()
    near = (rough >= rough.amax(1, keepdim=True) * _ROUGHLY) & (log_probabilities > -torch.inf)
    box, node = near.nonzero(as_tuple=True)
    value = log_probabilities[box, node].double().exp() * weight[node]
    best = value.new_full((len(rough),), -torch.inf).scatter_reduce(0, box, value, "amax")
    # Children come after their parents, so the last of equal nodes is the lowest.
    place = node.new_full((len(rough),), -1).scatter_reduce(
        0, box, node.where(value == best[box], -1), "amax"
    )
    return torch.where(best < lambda_, -1, place)


def hedge_walk(hierarchy: "Hierarchy", conditionals: "Conditionals", lambda_: float) -> tuple[Tensor, Tensor]:
    """As `hedge`, from conditionals that are computed as asked: no node is more probable than its parent, so
    nothing is looked at below one whose probability times the largest reward is less than the best so far.

    Returns nodes (M,), and log Pr of the nodes on the path to each, root first: (M, L), NaN beyond its end.
    """
    _check_lambda(lambda_)
    count = conditionals.count
    weight = rewards(hierarchy).cpu().numpy() + lambda_  # (n,)
    most = weight.max(initial=0) / _ROUGHLY  # with room for rounding
    best, place = np.full(count, -np.inf), np.full(count, -1)
    last = np.zeros(count, np.float32)  # log Pr of the best node

    def worth(steps: Steps) -> np.ndarray:
        share = np.exp(steps.logs, dtype=np.float64)
        value = share * weight[steps.nodes]
        before = best.copy()
        np.maximum.at(best, steps.boxes, value)
        # Of equal ones the lowest in the tree, which comes last.
        place[best > before] = -1
        equal = steps[value == best[steps.boxes]]
        np.maximum.at(place, equal.boxes, equal.nodes)
        equal = equal[equal.nodes == place[equal.boxes]]
        last[equal.boxes] = equal.logs
        return share * most >= np.maximum(best, lambda_)[steps.boxes]

    opened = search(hierarchy, conditionals, worth)
    nodes = np.where(best < lambda_, -1, place)
    path = searched_paths(hierarchy, nodes, last, opened)
    return tuple(torch.from_numpy(part).to(conditionals.device) for part in (nodes, path))


@dataclass(frozen=True)
class Frontier:
    """The only nodes that `hedge` can answer at each of M boxes, whatever lambda: those that no likelier node
    equals in reward.

    nodes: (M, K) int64, likeliest first, -1 beyond each box's own; probability, reward: (M, K) float64,
    0 there.
    """

    nodes: Tensor
    probability: Tensor
    reward: Tensor

    @classmethod
    def of(cls, hierarchy: "Hierarchy", log_probabilities: Tensor) -> "Frontier":
        """log_probabilities: (M, C)."""
        count, device = len(log_probabilities), log_probabilities.device
        # Turned round, so that of equally likely nodes the lowest comes first, as in `hedge`.
        logs, order = log_probabilities.flip(1).sort(dim=1, descending=True, stable=True)
        nodes = hierarchy.nodes - 1 - order
        reward = rewards(hierarchy).to(device)[nodes]
        before = reward.cummax(dim=1).values[:, :-1]
        kept = torch.ones_like(nodes, dtype=torch.bool)
        kept[:, 1:] = reward[:, 1:] > before
        kept &= logs > -torch.inf
        box, place = kept.nonzero(as_tuple=True)
        column = (kept.long().cumsum(1) - 1)[box, place]
        width = int(kept.sum(1).max()) if count else 0
        shape = (count, width)
        parts = [
            torch.full(shape, -1, dtype=torch.long, device=device),
            *(torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2)),
        ]
        for part, values in zip(parts, (nodes, logs.double().exp(), reward), strict=True):
            part[box, column] = values[box, place]
        return cls(*parts)

    @classmethod
    def join(cls, parts: "list[Frontier]") -> "Frontier":
        """The boxes of several, one after another."""
        width = max((part.nodes.shape[1] for part in parts), default=0)

        def padded(name: str, value: float) -> Tensor:
            values = [getattr(part, name) for part in parts]
            return torch.cat(
                [torch.nn.functional.pad(v, (0, width - v.shape[1]), value=value) for v in values]
            )

        if not parts:
            none = torch.zeros(0, 0, dtype=torch.float64)
            return cls(none.long(), none, none)
        return cls(padded("nodes", -1), padded("probability", 0), padded("reward", 0))

    def answers(self, lambda_: float) -> tuple[Tensor, Tensor]:
        """Columns (M,) of `nodes` that `hedge` answers at this lambda, and the nodes (M,); a column of -1 is
        the virtual root."""
        _check_lambda(lambda_)
        count, width = self.nodes.shape
        if not width:
            none = torch.full((count,), -1, dtype=torch.long, device=self.nodes.device)
            return none, none
        value = (self.reward + lambda_) * self.probability
        best, column = value.max(dim=1)
        # Of equal ones the lowest node, as in `hedge`.
        tied = torch.where(value == best[:, None], self.nodes, -1).max(dim=1).values
        column = torch.where(tied >= 0, (self.nodes == tied[:, None]).long().argmax(dim=1), column)
        column = torch.where((best < lambda_) | (tied < 0), -1, column)
        nodes = self.nodes.gather(1, column.clamp(min=0).unsqueeze(1)).squeeze(1)
        return column, torch.where(column < 0, -1, nodes)


def is_right(hierarchy: "Hierarchy", answers: Tensor, truths: Tensor) -> Tensor:
    """Whether each answer (M, ...) is the truth (M,) of its row or lies above it, bool; -1 always is."""
    depth = hierarchy.depths[answers.clamp(min=0)]
    ones = [1] * (answers.dim() - 1)
    truths = truths.view(-1, *ones).expand(answers.shape)  # (M,) -> (M, 1...) -> (M, ...)
    place = hierarchy.path_starts[truths] + depth  # where the truth's path is at the answer's depth
    inside = depth <= hierarchy.depths[truths]
    at = hierarchy.path_nodes[torch.where(inside, place, 0)]
    return (answers < 0) | (inside & (at == answers))


def fit_lambda(frontier: Frontier, right: Tensor, accuracy: float) -> float | None:
    """The least lambda (to a thousandth) at which at least `accuracy` (0..1) of the answers are right.

    right: (M, K) bool, whether each node of the frontier would be. 0 if that suffices; None if no lambda
    does, because wrong nodes have probability 1. Found by bisection, as in the paper; where the share of
    right answers goes down and up again (it need not be monotonous on data), a lambda whose share suffices.
    Raises ValueError without data or for an impossible accuracy.
    """
    if not 0 < accuracy < 1:
        raise ValueError(f"the accuracy asked for lies between 0 and 1, not {accuracy}")
    if not len(right):
        raise ValueError("without a single answer to learn from there is no lambda")

    def suffices(lambda_: float) -> bool:
        return share_right(frontier, right, lambda_) >= accuracy

    if suffices(0.0):
        return 0.0
    low, high = 0.0, 1e-3
    while not suffices(high):
        low, high = high, high * 4
        if high > LARGEST_LAMBDA:
            return None
    while high > max(low, 1e-6) * _CLOSE:
        middle = (low * high) ** 0.5 if low else high / 4
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def share_right(frontier: Frontier, right: Tensor, lambda_: float) -> float:
    """Share of right answers at this lambda, 0..1."""
    column, _ = frontier.answers(lambda_)
    if not right.shape[1]:
        return 1.0
    hits = right.gather(1, column.clamp(min=0).unsqueeze(1)).squeeze(1)
    return float((hits | (column < 0)).double().mean())


def _check_lambda(lambda_: float) -> None:
    if not 0 <= lambda_ < float("inf"):
        raise ValueError(f"lambda is a finite number from 0 on, not {lambda_}")
