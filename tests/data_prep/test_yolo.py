"""YOLO's and Darknet's label files and lists, and their class names."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep import DataError
from data_prep.classnames import read_class_names
from data_prep.cli import cli
from data_prep.lookup import Lookup
from data_prep.packing import pack
from data_prep.recipe import Recipe, Source
from data_prep.store import Store
from data_prep.yolo import read_darknet, read_yolo

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])


@pytest.fixture
def yolo(tmp_path) -> Path:
    """Pictures' label files of a data set laid out as Darknet expects it."""
    (tmp_path / "labels" / "deep").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.2\n\n0.0 0 0 1 0 1 1\n")
    (tmp_path / "labels" / "b.txt").write_text("")
    (tmp_path / "labels" / "deep" / "c.txt").write_text("3 0 0 0 0\n")
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    return tmp_path


def test_yolo_lines(yolo):
    (yolo / "labels" / "more.txt").write_text("0 0.5 0.5 1 1\n")
    (yolo / "labels" / "classes.txt").write_text("cat\ndog\n")
    names = ["a.jpg", "b.jpg", "absent.jpg"]
    found = read_yolo(yolo / "labels", names, Lookup(names), yolo / "obj.names")
    a, b = found.records
    assert np.allclose(a.boxes_xyxy, [[0.25, 0.4, 0.75, 0.6], [0, 0, 1, 1]])
    assert (a.categories, a.boxed, a.in_shares) == ((1, 0), True, True)
    assert (b.boxed, b.categories) == (True, ())
    faults = sorted((f.kind, f.picture) for f in found.faults)
    assert faults == [("missing labels", "absent.jpg"), *[("orphan annotation", "")] * 2]
    assert [c.name for c in found.categories.values()] == ["cat", "dog"]


@pytest.mark.parametrize(
    "line",
    [
        "x 0 0 1 1",
        "-1 0 0 1 1",
        "2 0 0 1 1",
        "0 0 0 1",
        "0 0 0 1 1 1",
        "0 0 0 1 y",
        "9999999 0 0 1 1",
        "0 .5 .5 .2 .2 .1 .9 2 .1 .9 2",  # keypoints of which no data.yaml speaks
    ],
)
def test_wrong_yolo_lines_are_faults_with_their_place(yolo, line):
    (yolo / "labels" / "b.txt").write_text(f"0 .5 .5 1 1\n{line}\n")
    found = read_yolo(yolo / "labels", ["b.jpg"], PICTURES, yolo / "obj.names")
    assert [len(r.boxes_xyxy) for r in found.records] == [1]
    fault = next(f for f in found.faults if f.kind == "malformed annotation")
    assert "b.txt: line 2" in fault.detail


def test_yolo_labels_behind_links_in_capitals_and_of_no_picture(tmp_path):
    for name in ("real/a.txt", "labels/val/a.txt", "labels/val/B.TXT", "labels/val/B.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0 .5 .5 1 1\n")
    (tmp_path / "labels" / "val" / "classes.txt").write_text("cat\n")
    (tmp_path / "labels" / "train").symlink_to("../real")
    names = ["train/a.jpg", "val/B.jpg"]
    found = read_yolo(tmp_path / "labels", names, Lookup(names))
    assert [(r.name, r.categories) for r in found.records] == [("train/a.jpg", (0,)), ("val/B.jpg", (0,))]
    labels = tmp_path / "labels/val"
    assert [(f.kind, f.detail) for f in found.faults] == [
        ("repeated id", f"{labels}/B.txt: {labels}/B.TXT differs from it by capitals only, and is taken"),
        ("orphan annotation", f"{labels}/a.txt: there is no picture val/a, only train/a.jpg"),
    ]


@pytest.mark.parametrize("shape", ["[4, 3]  # x, y, visible", "\n  - 4\n  - 3"])
def test_keypoints_behind_a_box(yolo, shape):
    points = " .1 .9 2" * 4
    (yolo / "labels" / "b.txt").write_text(f"0 .5 .5 .2 .2{points}\n1 .5 .5 1 1\n0 0 0 0 1 1 1\n")
    (yolo / "data.yaml").write_text(f"kpt_shape: {shape}\nnames:\n  0: cat\n  1: dog\n")
    found = read_yolo(yolo / "labels", ["b.jpg"], PICTURES, yolo / "data.yaml")
    assert np.allclose(found.records[0].boxes_xyxy, [[0.4, 0.4, 0.6, 0.6], [0, 0, 1, 1]])
    details = [f.detail for f in found.faults if f.kind == "malformed annotation"]
    said = "line 3: 6 numbers after the class; a box has 4, and its keypoints 12 (kpt_shape)"
    assert details == [f"{yolo}/labels/b.txt: {said}"]
    (yolo / "data.yaml").write_text("kpt_shape: many\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"data\.yaml: wanted kpt_shape: \[keypoints, 2 or 3\]"):
        read_yolo(yolo / "labels", ["b.jpg"], PICTURES, yolo / "data.yaml")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_labels_of_pictures_whose_accents_are_written_otherwise(tmp_path, forms):
    picture, label = (unicodedata.normalize(form, "é") for form in forms)
    for k, names in enumerate(([picture], [picture, label])):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / f"{label}.txt").write_text("0 .5 .5 .1 .1\n")
        names = [f"{name}.jpg" for name in names]
        found = read_yolo(folder, names, Lookup(names))
        assert [record.name for record in found.records] == names[-1:]  # of two its own
        assert [fault.kind for fault in found.faults] == ["missing labels"] * k


