"""Random trees for hypothesis, and the same tree as networkx sees it."""

import networkx
import numpy as np
from hypothesis import strategies as st

from wordtree import WordTree


@st.composite
def trees(draw, most: int = 40) -> WordTree:
    """Any forest of 1 to `most` nodes: random parents, then laid out group by group."""
    n = draw(st.integers(1, most))
    loose = [draw(st.integers(-1, i - 1)) for i in range(n)]  # parent of node i, siblings scattered
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(loose):
        children.setdefault(parent, []).append(node)
    order: list[int] = []
    waiting = [-1]
    while waiting:
        group = children.get(waiting.pop(draw(st.integers(0, len(waiting) - 1))), [])
        order += group
        waiting += group
    index = {node: i for i, node in enumerate(order)} | {-1: -1}
    return WordTree([f"n{node:08d}" for node in order], [index[loose[node]] for node in order])


def graph_of(tree: WordTree) -> networkx.DiGraph:
    """The tree from its ids and parents alone, none of its own methods."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(tree.ids)))
    graph.add_edges_from((p, i) for i, p in enumerate(np.asarray(tree.parents).tolist()) if p >= 0)
    return graph
