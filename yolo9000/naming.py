"""How well a model names pictures that have labels only: right or above, how deep, and along the tree.

Running the model is heldout.py's, choosing a node decision.py's, scores along the tree hierarchical.py's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolo9000 import descent
from yolo9000.conditionals import LazyConditionals
from yolo9000.decision import Decision
from yolo9000.head import LazyOutput
from yolo9000.hierarchical import score_answers
from yolo9000.hierarchy import Hierarchy

if TYPE_CHECKING:
    from yolo9000.heldout import EvalSettings


class Naming:
    """How pictures with labels only are named.

    A detector answers for its box of highest objectness; none above the threshold is wrong, "boxed" the share
    that has one. "greedy": share whose descent to the bottom passes through the truth; "answer": share for
    which the node answered by the rule is the truth or above it, "answer_depth" its mean depth among those
    (roots: 0), "hierarchy" what hierarchical.py makes of the answers, of several labels the one nearest to
    the answer, where there is one: a box was found and, of a list of nodes, one fits it. A classifier: "top1"
    and "top5" by Pr(node) over the nodes that occur as truth, and the two. In a picture in which not
    everything was looked for (asked.py) a node that is no truth, and was not verified to be absent either,
    counts neither way: "unasked" answers are left out.

    Where the tree lacks a truth the nearest node above is the truth, but for top1 and top5: every node would
    come after it that lies below it. Those leave such pictures out.
    """

    def __init__(self, decision: Decision, settings: "EvalSettings", detector: bool):
        self.decision, self.settings, self.detector = decision, settings, detector
        self.hierarchy = decision.hierarchy
        self.named: list[tuple[int, int | None, int]] = []  # picture, answer (None: there is none), truth
        self.rows: list[dict[str, float]] = []
        self.unasked = 0
        self.log_pr: list[tuple[Tensor, list[int]]] = []  # of the nodes that may occur as truth: `columns`
        self.columns = torch.zeros(0, dtype=torch.int64)
        self.path = _paths_by_node(self.hierarchy)

    def add_boxes(self, out: LazyOutput, objectness: Tensor, truth: Any, places: np.ndarray) -> None:
        chosen = [k for k, place in enumerate(places) if truth.labels_along[place]]
        if not chosen:
            return
        image = torch.tensor(chosen, device=objectness.device)
        best, flat = objectness[image].flatten(1).max(1)  # (N, A, H, W) -> (N, A*H*W)
        _, H, W = objectness.shape[1:]
        at = image, flat // (H * W), flat // W % H, flat % W
        conditionals = LazyConditionals(out, *at)
        greedy, answer = self._walk(conditionals)
        for k, row in enumerate(chosen):
            seen = bool(best[k] > self.settings.threshold)
            self._add(truth, int(places[row]), greedy[k], answer[k], truth.labels_along[places[row]], seen)

    def add_logits(self, logits: Tensor, truth: Any, places: np.ndarray) -> None:
        for k, place in enumerate(places):
            labels = truth.labels_along[place] or _known(truth.kinds_along, truth.columns[place])
            if not labels:
                continue
            logs = self.hierarchy.log_conditionals(logits[k : k + 1])
            greedy, answer = self._walk(logs)
            self._add(truth, int(place), greedy[0], answer[0], labels, True)
            own = truth.labels[place] or _known(truth.kinds, truth.columns[place])
            if not own:
                continue
            if not len(self.columns):
                found = {n for of in truth.labels for n in of} | {n for n in truth.kinds if n >= 0}
                self.columns = torch.tensor(sorted(found), device=logits.device)
            softened = self.decision.conditionals(logs).all(self.hierarchy)
            self.log_pr.append((self.hierarchy.log_probabilities(softened)[0, self.columns], own))

    def _walk(self, conditionals: Any) -> tuple[list[int], list[int]]:
        greedy = descent.descend(self.hierarchy, conditionals, "greedy").nodes
        return greedy.tolist(), self.decision(conditionals).nodes.tolist()

    def _add(self, truth: Any, place: int, greedy: int, answer: int, labels: list[int], seen: bool) -> None:
        right = seen and any(label in self.path(greedy) for label in labels)
        # -1 is no answer of a rule that takes a list; of "hedge" it is: "something".
        answered = seen and (answer >= 0 or self.decision.options.rule not in ("level", "vocabulary"))
        above = answered and (answer < 0 or any(answer in self.path(label) for label in labels))
        depth = float(self.hierarchy.depths[answer]) if above and answer >= 0 else np.nan
        unasked = answered and not above and self._unasked(truth, place, answer, labels)
        self.unasked += unasked
        if not unasked:
            nearest = self._nearest(answer, labels) if answered else labels[0]
            self.named.append((place, answer if answered else None, nearest))
        row = {"greedy": float(right), "answer": np.nan if unasked else float(above), "answer_depth": depth}
        if seen and not right and self._unasked(truth, place, greedy, labels):
            row["greedy"] = np.nan
        self.rows.append(row | {"boxed": float(seen)} if self.detector else row)

    def _unasked(self, truth: Any, place: int, node: int, labels: list[int]) -> bool:
        """Whether nobody looked for a node that is no truth of the picture, and so may be there."""
        if truth.asked.exhaustive[place] or node < 0:
            return False
        there = {int(above) for label in labels for above in self.path(label)}
        return not set(truth.absent[place]).difference(there).intersection(self.path(node).tolist())

    def scores(self) -> dict[str, Any]:
        if not self.rows:
            return {}
        columns = {key: np.array([row[key] for row in self.rows]) for key in self.rows[0]}
        if self.log_pr:
            columns |= self._top()
        pairs = [(answer, truth) for _, answer, truth in self.named if answer is not None]
        answers, truths = np.array(pairs, np.int64).reshape(-1, 2).T
        hierarchy = score_answers(self.hierarchy, answers, truths).summary()
        result: dict[str, Any] = {"pictures": len(self.rows), "unasked": self.unasked}
        for key, values in columns.items():
            known = values[~np.isnan(values)]
            result[key] = float(known.mean()) if len(known) else None
            if self.settings.resamples and len(known):
                random = np.random.default_rng(0)
                picks = random.integers(len(known), size=(self.settings.resamples, len(known)))
                means = [known[pick].mean() for pick in picks]
                result[f"{key}_interval"] = [float(v) for v in np.percentile(means, [2.5, 97.5])]
        return result | {"hierarchy": hierarchy}

    def _nearest(self, answer: int, labels: list[int]) -> int:
        """Of several labels the one that shares most of the answer's path."""
        path = set(self.path(answer).tolist()) if answer >= 0 else set()
        return max(labels, key=lambda label: len(path.intersection(self.path(label).tolist())))

    def _top(self) -> dict[str, np.ndarray]:
        """Whether the truth is the first, or among the first five, of the nodes that occur as truth."""
        nodes = sorted({n for _, labels in self.log_pr for n in labels})
        column = {n: k for k, n in enumerate(nodes)}
        occur = torch.isin(self.columns, torch.tensor(nodes, device=self.columns.device))
        first, five = [], []
        for log_pr, labels in self.log_pr:
            order = log_pr[occur].argsort(descending=True, stable=True).tolist()
            ranks = [order.index(column[n]) for n in labels]
            first.append(float(min(ranks) < 1))
            five.append(float(min(ranks) < 5))
        return {"top1": np.array(first), "top5": np.array(five)}


def _known(kinds: Sequence[int], columns: np.ndarray) -> list[int]:
    """The nodes of these columns, but for unknown ones."""
    return [kinds[c] for c in columns if kinds[c] >= 0]


def _paths_by_node(hierarchy: Hierarchy) -> Any:
    starts, nodes = hierarchy.path_starts.cpu().numpy(), hierarchy.path_nodes.cpu().numpy()
    return lambda node: nodes[starts[node] : starts[node + 1]]