def test_darknets_mark_for_a_picture_without_boxes(yolo, make, tree, tree_file):
    for name in ("a.jpg", "b.jpg", "deep/c.jpg"):
        (yolo / "images" / name).parent.mkdir(exist_ok=True)
        (yolo / "images" / name).write_bytes(make.picture())
    (yolo / "train.txt").write_text("/home/me/images/a.jpg\nimages/b.jpg\n\n./images/deep/c.jpg\n")
    (yolo / "ours.map").write_text("2\n6\n")

    def packed(tree: str, **more) -> list:
        source = Source("x", "darknet", "images", "train.txt", **more)
        report = pack(Recipe((source,), tree, root=yolo), yolo / "o.h5")
        assert not report.faults
        return list(Store(yolo / "o.h5"))

    a, b, c = packed(str(tree_file), map="ours.map")
    assert (a.labels.tolist(), a.boxed) == ([6, 2], True)  # classes 1 and 0 through the map
    assert (b.boxed, len(b.labels), len(b.image_labels)) == (True, 0, 0)
    assert (c.boxed, c.image_labels.tolist()) == (False, [3])  # a number in the tree, no map
    # A number in somebody's tree means nothing in the one built in.
    with pytest.raises(DataError, match="numbers of nodes in a tree"):
        packed("default", map="ours.map")
    # With that tree's WordNet ids it does: here they are turned round.
    (yolo / "x.data").write_text("classes = 8\nlabels = data/ids.txt # of the tree\n")
    (yolo / "ids.txt").write_text("\n".join(tree.ids[::-1]))
    a, _, c = packed(str(tree_file), map="ours.map", class_names="x.data")
    assert (a.labels.tolist(), c.image_labels.tolist()) == ([1, 5], [4])


def test_a_flat_list_of_numbers_is_in_nobodys_order(yolo, make):
    """Without names class 1 would be class 0, for it comes first here; with them all keep their places."""
    for name in ("a.jpg", "b.jpg"):
        (yolo / "images" / name).write_bytes(make.picture())

    def packed(names: str | None, **more) -> Store:
        source = Source("x", "yolo", "images", "labels", **more)
        pack(Recipe((source,), "flat", names, root=yolo), yolo / "o.h5")
        return Store(yolo / "o.h5")

    (yolo / "numbers.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match="its classes are numbers; a flat list needs their names"):
        packed(None)
    for names, more in ((None, {"class_names": "obj.names"}), ("numbers.txt", {})):
        assert packed(names, **more)[0].labels.tolist() == [1, 0]  # the numbers in a.txt


def test_a_data_yaml_in_place_of_the_folder_is_told_where_it_goes():
    found = CliRunner().invoke(cli, ["pack", "--yolo", "data.yaml", "--flat", "o.h5"])
    assert found.exit_code == 2 and "--class-names data.yaml" in " ".join(found.output.split())


def test_darknet_lists_with_mistakes(yolo):
    (yolo / "labels" / "b.txt").write_text("1 0 0 0 0\n0 .5 .5 1 1\n")
    (yolo / "train.txt").write_text("images/a.jpg\na.jpg\nzzz.jpg\nb.jpg\n")
    found = read_darknet(yolo / "train.txt", yolo / "images", PICTURES)
    assert [f.kind for f in found.faults] == ["repeated id", "missing picture", "malformed annotation"]
    assert found.records[1].boxed
    (yolo / "none.txt").write_text("")
    with pytest.raises(DataError, match="no picture with labels"):
        read_darknet(yolo / "none.txt", yolo / "images", PICTURES)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_lines_for_one_picture_the_closer_has_its_labels(tmp_path, order):
    for split, line in (("val", "0 .5 .5 .1 .1"), ("train", "1 .2 .2 .1 .1")):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "1.txt").write_text(line)
    lines = ["/data/p/val/1.jpg", "/data/p/train/1.jpg"][::order]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    images = tmp_path / "p" / "train"
    found = read_darknet(tmp_path / "list.txt", images, Lookup(["1.jpg"], images), tmp_path / "labels")
    assert [(r.name, r.categories) for r in found.records] == [("1.jpg", (1,))]
    (fault,) = found.faults
    assert fault.kind == "repeated id" and f"line {lines.index('/data/p/val/1.jpg') + 1}:" in fault.detail


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("apart", [False, True])
def test_darknets_labels_of_pictures_whose_accents_are_written_otherwise(tmp_path, forms, apart):
    picture, label = (unicodedata.normalize(form, "é") for form in forms)
    folder = tmp_path / "labels" / ("train" if apart else "")
    folder.mkdir(parents=True)
    (folder / f"{label}.txt").write_text("0 .5 .5 .1 .1\n")
    for called in (picture, label):
        (tmp_path / "list.txt").write_text(f"/data/train/{called}.jpg\n")
        arguments = tmp_path / "list.txt", tmp_path / "images"
        labels = tmp_path / "labels" if apart else None
        (record,) = read_darknet(*arguments, Lookup([f"{picture}.jpg"]), labels).records
        assert (record.name, record.categories) == (f"{picture}.jpg", (0,))
        # Not those of another picture, which is called so.
        with pytest.raises(DataError, match="no label file"):
            (tmp_path / "list.txt").write_text(f"{picture}.jpg\n")
            read_darknet(*arguments, Lookup([f"{picture}.jpg", f"{label}.jpg"]), labels)


