"""Rows of models over edited trees that are taken from above: an only child is as probable as its parent, so
its row is the one that its parent was seen by."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wordtree.forests import trees
from tests.yolo9000.edits import log_probabilities, make, over, rows_by_id, same
from tests.yolo9000.small import TREE
from wordtree import WordTree, graft, prune, rename, tidy
from yolo9000.edit import edit_model


@given(trees(most=15), st.data())
@settings(max_examples=40, deadline=None)
def test_contracted_chains_are_as_probable_as_they_were(tree, data):
    labels = data.draw(st.none() | st.sets(st.integers(0, len(tree) - 1), min_size=1))
    new, map = tidy(tree, labels, promotion=labels is None)  # leaves as labels: then none is promoted
    net = over(tree)
    edited, _ = edit_model(net, new, map)
    stays = np.flatnonzero(map >= 0)
    assert same(log_probabilities(edited)[1][:, map[stays]], log_probabilities(net)[1][:, stays])


def test_a_promoted_class_is_as_probable_as_its_parent():
    tree = WordTree(["a", "b", "c"], [-1, -1, 0])
    net = over(tree)
    edited, done = edit_model(net, *tidy(tree, range(3)))
    assert edited.tree.parents.tolist() == [-1, -1, -1] and (done.lifted, done.kept) == (("c",), 2)
    before, after = log_probabilities(net)[1].exp(), log_probabilities(edited)[1].exp()
    assert torch.allclose(after, before[:, [0, 1, 0]] / (1 + before[:, :1]), rtol=1e-5)
    # of a chain only the lowest is promoted: d and e below c, and nothing tells them apart
    tree = WordTree(["a", "b", "c", "d", "e"], [-1, -1, 0, 2, 3])
    net = over(tree)
    edited, done = edit_model(net, *tidy(tree, range(5)))
    assert edited.tree.parents.tolist() == [-1, -1, 0, 2, 2] and (done.lifted, done.kept) == (("d", "e"), 3)
    before, after = log_probabilities(net)[1], log_probabilities(edited)[1]
    assert same(after[:, :3], before[:, :3]) and same(after[:, 3:], before[:, 3:] - np.log(2))


def test_only_children_that_move_bring_the_row_of_what_they_were_seen_as():
    net = make("rows")
    new, map = prune(TREE, ["car"], keep_children=True)  # the taxi beside bicycle
    edited, done = edit_model(net, new, map)
    assert done.lifted == done.moved == ("n10",)
    assert torch.equal(rows_by_id(net)["n6"][0], rows_by_id(edited)["n10"][0])
    # a new class beside an only child: both are what their parent is, and none is better known
    edited, done = edit_model(net, *graft(TREE, "car", "van"))
    assert done.lifted == ("n10",) and done.begun == ("van",)
    both = [edited.tree.index(node) for node in ("taxi", "van")]
    assert torch.allclose(log_probabilities(edited)[0][:, both].exp(), torch.tensor(1 / 2).double())
    # a root of its own has nothing above it to go by
    alone = over(WordTree(["a"], [-1]))
    edited, done = edit_model(alone, WordTree(["a", "b"], [-1, -1]))
    assert done.lifted == () and done.kept == 1


@pytest.mark.parametrize("form", ["darknet", "rows", "shared"])
def test_a_class_whose_siblings_went_keeps_what_it_learnt_beside_them(form):
    net, kept = make(form), "n8"
    alone, _ = edit_model(net, *prune(TREE, ["n9"]))
    again, _ = edit_model(alone, *rename(alone.tree, {kept: "another"}))
    beside, done = edit_model(again, *graft(again.tree, "n4", "n99"))
    assert kept not in done.lifted
    before, after = rows_by_id(net)[kept], rows_by_id(beside)[kept]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))
    assert alone.record["learnt_beside_siblings"] == again.record["learnt_beside_siblings"] == [kept]
    assert "learnt_beside_siblings" not in beside.record
