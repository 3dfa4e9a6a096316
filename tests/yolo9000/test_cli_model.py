"""`yolo9000 info` and `convert`: facts about models, and Darknet's files there and back."""

import json

import pytest
import torch

from tests.yolo9000.small import FORMS, STORED, TREE, small_classifier, small_detector
from wordtree import WordTree
from yolo9000 import cfg, darknet
from yolo9000.cli.info import knowledge
from yolo9000.detector import Detector
from yolo9000.heldout import EvalSettings
from yolo9000.modelfile import load_model, save_model
from yolo9000.start import load_any


@pytest.mark.parametrize("form", FORMS)
def test_info(form, run, tmp_path):
    record = {"licence": "MIT", "nodes": {"boxes": [3, 4], "labels": [4, 8]}}
    net = small_detector(form)
    digest = save_model(net, tmp_path / "x.safetensors", record)
    status, out, _ = run("info", tmp_path / "x.safetensors", "--json")
    found = json.loads(out)
    assert status == 0 and found["sha256"] == digest and found["record"]["licence"] == "MIT"
    assert found["network"]["classes"] == net.classes and found["network"]["kind"] == "detector"
    assert found["network"]["values"] == sum(
        value.numel() for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")
    )
    if form != "flat":
        assert found["tree"] == {
            "nodes": 10,
            "groups": 5,
            "leaves": 6,
            "depth": 2,
            "fingerprint": TREE.fingerprint,
        }
        assert found["learnt from"] == {"boxes": 2, "labels": 2, "only nodes below": 1, "nothing": 6}
    assert (found.get("class rows") == {"stored": len(STORED), "of": 10}) == (form == "stored")
    status, out, _ = run("info", tmp_path / "x.safetensors", "--layers")
    assert status == 0 and digest in out and "convolution" in out and "MIT" in out


def test_knowledge_counts_every_node_once():
    counts = knowledge(TREE, {"boxes": [7], "teacher": [7, 6], "labels": []})
    assert counts == {"boxes": 1, "teacher": 2, "labels": 0, "only nodes below": 3, "nothing": 5}


