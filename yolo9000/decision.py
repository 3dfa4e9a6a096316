"""Which node is answered at a box: one decision, made of options and a tree once, applied to any number of
boxes.

    threshold, darknet, greedy, leaf   walks down the tree: descent.py
    level        the most probable node at a depth; or of a list of nodes the one with the largest share
    vocabulary   of a list of nodes only, as deep as their probability among the list allows: cuts.py
    hedge        the node that says most for the certainty asked for: hedging.py

Before any of them, temperatures (one for each depth) may soften the conditionals: temperature.py. All are
pure functions of (tree, conditionals), lazy where they can be: the walks look at the groups on their way
only, "leaf", hedging and a depth at those that may hold their answer, lists at those above their nodes."""

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from yolo9000 import cuts, hedging
from yolo9000.conditionals import Conditionals, DenseConditionals
from yolo9000.descent import RULES as WALKS
from yolo9000.descent import descend, path_log_probabilities
from yolo9000.search import best_end
from yolo9000.temperature import TemperedConditionals

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.hierarchy import Hierarchy, Restriction
    from yolo9000.options import Options

RULES = (*WALKS, "level", "vocabulary", "hedge")

# Share of the tree up to which only the groups that a rule looks at are computed: their rows are copied, and
# all rows need not be.
_FEW = 0.5


@dataclass(frozen=True)
class Answer:
    """What is answered at M boxes. nodes: (M,); -1 is the virtual root above all roots ("hedge": something is
    there, but what?) or none of the listed nodes ("level", "vocabulary"). log_path: (M, L) float32, log Pr of
    the node at depth 0, 1, ... of each path, NaN below the answer. log_given: (M,) float32, log of the
    probability that the rule sees: Pr(node | listed nodes) where nodes are listed, else Pr(node | parent)."""

    nodes: Tensor
    log_path: Tensor
    log_given: Tensor

    @property
    def log_probabilities(self) -> Tensor:
        """Log Pr(node), (M,): 0 for the virtual root."""
        return last_of_path(self.log_path)


class Decision:
    """A rule with all it needs of the tree, made once: `Decision(tree, hierarchy, options)(conditionals)`.

    Raises ValueError where the options list nodes that the tree has not.
    """

    def __init__(self, tree: "WordTree", hierarchy: "Hierarchy", options: "Options") -> None:
        self.hierarchy, self.options = hierarchy, options
        listed = {"vocabulary": options.vocabulary, "level": options.level}.get(options.rule)
        self.cut: cuts.Cut | None = None
        if isinstance(listed, Integral):  # may be beyond 64 bits
            self._depth = min(int(listed), len(hierarchy.level_sizes))
        elif listed is not None:
            self.cut = cuts.Cut.of(hierarchy, cuts.resolve(tree, listed))
        # The sibling groups that a list needs; and where, of the nodes on its paths, each lies: (n,).
        self._few: Restriction | None = None
        self._column: Tensor | None = None
        if self.cut is not None:
            looked_at = hierarchy.paths(self.cut.nodes)[0].unique()  # (m,)
            few = hierarchy.restrict(looked_at)
            if len(few.columns) <= _FEW * hierarchy.nodes:
                self._few, self._column = few, torch.full_like(hierarchy.parents, -1)
                self._column[looked_at] = torch.arange(len(looked_at), device=looked_at.device)
                self.cut = replace(self.cut, columns=self._column[self.cut.nodes])

    @property
    def score(self) -> str:
        """Which score an answer has, one of options.SCORES: what is asked for, else the rule's own."""
        options = self.options
        darknet = options.rule == "darknet" and not options.mapped and not self.hierarchy.is_flat
        return options.score or ("objectness" if darknet else "absolute")

    def conditionals(self, conditionals: Conditionals | Tensor) -> Conditionals:
        """The conditionals that the rule looks at: softened if the model has temperatures."""
        if isinstance(conditionals, Tensor):
            conditionals = DenseConditionals(conditionals)
        if self.options.temperatures:
            return TemperedConditionals(conditionals, self.hierarchy, self.options.temperatures)
        return conditionals

    @torch.inference_mode()
    def __call__(self, conditionals: Conditionals | Tensor) -> Answer:
        """conditionals: log conditionals (M, C), or something that computes them as asked."""
        conditionals, options = self.conditionals(conditionals), self.options
        if options.rule in WALKS:
            walk = descend(self.hierarchy, conditionals, options.rule, options.tree_threshold)
            return Answer(walk.nodes, walk.log_path, walk.log_given)
        lazy = not isinstance(conditionals, DenseConditionals)
        if options.rule == "level" and self.cut is None and lazy:
            best = best_end(self.hierarchy, conditionals, self._depth)
            return Answer(best.nodes, best.log_path, best.log_given)
        if options.rule == "hedge" and lazy:
            nodes, path = hedging.hedge_walk(self.hierarchy, conditionals, options.chosen_lambda)
            return Answer(nodes, path, step_of_path(path))
        logs = self._log_probabilities(conditionals)
        given = None
        if options.rule == "hedge":
            nodes = hedging.hedge(self.hierarchy, logs, options.chosen_lambda)
        elif self.cut is None:
            nodes = cuts.at_depth(self.hierarchy, logs, self._depth)
        elif options.rule == "level":
            nodes, given = cuts.at_cut(self.cut, logs)
        else:
            nodes, given = cuts.in_vocabulary(self.cut, logs, options.tree_threshold)
        path = path_log_probabilities(self.hierarchy, logs, nodes.clamp(min=0), self._column)
        path = path.masked_fill((nodes < 0)[:, None], torch.nan)  # the virtual root's path is empty
        return Answer(nodes, path, step_of_path(path) if given is None else given.float())

    def _log_probabilities(self, conditionals: Conditionals) -> Tensor:
        """Log Pr of every node, (M, C); or, of a list that needs few of them, of these, (M, m)."""
        if self._few is None:
            return self.hierarchy.log_probabilities(conditionals.all(self.hierarchy).float())
        return self._few.path_sums(conditionals.some(self._few).float()).T  # (m, M) -> (M, m)


def last_of_path(log_path: Tensor) -> Tensor:
    """The last entry of each path (M, L) that is not NaN, (M,); 0 for an empty path."""
    depth = (~log_path.isnan()).sum(dim=1, keepdim=True) - 1
    last = log_path.gather(1, depth.clamp(min=0)).squeeze(1)
    return torch.where(depth.squeeze(1) < 0, 0, last)


def step_of_path(log_path: Tensor) -> Tensor:
    """Log Pr(node | parent) of each path's (M, L) last node, (M,): the last step down."""
    depth = (~log_path.isnan()).sum(dim=1, keepdim=True) - 1
    before = log_path.gather(1, (depth - 1).clamp(min=0)).squeeze(1)
    before = torch.where(depth.squeeze(1) < 1, 0, before)
    return (last_of_path(log_path) - before).nan_to_num(nan=-torch.inf).clamp(max=0)
