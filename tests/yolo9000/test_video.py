"""Films frame by frame, cameras by their newest frame, and films written whole or not at all."""

import json
import queue
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.yolo9000.slowed import slowed
from tests.yolo9000.small import small_detector
from yolo9000 import Detector, video
from yolo9000.cli import _films, detect
from yolo9000.cli._answers import Answers
from yolo9000.errors import ImageError
from yolo9000.folders import RESULTS_NAME
from yolo9000.images import MAX_SIDE
from yolo9000.modelfile import save_model
from yolo9000.signals import sigterm_as_ctrl_c
from yolo9000.video import Camera, Film, Recorder

cv2 = pytest.importorskip("cv2", reason="films need OpenCV (the extra `video`)")

SIZE = (96, 64)  # width, height
NAMES = [RESULTS_NAME, "detections.json"]  # what a folder of results has beside these


def frame(k: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Grey that tells the frame, a red left and a blue right half of the upper part."""
    width, height = size
    made = np.full((height, width, 3), 20 + 8 * k, np.uint8)
    made[: height // 2, : width // 2] = (200, 0, 0)
    made[: height // 2, width // 2 :] = (0, 0, 200)
    return made


def write(path: Path, count: int, rate: float = 10.0) -> Path:
    with Recorder(path, SIZE, rate) as film:
        for k in range(count):
            film.write(frame(k))
    return path


def grey(one: np.ndarray) -> float:
    return float(one[-8:].mean())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("film") / "film.mp4", 12)


class Behind:
    """A capture that says other times."""

    def __init__(self, capture: video.Capture, time) -> None:
        self.capture, self.time = capture, time

    def read(self):
        return self.capture.read()

    def get(self, which: int) -> float:
        return self.time() if which == cv2.CAP_PROP_POS_MSEC else self.capture.get(which)

    def release(self) -> None:
        self.capture.release()


class Hand:
    """A camera moved by hand: `show` gives a frame and returns when it was taken in."""

    def __init__(self) -> None:
        self._given: queue.Queue = queue.Queue()
        self.reads, self.released = 0, False
        self._asked = threading.Condition()

    def read(self):
        with self._asked:
            self.reads += 1
            self._asked.notify_all()
        one = self._given.get()
        return one is not None, None if one is None else one[:, :, ::-1].copy()

    def get(self, which: int) -> float:
        return 10.0 if which == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released = True

    def put(self, one: np.ndarray | None) -> None:
        self._given.put(one)

    def show(self, one: np.ndarray) -> None:
        with self._asked:
            wanted = self.reads + 1
            self._given.put(one)
            assert self._asked.wait_for(lambda: self.reads >= wanted, 10)


def test_frames_have_their_own_times_where_the_rate_changes(run, model, tmp_path):
    slowed(write(tmp_path / "film.mp4", 8), first=5, factor=7)
    wanted = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.2, 1.9]
    film = Film(tmp_path / "film.mp4")
    next(film)
    assert len(list(film)) == 7  # it goes on where it was
    np.testing.assert_allclose(film.seconds, wanted, atol=1e-3)
    words = ("--model", model, "--out", tmp_path / "out.mp4", "--json")
    status, out, err = run("detect", tmp_path / "film.mp4", *words)
    assert (status, err) == (0, "")
    seconds = [one["seconds"] for one in json.loads(out)["pictures"]]
    np.testing.assert_allclose(seconds, wanted, atol=2e-3)
    assert Film(tmp_path / "out.mp4").expected == 8


def test_times_that_cannot_be_are_counted_by_the_rate(film, monkeypatch):
    opened = Film(film)
    times = iter([100.0, 90.0, float("nan"), 350.0])
    monkeypatch.setattr(opened, "_capture", Behind(opened._capture, lambda: next(times)))
    for _ in range(5):
        next(opened)
    np.testing.assert_allclose(opened.seconds, [0, 0.1, 0.2, 0.3, 0.35])


@pytest.mark.parametrize("suffix", sorted(video.CODECS))
def test_what_is_written_is_read(suffix, tmp_path):
    film = Film(write(tmp_path / f"film{suffix}", 9, 12.5))
    assert (film.size, film.rate, film.expected) == (SIZE, 12.5, 9)
    frames = list(film)
    assert list(film) == [] and len(film.seconds) == len(frames) == 9
    np.testing.assert_allclose(film.seconds, np.arange(9) / 12.5, atol=1e-3)
    for k, one in enumerate(frames):
        assert one.shape == (64, 96, 3) and one.dtype == np.uint8
        np.testing.assert_allclose(grey(one), 20 + 8 * k, atol=4)
        red, blue = one[4:24, 4:40].mean((0, 1)), one[4:24, -40:-4].mean((0, 1))
        assert red[0] > 150 > 60 > red[2] and blue[2] > 150 > 60 > blue[0]  # RGB, not BGR
    assert [path.name for path in tmp_path.iterdir()] == [f"film{suffix}"]


def test_what_is_no_film(tmp_path, film):
    for name, data in (
        ("empty.mp4", b""),
        ("text.mp4", b"hello"),
        ("cut.mp4", film.read_bytes()[:500]),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name):
            Film(tmp_path / name)
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(ImageError, match="no such film"):
            Film(path)


def test_an_interrupted_film_leaves_the_older_one(tmp_path):
    path = tmp_path / "film.avi"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), Recorder(path, SIZE, 10) as film:
        film.write(frame(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1
    with Recorder(path, SIZE, 10):
        pass  # no frame is no film
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), Recorder(path, SIZE, 10) as film:
        film.write(frame(0))
        film.keep()
        raise KeyboardInterrupt
    assert len(list(Film(path))) == 1


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ImageError, match=r"\.gif.*written as"):
        Recorder(tmp_path / "film.gif", SIZE, 10)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ImageError, match="no plain file"):
        Recorder(tmp_path / "folder.mp4", SIZE, 10)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="cannot be written"):
        Recorder(tmp_path / "file" / "film.mp4", SIZE, 10)
    with pytest.raises(ImageError, match="a frame of"), Recorder(tmp_path / "film.mp4", SIZE, 10) as film:
        film.write(frame(0, (32, 32)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_a_film_that_was_cut_by_a_full_disk_is_no_film(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "film.mp4", SIZE, 10)
    with pytest.raises(ImageError, match="is the disk full"), recorder:
        for k in range(5):
            recorder.write(frame(k))
        recorder._writer.release()
        (part,) = tmp_path.iterdir()
        part.write_bytes(part.read_bytes()[:300])
    assert list(tmp_path.iterdir()) == []


def test_frames_seen_at_odd_times_run_at_the_speed_of_life(tmp_path):
    with Recorder(tmp_path / "film.avi", SIZE, 10) as film:
        for k, seconds in ((0, 0.0), (1, 0.31), (2, 0.35), (3, 0.9)):
            film.write(frame(10 * (k % 2)), seconds)
    shown = [grey(one) > 60 for one in Film(tmp_path / "film.avi")]
    # Frame 1 is there until 0.31 s; 2 comes within the same tenth and gets the next; 3 lasts until 0.9 s.
    assert shown == [False] + [True] * 3 + [False] + [True] * 5


def test_a_camera_gives_the_newest_frame_and_counts_the_others():
    hand = Hand()
    hand.put(frame(0))
    camera = Camera(hand)
    frames = iter(camera)
    assert grey(next(frames)) == 20 and camera.size == SIZE and camera.rate == 10
    for k in (1, 2, 3):
        hand.show(frame(k))  # nobody asks
    assert grey(next(frames)) == 20 + 8 * 3 and camera.dropped == 2
    hand.show(frame(4))
    assert grey(next(frames)) == 20 + 8 * 4 and camera.dropped == 2
    hand.show(frame(5))
    hand.put(None)  # unplugged: what was seen is still given
    assert [grey(one) for one in frames] == [20 + 8 * 5]
    camera.close()
    assert hand.released and not camera._thread.is_alive()


def test_a_camera_that_is_waited_for_wakes_its_reader_and_closes():
    hand = Hand()
    hand.put(frame(0))
    camera = Camera(hand)
    frames, found = iter(camera), []
    next(frames)
    thread = threading.Thread(target=lambda: found.append(grey(next(frames))))
    thread.start()
    hand.show(frame(1))
    thread.join(10)
    assert found == [28]
    thread = threading.Thread(target=lambda: found.append(next(frames, "ended")))
    thread.start()
    hand.put(frame(2))  # so that the driver's read returns
    camera.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_camera_that_is_not_there():
    hand = Hand()
    hand.put(None)
    with pytest.raises(ImageError, match="gives no picture"):
        Camera(hand)
    assert hand.released


def test_a_film_is_detected_on_frame_by_frame(run, model, film, tmp_path):
    detector = Detector.load(model)
    wanted = [detector(one).to_dict() for one in Film(film)]
    assert sum(len(one["detections"]) for one in wanted) > 0
    status, out, err = run("detect", film, "--model", model, "--out", tmp_path / "out.mp4", "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert [one.pop("frame") for one in result["pictures"]] == list(range(12))
    assert [one.pop("seconds") for one in result["pictures"]] == [k / 10 for k in range(12)]
    assert {one["source"] for one in result["pictures"]} == {str(film)}
    for one, other in zip(result["pictures"], wanted, strict=True):
        assert [box["node"] for box in one["detections"]] == [box["node"] for box in other["detections"]]
        for box, expected in zip(one["detections"], other["detections"], strict=True):
            assert box["score"] == pytest.approx(expected["score"], abs=1e-4)
            assert box["box_xyxy"] == pytest.approx(expected["box_xyxy"], abs=0.05)
    drawn = list(Film(tmp_path / "out.mp4"))
    assert len(drawn) == 12 and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert any(np.abs(a.astype(int) - b).max() > 60 for a, b in zip(drawn, Film(film), strict=True))


def test_a_film_into_a_folder_in_lines_and_cut_short(run, model, film, tmp_path):
    words = ("detect", "--source", film, "--model", model, "--frames", 5)
    status, out, err = run(*words, "--json-lines")
    assert (status, err) == (0, "")
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(5))
    status, out, err = run(*words, "--out", tmp_path / "found")
    assert (status, err) == (0, "") and "frame 4  0.40 s  96 x 64" in out and "5 frames in" in out
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [*NAMES, "film.mp4"]
    assert len(json.loads((tmp_path / "found" / "detections.json").read_text())["pictures"]) == 5


def ended(monkeypatch, frames: int, how: type[BaseException]) -> None:
    """Films end so after so many frames."""
    given = Film.__next__

    def next_or_not(self: Film) -> np.ndarray:
        if len(self.seconds) == frames:
            raise how
        return given(self)

    monkeypatch.setattr(Film, "__next__", next_or_not)


def test_a_film_that_breaks_off_is_told(run, model, film, tmp_path, monkeypatch):
    ended(monkeypatch, 3, StopIteration)
    status, out, err = run("detect", film, "--model", model, "--json-lines")
    assert status == 0 and len(out.splitlines()) == 3
    assert "ends after 3 frames of the 12 it claims" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a.mp4", "b.jpg"), "one film at a time"),
        (("a.jpg", "--source", "0"), "either pictures or a camera"),
        (("a.jpg", "--frames", "3"), "--frames goes with"),
        (("a.jpg", "--json", "--json-lines"), "either --json or --json-lines"),
        ((), "which pictures"),
    ],
)
def test_what_does_not_go_together(run, model, words, reason):
    status, out, err = run("detect", *words, "--model", model)
    assert (status, out) == (2, "") and reason in err


def test_a_film_does_not_replace_itself(run, model, film, tmp_path):
    before = film.read_bytes()
    for out in (film, film.parent):
        status, _, err = run("detect", film, "--model", model, "--out", out)
        assert status == 2 and "would replace" in err
    status, _, err = run("detect", tmp_path / "none.mp4", "--model", model, "--out", tmp_path / "out.mp4")
    assert status == 1 and "no such film" in err
    assert film.read_bytes() == before and list(tmp_path.iterdir()) == []


def test_a_film_in_a_folder_replaces_an_earlier_runs_alone(run, model, film, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"the user's own")
    for frames in (5, 3):
        words = ("detect", film, "--model", model, "--frames", frames, "--out", tmp_path)
        assert run(*words)[0] == 0 and len(list(Film(tmp_path / "film-2.mp4"))) == frames
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *NAMES,
            "film-2.mp4",
            "film.mp4",
        ]
        assert (tmp_path / "film.mp4").read_bytes() == b"the user's own"


def test_an_interrupted_film_is_not_left_in_halves(run, model, film, tmp_path, monkeypatch):
    ended(monkeypatch, 4, KeyboardInterrupt)
    status, _, err = run("detect", film, "--model", model, "--out", tmp_path)
    assert status == 130 and err.strip() == "interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "signalled", [signal.default_int_handler, lambda *_: signal.raise_signal(signal.SIGTERM)]
)
def test_a_camera_ends_by_ctrl_c_with_its_film(signalled, model, tmp_path, capsys):
    """Frames come by hand, time from a list: what is dropped and how long frames last is certain."""
    hand, times = Hand(), iter((100.0, 100.0, 100.5, 101.2))
    hand.put(frame(0))
    detector = Detector.load(model)

    class Interrupted(Answers):
        def add(self, record, text):
            super().add(record, text)
            if self.count == 3:
                signalled(signal.SIGINT, None)
            for k in range(2):  # while this result was made two frames came
                hand.show(frame(2 * self.count + k))

    answers = Interrupted("lines")
    with sigterm_as_ctrl_c():
        _films.detect(
            detector, detector.options(), hand, answers, tmp_path / "live.avi", None, lambda: next(times)
        )
    out, err = capsys.readouterr()
    assert err == "3 frames, 2 dropped\n"
    assert [json.loads(line)["seconds"] for line in out.splitlines()] == [0.0, 0.5, 1.2]
    assert len(list(Film(tmp_path / "live.avi"))) == 13  # 1.2 s at 10 a second, both ends
    assert hand.released


def test_a_frame_that_cannot_be_looked_at_ends_a_film_with_its_reason(model, tmp_path):
    hand = Hand()
    hand.put(np.zeros((1, MAX_SIDE + 1, 3), np.uint8))
    hand.put(None)
    detector, answers = Detector.load(model), Answers("lines")
    failed = _films.detect(detector, detector.options(), hand, answers, None, None)
    assert isinstance(failed, ImageError) and "of which a side has at most" in str(failed)
    assert hand.released


def test_names_of_films_are_told_alike():
    assert set(detect.FILMS) == video.SUFFIXES


def test_without_opencv_the_extra_is_named(run, model, film, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    status, _, err = run("detect", film, "--model", model)
    assert status == 1 and "yolo9000[video]" in err