def test_info_of_other_things(run, tmp_path):
    save_model(small_classifier(), tmp_path / "model.safetensors")
    (tmp_path / "log.jsonl").write_text(
        '{"event": "batch", "batch": 7}\n{"event": "batch", "batch": 8}\n{"ev'
    )
    status, out, _ = run("info", tmp_path, "--json")
    found = json.loads(out)
    assert status == 0 and found["log"]["batch"]["batch"] == 8 and found["network"]["kind"] == "classifier"
    (tmp_path / "x.cfg").write_text(cfg.format(small_classifier().spec))
    status, out, _ = run("info", tmp_path / "x.cfg", "--json")
    assert status == 0 and json.loads(out)["network"]["classes"] == 6
    (tmp_path / "empty").mkdir()
    for name in ("empty", "no.safetensors", "log.jsonl"):
        status, out, err = run("info", tmp_path / name)
        assert (status, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("form", ["darknet", "flat", "classifier", "tree classifier"])
def test_there_and_back_is_byte_identical(form, run, tmp_path):
    net = small_classifier(form != "classifier") if "classifier" in form else small_detector(form)
    net.seen, net.version = 777, (0, 1, 5)
    if form == "darknet":
        net.class_map = torch.tensor([4, 2])
    save_model(net, tmp_path / "first.safetensors", names=list("abcdef") if form == "flat" else None)
    status, out, _ = run("convert", tmp_path / "first.safetensors", tmp_path / "darknet")
    assert status == 0
    files = {path.name for path in (tmp_path / "darknet").iterdir()}
    assert all(name in out for name in files) and {"first.cfg", "first.weights"} <= files
    words = ["convert", tmp_path / "darknet" / "first.cfg", tmp_path / "darknet" / "first.weights"]
    words += [tmp_path / "second.safetensors"]
    if form == "flat":
        words += ["--names", tmp_path / "darknet" / "first.names"]
    status, _, err = run(*words)
    assert status == 0, err
    second = load_model(tmp_path / "second.safetensors")
    assert second.seen == 777 and second.version == (0, 1, 5)
    if net.tree is not None:
        assert second.tree.parents.tolist() == net.tree.parents.tolist()
        assert second.tree == net.tree
    if form == "flat":
        assert second.names == tuple("abcdef")
    if form == "darknet":
        assert second.class_map.tolist() == [4, 2]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(second(images), net(images))
    status, _, _ = run("convert", tmp_path / "second.safetensors", tmp_path / "again")
    assert status == 0
    first, again = tmp_path / "darknet" / "first.weights", tmp_path / "again" / "second.weights"
    assert first.read_bytes() == again.read_bytes()


def test_darknets_files_keep_the_models_own_size(run, tmp_path):
    for form, size in (("darknet", 96), ("flat", [128, 96])):
        net = small_detector(form)
        save_model(net, tmp_path / f"{form}.safetensors", defaults={"size": size})
        assert run("convert", tmp_path / f"{form}.safetensors", tmp_path)[0] == 0
        again = darknet.load(tmp_path / f"{form}.cfg", tmp_path / f"{form}.weights")
        assert again.own_size == load_model(tmp_path / f"{form}.safetensors").own_size != net.own_size


def test_a_model_whose_name_has_blanks_goes_there_and_back(run, tmp_path):
    net = small_detector("darknet")
    net.class_map = torch.tensor([4, 2])
    save_model(net, tmp_path / "my  new model.safetensors")
    assert run("convert", tmp_path / "my  new model.safetensors", tmp_path / "out folder")[0] == 0
    files = tmp_path / "out folder" / "my_new_model.cfg", tmp_path / "out folder" / "my_new_model.weights"
    assert run("convert", *files, tmp_path / "again.safetensors")[0] == 0
    again = load_model(tmp_path / "again.safetensors")
    assert again.tree == net.tree and again.class_map.tolist() == [4, 2]


@pytest.mark.parametrize("wrong", ["ids", "seen"])
def test_no_half_of_a_model_is_left(wrong, run, tmp_path):
    net = small_detector("darknet")
    if wrong == "ids":
        net.tree = WordTree(["lutra lutra", *TREE.ids[1:]], TREE.parents, TREE.names)
    else:
        net.version, net.seen = (0, 1, 0), 2**40
    save_model(net, tmp_path / "x.safetensors")
    status, out, err = run("convert", tmp_path / "x.safetensors", tmp_path / "out")
    assert (status, out) == (1, "") and ("white space" in err or "does not fit" in err)
    assert not list((tmp_path / "out").glob("*"))


def test_darknets_own_see_pictures_as_darknet_does_whoever_reads_them(tmp_path):
    net = small_detector("flat")
    (tmp_path / "x.cfg").write_text(cfg.format(net.spec))
    darknet.save(net, tmp_path / "x.weights")
    darknet.save(net, tmp_path / "x.conv.2", partial=2)
    files = tmp_path / "x.cfg", tmp_path / "x.weights"
    assert load_any(" ".join(map(str, files))).defaults == {"resize": "darknet"}
    detector = Detector(darknet.load(*files), precision="float32")
    assert detector.resize == Detector.from_darknet(*files).resize == "darknet"
    assert Detector.from_darknet(*files, resize="smooth").resize == "smooth"
    assert EvalSettings().of_model(darknet.load(*files)).resize == "darknet"
    assert darknet.load(files[0]).defaults == {}  # nobody has trained these, and the next only a part
    assert darknet.load(files[0], tmp_path / "x.conv.2", partial=2).defaults == {}


def test_half_and_record(run, tmp_path):
    net = small_detector("flat")
    (tmp_path / "x.cfg").write_text(cfg.format(net.spec))
    darknet.save(net, tmp_path / "x.weights")
    (tmp_path / "record.json").write_text('{"licence": "CC0"}')
    words = ("convert", tmp_path / "x.cfg", tmp_path / "x.weights", tmp_path / "x.safetensors")
    assert run(*words, "--half", "--record", tmp_path / "record.json")[0] == 0
    again = load_model(tmp_path / "x.safetensors")
    assert again.record == {"licence": "CC0"} and again.defaults == {"resize": "darknet"}
    weight = net.layers[0].conv.weight
    assert torch.equal(again.layers[0].conv.weight, weight.half().float()) and not torch.equal(
        again.layers[0].conv.weight, weight
    )


def test_a_model_file_again(run, tmp_path):
    source, target = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    (tmp_path / "record.json").write_text('{"licence": "CC0"}')
    save_model(
        small_detector("flat"), source, {"origin": "here"}, names=list("abcdef"), defaults={"rule": "leaf"}
    )
    words = [
        "--half",
        "--record",
        tmp_path / "record.json",
        "--default",
        "threshold=0.3",
        "--default",
        "size=96",
    ]
    assert run("convert", source, target, *words)[0] == 0
    first, again = load_model(source), load_model(target)
    assert again.record == {"origin": "here", "licence": "CC0"} and again.names == tuple("abcdef")
    assert again.defaults == {"rule": "leaf", "threshold": 0.3, "size": 96}
    weight = first.layers[0].conv.weight
    assert torch.equal(again.layers[0].conv.weight, weight.half().float())
    for default, status, message in (
        ("threshold=2", 1, "0..1"),
        ("colour=red", 1, "colour"),
        ("size=100", 1, "multiple of 8"),
        ("resize=best", 1, "resize is one of"),
        ("threshold", 2, "wanted KEY=VALUE"),
    ):
        found, out, err = run("convert", source, tmp_path / "z.safetensors", "--default", default)
        assert (found, out) == (status, "") and message in err
    save_model(small_classifier(), source)
    assert run("convert", source, tmp_path / "z.safetensors", "--default", "threshold=0.3")[0] == 1
    assert not (tmp_path / "z.safetensors").exists()


def test_an_accuracy_by_default_decides_as_one_that_is_asked_for(run, tmp_path):
    source, target = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    own = {"rule": "hedge", "hedge_lambda": 0.0, "lambdas": {"0.9": 2.0}}
    save_model(small_detector("shared"), source, defaults=own)
    status, out, _ = run("convert", source, target, "--default", "accuracy=0.9")
    assert status == 0 and "dropped, as no longer true: hedge_lambda\n" in out
    found, wanted = Detector.load(target).options(), Detector.load(source).options(accuracy=0.9)
    assert found.chosen_lambda == wanted.chosen_lambda == 2.0
    words = ["--default", "accuracy=0.9", "--default", "hedge_lambda=1", "--json"]
    status, out, _ = run("convert", source, target, *words)
    assert status == 0 and json.loads(out)["dropped"] == []
    assert Detector.load(target).options().chosen_lambda == 1.0
    status, out, err = run("convert", source, target, "--default", "accuracy=0.95")
    assert (status, out) == (1, "") and "up to 0.9" in err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["a.cfg"], 2, "Missing argument"),
        (["a.cfg", "a.weights", "x.txt"], 2, ".safetensors"),
        (["a", "b", "c", "d"], 2, "give x.cfg"),
        (["x.safetensors", "out", "--half"], 2, "for making"),
        (["x.safetensors", "out", "--bn", "darknet-gpu"], 2, "for making"),
        (["no.safetensors", "out"], 1, "no such model file"),
        (["no.cfg", "no.weights", "x.safetensors"], 1, "no.cfg"),
    ],
)
def test_wrong_words(words, status, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, out, err = run("convert", *words)
    assert (found, out) == (status, "") and message in err


def test_what_darknet_has_no_place_for(run, tmp_path):
    save_model(small_detector("shared"), tmp_path / "x.safetensors")
    status, _, err = run("convert", tmp_path / "x.safetensors", tmp_path / "out")
    assert status == 1 and "Darknet" in err and not (tmp_path / "out").exists()


@pytest.mark.reference
def test_real_weights_there_and_back(run, shared, tmp_path):
    folder = shared / "weights" / "yolo-lite"
    files = folder / "coco-trial6.cfg", folder / "coco-trial6.weights"
    assert run("convert", *files, tmp_path / "x.safetensors", "--names", "coco")[0] == 0
    assert run("convert", tmp_path / "x.safetensors", tmp_path)[0] == 0
    assert (tmp_path / "x.weights").read_bytes() == files[1].read_bytes()
    photo = shared / "photos" / "dog.jpg"
    words = ("--json", "--precision", "float32")
    _, direct, _ = run("detect", photo, "--cfg", files[0], "--weights", files[1], "--names", "coco", *words)
    _, converted, _ = run("detect", photo, "--model", tmp_path / "x.safetensors", *words)
    assert json.loads(direct) == json.loads(converted)
    assert len(json.loads(direct)["pictures"][0]["detections"]) > 3
