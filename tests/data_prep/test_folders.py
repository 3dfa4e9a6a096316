"""Folders in folders: the lowest one that is known is the class of what lies in it."""

import json

import pytest

from data_prep import DataError
from data_prep.store import Store
from tests.data_prep.commands import run


@pytest.fixture
def pictures(tmp_path, make):
    """Puts pictures of these names into a folder of their own."""

    def put(*names: str):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make.picture(8, 8, "PNG"))
        return tmp_path / "in"

    return put


def packing(folder, tree_file) -> list:
    return ["pack", "--folders", folder, "--tree", tree_file]


def labels(path) -> dict[str, list[int]]:
    store = Store(path)
    return {sample.name: sample.image_labels.tolist() for sample in store}


def test_the_lowest_known_folder_is_the_class(pictures, tree_file, tmp_path):
    folder = pictures(
        "animal/a.png", "animal/dog/b.png", "animal/dog/husky/c.png", "animal/dog/husky/images/d.png"
    )
    command = [*packing(folder, tree_file), "--map", "names", tmp_path / "o.h5"]
    result = run(*command)
    assert result.exit_code == 0 and "above their own" not in result.stderr
    assert list(labels(tmp_path / "o.h5").values()) == [[0], [3], [6], [6]]
    # The same pictures with a folder in which nobody knows a class: said, and the nearest known one counts.
    pictures("animal/dog/husky/rex/e.png", "animal/dog/husky/rex/f.png", "animal/dog/x/y/g.png")
    result = run(*command)
    assert "folder above their own, which no class is called: 3, such as" in result.stderr
    assert "'animal/dog/husky/rex' as 'husky'\n" in result.stderr
    assert list(labels(tmp_path / "o.h5").values()) == [[0], [3], [6], [6], [6], [6], [3]]
    said = json.loads(run(*command, "--json").stdout)["sources"]["folders"]["labelled_by_an_upper_folder"]
    assert said == {"'animal/dog/husky/rex' as 'husky'": 2, "'animal/dog/x/y' as 'dog'": 1}
    assert "no class is called: 3," in run("check", *command[1:-1]).stderr


def test_of_two_known_folders_one_lies_below_the_other(pictures, tree_file, tmp_path):
    folder = pictures("dog/thing/a.png", "animal/dog/b.png")
    command = [*packing(folder, tree_file), "--map", "names", tmp_path / "o.h5"]
    error = str(run(*command).exception)
    assert "'dog/thing': 'thing' and 'dog' are both classes, and neither lies below the other" in error
    (tmp_path / "m.csv").write_text("dog/thing,n00000004\ndog,n00000004\n")
    command[command.index("names")] = tmp_path / "m.csv"
    assert run(*command, "--drop-unmapped").exit_code == 0
    assert labels(tmp_path / "o.h5") == {"animal/dog/b.png": [3], "dog/thing/a.png": [3]}


def test_folders_without_a_known_one_are_unmapped(pictures, tree_file, tmp_path):
    folder = pictures("n00000003/a.png", "gnu/old/b.png", "gnat/images/c.png")
    command = [*packing(folder, tree_file), tmp_path / "o.h5"]
    error = str(run(*command).exception)
    assert (
        "2 classes have no node" in error
        and "'gnu/old': 'gnu/old' is" in error
        and "'gnat': 'gnat' is" in error
    )
    assert run(*command, "--drop-unmapped").exit_code == 0
    assert labels(tmp_path / "o.h5") == {"n00000003/a.png": [2]}


def test_a_map_names_paths_and_leaves_lower_folders_out(pictures, tree_file, tmp_path):
    folder = pictures("a/x/1.png", "b/x/2.png", "b/y/3.png", "b/z/4.png")
    (tmp_path / "m.csv").write_text("a/x,n00000003\nb/x,n00000004\nb,n00000005\ny,,not wanted\n")
    result = run(*packing(folder, tree_file), "--map", tmp_path / "m.csv", tmp_path / "o.h5")
    assert result.exit_code == 0
    assert labels(tmp_path / "o.h5") == {"a/x/1.png": [2], "b/x/2.png": [3], "b/z/4.png": [4]}
    assert "'b/z' as 'b'" in result.stderr and "1 left out: 'y': not wanted" in result.stdout


def test_flat_takes_the_uppermost_folders_or_the_names_given(pictures, tmp_path):
    folder = pictures("a/x/1.png", "b/2.png")
    (tmp_path / "n.names").write_text("b\nx\n")
    command = ["pack", "--folders", folder, "--flat", tmp_path / "o.h5"]
    assert "'a/x' as 'a'" in run(*command).stderr
    assert labels(tmp_path / "o.h5") == {"a/x/1.png": [0], "b/2.png": [1]}
    assert run(*command, "--names", tmp_path / "n.names").stderr == ""
    assert labels(tmp_path / "o.h5") == {"a/x/1.png": [1], "b/2.png": [0]}


def test_wanted_classes_at_any_depth(pictures, tree_file, tmp_path):
    folder = pictures("animal/dog/1.png", "animal/cat/2.png", "thing/3.png")
    (tmp_path / "l.txt").write_text("dog\nthing\n")
    command = [*packing(folder, tree_file), "--map", "names", "--classes", tmp_path / "l.txt"]
    assert run(*command, tmp_path / "o.h5").exit_code == 0
    assert labels(tmp_path / "o.h5") == {"animal/dog/1.png": [3], "thing/3.png": [1]}
    (tmp_path / "l.txt").write_text("dog\ngnu\n")
    assert "no pictures of 1 wanted classes: gnu" in str(run(*command, tmp_path / "o.h5").exception)


def test_a_picture_outside_any_folder(pictures, tree_file, tmp_path):
    result = run(*packing(pictures("dog/1.png", "2.png"), tree_file), tmp_path / "o.h5")
    assert isinstance(result.exception, DataError) and "2.png lies in no class folder" in str(
        result.exception
    )
