"""Random trees for tests, and their probabilities as plain Python numbers."""

import math

import numpy as np
import torch

from wordtree import WordTree
from yolo9000.conditionals import DenseConditionals
from yolo9000.hierarchy import Hierarchy


def random_tree(random: np.random.Generator, groups: int) -> WordTree:
    parents = [-1] * int(random.integers(1, 5))
    childless = list(range(len(parents)))
    for _ in range(groups):
        parent = childless.pop(int(random.integers(len(childless))))
        first = len(parents)
        parents += [parent] * int(random.integers(1, 5))
        childless += range(first, len(parents))
    return WordTree([f"k{i}" for i in range(len(parents))], parents)


def random_conditionals(random: np.random.Generator, tree: WordTree, boxes: int, missing: float = 0.0):
    """Hierarchy and log conditionals (boxes, C); a share of the nodes has no row, the first root has."""
    logits = torch.from_numpy(random.normal(0, 2, (boxes, len(tree))).astype(np.float32))
    unstored = torch.from_numpy(random.random(len(tree)) < missing)
    unstored[0] = False
    logits[:, unstored] = -math.inf
    hierarchy = Hierarchy(tree)
    return hierarchy, hierarchy.log_conditionals(logits)


def absolute(tree: WordTree, log_conditionals: torch.Tensor) -> np.ndarray:
    """Pr(node) (boxes, C), multiplied along each path."""
    values = log_conditionals.double().exp().numpy()
    return np.stack([values[:, list(tree.path_nodes(k))].prod(axis=1) for k in range(len(tree))], axis=1)


class AskedConditionals(DenseConditionals):
    """Remembers the first node of each sibling group that it is asked for, in `asked`."""

    def __init__(self, log_conditionals: torch.Tensor) -> None:
        super().__init__(log_conditionals)
        self.asked: list[int] = []

    def groups(self, looks):
        self.asked += looks.first.tolist()
        return super().groups(looks)
