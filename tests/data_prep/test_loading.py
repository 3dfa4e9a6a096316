"""Which pictures a source's annotations mean, and that whatever costs one is said."""

import json

import pytest

from data_prep import Store
from data_prep.loading import Loaded, load_source
from data_prep.recipe import Source
from tests.data_prep.commands import boxed, run

SIZE = "<size><width>20</width><height>10</height></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
XML = f"<annotation>{SIZE}<object><name>n00000003</name>{BOX}</object></annotation>"


def kinds(arguments, *more):
    """(kind, picture) of each fault that `check` reports, and its exit status."""
    result = run("check", *arguments, *more, "--json")
    found = json.loads(result.stdout)["faults"]
    return [(fault["kind"], fault["picture"]) for fault in found], result.exit_code


def packed(arguments, out):
    """Name -> number of boxes of what is packed."""
    run("pack", *arguments, out, "--skip-bad")
    return {sample.name: len(sample.labels) for sample in Store(out)}


@pytest.fixture
def voc(data, tree_file):
    """Of the three pictures one has half an annotation."""
    (data / "xml").mkdir()
    for k, text in enumerate([XML, XML, XML[:60]]):
        (data / "xml" / f"{k}.xml").write_text(text)
    return ["--voc", data / "xml", "--images", data / "boxed", "--tree", tree_file]


def test_a_fault_that_costs_a_whole_picture_is_said(voc, data):
    assert kinds(voc) == ([("malformed annotation", "2.jpg")], 1)
    assert run("pack", *voc, data / "o.h5").exit_code == 1
    assert packed(voc, data / "o.h5") == {"0.jpg": 1, "1.jpg": 1}


def test_what_is_wrong_with_a_picture_that_is_not_wanted_is_nobodys_loss(voc, data):
    (data / "some.txt").write_text("0\n1\n")
    (data / "bad.txt").write_text("2\n")
    assert kinds(voc, "--only", data / "some.txt") == ([], 0)
    assert kinds(voc, "--except", data / "bad.txt") == ([], 0)
    result = run("check", *voc, "--only", data / "bad.txt")
    assert "no pictures" in str(result.exception)


def test_lists_may_name_pictures_without_annotation(data, tree_file):
    (data / "labels").mkdir()
    (data / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (data / "classes.names").write_text("n00000003\n")
    (data / "both.txt").write_text("0\n1\n")
    (data / "rest.txt").write_text("1\n2\n")
    yolo = ["--yolo", data / "labels", "--images", data / "boxed", "--tree", tree_file]
    yolo += ["--class-names", data / "classes.names"]
    assert kinds(yolo, "--only", data / "both.txt") == ([("missing labels", "1.jpg")], 1)
    assert kinds(yolo, "--except", data / "rest.txt") == ([], 0)


def test_of_two_pictures_with_one_id_neither_gets_the_others_boxes(data, tree_file, make):
    content = json.loads((data / "boxes.json").read_text())
    content["images"][2]["id"] = content["images"][1]["id"]
    (data / "boxes.json").write_text(json.dumps(content))
    found, status = kinds(boxed(data, tree_file))
    assert sorted(found) == [("repeated id", "1.jpg"), ("repeated id", "2.jpg")]
    assert status == 1
    assert packed(boxed(data, tree_file), data / "o.h5") == {"0.jpg": 2}


@pytest.mark.parametrize(
    "called", ["boxed/{}.jpg", "/home/me/boxed/{}.jpg", "C:\\me\\boxed\\{}.jpg", "{}", "./{}.jpg", "{}.png"]
)
def test_coco_may_call_pictures_by_folder_and_ending(data, tree_file, called):
    before = packed(boxed(data, tree_file), data / "before.h5")
    content = json.loads((data / "boxes.json").read_text())
    for k, image in enumerate(content["images"]):
        image["file_name"] = called.format(k)
    (data / "boxes.json").write_text(json.dumps(content))
    assert packed(boxed(data, tree_file), data / "after.h5") == before


def test_a_camera_does_not_get_its_neighbours_boxes(data, tree_file, make):
    for camera in ("cam0", "cam1"):
        (data / camera).mkdir()
        for k in range(2):
            (data / camera / f"{k}.jpg").write_bytes(make.picture(20, 10, seed=k))
    names = {f"{camera}/{k}.jpg": (20, 10) for camera in ("cam0", "cam1") for k in range(2)}
    boxes = [(name, 1, [1, 1, 5, 5], {}) for name in names] + [("cam1/0.jpg", 1, [9, 1, 5, 5], {})]
    make.coco_of(data / "both.json", names, boxes, {1: "n00000003"})
    one = ["--coco", data / "both.json", "--images", data / "cam1", "--tree", tree_file]
    assert sorted(kinds(one)[0]) == [("missing picture", f"cam0/{k}.jpg") for k in range(2)]
    assert packed(one, data / "o.h5") == {"0.jpg": 2, "1.jpg": 1}


def test_an_entry_whose_picture_goes_to_a_closer_one_is_told(data, tree_file, make):
    names = {"0.jpg": (20, 10), "elsewhere/0.jpg": (20, 10), "1.png": (20, 10), "1.jpg": (20, 10)}
    names["9.jpg"] = (20, 10)
    make.coco_of(data / "c.json", names, [(name, 1, [1, 1, 5, 5], {}) for name in names], {1: "n00000003"})
    arguments = ["--coco", data / "c.json", "--images", data / "boxed", "--tree", tree_file]
    found, status = kinds(arguments)
    told = [("missing picture", "9.jpg"), ("repeated id", "1.png"), ("repeated id", "elsewhere/0.jpg")]
    assert (sorted(found), status) == (told, 1)
    assert packed(arguments, data / "o.h5") == {"0.jpg": 1, "1.jpg": 1}


def test_what_is_held_out_counts_entries_that_are_outdone_as_it_does_missing_pictures(tmp_path, make):
    names = [f"{k}.jpg" for k in range(8)]
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / name).write_bytes(make.picture(20, 10))

    def read(also: str, part: str) -> Loaded:
        listed = dict.fromkeys([*names, also], (20, 10))
        make.coco_of(tmp_path / "c.json", listed, [(n, 1, [1, 1, 5, 5], {}) for n in listed], {1: "x"})
        holdout = {"holdout_every": 3, "holdout_part": part}
        return load_source(Source("x", "coco", "p", "c.json", **holdout), tmp_path)

    for part, count, told in (("kept", 3, []), ("rest", 5, ["1a/x/3.jpg"])):
        outdone, missing = read("1a/x/3.jpg", part).records, read("1a/x/9.jpg", part).records
        chosen = [record.name for record in outdone.records]
        assert chosen == [record.name for record in missing.records if record.name in names]
        assert len(chosen) == count and [fault.picture for fault in outdone.faults] == told


def test_the_users_own_files_are_not_overwritten(data, tree_file):
    """As where a shell makes several files of --coco *.json."""
    for path in (data / "boxes.json", make_tar(data)):
        before = path.read_bytes()
        result = run("pack", *boxed(data, tree_file), path)
        assert result.exit_code != 0
        assert "no packed file" in str(result.exception)
        assert path.read_bytes() == before
    (data / "empty.h5").touch()  # as tempfile and mktemp leave it
    for _ in range(2):
        assert run("pack", *boxed(data, tree_file), data / "empty.h5").exit_code == 0


def make_tar(folder):
    path = folder / "pictures.tar"
    path.write_bytes(bytes(1024))
    return path
