"""Growth, contraction and promotion on small WordNets of our own, against plain versions of the rules."""

import random

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import TreeError, wordnet
from wordtree.growth import Paths, build, contract, grow, promote


class ToyPaths(Paths):
    """Paths over a given dict node -> hypernyms instead of WordNet; names are the ids."""

    def __init__(self, hypernyms: dict[str, list[str]]) -> None:
        self._root, self._grafts = "top", {}
        self._known = {"top": [()]}
        self._toy = hypernyms

    def hypernyms(self, node: str) -> list[str]:
        return self._toy[node]

    def name(self, node: str) -> str:
        return node


@st.composite
def wordnets(draw) -> tuple[dict[str, list[str]], list[str]]:
    """A random acyclic WordNet with several hypernyms per node, and labels in it."""
    n = draw(st.integers(1, 14))
    nodes = [f"s{i:02d}" for i in range(n)]
    hypernyms = {}
    for i, node in enumerate(nodes):
        above = ["top", *nodes[:i]]
        hypernyms[node] = draw(st.lists(st.sampled_from(above), min_size=1, max_size=3, unique=True))
    labels = draw(st.lists(st.sampled_from(nodes), min_size=1, unique=True))
    return hypernyms, labels


def all_paths(hypernyms: dict[str, list[str]], node: str) -> list[tuple[str, ...]]:
    graph = networkx.DiGraph((h, n) for n, above in hypernyms.items() for h in above)
    return sorted(tuple(path[1:]) for path in networkx.all_simple_paths(graph, "top", node))


def plain_growth(hypernyms, labels):
    """The rule word by word, everything looked at anew at each step."""
    parents = {}

    def add(path):
        for above, node in zip((None, *path), path, strict=False):
            if node not in parents:
                parents[node] = above

    for label in sorted(labels):
        if len(all_paths(hypernyms, label)) == 1:
            add(all_paths(hypernyms, label)[0])
    while missing := [label for label in labels if label not in parents]:
        choices = [
            (sum(node not in parents for node in path), label, path)
            for label in missing
            for path in all_paths(hypernyms, label)
        ]
        path = min(choices)[2]
        lowest = max((k for k, node in enumerate(path) if node in parents), default=-1)
        for k in range(lowest + 1, len(path)):
            parents[path[k]] = path[k - 1] if k else None
    return parents


@settings(max_examples=80, deadline=None)
@given(wordnets())
def test_growth_follows_the_plain_rule(case):
    hypernyms, labels = case
    paths = ToyPaths(hypernyms)
    for label in labels:
        assert paths.of(label) == all_paths(hypernyms, label)
    grown = grow(labels, paths)
    assert grown == plain_growth(hypernyms, labels)
    random.Random(0).shuffle(labels)
    assert grow(labels, ToyPaths(hypernyms)) == grown
    for node, parent in grown.items():
        assert (parent or "top") in hypernyms[node]


@settings(max_examples=80, deadline=None)
@given(wordnets())
def test_contraction_keeps_labels_and_who_is_above_whom(case):
    hypernyms, labels = case
    grown = grow(labels, ToyPaths(hypernyms))
    parents = contract(grown, labels)
    assert set(labels) <= set(parents) <= set(grown)
    before, after = as_graph(grown), as_graph(parents)
    for node in parents:
        assert networkx.ancestors(after, node) == networkx.ancestors(before, node) & {*parents, "top"}
        if node not in labels:
            assert after.out_degree(node) > 1
    # a branching node is never removed
    assert {node for node in grown if before.out_degree(node) > 1} <= set(parents)


@settings(max_examples=80, deadline=None)
@given(wordnets())
def test_promotion_leaves_no_lonely_leaf(case):
    hypernyms, labels = case
    contracted = contract(grow(labels, ToyPaths(hypernyms)), labels)
    parents = promote(contracted)
    assert set(parents) == set(contracted)
    before, after = as_graph(contracted), as_graph(parents)
    for node in parents:
        only = list(after.successors(node))
        assert len(only) != 1 or after.out_degree(only[0]) > 0
        if parents[node] != contracted[node]:  # it went up, and what was above it is now beside it
            assert parents[contracted[node]] == parents[node]
            assert after.out_degree(contracted[node]) == after.out_degree(node) == 0
            assert before.out_degree(contracted[node]) <= 1
    assert networkx.is_tree(after)


def as_graph(parents):
    graph = networkx.DiGraph()
    graph.add_edges_from((parent or "top", node) for node, parent in parents.items())
    return graph


def test_a_chain_of_promotions():
    # a > b > c > d, all labels: d joins c, then nothing is left to do: b has two children
    assert promote({"a": None, "b": "a", "c": "b", "d": "c"}) == {"a": None, "b": "a", "c": "b", "d": "b"}


class GivenPaths(Paths):
    """Each label's paths as they stand, which may differ in what is above a node that they share."""

    def __init__(self, paths: dict[str, list[tuple[str, ...]]]) -> None:
        self._paths = paths

    def of(self, node: str) -> list[tuple[str, ...]]:
        return self._paths[node]


