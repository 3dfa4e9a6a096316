"""Models over edited trees: rows that stay are the same bits, and nobody else's probability moves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.edits import FORMS, log_probabilities, make, over, rows_by_id, same
from tests.yolo9000.small import STORED, TREE, small_detector
from wordtree import WordTree, graft, merge, prune, rename, subtree
from yolo9000.classrows import row_parameters
from yolo9000.cuts import resolve
from yolo9000.detector import Detector
from yolo9000.edit import edit_model
from yolo9000.errors import ModelError
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.spec import NetworkSpec

PUG = "n99"


@pytest.mark.parametrize("form", FORMS)
def test_nothing_changes_without_a_change(form):
    net = make(form)
    edited, done = edit_model(net, net.tree)
    assert edited.spec == net.spec and not (done.begun or done.removed or done.added or done.moved)
    assert all(torch.equal(v, edited.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_kept_rows_keep_their_bits_and_everything_else_too(form):
    net = make(form)
    tree, _ = prune(graft(TREE, "dog", PUG, name="pug").tree, ["vehicle"])
    edited, done = edit_model(net, tree)
    before, after = rows_by_id(net), rows_by_id(edited)
    assert done.removed == ("n2", "n6", "n7", "n10") and done.added == (PUG,)
    assert set(after) == (set(before) - {"n2", "n6", "n7", "n10"}) | {PUG}
    for node in set(after) - {PUG}:
        assert all(torch.equal(a, b) for a, b in zip(before[node], after[node], strict=True))
    assert done.kept == len(after) - 1 and done.begun == (PUG,)
    held = {id(p) for p in row_parameters(edited)}
    others = [name for name, p in edited.named_parameters() if id(p) not in held]
    assert others and all(torch.equal(edited.state_dict()[n], net.state_dict()[n]) for n in others)
    if (boxes := log_probabilities(net)[2]) is not None:
        assert torch.equal(boxes, log_probabilities(edited)[2])


@pytest.mark.parametrize("form", FORMS)
def test_a_new_sibling_takes_from_its_siblings_alone(form):
    net = make(form)
    tree, map = graft(TREE, "dog", PUG)
    edited, _ = edit_model(net, tree, map)
    logs, before, _ = log_probabilities(net)
    new_logs, after, _ = log_probabilities(edited)
    dogs = [TREE.index("husky"), TREE.index("poodle")]
    others = [k for k in range(len(TREE)) if k not in dogs]
    assert same(after[:, map[others]], before[:, others])
    pug = new_logs[:, tree.index(PUG)].exp()
    assert (pug > 0).all() and (pug <= 1 / 3 + 1e-6).all()
    # the others in proportion: each is what it was, times what the new one leaves
    assert torch.allclose(new_logs[:, map[dogs]].exp(), logs[:, dogs].exp() * (1 - pug)[:, None], rtol=1e-5)
    # independently: its logit is the mean of theirs, so its odds are their geometric mean
    mean = new_logs[:, map[dogs]].mean(1).exp()
    assert torch.allclose(pug, mean, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_group_of_new_classes_under_a_leaf_is_uniform(form):
    net = make(form)
    tree, map = graft(TREE, "husky", WordTree(["a", "b", "c"], [-1, -1, 0]))
    edited, done = edit_model(net, tree, map)
    assert done.begun == ("a", "b", "c")
    logs, after, _ = log_probabilities(edited)
    assert same(after[:, map], log_probabilities(net)[1])
    for node, value in (("a", 1 / 2), ("b", 1 / 2), ("c", 1.0)):
        assert torch.allclose(logs[:, tree.index(node)].exp(), torch.tensor(value).double())
    start = rows_by_id(edited)
    assert all(torch.equal(p, q) for p, q in zip(start["n8"], start["a"], strict=True))


@pytest.mark.parametrize("form", ["stored", "sums"])
def test_ancestors_without_a_row_get_one(form):
    net = make(form)  # car has a row, bicycle has not
    tree, map = graft(TREE, "bicycle", "tandem")
    edited, done = edit_model(net, tree, map)
    assert done.begun == ("n7", "tandem")
    assert set(edited.spec.region.stored) == {*map[list(STORED)], tree.index("n7"), tree.index("tandem")}
    logs, after, _ = log_probabilities(edited)
    bicycle, tandem = logs[:, tree.index("n7")].exp(), logs[:, tree.index("tandem")].exp()
    assert torch.allclose(bicycle, torch.tensor(1 / 2).double()) and torch.allclose(
        tandem, torch.tensor(1.0).double()
    )
    others = [k for k in STORED if k not in (5,)]
    assert same(after[:, map[others]], log_probabilities(net)[1][:, others])


def test_a_row_for_a_node_that_had_none():
    net = make("stored")
    edited, done = edit_model(net, TREE, rows=["cat"])
    assert done.begun == ("n5",) and done.added == () and done.source == done.target
    assert edited.spec.region.stored == tuple(sorted((*STORED, TREE.index("cat"))))
    again, done = edit_model(edited, TREE, rows=["cat"])
    assert done.begun == () and again.spec == edited.spec


@pytest.mark.parametrize("form", FORMS)
def test_removed_siblings_leave_their_share_to_the_others(form):
    net = make(form)
    tree, map = prune(TREE, ["husky"])
    logs = log_probabilities(edit_model(net, tree, map)[0])[0]
    assert torch.allclose(logs[:, tree.index("poodle")].exp(), torch.ones(()).double())
    tree, map = subtree(TREE, "dog")
    edited, _ = edit_model(net, tree, map)
    kept = [k for k in np.flatnonzero(map >= 0) if k != TREE.index("dog")]
    assert same(log_probabilities(edited)[0][:, map[kept]], log_probabilities(net)[0][:, kept])


def test_moved_classes_keep_their_rows_and_are_named():
    net = make("stored")
    tree, map = prune(TREE, ["dog"], keep_children=True)
    edited, done = edit_model(net, tree, map)
    assert done.moved == ("n8", "n9") and done.removed == ("n4",) and done.begun == ()
    before, after = rows_by_id(net), rows_by_id(edited)
    assert all(torch.equal(p, q) for n in after for p, q in zip(before[n], after[n], strict=True))


def test_what_is_known_beside_the_weights_goes_along(tmp_path):
    net = make("shared")
    net.class_map = torch.tensor([3, 5])
    net.seen, net.version = 77, (0, 1, 0)
    net.record = {"licence": "MIT", "nodes": {"boxes": [3, 7], "labels": [5, 9]}}
    net.defaults = {
        "threshold": 0.3,
        "lambdas": {"0.9": 1.0},
        "temperatures": [1.1],
        "vocabulary": ["dog", 5],
    }
    tree, map = rename(prune(TREE, ["cat"]).tree, {"dog": "hound"}, ids={"n9": "p1"})
    first = prune(TREE, ["cat"]).map
    map = np.where(first < 0, -1, map[first])
    edited, done = edit_model(net, tree, map)
    save_model(edited, tmp_path / "x.safetensors", edited.record)
    found = load_model(tmp_path / "x.safetensors")
    assert found.tree == tree and found.tree.names[tree.index("n4")] == "hound"

    def places(*ids: str) -> list[int]:
        return sorted(tree.index(node) for node in ids)

    assert (found.seen, found.version, found.class_map.tolist()) == (77, (0, 1, 0), places("n4", "n6"))
    assert (
        found.record["nodes"] == {"boxes": places("n4", "n8"), "labels": places("n6", "n10")}
        and found.record["licence"] == "MIT"
    )
    assert found.defaults == {"threshold": 0.3, "temperatures": [1.1], "vocabulary": ["n4", "n6"]}
    assert done.dropped == ("lambdas",) and done.renamed == (("n9", "p1"),)
    assert found.record["edits"] == [done.to_dict()] == [done.entry()]
    assert found.record["edits"][0]["source"] == TREE.fingerprint
    assert torch.equal(rows_by_id(found)["p1"][0], rows_by_id(net)["n9"][0])
    # a second edit is added to the first; what points to a node that is gone is left out
    twice, done = edit_model(found, subtree(tree, "vehicle").tree)
    assert len(twice.record["edits"]) == 2 and twice.record["nodes"] == {"boxes": [], "labels": [1, 3]}
    assert twice.class_map is None and done.dropped == ("class_map",)
    assert twice.defaults["vocabulary"] == ["n6"]


@pytest.mark.parametrize(
    ("defaults", "kept", "dropped"),
    [
        (
            {"rule": "vocabulary", "vocabulary": ["cat", "n6"]},
            {"rule": "vocabulary", "vocabulary": ["n6"]},
            (),
        ),
        ({"rule": "vocabulary", "vocabulary": ["cat"]}, {}, ("vocabulary", "rule")),
        ({"rule": "level", "level": ["cat", "n6"]}, {}, ("level", "rule")),
        ({"rule": "leaf", "level": ["cat", "n6"]}, {"rule": "leaf"}, ("level",)),
        ({"rule": "hedge", "lambdas": {"0.9": 1.0}}, {}, ("lambdas", "rule")),
        (
            {"rule": "hedge", "lambdas": {"0.9": 1.0}, "hedge_lambda": 2},
            {"rule": "hedge", "hedge_lambda": 2},
            ("lambdas",),
        ),
    ],
)
def test_a_rule_goes_with_what_it_needs(defaults, kept, dropped):
    net = make("shared")
    net.defaults = defaults
    edited, done = edit_model(net, *prune(TREE, ["cat"]))
    assert (edited.defaults, done.dropped) == (kept, dropped)
    Detector(edited).options()


def test_lambdas_go_with_new_rows_over_the_same_tree():
    """A row that is begun takes from its siblings, and with it what was fitted to their probabilities."""
    net = make("stored")
    net.defaults = {"rule": "hedge", "lambdas": {"0.9": 1.0}, "temperatures": [1.1], "level": 1}
    edited, done = edit_model(net, TREE, rows=["cat"])
    assert done.begun == ("n5",) and done.dropped == ("lambdas", "rule")
    assert edited.defaults == {"temperatures": [1.1], "level": 1}
    assert edit_model(net, TREE, rows=["dog"])[0].defaults == net.defaults  # which has one


def test_mapped_goes_with_the_class_map():
    net = make("shared")
    net.class_map = torch.tensor([TREE.index("cat"), TREE.index("car")])
    net.defaults = {"mapped": True, "threshold": 0.1}
    assert edit_model(net, *prune(TREE, ["thing"]))[0].defaults == net.defaults
    edited, done = edit_model(net, *prune(TREE, ["cat"]))
    assert done.dropped == ("class_map", "mapped") and edited.defaults == {"threshold": 0.1}
    Detector(edited).options()


def test_a_level_that_is_a_depth_goes_where_depths_change():
    net = make("shared")
    net.defaults = {"rule": "level", "level": 1, "temperatures": [1.1]}
    edited, done = edit_model(net, *subtree(TREE, "dog"))
    assert done.dropped == ("temperatures", "level", "rule") and edited.defaults == {}
    edited, done = edit_model(net, *prune(TREE, ["dog"]))
    assert done.dropped == () and edited.defaults == net.defaults
    # Depths change below the one that is looked at.
    net.defaults = {"rule": "level", "level": 0}
    edited, done = edit_model(net, *prune(TREE, ["dog"], keep_children=True))
    assert done.dropped == () and edited.defaults == net.defaults


def test_a_vocabulary_by_its_name_keeps_what_is_left():
    net = over(WordTree.default(), [0, 1])
    net.defaults = {"vocabulary": "coco"}
    coco = [net.tree.ids[node] for node in resolve(net.tree, "coco")]
    edited, done = edit_model(net, *prune(net.tree, coco[:1]))
    left = [node for node in coco if node in edited.tree.ids]
    assert edited.defaults["vocabulary"] == left != coco and done.dropped == ()


def test_display_names_alone_are_kept_by_a_file_over_the_default_tree(tmp_path):
    net = over(WordTree.default(), [0, 1])
    tree = net.tree
    edited, _ = edit_model(net, rename(tree, {0: "my matter"}).tree)
    save_model(edited, tmp_path / "x.safetensors")
    assert load_model(tmp_path / "x.safetensors").tree.names[0] == "my matter"


@pytest.mark.parametrize(
    ("tree", "map", "message"),
    [
        (WordTree(["x", "y"], [-1, 0]), None, "no node of the model's tree"),
        (WordTree(["n5"], [-1]), None, "nothing learnt would be left"),
        (TREE, np.zeros(10, np.int64), "different nodes"),
        (TREE, np.arange(9), "shape"),
        (TREE, np.arange(10) + 1, "from 0 to 9"),
        (TREE, np.arange(10) / 1, "whole number"),
    ],
)
def test_what_cannot_be(tree, map, message):
    with pytest.raises(ModelError, match=message):
        edit_model(make("stored"), tree, map)


def test_models_without_a_tree_or_rows():
    with pytest.raises(ModelError, match="no tree"):
        edit_model(small_detector("flat"), TREE)
    net = small_detector("darknet")
    spec = net.spec.to_dict()
    spec["layers"][-2]["batch_normalize"] = True
    with pytest.raises(ModelError, match="linear convolution"):
        edit_model(Network(NetworkSpec.from_dict(spec), TREE), TREE)


def random_edit(tree: WordTree, draw) -> WordTree:
    """One change of a tree: a leaf, a branch or a node less."""
    node = draw(st.integers(0, len(tree) - 1))
    kind = draw(st.sampled_from(["leaf", "branch", "prune", "lift"]))
    fresh = f"x{len(tree)}_{node}"
    if kind == "leaf":
        return tree if fresh in tree else graft(tree, node, fresh).tree
    if kind == "branch":
        return tree if fresh in tree else graft(tree, node, WordTree([fresh, fresh + "a"], [-1, 0])).tree
    if len(tree) < 3 or (kind == "prune" and len(tree.descendants(node)) > len(tree) - 3):
        return tree
    return prune(tree, [node], keep_children=kind == "lift").tree


@given(st.data(), st.sampled_from(FORMS))
@settings(max_examples=40, deadline=None)
def test_any_edits(data, form):
    net = make(form)
    tree = TREE
    for _ in range(data.draw(st.integers(1, 4))):
        tree = random_edit(tree, data.draw)
    try:
        edited, done = edit_model(net, tree)
    except ModelError as error:
        assert "nothing learnt" in str(error) or "no node" in str(error)
        return
    before, after = rows_by_id(net), rows_by_id(edited)
    assert set(after) - set(before) == set(done.begun)
    stayed = set(after) & set(before) - set(done.lifted)
    assert {n for n in before if n in tree} <= set(after) and done.kept == len(stayed)
    assert all(torch.equal(p, q) for n in stayed for p, q in zip(before[n], after[n], strict=True))
    for node in done.lifted:  # it had no siblings with a row, and has the bits of one above it
        assert not before.keys() & {TREE.ids[k] for k in TREE.siblings(node)}
        assert any(torch.equal(before[TREE.ids[k]][0], after[node][0]) for k in TREE.ancestors(node))
    logs = log_probabilities(edited)[0]
    assert not logs.isnan().any()
    # new nodes can be reached: no step of their path is impossible
    for node in done.added:
        assert torch.isfinite(logs[:, list(tree.path_nodes(node))]).all()
    # in every group the nodes that both have stand in the proportions that they had
    old_logs = log_probabilities(net)[0]
    for group in range(len(tree.group_parent)):
        both = [tree.ids[k] for k in tree.group(group) if tree.ids[k] in before]
        olds = {TREE.group_of[TREE.index(n)] for n in both}
        if len(both) > 1 and len(olds) == 1:
            a = logs[:, [tree.index(n) for n in both]]
            b = old_logs[:, [TREE.index(n) for n in both]]
            assert torch.allclose(a - a[:, :1], b - b[:, :1], atol=1e-4)


def test_merged_trees():
    net = make("stored")
    other = WordTree(["n1", "rock", "bird"], [-1, -1, 0])
    merged = merge(TREE, other)
    edited, done = edit_model(net, merged.tree, merged.map)
    assert set(done.begun) == {"rock", "bird"} == set(done.added)
    assert edited.tree == merged.tree


def test_the_record_counts_what_is_too_much_to_list():
    ids = [f"x{k}" for k in range(150)]
    edited, done = edit_model(make("stored"), graft(TREE, "dog", WordTree(ids, [-1] * 150)).tree)
    entry = edited.record["edits"][0]
    assert entry["added"] == entry["begun"] == 150 and entry["removed"] == [] and len(done.added) == 150
