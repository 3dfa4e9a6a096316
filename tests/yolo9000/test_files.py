"""Files appear whole or not at all, whoever writes them and whatever goes wrong."""

import pytest
import torch
from PIL import Image

from tests.yolo9000.small import small_detector
from wordtree.files import written_whole
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


def test_a_network_on_its_way_out_of_memory_leaves_nothing(tmp_path, monkeypatch):
    """Whatever a writer raises half way, no part of a file stays behind."""
    net = small_detector("flat")

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.Tensor, "numpy", fail)
    with pytest.raises(RuntimeError):
        darknet.save(net, tmp_path / "x.weights")
    assert list(tmp_path.iterdir()) == []
