"""`--below` and `--least`: what was found is left out, and never changed, in every form of results."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.yolo9000.small import TREE, picture, small_detector
from yolo9000 import Detections, Detector
from yolo9000.draw import draw
from yolo9000.keep import Keep
from yolo9000.modelfile import save_model

LEAST = 0.35


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    # Answers husky, poodle, dog and thing.
    save_model(small_detector("stored", 1), path, defaults={"threshold": 0.3, "tree_threshold": 0.2})
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(5):
        picture(k, 60 + k, 50).save(folder / f"{k}.png")
    return folder


def wanted(record: dict, below: set[str], least: float = 0.0, most: int = 300) -> dict:
    """The same picture's record, filtered by hand."""
    kept = [one for one in record["detections"] if one["score"] >= least and below & set(one["path"])]
    return record | {"detections": kept[:most]}


def test_json_is_the_whole_results_filtered(run, model, photos):
    words = ("detect", photos, "--model", model, "--json-lines", "--max", 10_000)
    whole = [json.loads(line) for line in run(*words)[1].splitlines()]
    said = [json.loads(line) for line in run(*words, "--below", "animal", "--least", LEAST)[1].splitlines()]
    assert said == [wanted(one, {"n1"}, LEAST) for one in whole]
    count, rest = (sum(len(one["detections"]) for one in records) for records in (whole, said))
    assert 0 < rest < count
    both = [
        json.loads(run(*words, *more)[1].splitlines()[0])
        for more in (("--below", "husky", "--below", "n3"), ("--below", "husky,thing"))
    ]
    assert both[0] == both[1] == wanted(whole[0], {"n8", "n3"}) != whole[0]


def test_what_is_left_out_takes_no_place_of_the_most(run, model, photos):
    words = ("detect", photos / "0.png", "--model", model, "--json")
    (whole,) = json.loads(run(*words, "--max", 10_000)[1])["pictures"]
    assert {found["name"] for found in whole["detections"][:3]} == {"thing"}
    (said,) = json.loads(run(*words, "--below", "animal", "--max", 3)[1])["pictures"]
    assert said == wanted(whole, {"n1"}, most=3) and len(said["detections"]) == 3


def test_pictures_and_the_table_show_what_is_kept(run, model, photos, tmp_path):
    words = ("detect", photos / "0.png", "--model", model, "--below", "animal", "--least", LEAST)
    out = run(*words, "--out", tmp_path / "out")[1]
    detector = Detector.load(model)
    found = detector(photos / "0.png", max_detections=10_000)
    found = found.below(detector.tree, "animal")
    found = found[found.scores >= LEAST]
    assert f"{len(found)} object" in out.splitlines()[0] and len(found)
    drawn = np.asarray(Image.open(tmp_path / "out" / "0.png"))
    np.testing.assert_array_equal(drawn, np.asarray(draw(photos / "0.png", found)))


def test_a_film_is_filtered_as_a_picture(run, model, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for k in range(3):
        writer.write(np.asarray(picture(k, 96, 64)))
    writer.release()
    words = ("detect", tmp_path / "a.avi", "--model", model, "--json", "--max", 10_000)
    whole, said = (json.loads(run(*words, *more)[1]) for more in ((), ("--below", "n1", "--least", LEAST)))
    assert said["pictures"] == [wanted(one, {"n1"}, LEAST) for one in whole["pictures"]] != whole["pictures"]


def test_parts_are_filtered_and_resumed_with_the_same_filter_only(run, model, photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="not installed (extra `ray`)")
    words = ("detect", "--model", model)
    lines = run(*words, photos, "--json-lines", "--below", "dog", "--least", LEAST)[1].splitlines()
    job = (*words, "--engine", "local", "--input", photos, "--part-size", 2)
    job += ("--output", tmp_path / "o")
    status, _, err = run(*job, "--below", "dog", "--least", LEAST)
    assert (status, err) == (0, "")
    nodes = [[found["node"] for found in json.loads(line)["detections"]] for line in lines]
    assert [row["nodes"] for row in pq.read_table(tmp_path / "o").to_pylist()] == nodes and any(nodes)
    same = run(*job, "--below", "n4", "--least", LEAST, "--json")
    assert json.loads(same[1])["done_before"] == 5  # the same node by another word
    for other in ((), ("--below", "dog"), ("--below", "cat", "--least", LEAST), ("--least", LEAST)):
        status, out, err = run(*job, *other)
        assert (status, out) == (1, "") and "the options are others" in err, other


def test_a_node_that_is_unknown_ends_a_run_over_many_before_it_begins(run, model, photos, tmp_path):
    pytest.importorskip("pyarrow", reason="not installed (extra `ray`)")
    job = ("detect", "--model", model, "--engine", "local", "--input", photos, "--output", tmp_path / "o")
    assert run(*job, "--below", "dgo")[0] == 2
    assert not (tmp_path / "o").exists()


def test_a_node_that_is_unknown_or_was_never_learnt(run, model, photos):
    words = ("detect", "--model", model, "--below")
    status, out, err = run(*words, "dgo", photos)
    assert (status, out) == (2, "") and "not in the model's tree: no node is called 'dgo'" in err
    status, out, err = run(*words, "cat", photos / "0.png")
    assert status == 0 and "0 objects" in out
    assert err == "warning: the model never learnt, and never answers with, cat (n5)\n"


def test_detections_below_nodes():
    paths = [("n1", "n4", "n8"), ("n2",), (), ("n1",)]
    found = Detections(
        np.tile([0, 0, 1, 1], (4, 1)),
        np.ones(4),
        [0.9, 0.8, 0.7, 0.6],
        [7, 1, -1, 0],
        ["husky", "vehicle", "something", "animal"],
        paths,
        (9, 9),
        np.ones(4),
        paths,
        [(1.0,) * len(path) for path in paths],
    )
    assert found.below(TREE, "animal").names == ("husky", "animal")
    assert found.below(TREE, "n4", 1).names == ("husky", "vehicle")
    assert len(found.below(TREE, "thing")) == 0 and len(found[:0].below(TREE, "thing")) == 0
    assert Keep.of(TREE, ())(found).names == found.names and not Keep.of(TREE, None)
    assert Keep(least=0.7)(found).names == found.names[:3]
    with pytest.raises(ValueError, match="no node is called 'unicorn'"):
        found.below(TREE, "unicorn")
