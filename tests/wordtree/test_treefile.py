"""The JSON file: whatever a tree carries comes back, and a damaged file is an error that says so."""

import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wordtree.forests import trees
from wordtree import TreeError, WordTree

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(most=12), data=st.data(), ending=st.sampled_from([".json", ".json.gz"]))
def test_saved_and_loaded(tmp_path, tree, data, ending):
    n = len(tree)
    texts = st.lists(TEXT, min_size=n, max_size=n)
    rows = st.lists(st.lists(TEXT, max_size=3), min_size=n, max_size=n)
    full = WordTree(
        tree.ids,
        tree.parents,
        names=data.draw(st.lists(TEXT.filter(str.strip), min_size=n, max_size=n)),
        glosses=data.draw(st.none() | texts),
        synsets=data.draw(st.none() | texts),
        synonyms=data.draw(st.none() | rows),
        sources=data.draw(st.none() | rows),
        hypernyms=data.draw(st.none() | rows),
        about={"made": "here"},
    )
    path = tmp_path / f"t{ending}"
    full.save(path)
    again = WordTree.load(path)
    assert again.to_dict() == full.to_dict()
    assert (again.glosses, again.synonyms, again.about) == (full.glosses, full.synonyms, full.about)
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before


@pytest.fixture
def columns():
    return WordTree(["a", "b"], [-1, 0], glosses=["x", "y"]).to_dict()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "not a WordTree"),
        ({"version": 2}, "version 2"),
        ({"version": True}, "version True"),
        ({"version": None}, "version None"),
        ({"ids": None}, "'ids' is missing or not a list"),
        ({"parents": {"a": 1}}, "'parents' is missing or not a list"),
        ({"names": "ab"}, "'names' is missing or not a list"),
        ({"glosses": "ab"}, "'glosses' is missing or not a list"),
        ({"glosses": ["x"]}, "2 nodes but 1 glosses"),
        ({"about": []}, "'about'"),
        ({"parents": [-1, 0.0]}, "node 1: the parent is the index"),
        ({"parents": [-1, None]}, "node 1: the parent is the index"),
        ({"parents": [-1]}, "2 ids but 1 parents"),
        ({"ids": ["a", ["b"]]}, "node 1: an id is"),
        ({"ids": ["a", "c"]}, "fingerprint"),
        ({"parents": [-1, -1]}, "fingerprint"),
        ({"fingerprint": None}, "fingerprint"),
    ],
)
def test_faults_of_columns(columns, change, says):
    with pytest.raises(TreeError, match=says):
        WordTree.from_dict({**columns, **change})


@pytest.mark.parametrize("missing", ["format", "version", "ids", "parents", "names", "fingerprint"])
def test_missing_columns(columns, missing):
    del columns[missing]
    with pytest.raises(TreeError):
        WordTree.from_dict(columns)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 10_000,
        b"\x1f\x8b",
        b"\x1f\x8b garbage after a gzip magic",
        gzip.compress(b"{}"),
        gzip.compress(json.dumps(WordTree(["a"], [-1]).to_dict()).encode())[:-9],
        gzip.compress(json.dumps(WordTree(["a"], [-1]).to_dict()).encode()) + b"more",
        json.dumps(WordTree(["a"], [-1]).to_dict()).encode("utf-16"),
        json.dumps({**WordTree(["a"], [-1]).to_dict(), "ids": []}).encode(),
        json.dumps({**WordTree(["a"], [-1]).to_dict(), "names": []}).encode(),
        json.dumps({**WordTree(["a"], [-1]).to_dict(), "names": ["\ud800"]}).encode(),
    ],
)
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(TreeError, match=r"t\.json"):
        WordTree.load(path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    tree = WordTree(["a"], [-1])
    for name in ("t.json", "t", "t.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + json.dumps(tree.to_dict()).encode())
        assert WordTree.load(tmp_path / name).fingerprint == tree.fingerprint


def test_what_has_no_known_form_is_told_so(tmp_path):
    (tmp_path / "t.nwk").write_text("((a,b)c,d)e;")
    with pytest.raises(TreeError, match=r"t\.nwk: no form of a tree that is known here: JSON, \.csv"):
        WordTree.load(tmp_path / "t.nwk")


def test_a_truncated_file_never_passes(tmp_path):
    path = tmp_path / "t.json.gz"
    WordTree(["a", "b"], [-1, 0]).save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(TreeError):
            WordTree.load(path)


def test_an_unpacking_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("wordtree.treefile.MOST_BYTES", 1 << 16)
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    with pytest.raises(TreeError, match="unpacks to over"):
        WordTree.load(path)


def test_saving_where_nothing_can_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TreeError, match="cannot be written"):
        WordTree(["a"], [-1]).save(tmp_path / "file" / "t.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    WordTree(["a"], [-1]).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(TreeError, match="No space left"):
        WordTree(["b"], [-1]).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_file_far_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("wordtree.files.MOST_BYTES", 100)
    (tmp_path / "t.json").write_bytes(b" " * 101)
    for path in (tmp_path / "t.json", tmp_path / "t.tree"):
        path.write_bytes(b" " * 101)
        with pytest.raises(TreeError, match="no file of a tree"):
            WordTree.load(path)


@pytest.mark.parametrize("about", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_facts_that_json_cannot_hold(tmp_path, about):
    with pytest.raises(TreeError, match="`about` of the tree"):
        WordTree(["a"], [-1], about=about).save(tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


def test_the_ending_tree_is_darknets(tmp_path):
    tree = WordTree(["a", "b"], [-1, 0], ["big a", "little b"])
    path, names, _ = tree.to_darknet(tmp_path, "t")
    assert WordTree.load(path) == tree
    names.unlink()
    assert WordTree.load(path).names == ("a", "b")
    before = path.read_bytes()
    with pytest.raises(TreeError, match="Darknet's format"):
        tree.save(path)
    assert path.read_bytes() == before


def test_what_is_no_plain_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(TreeError, match="no plain file"):
            WordTree(["a"], [-1]).save(tmp_path / name)
    assert (tmp_path / "pipe.json").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json", "pipe.json"]


@pytest.mark.parametrize("name", ["t.csv", "t.TSV", "t.graphml", "t.tree"])
def test_json_is_not_written_under_a_name_that_is_read_as_something_else(name, tmp_path):
    with pytest.raises(TreeError, match=r"name it \.json"):
        WordTree(["a", "b"], [-1, 0]).save(tmp_path / name)
    assert not list(tmp_path.iterdir())
