"""Edits against what they mean for parents and children, on random trees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wordtree
from tests.wordtree.forests import trees
from wordtree import TreeError, WordTree
from wordtree.edit import graft_file

few = settings(max_examples=40, deadline=None)


def parents_of(tree: WordTree) -> dict[str, str | None]:
    return {n: None if tree.parent(n) < 0 else tree.ids[tree.parent(n)] for n in tree.ids}


def check_map(old: WordTree, new: WordTree, carried: np.ndarray) -> None:
    assert carried.dtype == np.int64
    assert carried.shape == (len(old),)
    for i, k in enumerate(carried.tolist()):
        assert (new.ids[k] == old.ids[i]) if k >= 0 else (old.ids[i] not in new)


@few
@given(trees(), st.data())
def test_subtree(tree, data):
    k = data.draw(st.integers(0, len(tree) - 1))
    new, carried = wordtree.subtree(tree, k)
    check_map(tree, new, carried)
    assert set(new.ids) == {tree.ids[i] for i in range(len(tree)) if tree.is_ancestor(k, i)}
    assert parents_of(new) == {
        n: None if n == tree.ids[k] else p for n, p in parents_of(tree).items() if n in new
    }


@few
@given(trees(), st.data())
def test_prune(tree, data):
    gone = data.draw(st.sets(st.integers(0, len(tree) - 1), max_size=4))
    with_all = {i for i in range(len(tree)) if any(tree.is_ancestor(g, i) for g in gone)}
    if len(with_all) == len(tree):
        with pytest.raises(TreeError, match="nothing would be left"):
            wordtree.prune(tree, gone)
    else:
        new, carried = wordtree.prune(tree, gone)
        check_map(tree, new, carried)
        assert set(np.flatnonzero(carried < 0).tolist()) == with_all
        assert parents_of(new).items() <= parents_of(tree).items()
    if len(gone) < len(tree):
        new, carried = wordtree.prune(tree, gone, keep_children=True)
        check_map(tree, new, carried)
        assert set(np.flatnonzero(carried < 0).tolist()) == gone
        for i in set(range(len(tree))) - gone:  # who is above whom does not change
            assert new.path(tree.ids[i]) == tuple(tree.ids[a] for a in tree.path_nodes(i) if a not in gone)


@few
@given(trees(), st.data())
def test_graft_and_prune_again(tree, data):
    k = data.draw(st.none() | st.integers(0, len(tree) - 1))
    new, carried = wordtree.graft(tree, k, "mine", name="My own", gloss="x", sources=["me"])
    check_map(tree, new, carried)
    assert new.parent("mine") == (-1 if k is None else carried[k])
    assert (new.names[new.index("mine")], new.glosses[new.index("mine")]) == ("My own", "x")
    assert new.sources[new.index("mine")] == ("me",)
    group = new.group(int(new.group_of[new.index("mine")]))
    assert group[-1] == new.index("mine")
    assert parents_of(wordtree.prune(new, ["mine"]).tree) == parents_of(tree)


@few
@given(trees(most=12), trees(most=12), st.data())
def test_graft_of_a_tree(tree, branch, data):
    branch, same = wordtree.rename(branch, ids={i: f"b{node}" for i, node in enumerate(branch.ids)})
    assert same.tolist() == list(range(len(branch)))
    k = data.draw(st.integers(0, len(tree) - 1))
    new, carried = wordtree.graft(tree, k, branch)
    check_map(tree, new, carried)
    assert parents_of(new) == parents_of(tree) | {
        node: tree.ids[k] if parent is None else parent for node, parent in parents_of(branch).items()
    }


@few
@given(trees(), st.data())
def test_rename(tree, data):
    k = data.draw(st.integers(0, len(tree) - 1))
    new, carried = wordtree.rename(tree, {k: "other"})
    assert new.fingerprint == tree.fingerprint
    assert new.names == (*tree.names[:k], "other", *tree.names[k + 1 :])
    assert carried.tolist() == list(range(len(tree)))
    assert wordtree.diff(tree, new).renamed == ((tree.ids[k], tree.names[k], "other"),)


@few
@given(trees(most=25), st.data())
def test_the_parts_of_a_tree_merge_into_it(tree, data):
    parts = (
        [
            wordtree.prune(tree, data.draw(st.sets(st.integers(1, len(tree) - 1), max_size=3))).tree
            for _ in "ab"
        ]
        if len(tree) > 1
        else [tree, tree]
    )
    a, b = parts
    new, carried, other = wordtree.merge(a, b)
    check_map(a, new, carried)
    check_map(b, new, other)
    assert parents_of(new) == parents_of(a) | parents_of(b)


def test_merge_with_a_conflict():
    a, b = WordTree(["x", "y", "z"], [-1, -1, 0]), WordTree(["y", "z", "w"], [-1, 0, 1])
    with pytest.raises(TreeError, match="two places for 1 node: 'z' is below 'x' and below 'y'"):
        wordtree.merge(a, b)
    assert parents_of(wordtree.merge(a, b, conflicts="first").tree) == {
        "x": None,
        "y": None,
        "z": "x",
        "w": "z",
    }


def test_merge_adds_sources_up():
    a = WordTree(["x"], [-1], sources=[["a"]])
    b = WordTree(["x", "y"], [-1, -1], ["X", "Y"], sources=[["b"], ["b"]], glosses=["", "why"])
    new = wordtree.merge(a, b).tree
    assert (new.sources, new.names, new.glosses) == ((("a", "b"), ("b",)), ("x", "Y"), ("", "why"))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda t: wordtree.graft(t, 0, "b"), "has 'b' already, at a > b"),
        (lambda t: wordtree.graft(t, "q", "new"), "no node is called 'q'"),
        (lambda t: wordtree.graft(t, 0, ""), "non-empty"),
        (lambda t: wordtree.rename(t, ids={"a": "b"}), "already given"),
        (lambda t: wordtree.rename(t, ids={"a": "x", 0: "y"}), "'a' is to be both 'x' and 'y'"),
        (lambda t: wordtree.rename(t, {"a": "x", 0: "y"}), "'a' is to be both 'x' and 'y'"),
        (lambda t: wordtree.prune(t, "ab"), "not the one text 'ab'"),
        (lambda t: wordtree.merge(t, t, conflicts="maybe"), "maybe"),
    ],
)
def test_edits_that_cannot_be(what, says):
    with pytest.raises(TreeError, match=says):
        what(WordTree(["a", "b"], [-1, 0]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# mine\na\tb\nb\ta\n", r"g\.tsv:[23]: a cycle through '[ab]', '[ab]'"),
        ("a\tdog\nb\a\tdog\n", r"g\.tsv:2: an id is"),
    ],
)
def test_faults_of_a_file_of_grafts(tmp_path, text, says):
    (tmp_path / "g.tsv").write_text(text)
    with pytest.raises(TreeError, match=says):
        graft_file(WordTree(["animal", "dog"], [-1, 0]), tmp_path / "g.tsv")


@pytest.fixture
def with_hypernyms() -> WordTree:
    """r > a > b, and in WordNet z between a and b."""
    return WordTree(["r", "a", "b"], [-1, 0, 1], hypernyms=[(), (), ("a", "z")])


def test_other_ids_are_those_of_hypernyms_and_of_what_is_shown_by_them(with_hypernyms):
    new = wordtree.rename(with_hypernyms, ids={"a": "A"}).tree
    assert new.hypernym_path("b") == ("r", "A", "z", "b")
    assert new.names == ("r", "A", "b")
    named = wordtree.rename(with_hypernyms, {"a": "thing"}).tree
    assert wordtree.rename(named, ids={"a": "A"}).tree.names == ("r", "thing", "b")


def test_hypernyms_that_began_at_a_node_that_goes_go_too(with_hypernyms):
    assert with_hypernyms.hypernym_path("b") == ("r", "a", "z", "b")
    assert wordtree.prune(with_hypernyms, ["a"], keep_children=True).tree.hypernym_path("b") == ("r", "b")


def test_facts_that_an_edit_makes_untrue_go():
    facts = {"title": "two things", "ranks": ["a", "b"], "rank columns": [0, 1], "made by": "hand"}
    tree = WordTree(["x", "y", "z"], [-1, 0, 0], about=facts)
    for edited in (
        wordtree.subtree(tree, "x"),
        wordtree.prune(tree, ["y"], keep_children=True),
        wordtree.graft(tree, "y", "new"),
        wordtree.tidy(tree),
        wordtree.merge(tree, WordTree(["w"], [-1])),
    ):
        assert edited.tree.about == {"made by": "hand"}
    assert wordtree.rename(tree, {"x": "X"}).tree.about == facts


def test_tidy():
    # a > b > (c, d > e): b is a link, e a leaf without siblings
    tree = WordTree(["a", "b", "c", "d", "e"], [-1, 0, 1, 1, 3])
    assert parents_of(wordtree.tidy(tree, contraction=False).tree) == {
        "a": None,
        "b": "a",
        "c": "b",
        "d": "b",
        "e": "b",
    }
    assert parents_of(wordtree.tidy(tree).tree) == {"b": None, "c": "b", "e": "b"}
    assert parents_of(wordtree.tidy(tree, "abcde".__iter__(), promotion=False).tree) == parents_of(tree)


def test_the_default_tree_keeps_its_paths_and_is_laid_out_as_before():
    tree = WordTree.default()
    dog, _ = wordtree.subtree(tree, "dog.n.01")
    for i, node in enumerate(dog.ids):
        assert dog.hypernym_path(i) == tree.hypernym_path(node)[-len(dog.hypernym_path(i)) :]
    grown, carried = wordtree.graft(tree, "dog.n.01", "labradoodle")
    assert grown.parent("labradoodle") == grown.index("dog.n.01")
    assert (np.diff(carried) > 0).all()
    assert wordtree.prune(grown, ["labradoodle"]).tree.fingerprint == tree.fingerprint
