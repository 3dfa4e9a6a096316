"""Queries against networkx, the flat arrays against their definition, and the extremes of shape."""

import pickle

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wordtree.forests import graph_of, trees
from wordtree import TreeError, WordTree


@settings(max_examples=60, deadline=None)
@given(trees())
def test_one_node_questions_agree_with_networkx(tree):
    graph = graph_of(tree)
    roots = [i for i in graph if graph.in_degree(i) == 0]
    assert list(tree.roots) == roots
    assert tree.leaves.tolist() == [i for i in sorted(graph) if graph.out_degree(i) == 0]
    for i in graph:
        root = next(r for r in roots if networkx.has_path(graph, r, i))
        way = networkx.shortest_path(graph, root, i)
        assert list(tree.path_nodes(i)) == way
        assert list(tree.path(i)) == [tree.ids[k] for k in way]
        assert tree.depth(i) == len(way) - 1 == tree.depths[i]
        assert set(tree.ancestors(i)) == networkx.ancestors(graph, i)
        assert list(tree.descendants(i)) == sorted(networkx.descendants(graph, i))
        assert list(tree.children(i)) == sorted(graph.successors(i))
        siblings = graph.successors(way[-2]) if len(way) > 1 else roots
        assert set(tree.siblings(i)) == set(siblings) - {i}
        assert tree.parent(i) == (way[-2] if len(way) > 1 else -1)


@settings(max_examples=40, deadline=None)
@given(trees(most=15))
def test_lca_agrees_with_networkx(tree):
    graph = graph_of(tree)
    top = len(tree)  # networkx wants one root
    graph.add_edges_from((top, root) for root in tree.roots)
    for a in range(len(tree)):
        for b in range(len(tree)):
            expected = networkx.lowest_common_ancestor(graph, a, b)
            assert tree.lca(a, b) == (None if expected == top else expected)
            assert tree.is_ancestor(a, b) == (a == b or networkx.has_path(graph, a, b))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_arrays_are_what_they_are_called(tree):
    n, groups = len(tree), len(tree.group_parent)
    assert (tree.parents < np.arange(n)).all()
    assert tree.group_starts[0] == 0
    assert tree.group_starts[-1] == n
    assert (np.diff(tree.group_starts) > 0).all()
    assert tree.group_parent[0] == -1
    for g in range(groups):
        members = np.arange(tree.group_starts[g], tree.group_starts[g + 1])
        assert tree.group(g) == tuple(members.tolist())
        assert (tree.group_of[members] == g).all()
        assert (tree.parents[members] == tree.group_parent[g]).all()
    for i in range(n):
        g = tree.child_group[i]
        assert (g == -1) == (i not in tree.parents)
        assert g == -1 or tree.group_parent[g] == i
    for array in (
        tree.parents,
        tree.group_of,
        tree.group_starts,
        tree.group_parent,
        tree.child_group,
        tree.depths,
    ):
        assert array.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


@settings(max_examples=30, deadline=None)
@given(trees())
def test_to_networkx_and_back(tree):
    graph = tree.to_networkx()
    index = networkx.get_node_attributes(graph, "index")
    assert {(index[a], index[b]) for a, b in graph.edges} == set(graph_of(tree).edges)
    assert networkx.is_forest(graph)
    assert networkx.get_node_attributes(graph, "name") == dict(zip(tree.ids, tree.names, strict=True))


@settings(max_examples=30, deadline=None)
@given(trees(), st.data())
def test_fingerprint_depends_on_ids_and_parents_only(tree, data):
    same = WordTree(tree.ids, tree.parents.tolist(), [f"name {i}" for i in range(len(tree))])
    assert same.fingerprint == tree.fingerprint
    assert same != tree
    k = data.draw(st.integers(0, len(tree) - 1))
    ids = list(tree.ids)
    ids[k] = "another"
    assert WordTree(ids, tree.parents).fingerprint != tree.fingerprint
    assert pickle.loads(pickle.dumps(tree)) == tree
    assert hash(pickle.loads(pickle.dumps(tree))) == hash(tree)


def test_one_node():
    tree = WordTree(["a"], [-1])
    assert (len(tree), tree.path("a"), tree.children(0), tree.siblings(0)) == (1, ("a",), (), ())
    assert tree.lca(0, 0) == 0
    assert tree.leaves.tolist() == [0]


