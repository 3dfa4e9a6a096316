"""Weights that others trained, through the public commands."""

import json
import tarfile

import pytest
from click.testing import CliRunner

from yolo9000.cli import cli

pytestmark = pytest.mark.reference


@pytest.mark.parametrize(
    ("stem", "names"),
    [("tiny-yolov2-trial3", "voc"), ("tiny-yolov2-trial3-noBatch", "voc"), ("coco-trial6", "coco")],
)
@pytest.mark.parametrize("rule", ["threshold", "darknet"])
def test_bicycle_and_car_on_the_dogs_photograph(stem, names, rule, shared):
    folder = shared / "weights" / "yolo-lite"
    words = ["detect", shared / "photos" / "dog.jpg", "--cfg", folder / f"{stem}.cfg"]
    words += ["--weights", folder / f"{stem}.weights", "--names", names, "--rule", rule, "--json"]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    (picture,) = json.loads(result.stdout)["pictures"]
    assert (picture["width"], picture["height"]) == (768, 576)
    boxes = {}
    for found in picture["detections"]:
        boxes.setdefault(found["name"], found["box_xyxy"])  # the best of each name comes first
    for name, (left, top, right, bottom) in (("bicycle", (120, 130, 570, 430)), ("car", (460, 70, 690, 170))):
        x, y = (boxes[name][0] + boxes[name][2]) / 2, (boxes[name][1] + boxes[name][3]) / 2
        assert left < x < right and top < y < bottom  # its centre lies on the object


@pytest.mark.slow
def test_tiny_darknet_names_imagenet_pictures(shared, tmp_path):
    with tarfile.open(shared / "data" / "imagenet1k-sample" / "images.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    weights = shared / "weights" / "tiny-darknet"
    words = ["classify", tmp_path, "--cfg", weights / "tiny.cfg", "--weights", weights / "tiny.weights"]
    words += ["--labels", shared / "darknet" / "data" / "imagenet.labels.list", "--json"]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    pictures = json.loads(result.stdout)["pictures"]
    assert len(pictures) == 500
    ranks = [[best["id"] for best in p["best"]] for p in pictures]
    truths = [p["source"].split("/")[-2] for p in pictures]
    first = sum(ids[0] == truth for ids, truth in zip(ranks, truths, strict=True)) / 500
    five = sum(truth in ids for ids, truth in zip(ranks, truths, strict=True)) / 500
    print(f"top-1 {first:.3f}, top-5 {five:.3f}")
    assert first >= 0.59 and five >= 0.82
