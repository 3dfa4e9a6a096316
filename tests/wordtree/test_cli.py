"""The `wordtree` command, as a program of its own where exit statuses matter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from wordtree import LookupTreeError, TreeError, WordTree, wordnet
from wordtree.cli import cli


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "wordtree.cli", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        check=False,
    )


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.json"
    WordTree(["a", "b", "c"], [-1, 0, 0], ["top", "same", "same"], ["x", "y", "z"]).save(path)
    return str(path)


def test_a_warning_is_a_line_on_stderr(tmp_path):
    (tmp_path / "t.csv").write_text("child,parent\na,\nb,\nc,a\nc,b\n")
    done = run("check", str(tmp_path / "t.csv"), "--json")
    assert (done.returncode, json.loads(done.stdout)["nodes"]) == (0, 3)
    said = f"warning: {tmp_path / 't.csv'}:4: 'c' has 2 parents; 'a' was taken, not 'b'\n"
    assert done.stderr.startswith(said)


def test_path_of_a_husky():
    done = run("path", "husky")
    tree = WordTree.default()
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(tree.path("husky"))
    for line, node in zip(lines, tree.path_nodes("husky"), strict=True):
        assert tree.glosses[node] in line


def test_ambiguous_name():
    done = run("path", "crane")
    tree = WordTree.default()
    assert (done.returncode, done.stdout) == (2, "")
    named = [i for i, name in enumerate(tree.names) if name == "crane"]
    assert len(named) > 1
    for i in named:
        assert tree.ids[i] in done.stderr
        assert tree.glosses[i] in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["path", "huskyy"], 2, "did you mean"),
        (["path", "99999"], 1, "the nodes 0 to 9417"),
        (["path", "--", "-5"], 1, "the nodes 0 to 9417"),
        (["path", "pug.n.77"], 2, "pug"),
        (["diff", "no/such.tree"], 2, "cannot be read"),
        (["path", "\udcff"], 2, "no node is called"),
        (["show", "--tree", "/dev/null"], 1, "/dev/null: not JSON"),
        (["path"], 2, "Missing argument"),
        (["lca", "dog", "snow"], 1, "different roots"),
        (["search", "qqqq"], 1, "nothing in the tree"),
        (["check", "no/such.tree"], 1, "cannot be read"),
        (["show", "--tree", "no/such.json"], 1, "cannot be read"),
        (["build"], 2, "no labels"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_a_line_and_a_status(arguments, status, says):
    done = run(*arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["build", "show", "path", "search", "lca", "check", "diff"])
def test_every_command_has_an_example_that_runs(name):
    text = CliRunner().invoke(cli, [name, "--help"]).output
    assert "Example: wordtree " + name in text
    assert "--json" in text


def test_json_of_a_path():
    steps = json.loads(CliRunner().invoke(cli, ["path", "dog.n.01", "--json"]).output)
    tree = WordTree.default()
    assert [step["index"] for step in steps] == list(tree.path_nodes("dog.n.01"))
    assert steps[-1]["path"] == list(tree.path("dog.n.01"))


def test_show(small):
    facts = json.loads(CliRunner().invoke(cli, ["show", "--tree", small, "--json"]).output)
    assert (facts["nodes"], facts["roots"], facts["leaves"], facts["groups"]) == (3, 1, 2, 2)
    assert "top" in CliRunner().invoke(cli, ["show", "--tree", small]).output
    node = json.loads(CliRunner().invoke(cli, ["show", "top", "--tree", small, "--json"]).output)
    assert [child["id"] for child in node["children"]] == ["b", "c"]
    shown = CliRunner().invoke(cli, ["show", "0", "--tree", small, "--depth", "0"]).output
    assert shown.endswith("top  a  (+2)\n")


@pytest.mark.parametrize("words", [["bear", "--depth", "2"], ["--depth", "3"], ["bear"]])
def test_json_holds_the_levels_that_are_shown(words):
    shown, told = (CliRunner().invoke(cli, ["show", *words, *more]).output for more in ([], ["--json"]))
    outline, found = [], json.loads(told)
    waiting = [(node, 0) for node in (found["children"] if words[0] == "--depth" else [found])]
    while waiting:
        node, level = waiting.pop(0)
        outline.append(f"{'  ' * level}{node['name']}  {node['id']}")
        waiting = [(child, level + 1) for child in node.get("children", ())] + waiting
    assert outline == [line.partition("  (+")[0] for line in shown.partition("\n\n")[2].splitlines()]


def test_search_and_lca(small):
    found = json.loads(CliRunner().invoke(cli, ["search", "same", "--tree", small, "--json"]).output)
    assert [node["id"] for node in found] == ["b", "c"]
    assert CliRunner().invoke(cli, ["lca", "b", "2", "--tree", small]).output == "a  top: x\n"
    above = json.loads(CliRunner().invoke(cli, ["lca", "b", "c", "--tree", small, "--json"]).output)
    assert above["id"] == "a"


def test_check_darknet_files(tmp_path):
    tree = WordTree(["a", "b"], [-1, 0], ["x", "y"])
    paths = [str(path) for path in tree.to_darknet(tmp_path, "t")]
    (tmp_path / "t.map").write_text("1\n0\n1\n")
    options = ["--names", paths[1], "--labels", paths[2], "--map", str(tmp_path / "t.map")]
    arguments = ["check", paths[0], *options]
    assert "sound" in run(*arguments).stdout
    facts = json.loads(run(*arguments, "--json").stdout)
    assert (facts["nodes"], facts["mapped"], facts["fingerprint"]) == (2, 3, tree.fingerprint)
    (tmp_path / "t.map").write_text("1\n2\n")
    assert "t.map:2" in run(*arguments).stderr
    assert run("show", "y", "--tree", paths[0]).returncode == 0  # the .names beside it is found


def test_digits_are_an_index_unless_ids_are_numbers():
    assert WordTree(["a", "b"], [-1, 0]).lookup.typed("1") == 1
    tree = WordTree(["5", "b", "c"], [-1, 0, 0], ["five", "six", "747"])
    assert tree.lookup.typed("5") == 0
    assert tree.lookup.typed("747") == 2
    with pytest.raises(
        LookupTreeError, match="no node has the id 1; as this tree has ids like 5, none is an"
    ):
        tree.lookup.typed("1")
    with pytest.raises(TreeError):
        tree.lookup.typed("9" * 5000)


def test_build(tmp_path, needs_wordnet):
    (tmp_path / "labels.txt").write_text("n02084071 dog\nwolf.n.01\n")
    out = tmp_path / "pets.json.gz"
    done = run(
        "build",
        "cat.n.01",
        "--from",
        str(tmp_path / "labels.txt"),
        "--out",
        str(out),
        "--darknet",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert WordTree.load(out).names == ("carnivore", "canine", "cat", "dog", "wolf")
    again = WordTree.from_darknet(
        *(tmp_path / f"wordtree.{ending}" for ending in ("tree", "names", "labels"))
    )
    assert again == WordTree.load(out)
    assert "dog  n02084071" in CliRunner().invoke(cli, ["build", "dog.n.01", "cat.n.01"]).output


def test_labels_of_a_file_are_faulted_by_file_and_line(tmp_path, needs_wordnet):
    path = tmp_path / "labels.txt"
    path.write_text("n02084071 dog\nwulf.n.01\n")
    error = CliRunner().invoke(cli, ["build", "--from", str(path)]).exception
    assert isinstance(error, TreeError)
    assert str(error).startswith(f"{path}:2: ")
    assert "wulf.n.01" in str(error)


def test_build_without_wordnet_says_what_helps(monkeypatch, tmp_path):
    monkeypatch.setattr(wordnet, "_CHECKOUT", tmp_path)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.delenv("NLTK_DATA", raising=False)
    wordnet.reader.cache_clear()
    wordnet.synset.cache_clear()
    try:
        result = CliRunner().invoke(cli, ["build", "dog.n.01"])
    finally:
        wordnet.reader.cache_clear()
        wordnet.synset.cache_clear()
    assert isinstance(result.exception, TreeError)
    assert "scripts/get_wordnet" in str(result.exception)


def test_diff(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    WordTree(["a", "b", "c", "d"], [-1, 0, 0, 1], ["A", "B", "C", "D"]).save(old)
    WordTree(["a", "c", "b", "e"], [-1, 0, 1, 1], ["A", "See", "B", "E"]).save(new)
    result = CliRunner().invoke(cli, ["diff", str(old), str(new)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "- d  D",
        "+ e  E",
        "> b  B: A -> See",
        "~ c  C -> See",
        "1 removed, 1 added, 1 moved, 1 renamed; another order",
    ]
    facts = json.loads(CliRunner().invoke(cli, ["diff", str(old), str(new), "--json"]).output)
    assert (facts["removed"], facts["added"], facts["moved"]) == (["d"], ["e"], [["b", "a", "c"]])
    assert CliRunner().invoke(cli, ["diff", str(old), str(old)]).exit_code == 0
    WordTree(["A", "\u00e9"], [-1, 0]).save(old)
    WordTree(["A", "e\u0301"], [-1, 0]).save(new)
    said = CliRunner().invoke(cli, ["diff", str(old), str(new)]).stderr
    assert said.startswith("note: '\\xe9' and 'e\\u0301' differ only in case, hyphens or how accents")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("wordtree", ["path", "husky"], 1),
        ("wordtree", ["show", "--depth", "3"], 1),
        ("wordtree", ["diff", "TREE"], 2),  # of which 1 says that the trees differ
        ("wordtree", ["diff", "TREE", "--json"], 2),
        ("data_prep", ["--help"], 1),
    ],
)
def test_a_full_disk_behind_the_output_is_one_line(module, arguments, status, tmp_path):
    WordTree(["a"], [-1], ["A"]).save(tmp_path / "t.json")
    arguments = [str(tmp_path / "t.json") if word == "TREE" else word for word in arguments]
    program = f"from {module}.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1 and "No space left on device" in done.stderr, done.stderr


def test_names_that_no_terminal_shows_are_escaped(tmp_path):
    path = tmp_path / "t.json"
    WordTree(["a"], [-1], ["ŷ"]).save(path)
    done = subprocess.run(
        [sys.executable, "-m", "wordtree.cli", "show", "a", "--tree", str(path)],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\\u0177" in done.stdout


def test_a_tree_of_the_extremes_is_shown(tmp_path):
    chain, group = tmp_path / "chain.json", tmp_path / "group.json"
    WordTree([f"n{i}" for i in range(5000)], range(-1, 4999)).save(chain)
    WordTree([f"n{i}" for i in range(10_001)], [-1] + [0] * 10_000).save(group)
    lines = CliRunner().invoke(cli, ["path", "n4999", "--tree", str(chain)]).output.splitlines()
    assert [line.strip() for line in lines] == [f"n{i}" for i in range(5000)]
    found = json.loads(CliRunner().invoke(cli, ["show", "n0", "--tree", str(group), "--json"]).output)
    assert len(found["children"]) == 10_000


def test_diff_writes_the_map(tmp_path, small):
    other, rows = tmp_path / "other.json", tmp_path / "rows.map"
    WordTree(["a", "c", "d"], [-1, 0, 0]).save(other)
    done = CliRunner().invoke(cli, ["diff", small, str(other), "--map", str(rows), "--json"])
    assert done.exit_code == 1  # they differ
    assert rows.read_text() == "0\n-1\n1\n"
    assert json.loads(done.output)["map"] == [0, -1, 1]


def test_export(tmp_path, small):
    out = tmp_path / "out.csv"
    done = CliRunner().invoke(cli, ["export", str(out), "--tree", small])
    assert (done.exit_code, WordTree.load(out)) == (0, WordTree.load(small))
    assert CliRunner().invoke(cli, ["export", str(tmp_path / "out.xyz"), "--tree", small]).exit_code == 2
    assert (
        CliRunner().invoke(cli, ["export", str(tmp_path), "--form", "darknet", "--tree", small]).exit_code
        == 0
    )
    assert WordTree.load(tmp_path / "wordtree.tree") == WordTree.load(small)


@pytest.mark.parametrize(
    ("name", "form", "fitting"),
    [
        ("t.csv", "children", ".json"),
        ("t.CSV", "own", ".json or .gz"),
        ("t.json", "ranks", ".csv or .tsv"),
        ("t.json.gz", "keys", ".json"),
        ("t.tree", "graphml", ".graphml"),
        ("t.tsv", "html", ".html"),
    ],
)
def test_no_form_is_written_under_a_name_that_is_read_as_another(tmp_path, small, name, form, fitting):
    out = tmp_path / "out" / name
    done = CliRunner().invoke(cli, ["export", str(out), "--form", form, "--tree", small])
    assert (done.exit_code, out.exists()) == (2, False)
    assert f"{name} is no name for the form {form}; name it {fitting}\n" in done.output


@pytest.mark.parametrize(
    ("name", "form", "fitting"),
    [
        ("t.txt", "edges", ".csv or .tsv"),
        ("t", "ranks", ".csv or .tsv"),
        ("t.xml", "graphml", ".graphml"),
        ("t.txt", "children", ".json"),
        ("t.js", "openimages", ".json"),
    ],
)
def test_a_form_is_noted_under_a_name_that_nothing_reads(tmp_path, small, name, form, fitting):
    out = tmp_path / name
    done = CliRunner().invoke(cli, ["export", str(out), "--form", form, "--tree", small])
    assert done.exit_code == 0 and out.stat().st_size
    assert f"reads the form {form} from {fitting} only, not {name}\n" in done.stderr
    with pytest.raises(TreeError):
        WordTree.load(out)


def test_the_own_form_is_known_under_any_name(tmp_path, small):
    out = tmp_path / "t.txt"
    assert CliRunner().invoke(cli, ["export", str(out), "--form", "own", "--tree", small]).exit_code == 0
    assert WordTree.load(out) == WordTree.load(small)


def test_build_with_labels_that_wordnet_does_not_know(tmp_path, needs_wordnet):
    grafts, out = tmp_path / "mine.tsv", tmp_path / "mine.json"
    grafts.write_text("# mine\nlabradoodle\tdog.n.01\tLabradoodle\ta cross\nmini labradoodle\tlabradoodle\n")
    labels = ["labradoodle", "mini labradoodle", "cat.n.01", "n02109961"]
    done = CliRunner().invoke(cli, ["build", *labels, "--grafts", str(grafts), "--out", str(out)])
    assert done.exit_code == 0, done.exception
    tree = WordTree.load(out)
    k = tree.index("labradoodle")
    assert (tree.names[k], tree.glosses[k], tree.sources[k]) == ("Labradoodle", "a cross", ("label",))
    assert tree.path(k)[-2] == "n02084071"
    assert tree.hypernym_path("mini labradoodle")[-2] == "labradoodle"  # in the tree promoted beside it


def test_labels_of_several_words_and_those_that_nobody_asked_for(tmp_path, needs_wordnet):
    grafts, labels, out = (tmp_path / name for name in ("mine.tsv", "labels.txt", "mine.json"))
    grafts.write_text("my bear\tbear.n.01\nyour bear\tbear.n.01\nher bear\tbear.n.01\n")
    labels.write_text("my bear\nyour bear\ta remark\ndog.n.01 another\n", "utf-8-sig")  # as Notepad does
    done = CliRunner().invoke(
        cli, ["build", "--from", str(labels), "--grafts", str(grafts), "--out", str(out)]
    )
    assert done.exit_code == 0, done.exception
    tree = WordTree.load(out)
    assert ("my bear" in tree, "your bear" in tree, "her bear" in tree) == (True, True, False)
    assert (
        done.stderr
        == f"{grafts}: 1 not in the tree, as nobody asked for them; name them as labels: her bear\n"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n", "mine.tsv:1: wanted node TAB"),
        ("x\tdgo.n.01\n", "mine.tsv:1: 'x' hangs below 'dgo.n.01'"),
        ("dgo.n.01\tdog.n.01\n", "mine.tsv:1: WordNet 3.0 has no noun"),
        ("#\nx\tdog.n.01\nx\tcat.n.01\n", "mine.tsv:3: 'x' was already placed"),
    ],
)
def test_faults_of_grafts(tmp_path, needs_wordnet, text, says):
    from wordtree.grafts import read_grafts

    (tmp_path / "mine.tsv").write_text(text)
    with pytest.raises(TreeError, match=says):
        read_grafts(tmp_path / "mine.tsv")


def test_json_is_json_whatever_the_locale(tmp_path):
    WordTree(["a"], [-1], ["猫 😀"]).save(tmp_path / "t.json")
    done = subprocess.run(
        [sys.executable, "-m", "wordtree.cli", "show", "a", "--tree", tmp_path / "t.json", "--json"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["name"] == "猫 😀"
