"""Cameras whose driver raises; those that behave are in test_video.py."""

import json
import threading

import numpy as np
import pytest

from tests.yolo9000.small import small_detector
from yolo9000.cli import _films
from yolo9000.cli._answers import Answers
from yolo9000.detector import Detector
from yolo9000.errors import ImageError
from yolo9000.modelfile import save_model
from yolo9000.video import Camera, Film

pytest.importorskip("cv2", reason="cameras need OpenCV (the extra `video`)")


class Failing:
    """A camera that gives a frame at once, the others when it is let, and then raises."""

    def __init__(self, error: Exception, frames: int) -> None:
        self.error, self.frames, self.reads, self.go_on = error, frames, 0, threading.Event()

    def read(self):
        self.reads += 1
        if self.reads == 1:
            return True, np.zeros((48, 64, 3), np.uint8)
        assert self.go_on.wait(10)
        if self.reads <= self.frames:
            return True, np.full((48, 64, 3), 9, np.uint8)
        raise self.error

    def get(self, which: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.mark.parametrize(("error", "told"), [(OSError("bus reset"), "bus reset"), (KeyError(), "KeyError")])
def test_a_driver_that_raises_ends_the_loop_after_what_it_gave(error, told):
    source = Failing(error, frames=2)
    camera = Camera(source)
    frames, found = iter(camera), []
    next(frames)

    def go_on() -> None:
        try:
            found.extend(int(one.max()) for one in frames)
        except ImageError as raised:
            found.append(str(raised))

    source.go_on.set()
    camera._thread.join(10)  # it raises before anybody asks for the second frame
    waiting = threading.Thread(target=go_on, daemon=True)
    waiting.start()
    waiting.join(10)
    assert found == [9, f"the camera failed ({told})"]
    camera.close()
    assert list(camera) == []


def test_the_film_of_a_camera_that_fails_is_kept(tmp_path):
    source = Failing(OSError("bus reset"), frames=1)
    detector, told = Detector(small_detector("shared"), precision="float32"), []

    class Told(Answers):
        def add(self, record, text):
            told.append(record)
            source.go_on.set()

    failed = _films.detect(detector, detector.options(), source, Told("lines"), tmp_path / "a.mp4", None)
    assert isinstance(failed, ImageError) and "bus reset" in str(failed)
    assert len(told) == 1 and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert len(list(Film(tmp_path / "a.mp4"))) >= 1


def test_every_form_of_the_results_tells_that_a_camera_failed(run, tmp_path, monkeypatch):
    opened = Camera.__init__

    def failing(self: Camera, _: int) -> None:
        source = Failing(OSError("bus reset"), frames=1)
        source.go_on.set()
        opened(self, source)

    monkeypatch.setattr(Camera, "__init__", failing)
    save_model(small_detector("shared"), tmp_path / "m.safetensors")
    words = ("detect", "--source", "0", "--model", tmp_path / "m.safetensors")
    status, out, err = run(*words, "--json-lines")
    *frames, last = map(json.loads, out.splitlines())
    assert status == 1 and "skipped: the camera failed (bus reset)" in err
    assert len(frames) == 1 and last == {"skipped": "the camera failed (bus reset)"}
    _, out, _ = run(*words, "--json")
    assert [last["skipped"]] == json.loads(out)["skipped"]


def test_who_waits_for_a_driver_that_raises_is_woken():
    source = Failing(OSError("bus reset"), frames=1)
    camera = Camera(source)
    frames = iter(camera)
    next(frames)
    threading.Timer(0.1, source.go_on.set).start()
    with pytest.raises(ImageError, match="bus reset"):
        next(frames)
    camera.close()
