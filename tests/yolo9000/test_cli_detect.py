"""`yolo9000 detect` as typed: bad pictures are reported and passed over, never a traceback."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.yolo9000.small import picture, small_classifier, small_detector
from tests.yolo9000.test_images import bomb, encode
from yolo9000 import Detector, decision, detector, options, suppression
from yolo9000.cli import _pictures, detect, export
from yolo9000.detections import Detections
from yolo9000.folders import RESULTS_NAME
from yolo9000.modelfile import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(), "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    ramp = np.linspace(0, 65535, 60 * 90).astype(np.uint16).reshape(60, 90)
    return encode(Image.fromarray(ramp), "PNG")


GOOD = {
    "cmyk.jpg": lambda: encode(picture().convert("CMYK"), "JPEG"),
    "palette.gif": lambda: encode(picture().convert("P"), "GIF"),
    "palette.png": lambda: encode(picture().convert("P"), "PNG", transparency=0),
    "grey16.png": sixteen_bits,
    "rotated.jpg": exif_rotated,
    "thin.png": lambda: encode(picture(0, 1, 5000), "PNG"),
    "wide.jpg": lambda: encode(picture(0, 5000, 1), "JPEG"),
    "one pixel.png": lambda: encode(picture(0, 1, 1), "PNG"),
    "alpha.webp": lambda: encode(picture().convert("RGBA"), "WEBP"),
    "no suffix": lambda: encode(picture(), "PNG"),
}
BAD = {
    "truncated.jpg": lambda: encode(picture(0, 300, 200), "JPEG")[:900],
    "empty.jpg": lambda: b"",
    "page.jpg": lambda: b"<!DOCTYPE html><html><body>Not found</body></html>",
    "bomb.png": lambda: bomb(60_000, 60_000),
    "text.png": lambda: b"hello",
    "random.webp": lambda: np.random.default_rng(0).bytes(5000),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_pictures_are_detected_on(name, run, model, tmp_path):
    (tmp_path / name).write_bytes(GOOD[name]())
    status, out, err = run("detect", tmp_path / name, "--model", model, "--json", "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    (record,) = json.loads(out)["pictures"]
    found = Detections.from_dict(record)
    with Image.open(tmp_path / name) as original:
        size = original.size[::-1] if name == "rotated.jpg" else original.size
    assert found.image_size == size
    with Image.open(tmp_path / "out" / record["picture"]) as drawn:
        assert drawn.size == size
    width, height = size
    assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= (width, height, width, height)).all()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_reported_and_the_others_done(name, run, model, tmp_path):
    (tmp_path / name).write_bytes(BAD[name]())
    picture().save(tmp_path / "a.png")
    picture(1).save(tmp_path / "z.png")
    words = ("detect", tmp_path, "--model", model, "--out", tmp_path / "out")
    status, out, err = run(*words)
    assert status == 1
    assert err.startswith("skipped: ") and str(tmp_path / name) in err and err.count("\n") == 1
    assert "a.png" in out and "z.png" in out and "2 pictures in" in out
    result = json.loads((tmp_path / "out" / detect.JSON_NAME).read_text())
    assert [Path(p["source"]).name for p in result["pictures"]] == ["a.png", "z.png"]
    assert len(result["skipped"]) == 1 and name in result["skipped"][0]
    names = [RESULTS_NAME, "a.png", detect.JSON_NAME, "z.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names


def test_only_bad_pictures(run, model, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    assert run("detect", tmp_path / "x.jpg", "--model", model)[:2] == (1, "")
    status, out, _ = run("detect", tmp_path / "x.jpg", "--model", model, "--json")
    assert status == 1 and json.loads(out)["pictures"] == [] and len(json.loads(out)["skipped"]) == 1


def test_nothing_to_look_at(run, model, tmp_path):
    (tmp_path / "empty").mkdir()
    for word, reason in (
        ("empty", "no pictures in this folder"),
        ("no.jpg", "no such file"),
        ("*.gif", "nothing matches"),
    ):
        status, out, err = run("detect", tmp_path / word, "--model", model)
        assert (status, out) == (1, "") and reason in err
        status, out, err = run("detect", tmp_path / word, "--model", model, "--json")
        assert status == 1 and json.loads(out)["pictures"] == [] and reason in json.loads(out)["skipped"][0]
    assert run("detect", "--model", model)[0] == 2


def test_files_folders_and_patterns_together(run, model, tmp_path):
    for name in ("a/1.png", "a/b/2.jpg", "c/3.png", "d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    words = (tmp_path / "d.png", tmp_path / "a", tmp_path / "c" / "*.png", tmp_path / "a" / "1.png")
    status, out, _ = run("detect", *words, "--model", model, "--json")
    assert status == 0
    names = [Path(p["source"]).name for p in json.loads(out)["pictures"]]
    assert names == ["d.png", "1.png", "2.jpg", "3.png"]


def test_sources_are_pictures_like_any(run, model, tmp_path):
    for name in "abc":
        picture().save(tmp_path / f"{name}.png")
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    words = ("detect", "--model", model, "--json")
    plain = run(*words, a, b, c)
    assert plain[0] == 0 and len(json.loads(plain[1])["pictures"]) == 3
    assert run(*words, a, "--source", b, "--source", c)[:2] == plain[:2]
    assert run(*words, *(word for name in (a, b, c) for word in ("--source", name)))[:2] == plain[:2]
    for other in ("0", "rtsp://host/stream"):
        assert run(*words, "--source", other, "--source", a)[0] == 2


def test_equal_names_from_two_folders_do_not_overwrite_each_other(run, model, tmp_path):
    sizes = {"a/x.jpg": (40, 30), "b/x.jpg": (50, 30), "b/X.JPG": (60, 30), "c/x.gif": (70, 30)}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(0, *size).save(tmp_path / name)
    out = tmp_path / "out"
    status, _, _ = run("detect", *(tmp_path / name for name in sizes), "--model", model, "--out", out)
    assert status == 0
    records = json.loads((out / detect.JSON_NAME).read_text())["pictures"]
    assert len({record["picture"].lower() for record in records}) == 4
    for record, size in zip(records, sizes.values(), strict=True):
        with Image.open(out / record["picture"]) as drawn:
            assert drawn.size == size


def test_originals_in_the_output_folder_are_left_alone(run, model, tmp_path):
    picture().save(tmp_path / "x.jpg")
    before = (tmp_path / "x.jpg").read_bytes()
    assert run("detect", tmp_path, "--model", model, "--out", tmp_path)[0] == 0
    assert (tmp_path / "x.jpg").read_bytes() == before
    assert (tmp_path / "x-2.jpg").is_file()


def test_json_is_what_python_gives(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    words = [
        "--threshold",
        0.1,
        "--rule",
        "darknet",
        "--tree-threshold",
        0.2,
        "--nms",
        "class",
        "--nms-iou",
        0.3,
    ]
    words += ["--size", "96x64", "--max", 5, "--precision", "float32"]
    status, out, _ = run("detect", tmp_path / "x.png", "--model", model, "--json", *words)
    expected = detector.Detector.load(model, precision="float32")(
        tmp_path / "x.png",
        0.1,
        "darknet",
        0.3,
        tree_threshold=0.2,
        nms="class",
        size=(96, 64),
        max_detections=5,
    )
    assert status == 0 and len(expected) > 0
    assert json.loads(out)["pictures"] == [json.loads(expected.to_json())]


def test_a_square_in_the_words_of_others(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    answers = {
        run("detect", tmp_path / "x.png", "--model", model, "--json", *words)
        for words in (("--size", "96"), ("--imgsz", "96"), ("--imgsz", "96x96"))
    }
    assert len(answers) == 1 and next(iter(answers))[0] == 0
    assert run("detect", tmp_path / "x.png", "--model", model, "--json")[1] != next(iter(answers))[1]


def test_the_table(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    status, out, _ = run("detect", tmp_path / "x.png", "--model", model, "--precision", "float32")
    found = detector.Detector.load(model, precision="float32")(tmp_path / "x.png")
    assert found.objectness.min() > 0.3  # the model's own default
    heading, columns, *rows = out.splitlines()
    assert status == 0 and f"90 x 60  {len(found)} objects" in heading and len(rows) == len(found)
    assert columns.split() == ["name", "score", "objectness", "box", "path"]
    for row, one in zip(rows, found, strict=True):
        assert row.split()[:3] == [one.name, f"{one.score:.2f}", f"{one.objectness:.2f}"]
        assert row.endswith(" > ".join(one.path_names))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--threshold", "2"], 2, "threshold"),
        (["--rule", "best"], 2, "best"),
        (["--size", "60"], 2, "multiple of 8"),
        (["--size", "big"], 2, "no size"),
        (["--size", "1x2x3"], 2, "no size"),
        (["--imgsz", "64x96"], 2, "--size WIDTHxHEIGHT"),
        (["--imgsz", "big"], 2, "no size; 416 is"),
        (["--imgsz", "96", "--size", "96"], 2, "either --size or --imgsz"),
        (["--mapped"], 2, "no map"),
        (["--weights", "x.weights"], 2, "go together"),
        (["--cfg", "x.cfg", "--weights", "x.weights"], 2, "either --model"),
        (["--data-root", "x"], 2, "--cfg"),
        (["--names", "missing.names"], 1, "no names there"),
        (["--device", "nonsense"], 1, "cannot be used"),
    ],
)
def test_wrong_options(words, status, message, run, model, tmp_path):
    picture().save(tmp_path / "x.png")
    found, out, err = run("detect", tmp_path / "x.png", "--model", model, *words)
    assert (found, out) == (status, "") and message in err


def test_wrong_models(run, tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "net.cfg").write_text("nonsense")
    (tmp_path / "net.weights").write_bytes(b"")
    save_model(small_classifier(), tmp_path / "classifier.safetensors")
    for words in (
        ["--model", tmp_path / "no.safetensors"],
        ["--model", tmp_path / "x.png"],
        ["--model", tmp_path],
        ["--model", tmp_path / "classifier.safetensors"],
        ["--cfg", tmp_path / "net.cfg", "--weights", tmp_path / "net.weights"],
        ["--cfg", tmp_path / "no.cfg", "--weights", tmp_path / "net.weights"],
    ):
        status, out, err = run("detect", tmp_path / "x.png", *words)
        assert (status, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1


def test_an_output_folder_that_cannot_be(run, model, tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        status, out, err = run("detect", tmp_path / "x.png", "--model", model, "--out", tmp_path / place)
        assert (status, out) == (1, "") and "cannot be made" in err


def test_names_of_files_that_are_no_unicode(run, model, tmp_path):
    name = tmp_path / "caf\udce9 [1].png"
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    name.write_bytes(buffer.getvalue())
    status, out, _ = run("detect", tmp_path, "--model", model, "--json", "--out", tmp_path / "out")
    assert status == 0 and json.loads(out)["pictures"][0]["source"] == str(name)
    assert run("detect", tmp_path / "*.png", "--model", model)[0] == 0


def test_names_of_files_never_break_the_lines_of_a_table(run, model, tmp_path):
    picture().save(tmp_path / "a\n\x1b[2Jb.png")
    (tmp_path / "c\nd.jpg").write_bytes(b"")
    status, out, err = run("detect", tmp_path, "--model", model, "--out", tmp_path / "out", "--threshold", 1)
    assert status == 1 and len(out.splitlines()) == 2 and len(err.splitlines()) == 1
    assert "a\\n\\x1b[2Jb.png" in out and "c\\nd.jpg: empty" in err
    records = json.loads((tmp_path / "out" / detect.JSON_NAME).read_text())
    assert records["pictures"][0]["source"].endswith("a\n\x1b[2Jb.png")
    assert records["pictures"][0]["picture"].isprintable()


def test_a_long_name_of_many_bytes_a_letter(run, model, tmp_path):
    name = "画" * 83 + ".png"  # 253 bytes; a name may have 255
    picture().save(tmp_path / name)
    assert run("detect", tmp_path / name, "--model", model, "--out", tmp_path / "out")[0] == 0
    (drawn,) = (tmp_path / "out").glob("*.png")
    assert name.startswith(drawn.stem)


def test_a_reader_that_goes_away_is_no_error(model, tmp_path):
    """As in `yolo9000 detect ... --json | head -1`."""
    picture().save(tmp_path / "x.png")
    code = "import sys; from yolo9000.cli import main; sys.argv = ['yolo9000', *sys.argv[1:]]; main()"
    words = ["detect", str(tmp_path / "x.png"), "--model", str(model), "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 1


def test_names_too_long_for_the_file_system(run, model, tmp_path):
    picture().save(tmp_path / "x.png")
    name = "n" * 300
    for words in (
        ["info", name],
        ["detect", name, "--model", model],
        ["detect", tmp_path / "x.png", "--model", name],
        ["detect", tmp_path / "x.png", "--model", model, "--names", name],
        ["detect", tmp_path / "x.png", "--model", model, "--out", tmp_path / name],
        ["detect", tmp_path / "x.png", "--cfg", name, "--weights", name],
        ["convert", name, tmp_path / "out"],
    ):
        status, out, err = run(*words)
        assert (status, out) == (1, "") and "too long" in err and err.count("\n") == 1


def test_choices_are_those_of_the_library():
    assert (_pictures.RULES, _pictures.NMS) == (decision.RULES, suppression.MODES)
    assert _pictures.SCORES == options.SCORES


@pytest.mark.parametrize("command", [detect.command, export.command])
def test_help_says_what_holds_where_a_model_says_nothing(command):
    plain = vars(options.Options()) | {"score": "absolute"}
    names = ("threshold", "rule", "tree_threshold", "score", "nms", "nms_iou", "vote_iou", "max_detections")
    for option in command.params:
        if option.name in names:
            value = plain[option.name]
            said = f"{value:g}" if isinstance(value, float) else str(value)
            assert option.help.endswith(f"[default: the model's, else {said}]")


def test_rules_that_list_nodes_as_typed(run, model, tmp_path):
    picture().save(tmp_path / "x.png")
    words = ("detect", tmp_path / "x.png", "--model", model, "--threshold", 0.05, "--json")
    detector = Detector.load(model)

    def found(*more) -> list[str]:
        status, out, err = run(*words, *more)
        assert status == 0, err
        return [one["name"] for one in json.loads(out)["pictures"][0]["detections"]]

    depth = found("--level", 1)
    assert depth and all(detector.tree.depth(detector.tree.index(name)) <= 1 for name in depth)
    listed = tmp_path / "nodes.txt"
    listed.write_text("n8\nn2\n", encoding="utf-8-sig")  # as Windows' editors write it
    for given in ("husky,vehicle", str(listed)):
        assert set(found("--level", given)) <= {"husky", "vehicle"}
        answers = detector(tmp_path / "x.png", threshold=0.05, vocabulary=["husky", "vehicle"])
        assert found("--vocabulary", given) == list(answers.names)
    for rule in ("--level", "--vocabulary"):
        assert found(rule, "husky", rule, "n2") == found(rule, "husky,n2")
        assert found(rule, str(listed), rule, "cat") == found(rule, "husky,vehicle,cat")
    assert found("--hedge-lambda", 0) == list(
        detector(tmp_path / "x.png", threshold=0.05, hedge_lambda=0).names
    )
    for more, said in [
        (("--level", "unicorn"), "unicorn"),
        (("--level", -1), "there is no node -1"),
        (("--level", 1, "--level", "husky"), "stands alone"),
        (("--accuracy", 0.9), "calibrate"),
        (("--rule", "vocabulary"), "vocabulary"),
        (("--vocabulary", "coco"), "not in the model's tree"),
        (("--vocabulary", "husky", "--vocabulary", "coco"), "not in the model's tree"),
    ]:
        status, out, err = run(*words, *more)
        assert status in (1, 2) and not out and said in err, (more, err)


def test_help_needs_no_torch():
    code = "import sys; from yolo9000.cli import main; sys.argv = ['yolo9000', {!r}, '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    for name in ("detect", "classify", "info", "convert"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "Example" in done.stdout
