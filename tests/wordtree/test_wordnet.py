"""Finding WordNet, refusing a broken one, and the script that fetches it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from wordtree import TreeError, WordTree, wordnet

SCRIPT = Path(__file__).parents[2] / "scripts" / "get_wordnet"


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No WordNet anywhere; gives an empty folder that NLTK_DATA names."""
    monkeypatch.setattr(wordnet, "_CHECKOUT", tmp_path / "checkout")
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "data"))
    wordnet.reader.cache_clear()
    wordnet.synset.cache_clear()
    yield tmp_path / "data"
    wordnet.reader.cache_clear()
    wordnet.synset.cache_clear()


START = 52  # where the first line behind the licence begins


def fake(folder: Path, version: str = "3.0") -> Path:
    root = folder / "corpora" / "wordnet"
    root.mkdir(parents=True)
    for name in wordnet.FILES:
        (root / name).write_text("")
    (root / "data.noun").write_text(f"  1 This software: WordNet {version} Copyright 2006\n".rjust(START))
    return root


def test_none(nowhere):
    with pytest.raises(TreeError, match=r"looked below .*scripts/get_wordnet"):
        wordnet.find()


@pytest.mark.parametrize("missing", ["index.noun", "data.noun"])
def test_incomplete(nowhere, missing):
    root = fake(nowhere)
    (root / missing).unlink()
    with pytest.raises(TreeError, match=f"lacks {missing}"):
        wordnet.find()


def test_found_below_nltk_data_and_in_the_checkout(nowhere, tmp_path):
    inside = fake(tmp_path / "checkout" / ".wordnet")
    assert wordnet.find() == inside
    assert wordnet.find() != fake(nowhere) == wordnet.find()


def test_another_version(nowhere):
    fake(nowhere, "3.1")
    with pytest.raises(TreeError, match=r"WordNet 3\.1, whose ids differ"):
        wordnet.reader()


def test_rubbish_in_its_files(nowhere):
    (fake(nowhere) / "index.noun").write_text("rubbish\n")
    with pytest.raises(TreeError, match="cannot be opened"):
        wordnet.reader()


def test_no_version(nowhere):
    (fake(nowhere) / "data.noun").write_text("")
    with pytest.raises(TreeError, match="of no known version"):
        wordnet.reader()


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("dog n 1 1 @ 1 1 00000099", "dog.n.01"),  # no line there
        ("dog n 2 1 @ 1 1 00000052", "dog.n.02"),  # fewer senses than it says
        ("dog n 0 0 0 0", "dog.n.01"),
        ("dog v 1 1 @ 1 1 00000052", "dog.n.01"),
        ("dog n one", "dog.n.01"),
        ("cat n 1 1 @ 1 1 00000052", "n00000052"),  # the index lacks the word
        ("dog n 1 1 @ 1 1 00000052", "n00000053"),  # the middle of a line
    ],
)
def test_an_index_and_data_that_do_not_fit(nowhere, line, node):
    root = fake(nowhere)
    licence = (root / "data.noun").read_text()
    assert len(licence) == START
    (root / "data.noun").write_text(f'{licence}00000052 05 n 01 dog 0 000 | barks; "a dog"\n')
    (root / "index.noun").write_text(f"{line}\n")
    with pytest.raises(TreeError, match="WordNet 3\\.0 has no noun"):
        wordnet.synset(node)


def test_the_smallest_wordnet(nowhere):
    root = fake(nowhere)
    licence = (root / "data.noun").read_text()
    (root / "data.noun").write_text(f'{licence}00000052 05 n 02 Dog 0 hound 1 000 | barks; "a dog"  \n')
    (root / "index.noun").write_text("  1 licence\ndog n 1 0 1 1 00000052  \nhound n 1 0 1 0 00000052\n")
    of = wordnet.synset("hound.n.01")
    assert (of.offset, of.name, of.words, of.definition) == (52, "dog.n.01", ("Dog", "hound"), "barks")
    assert of is wordnet.synset("n00000052") and list(wordnet.reader()) == [of]


def test_hypernyms_come_in_alphabetical_order(needs_wordnet):
    several = 0
    for node in WordTree.default().ids:
        of = wordnet.synset(node)
        found = wordnet.hypernyms(of)
        kinds, instances = found[: len(of.hypernyms)], found[len(of.hypernyms) :]
        assert {h.offset for h in kinds} == set(of.hypernyms)
        assert {h.offset for h in instances} == set(of.instance_hypernyms)
        for part in (kinds, instances):
            assert [h.name for h in part] == sorted(h.name for h in part)
        several += len(kinds) > 1
    assert several > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The multilingual functions")  # nltk's, of other languages' files
def test_every_noun_is_what_nltk_says_it_is(needs_wordnet):
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    root = wordnet.find()
    if str(root.parents[1]) not in nltk.data.path:
        nltk.data.path.append(str(root.parents[1]))
    theirs = WordNetCorpusReader(nltk.data.FileSystemPathPointer(str(root)), None)
    ours = {of.offset: of for of in wordnet.reader()}
    count = 0
    for synset in theirs.all_synsets("n"):
        of = ours[synset.offset()]
        assert (of.name, list(of.words), of.definition) == (
            synset.name(),
            synset.lemma_names(),
            synset.definition(),
        )
        assert set(of.hypernyms) == {h.offset() for h in synset.hypernyms()}
        assert set(of.instance_hypernyms) == {h.offset() for h in synset.instance_hypernyms()}
        assert wordnet.synset(synset.name()) == of
        count += 1
    assert count == len(ours) == 82_115


def test_lexnames_are_wordnets():
    lines = runpy.run_path(str(SCRIPT))["lexnames"]().splitlines()
    assert len(lines) == 45
    assert [line.split("\t") for line in (lines[0], lines[3], lines[44])] == [
        ["00", "adj.all", "3"],
        ["03", "noun.Tops", "1"],
        ["44", "adj.ppl", "3"],
    ]


def test_fetching_where_nothing_can_be_reached_gives_advice(tmp_path):
    # No programs on the path: only Debian's way is tried, so that no test ever asks the network.
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--from", "debian", "--to", str(tmp_path / "to")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no apt-get here" in done.stderr
    assert "nltk.downloader" in done.stderr
    assert not (tmp_path / "to").exists()


@pytest.fixture
def from_debian(tmp_path):
    """Runs the script with stand-ins for apt-get and dpkg that give two packages."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "apt-get": '/usr/bin/touch "$2_3.0_all.deb"',
        "dpkg": 'd="$3/usr/share/wordnet"; /bin/mkdir -p "$d"; '
        'case "$2" in *base*) echo b > "$d/data.noun";; *) echo s > "$d/index.sense";; esac',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    def run(to: Path, path: str = str(programs)) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), "--from", "debian", "--to", str(to)]
        environment = {**os.environ, "PATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_fetching_from_debian_packages(tmp_path, from_debian):
    """The two packages' files meet in one folder, with lexnames."""
    done = from_debian(tmp_path / "to")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "to" / "corpora" / "wordnet"
    assert sorted(path.name for path in root.iterdir()) == ["data.noun", "index.sense", "lexnames"]
    assert "already" in from_debian(tmp_path / "to", path="").stdout


def test_fetching_to_where_nothing_can_be_written_is_one_line(tmp_path, from_debian):
    (tmp_path / "file").write_text("x")
    done = from_debian(tmp_path / "file")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in done.stderr
