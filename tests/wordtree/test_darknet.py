"""Darknet's files: what is written is read again, and every fault is an error that names file and line."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wordtree.forests import trees
from wordtree import TreeError, WordTree
from wordtree.darknet import read_map, write_map


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_written_and_read_again(tmp_path, tree):
    paths = tree.to_darknet(tmp_path, "t")
    again = WordTree.from_darknet(*paths)
    assert again == tree
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in again.to_darknet(tmp_path / "deeper" / "still", "t")] == first
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "t.labels",
        "t.names",
        "t.tree",
    ]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"", None, "empty"),
        (b"a -1\n\nb 0\n", 2, "blank line"),
        (b"a -1\nb 0\n\n", 3, "blank line"),
        (b"\n", 1, "blank line"),
        (b"a -1\n  \t\n", 2, "blank line"),
        (b"a\n", 1, "wanted an id and"),
        (b"a -1\nb 0 x\n", 2, "wanted an id and"),
        (b"a -1\nb zero\n", 2, "wanted an id and"),
        (b"a -1\nb 0.0\n", 2, "wanted an id and"),
        (b"a -1\nb \xd9\xa0\n", 2, "wanted an id and"),  # a digit, but Arabic
        (b"a -1\nb " + b"9" * 6000 + b"\n", 2, "wanted an id and"),
        (b"a -1\nb 5\n", 2, "the nodes are 0 to 1"),
        (b"a -1\nb -7\n", 2, "the nodes are 0 to 1"),
        (b"a -1\nb 2\nc 1\n", 2, "cycle"),
        (b"a -1\nb 1\n", 2, "its own parent"),
        (b"a -1\nb 2\nc 0\n", 2, "forward parent"),
        (b"a -1\nb 0\na 0\n", 3, "already given at .*t.tree:1"),
        (b"a -1\nb 0\nc 1\nd 0\n", 4, "siblings lie side by side"),
        (b"a -1\nb 0\nc -1\n", 3, "belongs to the roots"),
        (b"a -1\n\xff\xfe 0\n", 2, "not UTF-8"),
        (b"\xef\xbb\xbfa -1\n", 1, "byte order mark"),
        (b"a\x00b -1\n", 1, "printable"),
        (b"a -1\rb 0\r", 1, "carriage return"),
        ("a -1\n".encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_faults_of_tree_files(tmp_path, content, line, says):
    path = tmp_path / "t.tree"
    path.write_bytes(content)
    with pytest.raises(TreeError, match=says) as caught:
        WordTree.from_darknet(path)
    assert f"{path}:{line}" in str(caught.value) if line else str(path) in str(caught.value)


def test_no_final_newline_and_carriage_returns_are_read(tmp_path):
    (tmp_path / "t.tree").write_bytes(b"a -1\r\nb 0")
    (tmp_path / "t.names").write_bytes(b"big a\r\nlittle b")
    tree = WordTree.from_darknet(tmp_path / "t.tree", tmp_path / "t.names")
    assert (tree.ids, tree.names, tree.parents.tolist()) == (("a", "b"), ("big a", "little b"), [-1, 0])


@pytest.mark.parametrize(
    ("which", "content", "says"),
    [
        ("names", b"x\n", "t.names: 1 lines, but .*t.tree has 2"),
        ("names", b"x\ny\nz\n", "t.names: 3 lines"),
        ("names", b"x\n\n", "t.names:2: a blank line"),
        ("names", b"x\n\xff\n", "t.names:2: not UTF-8"),
        ("names", b"x\ny\rz\n", "t.names:2: a carriage return"),
        ("labels", b"a\nc\n", "t.labels:2: 'c', but .*t.tree:2 has 'b'"),
        ("labels", b"a\n", "t.labels: 1 lines"),
    ],
)
def test_faults_of_the_files_beside_it(tmp_path, which, content, says):
    (tmp_path / "t.tree").write_bytes(b"a -1\nb 0\n")
    (tmp_path / f"t.{which}").write_bytes(content)
    with pytest.raises(TreeError, match=says):
        WordTree.from_darknet(tmp_path / "t.tree", **{which: tmp_path / f"t.{which}"})


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "none.tree", tmp_path):
        with pytest.raises(TreeError, match="cannot be read"):
            WordTree.from_darknet(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TreeError, match="cannot be written"):
        WordTree(["a"], [-1]).to_darknet(tmp_path / "file")


def test_ids_with_blanks_have_no_tree_file(tmp_path):
    for node in ("hot dog", " dog", "dog "):
        with pytest.raises(TreeError, match="white space"):
            WordTree.flat(["cat", node]).to_darknet(tmp_path)
    assert not list(tmp_path.iterdir())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=st.lists(st.integers(0, 99), min_size=1))
def test_maps(tmp_path, nodes):
    path = tmp_path / "x.map"
    write_map(path, nodes)
    assert read_map(path, 100).tolist() == nodes
    worst = max(nodes)
    with pytest.raises(
        TreeError, match=rf"x.map:{nodes.index(worst) + 1}: .*0 to {worst - 1}, found '{worst}'"
    ):
        read_map(path, worst)


@pytest.mark.parametrize("content", ["", "-1\n", "1.0\n", "one\n", "1 2\n", "\n", "9" * 5000])
def test_faults_of_maps(tmp_path, content):
    path = tmp_path / "x.map"
    path.write_text(content)
    with pytest.raises(TreeError, match=r"x.map"):
        read_map(path, 100)
