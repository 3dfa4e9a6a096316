"""Every row of docs/coming_from.md does what it says, in the order of the page."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep import Store
from data_prep.cli import cli as data_prep_cli
from tests.yolo9000.small import picture, small_detector
from tests.yolo9000.test_train import CFG
from yolo9000 import cfg, darknet
from yolo9000.cli import cli as yolo9000_cli
from yolo9000.modelfile import save_model

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
_ROW = re.compile(r"^\| (.*?) \| `([^`]+)` \| (.*)\|$")
# Packages of rows that need one which may not be installed.
_OPTIONAL = {"to_pandas": "pandas", "to_supervision": "supervision", "from_supervision": "supervision"}
_OPTIONAL |= {"--source 0": "cv2", "best.onnx": "onnxscript"}


def rows() -> list[str]:
    """The second column of every table."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [_ROW.match(line) for line in lines if not line.startswith("| there |")]
    assert all(found), "a row without code in its second column"
    return [match[2] for match in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder that the page speaks of."""
    folder = tmp_path_factory.mktemp("coming")
    (folder / "pictures").mkdir()
    (folder / "labels").mkdir()
    things = Image.open(PAGE.parent / "pictures" / "run.jpg").convert(
        "RGB"
    )  # photographs, so something is found
    for name, photo in (("photo.jpg", things.resize((640, 480))), ("other.jpg", picture(1, 640, 480))):
        photo.save(folder / name)
        photo.save(folder / "pictures" / name)
        (folder / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.3 0.3 0.2 0.2\n")
    (folder / "data.yaml").write_text("names:\n  0: blot\n  1: stain\n")
    save_model(small_detector("rows"), folder / "best.safetensors")
    save_model(small_detector("rows"), folder / "models" / "mine" / "model.safetensors")
    net = small_detector("flat")
    darknet.save(net, folder / "small.weights")
    (folder / "small.cfg").write_text(cfg.format(net.spec))
    # Of the configuration of the tests of training, for two classes side by side.
    (folder / "toy.cfg").write_text(CFG.replace("filters=22", "filters=14").replace("classes=6", "classes=2"))
    toml = (
        'images = 8\nbatch = 4\nworkers = 0\nthreads = 1\n[model]\ncfg = "toy.cfg"\n[input]\nsizes = [64]\n'
    )
    (folder / "small.toml").write_text(toml + '[[data]]\nshare = 1\nkind = "boxed"\n')
    return folder


@pytest.fixture(scope="module")
def names() -> dict:
    """What the page begins with; lines build on one another."""
    start = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    space: dict = {}
    exec(start, space)
    return space


def marked(code: str) -> object:
    """Exporting to ONNX takes some ten seconds."""
    return pytest.param(code, marks=pytest.mark.slow) if code.startswith("yolo9000 export") else code


@pytest.mark.parametrize("code", [marked(code) for code in rows()])
def test_a_row(code, place, names, monkeypatch):
    monkeypatch.chdir(place)
    for word, package in _OPTIONAL.items():
        if word in code:
            pytest.importorskip(package, reason=f"{package} is not installed: this row was not run")
    if not code.startswith(("yolo9000 ", "data-prep ")):
        exec(code, names)
        return
    program, *words = shlex.split(code)
    command: click.Command = {"yolo9000": yolo9000_cli, "data-prep": data_prep_cli}[program]
    done = CliRunner().invoke(command, words)
    if "--source 0" in code:  # there may be no camera, which is said in a line
        assert done.exit_code == 0 or "camera" in str(done.exception or done.output)
        return
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


def test_what_the_rows_leave(place, names):
    if not (place / "report.html").exists():
        pytest.skip("the rows were not run before this")
    assert Image.open(place / "out.jpg").size == (640, 480)
    assert list((place / "runs/mine/sheets").iterdir())
    assert sum(map(len, names["results"])) > 0, "nothing was found: the rows about results tried nothing"
    assert len(Store(place / "corrected.h5")) == 2 and len(names["rows"]) == len(names["found"])