def test_chain_of_five_thousand():
    n = 5000
    tree = WordTree([str(i) for i in range(n)], range(-1, n - 1))
    assert tree.depth(n - 1) == n - 1
    assert tree.path_nodes(n - 1) == tuple(range(n))
    assert tree.descendants(0) == tuple(range(1, n))
    assert tree.lca(n - 1, n // 2) == n // 2
    assert tree.leaves.tolist() == [n - 1]
    assert WordTree.from_dict(tree.to_dict()) == tree
    assert tree.hypernym_path(n - 1) == tree.path(n - 1)


def test_group_of_ten_thousand():
    n = 10_000
    tree = WordTree(["root", *map(str, range(n))], [-1] + [0] * n)
    assert tree.children("root") == tuple(range(1, n + 1))
    assert len(tree.siblings(5)) == n - 1
    assert tree.group_starts.tolist() == [0, 1, n + 1]


def test_forest_has_no_common_ancestor_across_roots():
    tree = WordTree(["a", "b", "c", "d"], [-1, -1, 0, 1])
    assert tree.lca("c", "d") is None
    assert tree.siblings("a") == (1,)


def test_flat_is_one_group():
    tree = WordTree.flat(["cat", "hot dog"])
    assert (tree.ids, tree.names) == (("cat", "hot dog"),) * 2
    assert tree.group_parent.tolist() == [-1]
    assert tree.index("hot dog") == 1
    assert WordTree.flat(["cat", "dog"], ["n02121620", "n02084071"]).index("n02084071") == 1


def test_a_tree_cannot_be_changed():
    tree = WordTree(["a"], [-1])
    with pytest.raises(AttributeError):
        tree.ids = ("b",)
    with pytest.raises(AttributeError):
        del tree.ids


@pytest.mark.parametrize(
    ("ids", "parents", "says"),
    [
        ([], [], "at least one node"),
        (["a", "a"], [-1, 0], "'a' was already given at node 0"),
        (["a", ""], [-1, 0], "node 1: an id is a non-empty"),
        (["a", "  "], [-1, 0], "node 1: an id is a non-empty"),
        (["a", None], [-1, 0], "node 1: an id is a non-empty"),
        (["a", "b\n"], [-1, 0], "node 1: an id is a non-empty"),
        (["a", "b"], [-1], "2 ids but 1 parents"),
        (["a", "b"], [-1, 1], "'b' is its own parent"),
        (["a", "b"], [-1, 2], "the nodes are 0 to 1"),
        (["a", "b"], [-1, -2], "the nodes are 0 to 1"),
        (["a", "b"], [1, -1], "node 0: 'a' has the parent 1 .* a forward parent"),
        (["a", "b", "c"], [-1, 2, 1], "a cycle through 'b', 'c'"),
        (["a", "b"], [1, 0], "a cycle through 'a', 'b'"),
        (["a", "b", "c"], [-1, 0, -1], "node 2: 'c' belongs to the roots, whose run ended at node 0"),
        (["a", "b", "c", "d"], [-1, 0, 1, 0], "node 3: 'd' belongs to the children of 'a'"),
        (["a", "b"], [-1, 0.5], "not 0.5"),
        (["a", "b"], [-1, "0"], "not '0'"),
        (["a", "b"], [-1, True], "not True"),
        (["a", "b"], [-1, float("nan")], "not nan"),
        (["a", "b"], [-1, 10**30], "the nodes are 0 to 1"),
    ],
)
def test_what_is_no_tree(ids, parents, says):
    with pytest.raises(TreeError, match=says):
        WordTree(ids, parents)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("names", ["x"], "2 nodes but 1 names"),
        ("names", ["x", ""], "node 1: names holds one line"),
        ("names", ["x", "y\nz"], "node 1: names holds one line"),
        ("glosses", ["x", 5], "node 1: glosses holds one line"),
        ("synonyms", [()], "2 nodes but 1 synonyms"),
        ("synonyms", [(), "word"], "node 1: synonyms holds a list"),
        ("sources", [(), (1,)], "node 1: sources holds a list"),
        ("sources", [(), 7], "node 1: sources holds a list"),
        ("names", ["x", " "], "node 1: names holds one line"),
        ("names", ["x", "\ud800"], "node 1: names holds one line"),
        ("sources", [(), ("\udcff",)], "node 1: sources holds a list"),
    ],
)
def test_columns_have_a_value_per_node(column, value, says):
    with pytest.raises(TreeError, match=says):
        WordTree(["a", "b"], [-1, 0], **{column: value})


@pytest.mark.parametrize("node", [2, -1, 10**20, np.int64(2)])
def test_index_out_of_range(node):
    with pytest.raises(TreeError, match="the nodes 0 to 1"):
        WordTree(["a", "b"], [-1, 0]).index(node)


@pytest.mark.parametrize("node", [None, 1.0, True, np.bool_(True), ["a"], b"a"])
def test_index_of_the_wrong_type(node):
    with pytest.raises(TreeError, match="an index or a text"):
        WordTree(["a", "b"], [-1, 0]).index(node)


def test_hypernym_path_names_what_was_left_out():
    # a > x > b, where x was contracted away; c was promoted out of b; d hangs below w > z, neither of them
    # kept
    tree = WordTree(["a", "d", "b", "c"], [-1, -1, 0, 0], hypernyms=[(), ("w", "z"), ("a", "x"), ("b",)])
    assert tree.hypernym_path("b") == ("a", "x", "b")
    assert tree.hypernym_path("c") == ("a", "x", "b", "c")
    assert tree.hypernym_path("d") == ("w", "z", "d")
    with pytest.raises(TreeError, match="circle"):
        WordTree(["a", "b"], [-1, 0], hypernyms=[("b",), ("a",)]).hypernym_path("a")


def test_columns_may_be_any_iterable():
    tree = WordTree(iter(["a", "b"]), iter([-1, 0]), synonyms=(iter(w) for w in (["x"], ["y", "z"])))
    assert tree.synonyms == (("x",), ("y", "z"))


def test_one_text_is_no_list_of_classes():
    with pytest.raises(TreeError, match="not the one text 'cat'"):
        WordTree.flat("cat")


def test_facts_about_a_tree_cannot_be_changed():
    with pytest.raises(TypeError):
        WordTree(["a"], [-1], about={"x": 1}).about["x"] = 2
