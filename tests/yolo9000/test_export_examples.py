"""The scripts of examples/ and the embedded model: each runtime without this package against `yolo9000
detect`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.yolo9000.exported import assert_same, fit, load, needs, passing
from tests.yolo9000.small import picture, small_detector
from yolo9000 import modelfile
from yolo9000.detector import Detector
from yolo9000.export import FORMATS, export
from yolo9000.images import read_image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SUFFIX = {format: suffix for format, (suffix, _) in FORMATS.items()}
PHOTOGRAPHS = ("dog", "eagle", "giraffe", "horses", "kite", "person")

# A script that imports it ends: the examples stand alone.
_BLOCK = "import sys; sys.modules['yolo9000'] = sys.modules['wordtree'] = None; "
_BLOCK += "sys.argv = sys.argv[1:]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> dict[str, Path]:
    """The model in the package in each format, made when first asked for."""
    folder = tmp_path_factory.mktemp("embedded")

    class Made(dict):
        def __missing__(self, format: str) -> Path:
            needs(format)
            self[format] = folder / f"default{SUFFIX[format]}"
            export(Detector.load(precision="float32"), self[format])
            return self[format]

    return Made()


def run_example(format: str, model: Path, files: list[Path]) -> list[dict]:
    script = EXAMPLES / f"detect_{format}.py"
    done = subprocess.run(
        [sys.executable, "-c", _BLOCK, script, model, *files],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_example_finds(found: list[dict], pictures: list[dict]) -> None:
    """What an example printed is what `detect --json` said, each box once and the best first. Pixels scaled
    by Pillow may differ by a level, and boxes of equal scores may change places."""
    assert len(found) > 0
    assert [one["source"] for one in found] == [one["source"] for one in pictures for _ in one["detections"]]
    for one in pictures:
        ours, left = [row for row in found if row["source"] == one["source"]], list(one["detections"])
        scores = [row["score"] for row in ours]
        assert np.allclose(scores, [row["score"] for row in left], atol=0.01, rtol=0)
        assert scores == sorted(scores, reverse=True)
        for row in ours:
            same = [k for k, theirs in enumerate(left) if _same(row, theirs)]
            assert same, f"{row} is not among {left}"
            left.pop(same[0])


def _same(ours: dict, theirs: dict) -> bool:
    named = all(ours[key] == theirs[key] for key in ("name", "id", "path_names"))
    near = np.allclose(ours["box_xyxy"], theirs["box_xyxy"], atol=1.5)
    return named and near and abs(ours["score"] - theirs["score"]) <= 0.01


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("format", FORMATS)
def test_the_embedded_model_on_photographs(format, shared, embedded):
    detector = Detector.load(precision="float32")
    about, model = load(embedded[format])
    assert about["weights_sha256"] and len(about["tree"]["ids"]) == 9418
    for name in PHOTOGRAPHS:
        photo = read_image(shared / "photos" / f"{name}.jpg")
        outputs = model(*fit(detector, [photo]))
        assert_same(
            outputs, [detector(photo)], atol=1e-4, passed=passing(detector, [photo], detector.options())
        )


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("format", FORMATS)
def test_examples_print_what_detect_prints(format, shared, embedded, run):
    files = [shared / "photos" / f"{name}.jpg" for name in PHOTOGRAPHS]
    status, out, _ = run("detect", *files, "--json", "--precision", "float32")
    assert status == 0
    assert_example_finds(run_example(format, embedded[format], files), json.loads(out)["pictures"])


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["smooth", "darknet"])
@pytest.mark.parametrize("format", FORMATS)
def test_examples_scale_as_the_model_wants(format, resize, run, tmp_path):
    needs(format)
    net = small_detector("rows")
    defaults = {"resize": resize, "nms": "class", "threshold": 0.3, "tree_threshold": 0.3, "size": [96, 64]}
    modelfile.save_model(net, tmp_path / "m.safetensors", defaults=defaults)
    files = []
    for k, shape in enumerate([(90, 60), (33, 57), (300, 20)]):
        files.append(tmp_path / f"{k}.png")
        picture(k, *shape).save(files[-1])
    model = tmp_path / f"m{SUFFIX[format]}"
    assert run("export", tmp_path / "m.safetensors", "--out", model)[0] == 0
    _, out, _ = run(
        "detect", *files, "--model", tmp_path / "m.safetensors", "--json", "--precision", "float32"
    )
    assert_example_finds(run_example(format, model, files), json.loads(out)["pictures"])


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("format", FORMATS)
def test_examples_with_a_real_model_of_darknets(format, shared, run, tmp_path):
    needs(format)
    folder = shared / "weights" / "yolo-lite"
    words = ["--cfg", folder / "tiny-yolov2-trial3.cfg", "--weights", folder / "tiny-yolov2-trial3.weights"]
    words += ["--names", "voc", "--threshold", 0.3]
    model = tmp_path / f"voc{SUFFIX[format]}"
    assert run("export", *words, "--out", model)[0] == 0
    files = [shared / "photos" / f"{name}.jpg" for name in PHOTOGRAPHS]
    _, out, _ = run("detect", *files, *words, "--json")
    assert_example_finds(run_example(format, model, files), json.loads(out)["pictures"])


@pytest.mark.parametrize("format", FORMATS)
def test_an_example_without_arguments_says_how_it_is_used(format):
    needs(format)
    script = EXAMPLES / f"detect_{format}.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and f"python {script.name}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_an_example_is_short_enough_to_read_at_a_glance(format):
    text = (EXAMPLES / f"detect_{format}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30  # docstring and blank lines among them
