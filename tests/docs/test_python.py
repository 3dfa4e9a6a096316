"""Python on a page does as it stands: names are there after the import that is shown, calls of detectors run.

The rows of coming_from.md are run by tests/yolo9000/test_coming_from.py, the tutorial by test_tutorial.py."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tests.docs import pages

_DOTTED = re.compile(r"\byolo9000(?:\.\w+)+")
_CALL = re.compile(r"detector\(photo, .*\)")


def code() -> list[tuple[str, str]]:
    """(page, code) of the Python on all pages: blocks, and calls between backquotes."""
    found = []
    for path in pages.PAGES:
        page = pages.read(path)
        found += [(page.name, block.text) for block in page.blocks if block.language == "python"]
        found += [(page.name, text) for text in page.inline if "(" in text]
    return found


def test_names_are_there_after_import_yolo9000():
    """In a new process, for here other tests have imported much already."""
    own_imports = re.compile(r"^\s*(?:from|import)\s+yolo9000\.\w+", re.MULTILINE)
    files = {"cfg", "weights", "onnx", "pt2", "safetensors"}
    names = {name for _, text in code() if not own_imports.search(text) for name in _DOTTED.findall(text)}
    names = {name for name in names if name.rpartition(".")[2] not in files}
    assert {"yolo9000.video.Camera", "yolo9000.images.read_image"} <= names
    program = "\n".join(["import yolo9000", *sorted(names)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", sorted({text for _, text in code() if _CALL.fullmatch(text)}))
def test_calls_of_a_detector_run(text):
    import yolo9000

    detector = yolo9000.Detector.load()
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    assert eval(text, {"detector": detector, "photo": photo}) is not None