@pytest.mark.parametrize(
    "text",
    [
        "names: [cat, 'hot dog', \"a, b\"]  # three\nnc: 3\n",
        "path: x\nnames:\n  - cat\n  - hot dog\n  - 'a, b'\ntrain: t\n",
        'names:\n  0: cat # first\n\n  1: hot dog\n  2: "a, b"\n',
        "names:\n- cat\n- hot dog\n- a, b\n",
        "names: [cat,\n  hot dog,\n  'a, b']\n",
        "names: {0: cat, 1: 'hot dog', 2: \"a, b\"}  # three\n",
        "names: {\n  2: 'a, b',  # the last\n  0: cat, 1: hot dog,\n}\nnc: 3\n",
        "names:\n  2: 'a, b'\n  0: cat\n  1: hot dog\n",
        "names:\n  00: cat\n  01: hot dog\n  02: a, b\n",
    ],
)
def test_names_in_yaml(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert read_class_names(tmp_path / "data.yaml") == ["cat", "hot dog", "a, b"]


@pytest.mark.parametrize(
    "text",
    [
        "names: ['dog #1', \"cat # 2\", it's] # three\n",
        "names:  # three\n  - \"dog #1\"  # one\n  - 'cat # 2' # two\n  - it's # not 'quoted'\n",
        "names:\n  1: 'cat # 2'\n  0: 'dog #1'\n  2: it's # 'x'\n",
        "names: {0: dog#1, 1: 'cat # 2', 2: it's} # 'three'\n",
    ],
)
def test_a_name_with_a_number_sign_is_what_yaml_has(tmp_path, text):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (tmp_path / "a.yaml").write_text(text)
    wanted = yaml.safe_load((tmp_path / "a.yaml").read_text())["names"]
    wanted = [wanted[k] for k in range(3)]
    assert read_class_names(tmp_path / "a.yaml") == wanted
    assert wanted[1:] == ["cat # 2", "it's"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.names", ""),
        ("a.names", "x\n\ny\n"),
        ("a.names", "x\nx\n"),
        ("a.data", "classes = 2\n"),
        ("a.data", "names = nowhere.names\n"),
        ("a.data", "names\n"),
        ("a.yaml", "nc: 3\n"),
        ("a.yaml", "names: [#a, b]\n"),
        ("a.yaml", "names: {0: a, 2: b}\n"),
        ("a.yaml", "names: {0: a, 0: b}\n"),
        ("a.yaml", "names: {0: a,, 1: b}\n"),
        ("a.yaml", "names: {0: , 1: b}\n"),
        ("a.yaml", "names: {0:a, 1:b}\n"),
        ("a.yaml", "names: {a: 0}\n"),
        ("a.yaml", "names: {}\n"),
        ("a.yaml", "names: {0: a, 1: b\n"),
        ("a.yaml", "names: {0: a, 1: b]\n"),
        ("a.yaml", "names: [a, b}\n"),
        ("a.yaml", "names:\n  1: a\n  2: b\n"),
        ("a.yaml", "names:\n  0: a\n  - b\n"),
        ("a.yaml", "names:\n  - a, 'b # c'\n"),
        ("a.yaml", "names:\n  0: a\n  2: b\n"),
        ("a.yaml", "names:\n  what\n"),
    ],
)
def test_wrong_class_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_class_names(tmp_path / name)
