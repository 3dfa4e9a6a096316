"""Scores of answers along the tree: how much of the truth's path an answer shares, how far it is off, what it
tells. Arrays of nodes in, numbers out; no network, no boxes (node_precision.py has those).

    precision, recall, F   hierarchical: shared nodes of both paths over the nodes of the answer's, and of the
                           truth's path, summed over all answers (S. Kiritchenko, S. Matwin, R. Nock and A. F.
                           Famili, "Learning and Evaluation in the Presence of Class Hierarchies", 2006)
    lca_depth, lca_height  of the lowest common ancestor of answer and truth: roots have depth 0, the virtual
                           root above them -1; leaves have height 0 (ImageNet's hierarchical error is the
                           mean height, J. Deng et al., "What Does Classifying More Than 10,000 Image
                           Categories Tell Us?", ECCV 2010)
    right                  the answer is the truth or above it
    information            bits that right answers tell (hedging.rewards), wrong ones 0
    levels                 at each depth, of the truths that go as deep: the share of answers that are right
                           there, and of those that go as deep, in `answered`
An answer of -1 is the virtual root: right, and telling nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from yolo9000.hedging import rewards

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy


@dataclass(frozen=True)
class AnswerScores:
    """One entry an answer, all (n,): shared, answer_length, truth_length: nodes of the two paths and how many
    they share; lca_depth, lca_height: int64; right: bool; information: float64 bits."""

    shared: np.ndarray
    answer_length: np.ndarray
    truth_length: np.ndarray
    lca_depth: np.ndarray
    lca_height: np.ndarray
    right: np.ndarray
    information: np.ndarray

    def summary(self) -> dict[str, Any]:
        """JSON-able means and the sums' quotients; values that nothing stands behind are None."""
        shared = float(self.shared.sum())
        precision = _quotient(shared, float(self.answer_length.sum()))
        recall = _quotient(shared, float(self.truth_length.sum()))
        both = float(self.answer_length.sum() + self.truth_length.sum())
        deepest = int(self.truth_length.max()) if len(self.truth_length) else 0
        levels = []
        for depth in range(deepest):
            there = self.truth_length > depth
            goes = there & (self.answer_length > depth)
            levels.append(
                {
                    "depth": depth,
                    "truths": int(there.sum()),
                    "answered": _mean(goes[there]),
                    "right": _mean((self.shared > depth)[there]),
                }
            )
        return {
            "answers": len(self.shared),
            "right": _mean(self.right),
            "information": _mean(self.information),
            "precision": precision,
            "recall": recall,
            "F": _quotient(2 * shared, both),
            "lca_depth": _mean(self.lca_depth),
            "lca_height": _mean(self.lca_height),
            "levels": levels,
        }


def score_answers(hierarchy: "Hierarchy", answers: np.ndarray, truths: np.ndarray) -> AnswerScores:
    """answers (n,): nodes, -1 = the virtual root; truths (n,): nodes. Raises ValueError for nodes outside the
    tree."""
    answers, truths = np.asarray(answers, np.int64), np.asarray(truths, np.int64)
    if answers.shape != truths.shape or answers.ndim != 1:
        raise ValueError(f"one answer for each truth: {answers.shape} and {truths.shape} do not fit")
    n = hierarchy.nodes
    if len(answers) and not (
        -1 <= answers.min() <= answers.max() < n and 0 <= truths.min() <= truths.max() < n
    ):
        raise ValueError(f"nodes are 0..{n - 1}, and -1 for an answer above all roots")
    starts, nodes = hierarchy.path_starts.cpu().numpy(), hierarchy.path_nodes.cpu().numpy()
    depths = hierarchy.depths.cpu().numpy()
    answer_length = np.where(answers < 0, 0, depths[answers] + 1)
    truth_length = depths[truths] + 1
    shared = np.zeros(len(answers), np.int64)
    going = np.flatnonzero(answer_length > 0)
    depth = 0
    while len(going):
        same = nodes[starts[answers[going]] + depth] == nodes[starts[truths[going]] + depth]
        going = going[same]
        depth += 1
        shared[going] = depth
        going = going[np.minimum(answer_length[going], truth_length[going]) > depth]
    heights = node_heights(hierarchy)
    lca = nodes[starts[truths] + np.maximum(shared - 1, 0)]
    highest = int(heights.max()) + 1 if n else 0
    right = shared == answer_length
    bits = rewards(hierarchy).cpu().numpy()[answers] * (right & (answers >= 0))
    return AnswerScores(
        shared,
        answer_length,
        truth_length,
        shared - 1,
        np.where(shared > 0, heights[lca], highest),
        right,
        bits,
    )


def node_heights(hierarchy: "Hierarchy") -> np.ndarray:
    """Steps from each node down to the furthest leaf below it, (n,) int64; 0 for a leaf."""
    depths = hierarchy.depths
    path, which = hierarchy.paths(torch.arange(hierarchy.nodes, device=depths.device))
    deepest = torch.zeros_like(depths).scatter_reduce(0, path, depths[which], "amax")
    return (deepest - depths).cpu().numpy()


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _quotient(above: float, below: float) -> float | None:
    return above / below if below else None
