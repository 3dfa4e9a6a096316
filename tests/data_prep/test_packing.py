"""Packing and checking whole data sets, mostly through the command line as users call it."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from data_prep import DataError
from data_prep.packing import pack
from data_prep.recipe import Recipe, Source
from data_prep.store import Store
from tests.data_prep.commands import boxed, run
from wordtree import WordTree


def test_pack_boxes_and_labels_by_recipe(data, tree, tree_file):
    (data / "r.toml").write_text(f"""
tree = "{tree_file}"
[[source]]
name = "boxes"
kind = "coco"
annotations = "boxes.json"
images = "boxed"
[[source]]
name = "labels"
kind = "folders"
images = "classes"
[[source]]
name = "nothing"
kind = "unlabelled"
images = "boxed"
""")
    result = run("pack", data / "r.toml", data / "out.h5", "--json")
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)["sources"]
    assert [(c["pictures"], c["boxes"], c["image_labels"]) for c in counts.values()] == [
        (3, 3, 0),
        (4, 0, 4),
        (3, 0, 0),
    ]
    store = Store(data / "out.h5")
    assert store.sources == ("boxes", "labels", "nothing")
    store.require_tree(tree)
    first, second, third = (store[k] for k in range(3))
    assert first.image == (data / "boxed" / "0.jpg").read_bytes()
    assert np.allclose(first.boxes_cxcywh, [[7 / 20, 3.5 / 10, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    assert first.labels.tolist() == [2, 3]
    assert first.crowd.tolist() == [False, True]
    assert np.allclose(second.boxes_cxcywh, [[17.5 / 20, 7.5 / 10, 0.25, 0.5]])  # clipped
    assert third.boxed and not len(third.labels)
    assert [one.name for one in store][3:7] == [
        "n00000005/a.jpg",
        "n00000005/b.jpg",
        "n00000006/a.jpg",
        "n00000007/c.jpg",
    ]
    assert [store.labels_of(k).tolist() for k in range(3, 7)] == [[4], [4], [5], [6]]
    assert store.boxed.tolist() == [True] * 3 + [False] * 7
    assert all(not len(store.labels_of(k)) for k in range(7, 10))
    assert run("check", data / "out.h5").exit_code == 0
    assert run("check", data / "r.toml").exit_code == 0


def test_the_command_line_and_a_recipe_agree(data, tree_file):
    command = ["pack", *boxed(data, tree_file), data / "a.h5", "--source", "x", "--holdout-every", 2]
    assert run(*command).exit_code == 0
    source = Source("x", "coco", "boxed", annotations="boxes.json", holdout_every=2)
    pack(Recipe((source,), str(tree_file), root=data), data / "b.h5")
    first, second = Store(data / "a.h5"), Store(data / "b.h5")
    assert [one.name for one in first] == [one.name for one in second] == ["1.jpg"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_threads_do_not_change_the_file(data, tree_file, jobs):
    source = Source("x", "folders", "classes")
    pack(Recipe((source,), str(tree_file), root=data), data / "a.h5", jobs=jobs)
    pack(Recipe((source,), str(tree_file), root=data), data / "b.h5", jobs=2)
    assert (data / "a.h5").read_bytes() == (data / "b.h5").read_bytes()


def test_unmapped_classes_stop_the_run_with_a_list(data, tree_file, make):
    make.coco_of(
        data / "boxes.json",
        {"0.jpg": (20, 10)},
        [("0.jpg", k, [0, 0, 5, 5], {}) for k in (1, 2, 3)],
        {1: "n00000003", 2: "gnu", 3: "n12345678"},
    )
    command = ["pack", *boxed(data, tree_file), data / "o.h5"]
    result = run(*command)
    assert isinstance(result.exception, DataError)
    assert "gnu" in str(result.exception)
    assert "n12345678" in str(result.exception)
    assert not (data / "o.h5").exists()
    result = run(*command, "--drop-unmapped")
    assert result.exit_code == 0
    assert "gnu" in result.output
    assert Store(data / "o.h5")[0].labels.tolist() == [2]


def test_a_picture_whose_label_is_dropped_is_left_out_not_unlabelled(data, tree_file):
    (data / "m.csv").write_text("n00000005,n00000005\nn00000006,,not wanted\n")
    result = run(
        "pack",
        "--folders",
        "classes",
        "--map",
        "m.csv",
        "--tree",
        tree_file,
        "--root",
        data,
        "--json",
        "--drop-unmapped",
        data / "o.h5",
    )
    counts = json.loads(result.stdout)["sources"]["folders"]
    assert (counts["pictures"], counts["pictures_without_a_label_left"]) == (2, 2)
    assert len(counts["left_out_by_choice"]) == 2


def test_wanted_classes_only(data, tree_file):
    (data / "split.json").write_text(json.dumps({"free": ["n00000006", "n00000007"], "wrong": ["n00000099"]}))
    command = ["pack", "--folders", "classes", "--root", data, "--tree", tree_file, data / "o.h5"]
    assert run(*command, "--classes", "split.json:free").exit_code == 0
    assert [one.name for one in Store(data / "o.h5")] == ["n00000006/a.jpg", "n00000007/c.jpg"]
    assert "n00000099" in str(run(*command, "--classes", "split.json:wrong").exception)


def test_bad_pictures_and_boxes_are_left_out_and_said(data, tree_file, make):
    for k, content in enumerate([b"", b"<html>", make.picture(64, 64)[:1500], make.picture(10, 20)]):
        (data / "boxed" / f"bad{k}.jpg").write_bytes(content)
    images = {"0.jpg": (20, 10), "absent.jpg": (20, 10), **{f"bad{k}.jpg": (20, 12) for k in range(4)}}
    boxes = [(name, 1, [0, 0, 5, 5], {}) for name in images]
    boxes += [("0.jpg", 1, box, {}) for box in ([5, 5, -1, 2], [30, 5, 2, 2], [1, 1, 0, 2])]
    make.coco_of(data / "boxes.json", images, boxes, {1: "n00000003"})
    command = boxed(data, tree_file)
    result = run("pack", *command, data / "o.h5", "--report", data / "report.json")
    assert result.exit_code == 1
    kinds = [fault["kind"] for fault in json.loads((data / "report.json").read_text())["faults"]]
    assert sorted(kinds) == sorted(
        [
            "missing picture",
            "wrong size",
            "box inverted",
            "box outside",
            "box empty",
            *["unreadable picture"] * 3,
        ]
    )
    (only,) = Store(data / "o.h5")
    assert (only.name, len(only.labels)) == ("0.jpg", 1)
    assert run("pack", *command, data / "o.h5", "--skip-bad").exit_code == 0
    before = sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())
    checked = run("check", *command, "--json")
    assert checked.exit_code == 1
    found = json.loads(checked.stdout)
    assert {fault["kind"] for fault in found["faults"]} == set(kinds)
    assert sum(found["by_kind"].values()) == len(kinds)
    assert run("check", *command).exit_code == 1
    assert before == sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())


def test_nothing_left_to_pack(data, tree_file):
    for path in (data / "classes").rglob("*.jpg"):
        path.write_bytes(b"")
    result = run("pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5")
    assert isinstance(result.exception, DataError)
    assert not list(data.glob("o.h5*"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_boxes_follow_the_upright_picture(tmp_path, tree_file, make, orientation, frame):
    pixels = np.zeros((17, 31), np.uint8)
    pixels[4:9, 3:11] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(out.getvalue())
    upright = ImageOps.exif_transpose(Image.open(out))
    seen = np.asarray(upright)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    wanted = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    # Orientations 2..4 keep the size: there the annotation cannot tell which frame it means, and upright is
    # taken.
    if frame == "stored" and orientation > 4:
        size, box = (31, 17), [3, 4, 8, 5]
    else:
        size, box = upright.size, [int(value) for value in wanted]
    make.coco_of(tmp_path / "c.json", {"a.png": size}, [("a.png", 1, box, {})], {1: "n00000003"})
    pack(
        Recipe((Source("x", "coco", ".", annotations="c.json"),), str(tree_file), root=tmp_path),
        tmp_path / "o.h5",
    )
    (found,) = Store(tmp_path / "o.h5")
    assert (found.width, found.height) == upright.size
    x, y, w, h = wanted
    scale = np.asarray([*upright.size, *upright.size])
    assert np.allclose(found.boxes_cxcywh[0] * scale, [x + w / 2, y + h / 2, w, h], atol=1e-4)


def test_flat_classes_in_order_of_the_data_or_of_a_list(data):
    command = ["pack", "--coco", data / "boxes.json", "--images", data / "boxed", "--flat", data / "o.h5"]
    assert run(*command).exit_code == 0
    assert Store(data / "o.h5").tree == WordTree.flat(["n00000003", "n00000004", "unused"])
    (data / "voc.names").write_text("unused\nn00000004\nn00000003\n")
    assert run(*command, "--names", data / "voc.names").exit_code == 0
    assert Store(data / "o.h5")[0].labels.tolist() == [2, 1]


def test_class_names_of_a_flat_tree_keep_their_line_numbers(data):
    command = ["pack", "--coco", data / "boxes.json", "--images", data / "boxed", "--flat", data / "o.h5"]
    wrong = {b"a\n\nb\n": "voc.names: line 2: a blank", b"a\nb\na\n": "voc.names: line 3: class 'a'"}
    for content, says in wrong.items():
        (data / "voc.names").write_bytes(content)
        error = run(*command, "--names", data / "voc.names").exception
        assert isinstance(error, DataError)
        assert says in str(error)
        assert not (data / "o.h5").exists()


def test_a_broken_tar_is_one_error_not_one_for_each_picture(data, tree_file):
    (data / "broken.tar").write_bytes(b"no tar" * 200)
    command = ["--coco", data / "boxes.json", "--images", data / "broken.tar", "--tree", tree_file]
    for result in (run("check", *command), run("pack", *command, data / "o.h5")):
        assert isinstance(result.exception, DataError)
        assert "broken.tar: not a whole, uncompressed tar" in str(result.exception)


def test_when_nothing_is_left_the_reason_is_said(data, tree_file):
    (data / "m.csv").write_text("".join(f"n0000000{k},,not wanted\n" for k in (5, 6, 7)))
    command = ["pack", "--folders", data / "classes", "--map", data / "m.csv", "--tree", tree_file]
    error = run(*command, data / "o.h5").exception
    assert isinstance(error, DataError)
    assert "not one picture could be packed; folders: 2 labels left out: 'n00000005': not wanted" in str(
        error
    )


def test_a_report_that_cannot_be_written_is_said_before_packing(data, tree_file):
    os.mkfifo(data / "pipe")
    command = ["pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5"]
    assert "no plain file" in str(run(*command, "--report", data / "pipe").exception)
    assert not (data / "o.h5").exists()
    assert run(*command, "--report", data / "new" / "r.json").exit_code == 0
    assert json.loads((data / "new" / "r.json").read_text())["faults"] == []


def test_a_report_replaces_an_older_one_and_nothing_else(data, tree_file):
    """Not the annotations that are packed, and not the file they are packed into."""
    annotations, report = (data / "boxes.json").read_bytes(), data / "r.json"
    command = ["pack", *boxed(data, tree_file), "--quick", data / "o.h5", "--report"]
    assert run(*command, report).exit_code == run(*command, report).exit_code == 0
    (data / "o.h5").unlink()
    assert "was not written" in str(run(*command, data / "boxes.json").exception)
    (data / "link.h5").symlink_to("o.h5")
    for same in ("o.h5", "boxed/../o.h5", "link.h5"):
        assert run(*command, data / same).exit_code == 2
    for shard in ("o-00000-of-00002.h5", "boxed/../o-00001-of-00002.h5"):
        assert run(*command, data / shard, "--shards", 2).exit_code == 2
    assert (data / "boxes.json").read_bytes() == annotations and not (data / "o.h5").exists()


def test_absurd_coordinates_cost_their_box_and_no_warning(data, tree_file, make, recwarn):
    make.coco_of(
        data / "boxes.json",
        {"0.jpg": (20, 10)},
        [("0.jpg", 1, [0, 0, 5, 5], {}), ("0.jpg", 1, [1e308, 1e308, 1e307, 1e307], {})],
        {1: "n00000003"},
    )
    command = boxed(data, tree_file)
    assert run("pack", *command, data / "o.h5", "--skip-bad").exit_code == 0
    assert run("check", *command).exit_code == 1
    assert len(Store(data / "o.h5")[0].labels) == 1
    assert not recwarn.list