def test_what_is_above_a_node_of_the_tree_stays():
    paths = GivenPaths({"x": [("a", "b", "x")], "y": [("c", "b", "y"), ("d", "e", "f", "y")]})
    assert grow(["x", "y"], paths) == {"a": None, "b": "a", "x": "b", "y": "b"}


def test_small_trees_out_of_wordnet(needs_wordnet):
    tree = build(["dog.n.01", "n02114100", "cat.n.01", "dog.n.01"])
    assert tree.names == ("carnivore", "canine", "cat", "dog", "wolf")
    assert tree.parents.tolist() == [-1, 0, 0, 1, 1]
    assert tree.sources == ((), (), ("label",), ("label",), ("label",))
    assert tree.hypernym_path("dog")[-2:] == ("n02083346", "n02084071")
    assert build(reversed(tree.ids)).fingerprint != ""
    assert len(build(["dog.n.01"])) == 1


def test_promotion_can_be_left_out(needs_wordnet):
    head, savoy = "n07714571", "n07714895"  # head cabbage and savoy cabbage as food; both are plants too
    with_it, without = (build([head, savoy, "dog.n.01"], promotion=promotion) for promotion in (True, False))
    assert with_it.parent(head) == with_it.parent(savoy)
    assert without.parent(savoy) == without.index(head)
    assert with_it.hypernym_path(savoy) == without.hypernym_path(savoy)


def test_tags_of_labels_are_kept(needs_wordnet):
    tree = build({"dog.n.01": ("mine",), "n02084071": ("yours",), "cat.n.01": ()})
    assert tree.sources[tree.index("dog.n.01")] == ("mine", "yours")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([], "at least one label"),
        (["nothing"], "neither the id"),
        (["run.v.01"], "neither the id"),
        (["n99999999"], "no noun 'n99999999'"),
        (["n02084072"], "no noun 'n02084072'"),
        (["love.n.01", "dog.n.01"], r"not below physical_entity\.n\.01: n07543288 \(love\.n\.01\)"),
        (["physical_entity.n.01"], r"not below physical_entity\.n\.01: n00001930"),
        (["physical_entity.n.01", "dog.n.01"], r"not below physical_entity\.n\.01: n00001930"),
        ("dog.n.01", "not the one text 'dog.n.01'"),
    ],
)
def test_labels_that_cannot_be(needs_wordnet, labels, says):
    with pytest.raises(TreeError, match=says):
        build(labels)


def test_grafts_and_roots(needs_wordnet):
    assert "n06874185" in build(["traffic_light.n.01", "dog.n.01"])
    with pytest.raises(TreeError, match="not below"):
        build(["traffic_light.n.01"], grafts={})
    with pytest.raises(TreeError, match="not below"):
        build(["dog.n.01"], root="plant.n.02")
    assert build(["love.n.01", "hate.n.01"], root="entity.n.01").names == ("emotion", "love", "hate")


def test_nearest_node_of_the_tree(needs_wordnet):
    tree = build(["dog.n.01", "wolf.n.01", "cat.n.01"])
    assert wordnet.nearest(tree, "dog.n.01") == tree.index("dog.n.01")
    assert wordnet.nearest(tree, "pug.n.01") == tree.index("dog.n.01")
    assert wordnet.nearest(tree, "bear.n.01") == tree.index("carnivore.n.01")
    assert wordnet.nearest(tree, "tree.n.01") is None


@pytest.mark.parametrize("labels", [["dog.n.01", "eskimo_dog.n.01"], ["eskimo_dog.n.01", "dog.n.01"]])
def test_a_graft_that_goes_round_in_a_circle(needs_wordnet, labels):
    with pytest.raises(TreeError, match="lead back to it; a graft"):
        build(labels, grafts={"n02084071": "n02109961"})  # dog below Eskimo dog


def test_paths_go_as_deep_as_grafts_do(needs_wordnet):
    chain = {f"c{k}": f"c{k - 1}" if k else "dog.n.01" for k in range(600)}
    tree = build(["c599", "c0", "cat.n.01"], grafts=chain)
    assert tree.hypernym_path("c599")[-600:] == tuple(chain)


def test_ties(needs_wordnet):
    hypernyms = {
        "a": ["top"],
        "b": ["top"],
        "c": ["b"],
        "x": ["a"],
        "y": ["c"],
        "z": ["x", "y"],
        "q": ["y"],
        "r": ["x"],
    }
    labels = ["q", "r", "z"]
    assert grow(labels, ToyPaths(hypernyms))["z"] == "x"
    assert grow(labels, ToyPaths(hypernyms), "shortest")["z"] == "x"
    assert grow(labels, ToyPaths(hypernyms), "longest")["z"] == "y"
    with pytest.raises(TreeError, match="not 'random'"):
        build(["dog.n.01"], ties="random")
