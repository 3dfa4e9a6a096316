"""`yolo9000 edit`: what is asked for is done in order, what cannot be is one line."""

import json

import pytest
import torch
from safetensors import safe_open

from tests.yolo9000.small import TREE, small_detector
from wordtree import TreeError, WordTree, graft, rename
from wordtree.edit import graft_file
from yolo9000.cli.edit import edited_tree
from yolo9000.modelfile import DEFAULT_PATH, load_model, save_model


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(small_detector("stored"), path, {"licence": "MIT"}, dtype="float16")
    return path


def test_all_edits_in_order(model, run, tmp_path):
    grafts = tmp_path / "mine.tsv"
    grafts.write_text("# mine\npug\thound\tpug dog\tA small dog.\nbaby_pug\tpug\n")
    out = tmp_path / "out.safetensors"
    words = ["--prune", "cat", "--rename", "dog=hound", "--graft", grafts, "--add", "tram", "vehicle"]
    status, text, _ = run("edit", model, *words, "--row", "bicycle", "--out", out, "--json")
    done = json.loads(text)
    assert status == 0 and done["removed"] == ["n5"] and done["written"] == str(out)
    assert set(done["added"]) == {"pug", "baby_pug", "tram"}
    assert set(done["begun"]) == {"pug", "baby_pug", "tram", "n7"}
    net = load_model(out)
    assert net.tree.path("pug") == ("n1", "n4", "pug") and net.tree.names[net.tree.index("n4")] == "hound"
    assert net.tree.names[net.tree.index("pug")] == "pug dog"
    assert net.tree.glosses[net.tree.index("pug")] == "A small dog."
    assert net.record["licence"] == "MIT" and net.record["edits"][0]["kept"] == 6
    assert done["lifted"] == ["n6"]  # the car had no rival, and has the bicycle now


def test_a_new_tree_of_any_form_and_the_type_of_the_file(model, run, tmp_path):
    (tmp_path / "new.csv").write_text("child,parent\nn1,\nn3,\nn4,n1\nn8,n4\nn9,n4\npug,n4\n")
    out = tmp_path / "out.safetensors"
    words = ["--tree", tmp_path / "new.csv", "--tree-out", tmp_path / "new.json"]
    status, text, _ = run("edit", model, *words, "--out", out)
    assert status == 0 and "5 class rows kept" in text and "1 node added: pug" in text
    with safe_open(out, "pt") as new, safe_open(model, "pt") as old:
        name = next(n for n in new.keys() if n.endswith("rows.weight"))  # noqa: SIM118
        ours, theirs = new.get_tensor(name), old.get_tensor(name)
    tree = load_model(out).tree
    assert WordTree.load(tmp_path / "new.json") == tree
    assert ours.dtype == torch.float16
    stored = load_model(model).spec.region.stored
    for node in ("n1", "n3", "n4", "n8", "n9"):
        assert torch.equal(ours[:, tree.index(node)], theirs[:, stored.index(TREE.index(node))])


def test_another_id_keeps_its_row_in_both_ways(run, tmp_path):
    net = small_detector("rows")
    net.tree, net.defaults = WordTree(TREE.ids, TREE.parents), {"lambdas": {"0.9": 1.0}}
    save_model(net, tmp_path / "model.safetensors")
    revised = rename(net.tree, ids={"n8": "m8"}).tree
    assert revised.names[7] == "m8" and rename(TREE, ids={"n8": "m8"}).tree.names[7] == "husky"
    assert rename(net.tree, {"n8": "husky"}, ids={"n8": "m8"}).tree.names[7] == "husky"
    revised.save(tmp_path / "revised.json")
    words = [
        "edit",
        tmp_path / "model.safetensors",
        "--rename-id",
        "n8=m8",
        "--out",
        tmp_path / "x.safetensors",
    ]
    for more in [], ["--tree", tmp_path / "revised.json"]:
        status, text, _ = run(*words, *more)
        found = load_model(tmp_path / "x.safetensors")
        assert status == 0 and "n8 -> m8" in text and found.tree == revised and found.tree.names[7] == "m8"
        assert all(torch.equal(v, found.state_dict()[k]) for k, v in net.state_dict().items())
        assert found.defaults == net.defaults  # the tree has the same form: what was calibrated still holds
    status, _, errors = run(*words, "--rename", "n8=husky")
    assert status == 0 and load_model(tmp_path / "x.safetensors").tree.names[7] == "husky"
    status, _, errors = run(*words, "--rename-id", "n9=m9", "--tree", tmp_path / "revised.json")
    assert status == 1 and "the new tree has no id 'm9'" in errors
    rename(net.tree, ids={"n8": "N8"}).tree.save(tmp_path / "respelt.json")
    note = "note: n8 and N8 differ only in case, hyphens or how accents are written; --rename-id OLD=NEW"
    for more in [], ["--rename-id", "n8=N8"]:
        status, _, errors = run(*words[:2], *words[-2:], "--tree", tmp_path / "respelt.json", *more)
        assert status == 0 and (note in errors) == (not more)


def test_a_file_of_mixed_types_keeps_every_bit(run, tmp_path):
    net = small_detector("stored")
    with torch.no_grad():
        net.layers[-1].rows.weight[0, 3, 0] = 1e6  # no float16: the whole tensor stays float32
    save_model(net, tmp_path / "a.safetensors", dtype="float16")
    run("edit", tmp_path / "a.safetensors", "--prune", "dog", "--out", tmp_path / "b.safetensors")
    rows = load_model(tmp_path / "b.safetensors").layers[-1].rows.weight
    assert torch.equal(rows, net.layers[-1].rows.weight[:, [0, 1, 2, 4]])


