"""The reasons of nodes: held against WordNet and against the tree."""

from dataclasses import replace

import pytest

from wordtree import TreeError, WordTree, graft, prune, wordnet
from wordtree.cli import cli
from wordtree.grafts import default_grafts
from wordtree.growth import PHYSICAL_ENTITY, Choice, Paths
from wordtree.printing import summary
from wordtree.reasons import lines, why
from wordtree.words import counted


def test_nodes_of_the_default_tree_know(needs_wordnet):
    tree = WordTree.default()
    paths = Paths(PHYSICAL_ENTITY, default_grafts())
    for node in tree.ids[::41]:
        found = why(tree, node)
        assert not found.untold
        assert set(found.choice.path) >= {node}
        assert found.choice.label in tree
        every = {found.choice.path, *(path for _, path in found.choice.passed_over)}
        assert every == set(paths.of(found.choice.label))
        # The path taken was the cheapest of the label, and of equally cheap ones the first.
        ranked = [(cost, path) for cost, path in found.choice.passed_over] + [
            (found.choice.cost, found.choice.path)
        ]
        assert min(ranked, key=lambda r: (r[0], [paths.name(n) for n in r[1]]))[1] == found.choice.path
        # What the tree has above it, with what was contracted, is the path.
        parent = found.promoted_from or (tree.path(node)[-2] if tree.parent(node) >= 0 else None)
        steps = found.path[: -len(found.contracted_above) - 1]
        assert (steps[-1] if steps else None) == parent
        assert all(step not in tree for step in found.contracted_above)
        for other in found.promoted:
            assert why(tree, other).promoted_from == node


def test_what_it_says(needs_wordnet):
    from click.testing import CliRunner

    said = CliRunner().invoke(cli, ["show", "n07714895", "--why"]).output  # savoy cabbage
    assert "promoted: was the only child of head cabbage" in said
    said = CliRunner().invoke(cli, ["show", "n02084071", "--why"]).output
    assert "passed over" in said or "no other path" in said
    assert "domestic animal" in said
    assert "grafted below device" in CliRunner().invoke(cli, ["show", "n06791372", "--why"]).output


def test_without_wordnet_the_tree_tells_what_it_has(monkeypatch):
    def none(_):
        raise TreeError("WordNet 3.0 is not here")

    monkeypatch.setattr(wordnet, "synset", none)
    found = why(WordTree.default(), "n07714895")
    assert found.promoted_from == "n07714571"
    assert found.choice is None
    assert "not here" in found.untold


def test_of_another_tree():
    with pytest.raises(TreeError, match="does not say how it was grown"):
        why(WordTree(["a"], [-1]), "a")


def test_one_is_one():
    columns = {"sources": [(), ("mine",)], "hypernyms": [(), ()]}
    tree = WordTree(["a", "b"], [-1, 0], **columns)
    choice = Choice("b", ("a", "b"), 1, ((2, ("x", "b")), (1, ("y", "b"))))
    said = lines(tree, replace(why(tree, "a", {}), choice=choice))
    grown = graft(tree, "a", "c").tree
    pruned = prune(grown, ["b", "c"]).tree  # what held others together is no class of anybody's
    for left, node in ((grown, "c"), (pruned, "a")):
        assert lines(left, why(left, node, {}))[1] == "no list names it"
    assert summary(grown) | {"mine": 1, "intermediate": 1} == summary(grown)
    assert graft(WordTree(["a"], [-1]), "a", "c").tree.sources is None
    assert "intermediate" not in summary(WordTree(["a", "b"], [-1, 0], sources=[(), ()]))
    assert "no label: it holds 1 other together" in said and "that path added 1 node" in said
    assert any(line.startswith("passed over, 2 nodes") for line in said)
    assert any(line.startswith("passed over, 1 node:") for line in said)
    assert repr(tree).startswith("WordTree(2 nodes, 2 groups") and counted(1, "class", "classes") == "1 class"
    assert counted(0, "class", "classes") == "0 classes" and counted(9418, "node") == "9,418 nodes"
