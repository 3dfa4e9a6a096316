"""What --out of `yolo9000 detect` names, what an earlier run left there, and which things are models."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.yolo9000.small import picture, small_detector
from yolo9000 import Detector
from yolo9000.cli import detect
from yolo9000.draw import LONGEST_JPEG
from yolo9000.errors import ImageError, ModelError
from yolo9000.folders import RESULTS_NAME
from yolo9000.modelfile import read_info, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


def sources(out: str) -> list[str]:
    return [Path(one["source"]).name for one in json.loads(out)["pictures"]]


def test_one_picture_is_written_under_the_name_that_is_said(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    words = ("detect", tmp_path / "x.png", "--model", model)
    status, out, err = run(*words, "--out", tmp_path / "found.jpg")
    assert (status, err) == (0, "") and "1 picture in" in out
    run(*words, "--out", tmp_path / "folder")
    with Image.open(tmp_path / "found.jpg") as one, Image.open(tmp_path / "folder" / "x.png") as other:
        assert (one.format, one.size) == ("JPEG", other.size)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "found.jpg", "x.png"]


def test_a_picture_is_not_replaced_by_itself_with_boxes(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
    for out in ("x.png", "link.png"):
        status, _, err = run("detect", tmp_path / "x.png", "--model", model, "--out", tmp_path / out)
        assert status == 2 and "replaced by itself" in err
        assert (tmp_path / "x.png").read_bytes() == before


def test_what_no_jpeg_holds_is_written_as_png(run, model, tmp_path):
    Image.new("RGB", (LONGEST_JPEG + 1, 1)).save(tmp_path / "a.tif")
    Image.new("RGB", (LONGEST_JPEG, 1)).save(tmp_path / "b.tif")
    status, _, err = run("detect", tmp_path, "--model", model, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"a.png", "b.jpg", detect.JSON_NAME, RESULTS_NAME}
    status, out, err = run("detect", tmp_path / "a.tif", "--model", model, "--out", tmp_path / "a.jpg")
    assert (status, out) == (1, "") and "no JPEG has more than 65,500 a side; write a .png" in err
    assert not (tmp_path / "a.jpg").exists()


@pytest.mark.parametrize(
    ("pictures", "out", "remedy"),
    [
        (("a.png", "b.png"), "x.jpg", "there are 2"),
        (("a.png",), "x.mp4", "pictures are looked at"),
        (("film.mp4",), "x.gif", "a film is looked at"),
        (("a.png",), "x.json", "--json > "),
        (("a.png",), "x.jsonl", "--json-lines > "),
        (("a.png",), "x.parquet", "--output"),
    ],
)
def test_nobody_gets_a_folder_called_as_a_file(pictures, out, remedy, run, model, tmp_path):
    for name in pictures:
        picture().save(tmp_path / name, format="PNG")
    words = [tmp_path / name for name in pictures]
    status, printed, err = run("detect", *words, "--model", model, "--out", tmp_path / out)
    assert (status, printed) == (2, "") and remedy in err and not (tmp_path / out).exists()
    (tmp_path / out).mkdir()  # a folder that is there is a folder, whatever it is called
    if pictures[0] != "film.mp4":
        assert run("detect", *words, "--model", model, "--out", tmp_path / out)[0] == 0


def test_results_of_an_earlier_run_are_not_looked_at_again(run, model, tmp_path, monkeypatch):
    (tmp_path / "in" / "below").mkdir(parents=True)
    picture(1).save(tmp_path / "in" / "a.png")
    picture(2).save(tmp_path / "in" / "below" / "b.jpg")
    monkeypatch.chdir(tmp_path / "in")
    words = ("--model", model, "--json")
    first = json.loads(run("detect", ".", *words)[1])["pictures"]
    for out in ("found", "."):  # the second beside the originals, of which a.png is one
        for _ in range(2):
            status, text, _ = run("detect", ".", *words, "--out", out)
            assert status == 0
            assert [{**one, "picture": 0} for one in json.loads(text)["pictures"]] == [
                {**one, "picture": 0} for one in first
            ]
    status, text, err = run("detect", "below", "found", *words)
    assert sources(text) == ["b.jpg", "a.png", "b.jpg"] and err == ""  # said by name, so meant
    assert sources(run("detect", "found/*.png", *words)[1]) == ["a.png"]
    assert sources(run("detect", "found/b.jpg", ".", *words)[1]) == ["b.jpg", "a.png", "b.jpg"]
    _, _, err = run("detect", ".", *words)
    assert err == "left out 4 with boxes that an earlier run wrote\n"


def test_results_are_known_from_any_folder_and_after_any_number_of_runs(run, model, tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "photos" / "found"
    (photos / "below").mkdir(parents=True)
    picture(1).save(photos / "a.png")
    picture(2).save(photos / "below" / "b.png")
    monkeypatch.chdir(photos)
    for name in ("a.png", "below"):  # the second run's results are not the first's
        assert run("detect", name, "--model", model, "--out", "found")[0] == 0
        assert run("detect", name, "--model", model, "--out", ".")[0] == 0
    assert sorted(file.name for file in out.glob("*.png")) == ["a.png", "b.png"]
    assert sorted(file.name for file in photos.glob("*.png")) == ["a-2.png", "a.png", "b.png"]
    for place in (photos, out, tmp_path):
        monkeypatch.chdir(place)
        assert sources(run("detect", photos, "--model", model, "--json")[1]) == ["a.png", "b.png"]
    (out / RESULTS_NAME).unlink()  # copied without hidden files: what the last run wrote is known still
    assert sources(run("detect", photos, "--model", model, "--json")[1]) == ["a.png", "b.png", "a.png"]
    (photos / "a.png").rename(photos / "below" / "a.png")
    words = ("--model", model, "--json")  # results beside nothing but folders of originals
    assert sources(run("detect", photos, *words, "--out", photos)[1]) == ["a.png", "b.png", "a.png"]
    assert sources(run("detect", photos, *words)[1]) == ["a.png", "b.png", "a.png"]


def test_what_takes_the_place_of_a_result_is_an_original(run, model, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "found"
    photos.mkdir()
    for k, name in enumerate("ab"):
        picture(k).save(photos / f"{name}.png")
    words = ("detect", photos, "--model", model)
    assert run(*words, "--out", out)[0] == 0
    with (out / RESULTS_NAME).open("a") as file:
        file.write("half a li")  # of a disk that was full
    (out / detect.JSON_NAME).unlink()
    picture(7, 90, 50).save(out / "a.png")
    own = (out / "a.png").read_bytes()
    assert sources(run("detect", out, *words[2:], "--json")[1]) == ["a.png"]
    assert run(*words, "--out", out)[0] == 0
    assert (out / "a.png").read_bytes() == own
    assert sorted(file.name for file in out.glob("*.png")) == ["a-2.png", "a.png", "b.png"]
    assert sources(run("detect", out, *words[2:], "--json")[1]) == ["a.png"]


def test_a_picture_that_vanishes_before_it_is_drawn_is_passed_over(run, model, tmp_path, monkeypatch):
    for name in "abc":
        picture(ord(name)).save(tmp_path / f"{name}.png")
    fit = Detector.fit

    def fit_and_lose(self, path, size):
        fitted = fit(self, path, size)
        if path.stem == "b":
            path.unlink()
        return fitted

    monkeypatch.setattr(Detector, "fit", fit_and_lose)
    words = ("detect", tmp_path, "--model", model, "--out", tmp_path / "out", "--json")
    status, out, err = run(*words)
    assert (status, sources(out)) == (1, ["a.png", "c.png"])
    assert err == f"skipped: {tmp_path / 'b.png'}: no such file\n"
    assert sorted(file.name for file in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]


def test_nothing_but_an_earlier_runs_results_is_replaced(run, model, tmp_path):
    picture(1).save(tmp_path / "a.webp")
    (tmp_path / "a.jpg").write_bytes(b"the user's own")
    for _ in range(2):
        assert run("detect", tmp_path / "a.webp", "--model", model, "--out", tmp_path)[0] == 0
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            RESULTS_NAME,
            "a-2.jpg",
            "a.jpg",
            "a.webp",
            detect.JSON_NAME,
        ]
        assert (tmp_path / "a.jpg").read_bytes() == b"the user's own"


def test_a_foreign_file_of_that_name_leaves_nothing_out(run, model, tmp_path):
    picture(1).save(tmp_path / "a.png")
    for text in ("", "[]", '{"pictures": [{"picture": "a.png"}]}', "[" * 3000, '{"pictures": 3}'):
        (tmp_path / detect.JSON_NAME).write_text(text)
        status, out, err = run("detect", tmp_path, "--model", model, "--json")
        assert (status, sources(out), err) == (0, ["a.png"], "")


def test_a_runs_folder_is_its_model(run, model, tmp_path):
    picture(3).save(tmp_path / "x.png")
    words = ("detect", tmp_path / "x.png", "--json", "--model")
    assert run(*words, model.parent) == run(*words, model)
    assert read_info(model.parent) == read_info(model)
    assert Detector.load(model.parent).tree == Detector.load(model).tree
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: a folder without model\.safetensors"):
        Detector.load(tmp_path / "empty")
    status, _, err = run(*words, tmp_path / "empty")
    assert status == 1 and "no checkpoint" in err and err.count("\n") == 1
    shutil.copy(tmp_path / "x.png", tmp_path / "best.pt")
    status, _, err = run(*words, tmp_path / "best.pt")
    assert status == 1 and "best.pt" in err and err.count("\n") == 1


def test_a_stream_is_followed_to_its_end(run, model, tmp_path):
    pytest.importorskip("cv2", reason="films need OpenCV (the extra `video`)")
    from tests.yolo9000.test_video import write
    from yolo9000.video import Camera

    write(tmp_path / "film.avi", 5)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://name:secret@127.0.0.1:{server.server_port}"
        camera = Camera(f"{address}/film.avi")
        seen = sum(1 for _ in camera) + camera.dropped
        camera.close()
        assert seen == 5
        status, out, err = run("detect", "--source", f"{address}/film.avi", "--model", model, "--json-lines")
        assert status == 0 and len(out.splitlines()) + int(err.split(" frames, ")[1].split()[0]) == 5
        with pytest.raises(ImageError, match=r"http://127[^@]*/no\.avi is not there") as error:
            Camera(f"{address}/no.avi")
        assert "secret" not in str(error.value)
        server.shutdown()


def test_a_stream_goes_with_source(run, model):
    for words, remedy in (
        (["rtsp://host//live"], "--source rtsp"),
        (["a.jpg", "--source", "rtsp://host//live"], "pictures or a stream"),
    ):
        status, out, err = run("detect", *words, "--model", model)
        assert (status, out) == (2, "") and remedy in err


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["detcet"], "Did you mean 'detect'?"),
        (["predict", "x.jpg"], "Did you mean 'detect'?"),
        (["val"], "Did you mean 'eval'?"),
        (["xyz"], "No such command"),
        (["detect", "x.jpg", "--vocabulary", "my list.txt"], "my list.txt: no such file"),
        (["detect", "--vocabulary", "dgo"], "Missing argument"),
    ],
)
def test_what_is_mistyped(words, remedy, run):
    status, out, err = run(*words)
    assert (status, out) == (2, "") and remedy in err


def test_a_typo_in_a_vocabulary_and_a_word_in_place_of_a_list(model, run, tmp_path):
    picture().save(tmp_path / "x.png")
    status, _, err = run("detect", tmp_path / "x.png", "--model", model, "--vocabulary", "vehcile")
    assert status == 2 and "did you mean" in err and "vehicle" in err
    with pytest.raises(ValueError, match=r"give a list: \['vehicle'\]"):
        Detector.load(model)(tmp_path / "x.png", vocabulary="vehicle")


def test_short_and_long_help_are_one(run):
    assert run("-h") == run("--help") and run("detect", "-h") == run("detect", "--help")


def test_a_link_to_nothing_is_a_picture_that_is_missed(run, model, tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")
    status, out, err = run("detect", tmp_path, "--model", model, "--json")
    assert status == 1 and sources(out) == ["a.png", "c.png"]
    assert err == f"skipped: {tmp_path / 'b.png'}: no such file\n"