def test_the_packaged_model(run, tmp_path):
    out = tmp_path / "out.safetensors"
    status, text, _ = run("edit", "--subtree", "dog.n.01", "--add", "labradoodle", "retriever", "--out", out)
    assert status == 0 and "labradoodle" in text
    net = load_model(out)
    assert net.tree.roots == (0,) and net.tree.ids[0] == "n02084071"
    assert out.stat().st_size < DEFAULT_PATH.stat().st_size


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "nothing to do"),
        (["--tree", "t.json", "--prune", "cat"], 2, "no other edit"),
        (["--keep-children", "--row", "cat"], 2, "--prune"),
        (["--rename", "dog"], 2, "NODE=NAME"),
        (["--rename-id", "dog"], 2, "NODE=ID"),
        (["--rename", "dog=a", "--rename", "dog=b"], 2, "dog is to be both a and b"),
        (["--rename-id", "dog=a", "--rename-id", "dog=b"], 2, "dog is to be both a and b"),
        (["--rename", "dog=a", "--rename", "n4=b"], 1, "'n4' is to be both 'a' and 'b'"),
        (["--rename-id", "dog=n5"], 1, "'n5' was already given"),
        (["--prune", "unicorn"], 1, "no node is called 'unicorn'"),
        (["--add", "n8", "cat"], 1, "already"),
        (["--add", "x", "unicorn"], 1, "--add x: no node is called 'unicorn'; a new class hangs"),
        (["--add", "x", "unicorn"], 1, "a new root comes with --tree"),
        (["--graft", "root.tsv"], 1, "root.tsv:1: wanted node TAB"),
        (["--graft", "root.tsv"], 1, "a new root comes with --tree"),
        (["--prune", "animal", "--prune", "vehicle", "--prune", "thing"], 1, "nothing would be left"),
        (["--subtree", "bicycle"], 1, "nothing learnt would be left"),
        (["--tree", "missing.json"], 1, "missing.json"),
        (["--graft", "bad.tsv"], 1, "bad.tsv:2: 'pug' was already placed"),
        (["--graft", "far.tsv"], 1, "far.tsv:1: no node is called"),
        (["--graft", "ring.tsv"], 1, "cycle"),
        (["--tree", "other.json"], 1, "no node of the model's tree"),
        (["--prune", "cat", "--tree-out", "t.csv"], 2, "--tree-out is a .json"),
    ],
)
def test_wrong_words(words, status, message, model, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tsv").write_text("pug\tdog\npug\tcat\n")
    (tmp_path / "far.tsv").write_text("pug\tmoon\n")
    (tmp_path / "root.tsv").write_text("unicorn\t\n")
    (tmp_path / "ring.tsv").write_text("a\tb\nb\ta\n")
    WordTree(["x", "y"], [-1, 0]).save(tmp_path / "other.json")
    code, _, errors = run("edit", model, *words, "--out", tmp_path / "out.safetensors")
    assert code == status and message in errors
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("lines", "hinted"),
    [
        ("pug\tmoon\n", True),
        ("pug\n", True),
        ("pug\t\n", True),
        ("", False),
        ("# nothing\n", False),
        ("n8\tcat\n", False),
        ("pug\tdog\npug\tcat\n", False),
        ("pug\tdog\ta\tb\tc\n", False),
        ("a\tb\nb\ta\n", False),
        ("\ufeffpug\n", True),
    ],
)
def test_the_way_to_a_new_root_is_told_where_a_parent_lacks(lines, hinted, tmp_path):
    path = tmp_path / "g.tsv"
    path.write_text(lines)
    with pytest.raises(TreeError) as told:
        edited_tree(TREE, None, (), False, (), (), path, ())
    with pytest.raises(TreeError) as plain:
        graft_file(TREE, path)
    hint = "; a new class hangs below another; a new root comes with --tree"
    assert str(told.value) == str(plain.value) + hint * hinted


def test_models_that_cannot_be_edited(run, tmp_path):
    save_model(small_detector("flat"), tmp_path / "flat.safetensors", names=list("abcdef"))
    code, _, errors = run(
        "edit", tmp_path / "flat.safetensors", "--add", "x", "a", "--out", tmp_path / "o.safetensors"
    )
    assert code == 1 and "no tree" in errors
    code, _, errors = run("edit", "--add", "x", "a", "--out", tmp_path / "o.pt")
    assert code == 2 and ".safetensors" in errors


def test_grafting_a_file_equals_grafting_one_by_one(tmp_path):
    (tmp_path / "g.tsv").write_text("b\ta\na\tdog\tAye\nc\tdog\n")
    once = graft_file(TREE, tmp_path / "g.tsv")
    (tmp_path / "marked.tsv").write_text((tmp_path / "g.tsv").read_text(), encoding="utf-8-sig")
    assert graft_file(TREE, tmp_path / "marked.tsv").tree == once.tree
    tree = TREE
    for node, parent, name in (("a", "dog", "Aye"), ("c", "dog", None), ("b", "a", None)):
        tree = graft(tree, parent, node, name=name).tree
    assert once.tree == tree
