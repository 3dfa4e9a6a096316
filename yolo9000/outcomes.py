"""What became of each true box and each answer on a picture: right, too general, confused, missed, invented;
and how far apart two nodes are in a tree. Average precision, which needs no such judgement, is scoring.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wordtree import WordTree

IOU = 0.5  # overlap from which on an answer speaks of a true box, as AP50 has it

# What an answer, or the answer for a true box, is. The first three say nothing false.
RELATIONS = {
    "right": "the node itself",
    "above": "a node above it: true, and less exact",
    "below": "a node below it: more exact than the truth, so it cannot be judged",
    "aside": "another node: confused",
}
MISTAKES = ("aside", "again", "invented")  # of answers; a true box that nobody found is the fourth


@dataclass(frozen=True)
class Outcome:
    """One picture. truths: (t,) for each true box one of RELATIONS, "missed", or "uncounted" (a crowd, a
    difficult one, a class that the model has not). answers: (a,) one of RELATIONS, "again" (on a true box
    that has a better answer), "invented" (on nothing), or "uncounted" (on what does not count). match: (a,)
    true box that the answer was given for, -1 = none.
    """

    truths: tuple[str, ...]
    answers: tuple[str, ...]
    match: tuple[int, ...]

    @property
    def mistakes(self) -> int:
        """Boxes missed, and answers that are confused, repeated or invented; a confusion counts once."""
        return self.truths.count("missed") + sum(self.answers.count(kind) for kind in MISTAKES)


def relation(tree: "WordTree", truth: int, answer: int) -> str:
    """One of RELATIONS for two nodes; -1 is the virtual root above all roots."""
    if truth == answer:
        return "right"
    if answer < 0 or (truth >= 0 and tree.is_ancestor(answer, truth)):
        return "above"
    if truth < 0 or tree.is_ancestor(truth, answer):
        return "below"
    return "aside"


def tree_distance(tree: "WordTree", a: int, b: int) -> int:
    """Edges from node to node by way of their lowest common ancestor; roots hang on a virtual one, -1."""
    common = -1
    if a >= 0 and b >= 0:
        found = tree.lca(a, b)
        common = -1 if found is None else found
    return _depth(tree, a) + _depth(tree, b) - 2 * _depth(tree, common)


def judge(
    tree: "WordTree",
    truth_xyxy: np.ndarray,
    truth_nodes: Sequence[int],
    ignored: np.ndarray,
    answer_xyxy: np.ndarray,
    answer_nodes: Sequence[int],
    absent: Sequence[int] | None = None,
    opened: Sequence[int] = (),
) -> Outcome:
    """What became of the true boxes (t, 4) and the answers (a, 4), best first, of one picture.

    truth_nodes: -1 for a class that the tree has not; answer_nodes: -1 for "something". ignored: (t,) bool,
    boxes that need not be found. absent: where not everything was looked for, the nodes verified not to be
    there; None: everything was. opened: nodes of which more may be there than have boxes. Answers take turns,
    best first; each gets the free true box that it overlaps most of those it names truly, and only after all
    have had their turn any other.
    """
    overlap = _overlaps(answer_xyxy, truth_xyxy)  # (a, t)
    counts = ~np.asarray(ignored, bool) & (np.asarray(truth_nodes, np.int64) >= 0)
    truths = ["missed" if counted else "uncounted" for counted in counts]
    answers = [""] * len(answer_nodes)
    match = [-1] * len(answer_nodes)
    relations = [[relation(tree, t, a) if t >= 0 else "aside" for t in truth_nodes] for a in answer_nodes]
    for wanted in (("right",), ("above", "below"), ("aside",)):
        for k, row in enumerate(relations):
            if answers[k]:
                continue
            free = [
                t
                for t, kind in enumerate(row)
                if truths[t] == "missed" and kind in wanted and overlap[k, t] >= IOU
            ]
            if free:
                match[k] = max(free, key=lambda t, k=k: overlap[k, t])
                answers[k] = truths[match[k]] = row[match[k]]
    inside = _shares_inside(answer_xyxy, truth_xyxy)
    for k, node in enumerate(answer_nodes):
        if answers[k]:
            continue
        uncounted = any(
            truths[t] == "uncounted" and max(overlap[k, t], inside[k, t] if ignored[t] else 0) >= IOU
            for t in range(len(truths))
        )
        if uncounted:
            answers[k] = "uncounted"
        elif any(counts & (overlap[k] >= IOU)):
            answers[k] = "again"
        elif _unasked(tree, node, absent, opened):
            answers[k] = "uncounted"
        else:
            answers[k] = "invented"
    return Outcome(tuple(truths), tuple(answers), tuple(match))


def _unasked(tree: "WordTree", node: int, absent: Sequence[int] | None, opened: Sequence[int]) -> bool:
    """Whether nobody said that there is nothing of this node, or nothing more than has boxes."""
    if any(node >= 0 and n >= 0 and tree.is_ancestor(n, node) for n in absent or ()):
        return False
    return absent is not None or any(relation(tree, n, node) != "aside" for n in opened)


def _depth(tree: "WordTree", node: int) -> int:
    return tree.depth(node) if node >= 0 else -1


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area shared by boxes (n, 4) and (m, 4), (n, m)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.prod(np.clip(sides, 0, None), axis=2)


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    return np.prod(np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None), axis=1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4), (n, m); 0 where both are empty."""
    common = _common(a, b)
    whole = _areas(a)[:, None] + _areas(b)[None, :] - common
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def _shares_inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each box of `a` (n, 4) that lies in each of `b` (m, 4), (n, m)."""
    common = _common(a, b)
    whole = np.broadcast_to(_areas(a)[:, None], common.shape)
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
