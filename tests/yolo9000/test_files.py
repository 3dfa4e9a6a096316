"""Files appear whole or not at all, whoever writes them and whatever goes wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.yolo9000.small import small_detector
from wordtree.files import check_target, written_whole
from yolo9000 import darknet
from yolo9000.cli import _pictures
from yolo9000.draw import save_picture
from yolo9000.errors import ImageError, ModelError
from yolo9000.modelfile import save_model

WRITERS = {
    "x.weights": (lambda path: darknet.save(small_detector("flat"), path), ModelError),
    "x.safetensors": (lambda path: save_model(small_detector("flat"), path), ModelError),
    "x.png": (lambda path: save_picture(Image.new("RGB", (4, 3)), path), ImageError),
    "x.json": (lambda path: _pictures.write_text(path, "{}"), ImageError),
}


class BoomError(Exception):
    pass


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x"
    with written_whole(path, BoomError) as part:
        part.write_text("one")
        assert not path.exists() and part.parent == path.parent
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", [KeyError, KeyboardInterrupt, OSError])
def test_an_older_file_survives_whatever_happens(fault, tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(BoomError if fault is OSError else fault), written_whole(path, BoomError) as part:
        part.write_text("ne")
        raise fault("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_writers_make_the_folder_and_say_what_is_in_the_way(name, tmp_path):
    write, error = WRITERS[name]
    write(tmp_path / "new" / name)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]
    (tmp_path / "file").write_text("")
    (tmp_path / name).mkdir()
    for bad in (tmp_path / "file" / name, tmp_path / name, tmp_path / ("a" * 300 + name)):
        with pytest.raises(error, match="cannot be written") as caught:
            write(bad)
        assert str(bad) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["new", "file", name])


def test_a_device_is_not_replaced(tmp_path):
    with pytest.raises(BoomError, match="no plain file"), written_whole("/dev/null", BoomError):
        pass
    with pytest.raises(BoomError, match="cannot be written"), written_whole("/", BoomError):
        pass


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x", True),
        ("new/newer/x", True),
        ("old", True),
        ("old/x", False),
        ("old/new/x", False),
        ("lost/x", False),
        ("a" * 300, False),
        ("/proc/x", False),
        ("/proc/new/x", False),
    ],
)
def test_what_cannot_be_written_is_told_beforehand(name, fits, tmp_path, monkeypatch):
    """In the words in which writing says it; and nothing is made by asking."""
    if name.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    monkeypatch.chdir(tmp_path)
    Path("old").write_text("old")
    Path("lost").symlink_to("nowhere")
    before, asked = sorted(tmp_path.iterdir()), []
    for ask in (lambda: check_target(name, BoomError), lambda: _written(name)):
        try:
            ask()
            asked.append("")
        except BoomError as error:
            asked.append(str(error).partition("(")[0])
        if len(asked) == 1:
            assert sorted(tmp_path.iterdir()) == before and Path("old").read_text() == "old"
    assert asked[0] == asked[1] == ("" if fits else f"{name}: cannot be written ")


def _written(name):
    with written_whole(name, BoomError) as part:
        part.write_text("new")


def test_a_network_on_its_way_out_of_memory_leaves_nothing(tmp_path, monkeypatch):
    """Whatever a writer raises half way, no part of a file stays behind."""
    net = small_detector("flat")

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.Tensor, "numpy", fail)
    with pytest.raises(RuntimeError):
        darknet.save(net, tmp_path / "x.weights")
    assert list(tmp_path.iterdir()) == []
