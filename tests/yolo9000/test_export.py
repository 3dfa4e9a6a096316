"""Exported files, each run by its own runtime, against the detector; the command; what is refused."""

import errno
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.yolo9000.exported import FORMATS, assert_same, fit, load, needs, passing
from tests.yolo9000.small import FORMS, TREE, picture, small_classifier, small_detector
from tests.yolo9000.test_join import learnt
from tests.yolo9000.test_twin import gate_of
from yolo9000 import darknet, descent, modelfile
from yolo9000.cli import export as command
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.export import STAGES, export
from yolo9000.export import files as files_module
from yolo9000.export.description import weights_sha256
from yolo9000.export.graph import CANDIDATES
from yolo9000.join import join_twins, mirror_twin
from yolo9000.network import Network
from yolo9000.spec import RoiAverage, Route

SUFFIX = {format: suffix for format, (suffix, _) in FORMATS.items()}
SHAPES = [(90, 60), (1, 500), (700, 3), (33, 57), (64, 64)]

# Each runtime once in a fast test; all forms, walks and ways of suppression with all of them in slow ones.
FEW = [("pt2", "stored"), ("onnx", "rows"), ("openvino", "shared")]
EACH = [pytest.param(format, marks=[] if format == "pt2" else pytest.mark.slow) for format in FORMATS]


def pictures() -> list[np.ndarray]:
    return [np.asarray(picture(i, *shape)) for i, shape in enumerate(SHAPES)]


def check(tmp_path, format: str, detector: Detector, batch: int = 2, **given) -> None:
    """An exported file finds what the detector finds, `batch` pictures at a time; and nothing on grey with a
    threshold that nothing passes."""
    needs(format)
    options = detector.options(**given)
    path = tmp_path / f"model{SUFFIX[format]}"
    assert path in export(detector, path, options=options, batch=batch)
    about, run = load(path)
    total = 0
    for start in range(len(SHAPES)):
        some = [pictures()[(start + k) % len(SHAPES)] for k in range(batch)]
        outputs = run(*fit(detector, some))
        expected = [detector.find(one, options) for one in some]
        assert_same(outputs, expected, passed=passing(detector, some, options))
        total += sum(map(len, expected))
    assert total > 10
    assert about["kind"] == "detections" and about["size"] == list(detector.size)
    assert about["tree"]["ids"] == list(detector.tree.ids)
    assert about["tree"]["names"] == list(detector.tree.names)
    assert about["tree"]["parents"] == detector.tree.parents.tolist()
    assert about["tree"]["fingerprint"] == detector.tree.fingerprint
    assert np.allclose(about["anchors"], detector.net.anchors)
    assert about["options"]["threshold"] == options.threshold and about["batch"] == batch
    assert about["weights_sha256"] == weights_sha256(detector.net)


@pytest.mark.parametrize(("format", "form"), FEW)
def test_runtimes_find_what_the_detector_finds(format, form, tmp_path):
    detector = Detector(small_detector(form), precision="float32")
    check(tmp_path, format, detector, threshold=0.3, tree_threshold=0.4)


