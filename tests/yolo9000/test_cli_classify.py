"""`yolo9000 classify` as typed: names of whole pictures, by every rule."""

import json

import pytest

from tests.yolo9000.small import picture, small_classifier, small_detector
from yolo9000.modelfile import save_model


@pytest.mark.parametrize("tree", [False, True])
def test_classify(tree, run, tmp_path):
    save_model(small_classifier(tree), tmp_path / "c.safetensors")
    picture().save(tmp_path / "x.png")
    (tmp_path / "y.jpg").write_bytes(b"")
    words = ("classify", tmp_path, "--model", tmp_path / "c.safetensors", "--top", 2)
    status, out, err = run(*words)
    assert status == 1 and "y.jpg: empty" in err
    assert len(out.splitlines()) == 3 + tree and ("answer" in out) == tree
    status, out, _ = run(*words, "--json")
    (record,) = json.loads(out)["pictures"]
    assert status == 1 and len(record["best"]) == 2 and len(json.loads(out)["skipped"]) == 1


def test_pictures_with_boxes_that_detect_wrote_are_left_out(run, tmp_path, monkeypatch):
    save_model(small_classifier(), tmp_path / "c.safetensors")
    save_model(small_detector("stored"), tmp_path / "d.safetensors")
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", "y.png"):
        picture().save(name)
    words = ("--model", "c.safetensors", "--json")
    before = run("classify", ".", *words)
    assert run("detect", ".", "--model", "d.safetensors", "--out", "found")[0] == 0
    status, out, err = run("classify", ".", *words)
    assert (status, out) == before[:2] and err == "left out 2 with boxes that an earlier run wrote\n"
    status, out, err = run("classify", "found", *words)  # said by name, so meant
    assert len(json.loads(out)["pictures"]) == 2 and err == ""


def test_classify_by_every_rule(run, tmp_path):
    save_model(small_classifier(True), tmp_path / "c.safetensors")
    picture().save(tmp_path / "x.png")
    words = ("classify", tmp_path / "x.png", "--model", tmp_path / "c.safetensors", "--json")
    for more, names in [
        (("--level", 0), {"animal", "vehicle", "thing"}),
        (("--vocabulary", "husky,taxi", "--tree-threshold", 0), {"husky", "taxi"}),
        (("--hedge-lambda", 1e9), {"something", "animal", "vehicle", "thing"}),
    ]:
        status, out, err = run(*words, *more)
        assert status == 0, err
        assert json.loads(out)["pictures"][0]["answer"]["name"] in names
    status, out, err = run(*words[:-1], "--hedge-lambda", 1e12)
    assert status == 0 and "answer 100.0%: something" in out
    status, _, err = run(*words, "--level", "unicorn")
    assert status == 2 and "unicorn" in err


def test_classify_needs_a_classifier(run, tmp_path):
    model = tmp_path / "small.safetensors"
    save_model(small_detector("stored"), model)
    picture().save(tmp_path / "x.png")
    assert run("classify", tmp_path / "x.png")[0] == 2
    status, _, err = run("classify", tmp_path / "x.png", "--model", model)
    assert status == 1 and "softmax" in err
    save_model(small_classifier(), tmp_path / "c.safetensors")
    assert run("classify", tmp_path / "x.png", "--model", tmp_path / "c.safetensors", "--size", 1)[0] == 2
