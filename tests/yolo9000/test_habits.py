"""Words of other YOLO packages: the same results as ours, and where there is no word, where to look."""

import inspect
import re

import pytest

from tests.yolo9000.small import picture, small_detector
from yolo9000.cli import _habits, detect
from yolo9000.detector import Detector
from yolo9000.habits import ELSEWHERE, SAME, translated


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_detector("rows"), precision="float32")


def equal(a, b) -> bool:
    return a.to_dict() == b.to_dict()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"conf": 0.6}, {"threshold": 0.6}),
        ({"conf_thres": 0.6, "iou_thres": 0.1}, {"threshold": 0.6, "nms_iou": 0.1}),
        ({"iou": 0.1}, {"nms_iou": 0.1}),
        ({"imgsz": 96}, {"size": 96}),
        ({"imgsz": (64, 128)}, {"size": (128, 64)}),  # height first there, width first here
        ({"max_det": 2}, {"max_detections": 2}),
        ({"classes": [3, 4]}, {"vocabulary": [3, 4]}),
        ({"classes": 3}, {"vocabulary": [3]}),
        ({"conf": None}, {}),
    ],
)
def test_the_same_by_other_words(detector, theirs, ours):
    said, wanted = detector(picture(), **theirs), detector(picture(), **ours)
    assert len(wanted) and equal(said, wanted)
    assert equal(detector(source=picture(), **theirs), wanted)
    if ours:
        assert not equal(wanted, detector(picture())), "the option changes nothing here: no test"


def test_a_list_gives_a_list(detector):
    many = detector(source=[picture(1), picture(2)], conf=0.5)
    assert [len(found) for found in many] == [len(detector(picture(k), 0.5)) for k in (1, 2)]
    assert all(one.score > 0 for found in many for one in found)  # results and what is in them are iterable


@pytest.mark.parametrize("word", sorted(ELSEWHERE))
def test_words_that_mean_something_else_say_where_it_is(detector, word):
    with pytest.raises(TypeError, match=word):
        detector(picture(), **{word: True})


def test_a_stream_takes_the_same_words(detector):
    pictures = [picture(1), picture(2)]
    theirs = list(detector.stream(pictures, conf=0.5, imgsz=96, max_det=3))
    ours = detector(pictures, 0.5, size=96, max_detections=3)
    assert len(ours[0]) and all(equal(a, b) for a, b in zip(theirs, ours, strict=True))
    with pytest.raises(TypeError, match="another word"):
        detector.stream(pictures, size=96, imgsz=96)
    with pytest.raises(TypeError, match="verbose"):
        detector.stream(pictures, verbose=False)


def test_refusals(detector):
    with pytest.raises(TypeError, match=r"'confidence'.*help"):
        detector(picture(), confidence=0.3)
    with pytest.raises(TypeError, match="'conf' is another word for 'threshold'"):
        detector(picture(), 0.3, conf=0.3)
    with pytest.raises(TypeError, match="another word"):
        detector(picture(), conf=0.3, conf_thres=0.2)
    with pytest.raises(TypeError, match="which picture"):
        detector(conf=0.3)
    with pytest.raises(ValueError, match="threshold lies in"):
        detector(picture(), conf=30)


def test_every_word_is_one_of_a_call():
    ours = inspect.signature(Detector.__call__).parameters
    assert set(SAME.values()) <= set(ours) and not set(SAME) & set(ours) and not set(SAME) & set(ELSEWHERE)
    assert translated({}, {}) == {}


@pytest.mark.parametrize(
    ("typed", "meant"), [("treshold", "threshold"), ("vocabluary", "vocabulary"), ("image_size", "img_size")]
)
def test_a_mistyped_word_is_told_what_was_meant(detector, typed, meant):
    with pytest.raises(TypeError, match=f"not called with '{typed}'; did you mean '{meant}'"):
        detector(picture(), **{typed: 1})
    with pytest.raises(TypeError, match="lists what it takes"):
        detector(picture(), zzz=1)


def test_the_command_line_knows_every_word_that_a_call_knows():
    own = {name for option in detect.command.params for name in option.opts}
    for word in (*SAME, *ELSEWHERE):
        plain = word.replace("_", "-")
        assert (f"--{plain}" in own) != (plain in _habits._OURS), word
    for said in _habits._OURS.values():
        assert set(re.findall(r"--[a-z-]+", said)) <= own, said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.jpg", "--classes", "person"], "No such option: --classes; here it is --vocabulary"),
        (["x.jpg", "--classes=0"], "--below"),
        (["--save-txt", "x.jpg"], "--json-lines"),
        (["--save_crop", "x.jpg"], "found.crop()"),
        (["--conf-thres", "0.3", "x.jpg"], "here it is --threshold."),
        (["--vocabluary", "dog", "x.jpg"], "--vocabulary"),  # click's own
        (["source=x y", "conf=0.3"], "yolo9000 detect --source 'x y' --conf 0.3"),
        (
            ["conf=0.3", "source=x", "conf=0.2", "source=y"],
            "yolo9000 detect --conf 0.2 --source x --source y",
        ),
        (["predict", "model=a.pt", "rect=True", "mapped=False", "x.jpg"], "detect --model a.pt --rect x.jpg"),
        (
            ["rect=True", "source=x", "rect=False", "mapped=False", "mapped=True"],
            "detect --source x --mapped\n",
        ),
        (["source=x", "save=True"], "detect --source x; save: --out FOLDER"),
        (
            ["source=x", "--least", "0.5", "conf=0.3", "--out", "o"],
            "x --least 0.5 --conf 0.3 --out o\n",
        ),
        (
            ["mode=predict", "task=detect", "source=x", "half=False"],
            "detect --source x\n",
        ),
        (["source=x", "device=0"], "--source x --device cuda"),
    ],
)
def test_words_of_other_command_lines_say_what_they_are_here(run, words, said):
    status, out, err = run("detect", *words)
    assert (status, out) == (2, "") and said in err


def test_a_file_called_like_a_setting_is_a_file(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture().save(tmp_path / "source=a.png")
    picture().save(tmp_path / "epoch=3.png")
    for name in ("source=a.png", "epoch=3.png", "epoch=*.png"):
        status, out, _ = run("detect", name, "--threshold", 1)
        assert status == 0 and "0 objects" in out