# For each form of head one walk, one way of suppression and one kind of score; test_export_graph.py has all.
WAYS = {
    "darknet": {"rule": "darknet", "nms": "none", "threshold": 0.001},  # at 1e-8 ONNX Runtime's sigmoid is 0
    "rows": {"rule": "leaf", "nms": "class", "threshold": 0.1},
    "shared": {"rule": "threshold", "tree_threshold": 0.2, "threshold": 0.1, "max_detections": 4},
    "stored": {"rule": "leaf", "nms": "related", "threshold": 0.1},
    "flat": {"rule": "greedy", "nms": "agnostic", "score": "conditional"},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("format", FORMATS)
def test_all_forms_of_head_and_walks(form, format, tmp_path):
    check(tmp_path, format, Detector(small_detector(form, seed=3), precision="float32"), 3, **WAYS[form])


@pytest.mark.parametrize("format", EACH)
def test_windows_that_follow_the_boxes(format, tmp_path):
    net = small_detector("shared", seed=3)
    region, count = net.spec.region, len(net.spec)
    ending = (Route((region.features,)), RoiAverage(region.boxes, 2), replace(region, features=count))
    made = Network(replace(net.spec, layers=(*net.spec.layers[:-1], *ending)), net.tree)
    for i, layer in enumerate(net.layers):
        made.layers[i if i < count - 1 else -1].load_state_dict(layer.state_dict())
    check(tmp_path, format, Detector(made.carry(net).eval(), precision="float32"), **WAYS["shared"])


@pytest.mark.parametrize("format", EACH)
def test_a_second_expert_runs_where_a_picture_wants_it(format, tmp_path):
    """Twins for names, mirrored, and for boxes; a gate that hears them on some of the pictures alone."""
    nets = [mirror_twin(learnt(seed, box_twin=seed == 0)) for seed in range(2)]
    net = join_twins(nets)[0]
    gate, share = gate_of(net), net.spec.layers[net.feature_layer].share
    torch.nn.init.normal_(gate.weight)
    detector = Detector(net, precision="float32")
    images = torch.from_numpy(fit(detector, pictures())[0])
    with torch.no_grad():
        said = net.outputs(images, (share,))[share].flatten().sort().values
        spread = 8 / (said[3] - said[1])
        gate.bias.sub_(said[2]).mul_(spread)  # v: at most -3 for one picture or two, above for three or four
        gate.weight.mul_(spread)
        heard = (detector.net.outputs(images, (share,))[share].flatten() > -3).tolist()
    assert {True, False} == set(heard)
    check(tmp_path, format, Detector(net, precision="float32"), 1, threshold=0.005, tree_threshold=0.4)
    check(tmp_path, format, Detector(net, precision="float32"), 2, threshold=0.005, tree_threshold=0.4)


@pytest.mark.parametrize("format", EACH)
def test_nothing_found_and_a_network_without_a_lazy_form(format, tmp_path):
    needs(format)
    detector = Detector(small_detector("flat"), precision="float32")
    detector.lazy = False
    options = detector.options(threshold=1.0)
    path = tmp_path / f"model{SUFFIX[format]}"
    export(detector, path, options=options, candidates=5)
    outputs = load(path)[1](*fit(detector, pictures()[:1]))
    assert outputs["boxes_xyxy"].shape == (0, 4) and outputs["nodes"].shape == (0,)
    assert outputs["passed"].tolist() == [0]


@pytest.mark.parametrize("format", EACH)
def test_fewer_candidates(format, tmp_path):
    needs(format)
    net = small_detector("darknet")
    with torch.no_grad():  # so that no two boxes are equally sure
        net.layers[-2].conv.weight.mul_(0.2)
    detector = Detector(net, precision="float32")
    options = detector.options(threshold=0.2, nms="none", rule="greedy", score="objectness", clip=False)
    path = tmp_path / f"model{SUFFIX[format]}"
    export(detector, path, options=options, candidates=6)
    some = pictures()[:1]
    outputs = load(path)[1](*fit(detector, some))
    assert_same(
        {**outputs, "passed": np.array([6])}, [detector.find(some[0], options)[:6]], passed=[6]
    )  # the six of most objectness
    assert outputs["passed"].tolist() == passing(detector, some, options) and outputs["passed"][0] > 6


@pytest.mark.parametrize("format", EACH)
def test_raw_channels(format, tmp_path):
    needs(format)
    detector = Detector(small_detector("stored"), precision="float32")
    path = tmp_path / f"raw{SUFFIX[format]}"
    export(detector, path, raw=True, size=(96, 64), batch=2)
    about, run = load(path)
    images = np.random.default_rng(0).random((2, 3, 64, 96), np.float32)
    with torch.inference_mode():
        expected = detector.net(torch.from_numpy(images)).numpy()
    ours = run(images)["raw"]
    assert ours.shape == expected.shape == (2, 2 * (5 + len(TREE)), 8, 12)
    assert np.allclose(ours, expected, atol=1e-4)
    assert about["kind"] == "raw" and about["options"] is None and list(about["inputs"]) == ["images"]


@pytest.mark.parametrize("format", EACH)
def test_darknets_files(format, run, tmp_path, monkeypatch):
    """By the command: a cfg with a tree, weights with rows per anchor; scaled as Darknet scales."""
    needs(format)
    file = tmp_path / f"x{SUFFIX[format]}"
    net = small_detector("darknet")
    modelfile.save_model(net, tmp_path / "x.safetensors")
    assert run("convert", tmp_path / "x.safetensors", tmp_path / "d")[0] == 0
    monkeypatch.chdir(tmp_path / "d")
    words = ["--cfg", "x.cfg", "--weights", "x.weights", "--data-root", "."]
    status, out, _ = run("export", *words, "--out", file, "--threshold", 0.3, "--json")
    assert status == 0 and json.loads(out)["written"][0] == str(file)
    about, model = load(file)
    detector = Detector.from_darknet("x.cfg", "x.weights", ".")
    options = detector.options(threshold=0.3)
    for one in pictures():
        assert_same(model(*fit(detector, [one])), [detector.find(one, options)])
    assert about["letterbox"]["resize"] == "darknet"
    assert about["source"] == {"cfg": "x.cfg", "weights": "x.weights"}
    assert about["weights_sha256"] == weights_sha256(darknet.load("x.cfg", "x.weights", data_root="."))


def test_the_command_takes_model_files_runs_and_names(run, tmp_path):
    digest = modelfile.save_model(small_detector("flat"), tmp_path / "model.safetensors")
    (tmp_path / "names").write_text("".join(f"ding {k}\n" for k in "äbcdef"))
    for model in (tmp_path, tmp_path / "model.safetensors"):
        status, out, err = run("export", model, "--names", tmp_path / "names", "--out", tmp_path / "x.pt2")
        assert (status, err) == (0, "") and out.startswith(str(tmp_path / "x.pt2"))
        about, _ = load(tmp_path / "x.pt2")
        assert about["source"] == {"model": "model.safetensors", "sha256": digest}
        assert about["tree"]["names"][0] == "ding ä"
        assert about["options"]["candidates"] == CANDIDATES


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "x.tflite"], "no format is named '.tflite'; .pt2, .onnx, .xml are"),
        (["--out", "x.onnx", "--format", "pt2"], "a file of the format pt2 is named .pt2"),
        (["--out", "x.onnx", "--format", "tensorrt"], "'tensorrt' is not one of"),
        (["--out", "file/x.pt2"], "file/x.pt2: cannot be written"),
        (["--out", "folder.pt2"], "folder.pt2: cannot be written"),
        (["--out", "x.pt2", "--size", "65"], "multiple of 8"),
        (["--out", "x.pt2", "--size", "1000000"], "up to 4096"),
        (["--out", "x.pt2", "--batch", "100000"], "smaller size or batch"),
        (["--out", "x.pt2", "--raw", "--size", "4096", "--batch", "64"], "smaller size or batch"),
        (["--out", "x.pt2", "--candidates", "5000", "--size", "480", "--batch", 8], "fewer candidates"),
        (["--out", "x.pt2", "--candidates", "0"], "x>=1"),
        (["--out", "x.pt2", "--rule", "hedge"], "'hedge' is not one of"),
        (["--out", "x.pt2", "--raw", "--threshold", "0.2"], "takes no --threshold"),
        (["--out", "x.pt2", "--raw", "--max", "5"], "takes no --max\n"),
        (["--out", "x.pt2", "--raw", "--vote-iou", "1"], "takes no --vote-iou\n"),
        (["--out", "x.pt2", "--cfg", "x.cfg"], "go together"),
        (["--out", "x.pt2", "nothing.safetensors"], "no such model file"),
        (["--out", "x.pt2", "classifier.safetensors"], "region layer"),
        (["--out", "x.pt2", "empty.safetensors"], "empty.safetensors"),
        ([], "Missing option '--out'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_changes_nothing(words, told, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modelfile.save_model(small_detector("rows"), tmp_path / "m.safetensors")
    modelfile.save_model(small_classifier(), tmp_path / "classifier.safetensors")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.pt2").mkdir()
    before = sorted(tmp_path.rglob("*"))
    model = (
        [] if any("--cfg" in str(word) or "safetensors" in str(word) for word in words) else ["m.safetensors"]
    )
    status, out, err = run("export", *model, *words)
    assert status != 0 and out == "" and told in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_missing_package_is_told_before_anything_is_done(format, run, tmp_path, monkeypatch):
    def find_spec(name, package=None):
        return None if name == "onnx" else importlib.util.find_spec(name, package)

    monkeypatch.setattr(files_module, "find_spec", find_spec)
    status, _, err = run("export", "--out", tmp_path / f"x{SUFFIX[format]}")
    assert status == 1 and "pip install 'yolo9000[export]'" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", EACH)
def test_an_older_file_stays_whole_where_making_the_new_one_fails(format, tmp_path, monkeypatch):
    needs(format)
    path = tmp_path / f"x{SUFFIX[format]}"
    path.write_text("old")
    detector = Detector(small_detector("rows"), precision="float32")

    def stop(stage: str) -> None:
        if stage == STAGES[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(detector, path, tell=stop)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_text() == "old"


@pytest.mark.parametrize("format", EACH)
def test_a_bin_of_something_else_stays(format, tmp_path):
    needs(format)
    detector, path = Detector(small_detector("rows"), precision="float32"), tmp_path / f"x{SUFFIX[format]}"
    other = tmp_path / "x.bin"
    other.write_text("other")
    if format == "openvino":
        with pytest.raises(ModelError, match=r"x\.bin: would be .* without x\.xml, .* name another file"):
            export(detector, path)
        assert list(tmp_path.iterdir()) == [other] and other.read_text() == "other"
        path.touch()  # an earlier export is replaced
        assert export(detector, path) == [path, other] and other.read_bytes() != b"other"
    else:
        assert export(detector, path) == [path] and other.read_text() == "other"


def test_a_size_that_was_set_is_read_as_detecting_reads_it(tmp_path):
    detector = Detector(small_detector("rows"), precision="float32")
    detector.size = 96
    export(detector, tmp_path / "x.pt2", raw=True)
    assert load(tmp_path / "x.pt2")[0]["size"] == [96, 96]
    detector.size = 97
    with pytest.raises(ValueError, match="multiple of 8"):
        export(detector, tmp_path / "y.pt2", raw=True)


@pytest.mark.parametrize("format", EACH)
def test_a_full_disk_is_one_line_and_leaves_nothing(format, run, tmp_path, monkeypatch):
    needs(format)
    modelfile.save_model(small_detector("rows"), tmp_path / "m.safetensors")
    (tmp_path / "out").mkdir()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(files_module.shutil, "copyfile", full)
    status, out, err = run("export", tmp_path / "m.safetensors", "--out", tmp_path / f"out/x{SUFFIX[format]}")
    assert (status, out) == (1, "") and "cannot be written (No space left" in err and err.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_traced_is_a_model_error(tmp_path):
    detector = Detector(small_detector("rows"), precision="float32")

    def fuse():
        net = small_detector("rows").fuse()
        net.register_forward_pre_hook(lambda module, inputs: bool(inputs[0].sum() > 0) or None)
        return net

    detector.net.fuse = fuse
    with pytest.raises(ModelError, match="cannot trace"):
        export(detector, tmp_path / "x.pt2", raw=True)
    assert list(tmp_path.iterdir()) == []


def test_choices_of_the_command_are_those_of_the_package():
    assert tuple(FORMATS) == command.FORMATS
    assert sorted(command.RULES) == sorted(descent.RULES)
    assert command.CANDIDATES == CANDIDATES
