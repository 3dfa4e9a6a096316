"""`yolo9000 detect` on many pictures: results as they are done, in order, whole when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.yolo9000.small import picture, small_detector
from yolo9000.cli import _pictures, detect
from yolo9000.errors import ImageError
from yolo9000.folders import RESULTS_NAME
from yolo9000.modelfile import save_model

no_windows = pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to one process there")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """30 pictures, the tenth of which is none."""
    made = tmp_path_factory.mktemp("pictures")
    for k in range(30):
        picture(k, 60 + k, 50).save(made / f"{k:02d}.png")
    (made / "10.png").write_bytes(b"no picture")
    return made


def test_lines_and_json_say_the_same_in_the_order_of_the_files(run, model, folder, tmp_path):
    status, lines, err = run("detect", folder, "--model", model, "--json-lines")
    assert status == 1 and err.count("skipped: ") == 1
    rows = [json.loads(line) for line in lines.splitlines()]
    skipped = [row["skipped"] for row in rows if "skipped" in row]
    found = [row for row in rows if "skipped" not in row]
    assert [Path(row["source"]).name for row in found] == [f"{k:02d}.png" for k in range(30) if k != 10]
    status, text, _ = run("detect", folder, "--model", model, "--json", "--out", tmp_path)
    result = json.loads(text)
    assert list(result) == ["pictures", "skipped"] and result["skipped"] == skipped
    assert json.loads((tmp_path / detect.JSON_NAME).read_text()) == result
    assert text == json.dumps(result, indent=2, ensure_ascii=False) + "\n"  # as if written at once
    for row, one in zip(result["pictures"], found, strict=True):
        assert row.pop("picture") == Path(row["source"]).name
        assert row == one
    assert len(list(tmp_path.glob("*.png"))) == 29


def test_names_are_given_in_the_order_of_the_files(run, model, tmp_path):
    for name in ("a/x.png", "b/x.png", "c/x.png"):
        (tmp_path / name).parent.mkdir()
        picture(ord(name[0])).save(tmp_path / name)
    (tmp_path / "b" / "x.png").write_bytes(b"bad")  # a picture that is none takes no name
    run("detect", tmp_path / "a", tmp_path / "b", tmp_path / "c", "--model", model, "--out", tmp_path / "out")
    result = json.loads((tmp_path / "out" / detect.JSON_NAME).read_text())
    assert [row["picture"] for row in result["pictures"]] == ["x.png", "x-2.png"]


def linked(folder: Path, many: Path, files: int, names: int = 3000) -> Path:
    """A new folder with so many names for the first few files."""
    many.mkdir()
    for k in range(names):
        (many / f"{k:04d}.png").hardlink_to(folder / f"{k % files:02d}.png")
    return many


def stopped(words: list, number: int) -> tuple[int, list[str], str]:
    """(status, lines of stdout, stderr) of `detect` that gets a signal when it has said its first line."""
    command = [sys.executable, "-m", "yolo9000", "detect", *words]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a background job ignores it
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    try:
        first = process.stdout.readline()
        process.send_signal(number)
        # Not communicate(), which knows nothing of what readline() has read beyond its line.
        rest, err = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    finally:
        process.kill()
    return process.returncode, (first + rest).splitlines(), err


@no_windows
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_whole_lines_and_whole_files(number, model, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / detect.JSON_NAME).write_text("older")
    words = [linked(folder, tmp_path / "many", 9), "--model", model, "--json-lines", "--out", out]
    status, lines, err = stopped(words, number)
    assert status == 130 and err.strip() == "interrupted"
    rows = [json.loads(line) for line in lines]
    assert 0 < len(rows) < 3000
    assert (out / detect.JSON_NAME).read_text() == "older"
    names = {file.name for file in out.iterdir()} - {detect.JSON_NAME, RESULTS_NAME}
    assert not [name for name in names if name.startswith(".")]
    assert {row["picture"] for row in rows} <= names  # what was told of is there
    for name in names:
        with Image.open(out / name) as drawn:
            drawn.load()


@no_windows
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_whole_document(number, model, folder, tmp_path):
    many = linked(folder, tmp_path / "many", 11)  # one of eleven is no picture
    status, lines, err = stopped([many, "--model", model, "--json"], number)
    assert status == 130 and err.splitlines()[-1] == "interrupted"
    result = json.loads("\n".join(lines))
    assert list(result) == ["pictures", "skipped", "unfinished"] and result["unfinished"] is True
    assert 0 < len(result["pictures"]) < 3000
    told = [line.removeprefix("skipped: ") for line in err.splitlines() if line.startswith("skipped: ")]
    # stderr hears of one first, and the signal may come between the two.
    assert told[: len(result["skipped"])] == result["skipped"] and len(told) - len(result["skipped"]) <= 1


@pytest.mark.parametrize("place", range(1, 4))
def test_a_document_is_ended_wherever_it_is_interrupted(place, run, model, folder, monkeypatch):
    """Within a piece, which is then written whole first."""
    put, said = _pictures.put, []

    def interrupted(text):
        said.append(text)
        if len(said) == place:
            signal.raise_signal(signal.SIGINT)
        put(text)

    monkeypatch.setattr(_pictures, "put", interrupted)
    status, out, _ = run("detect", folder / "00.png", folder / "01.png", "--model", model, "--json")
    assert status == 130
    result = json.loads(out)  # the third piece is the end itself, and with it the document is finished
    assert len(result["pictures"]) == min(place, 2) and ("unfinished" in result) == (place < 3)


@no_windows
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_put_is_put_whole_whoever_reads_slowly(unbuffered):
    """A signal ends the system's write half way; PYTHONUNBUFFERED has no buffer that would go on."""
    script = (
        "from yolo9000.cli._pictures import put; from yolo9000.signals import caught_signals\n"
        "with caught_signals() as caught:\n    put('x' * 500_000); put(str(caught))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    said = os.read(child.stdout.fileno(), 4096)
    time.sleep(0.5)  # the pipe is full by now
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    said += child.communicate(timeout=60)[0]
    assert said.decode() == "x" * 500_000 + "['SIGINT']"


@no_windows
def test_a_run_that_was_killed_leaves_no_result_that_is_taken_for_an_original(run, model, folder, tmp_path):
    photos = linked(folder, tmp_path / "photos", 9, 300)
    out = photos / "found"
    words = (photos, "--model", model, "--json-lines")
    assert stopped([*words, "--out", out], signal.SIGKILL)[0] == -signal.SIGKILL
    left = {file.name for file in out.glob("[0-9]*.png")}
    assert 0 < len(left) < 300 and not (out / detect.JSON_NAME).exists()
    status, lines, err = run("detect", *words)
    assert status == 0 and f"left out {len(left)} with boxes" in err
    found = [Path(json.loads(line)["source"]) for line in lines.splitlines()]
    assert found == sorted(photos.glob("*.png")) and len(found) == 300
    run("detect", photos / "0299.png", photos / "0000.png", "--model", model, "--out", out)
    names = {file.name for file in out.glob("[0-9]*.png")}
    assert names == left | {"0299.png", "0000.png"}  # replaced, not numbered


def test_a_folder_that_fills_up_ends_the_command_with_a_line(run, model, folder, tmp_path, monkeypatch):
    saved = []

    def save(_, path):
        if len(saved) == 5:
            raise ImageError(f"{path}: cannot be written (No space left on device)")
        saved.append(path)
        return path

    monkeypatch.setattr("yolo9000.draw.save_picture", save)
    status, _, err = run("detect", folder, "--model", model, "--out", tmp_path)
    assert status == 1 and err.startswith("error: ") and "No space left" in err and err.count("\n") == 1
    assert not (tmp_path / detect.JSON_NAME).exists()
