"""What the packages offer is typed: every public function says what it takes and gives, and a program that
uses them passes mypy --strict with those types."""

import importlib
import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("wordtree", "data_prep", "yolo9000")

# As a user writes it; each assert_type is one that mypy must find by itself.
PROGRAM = """
from pathlib import Path
from typing import Any, assert_type

import data_prep
import torch
import wordtree
import yolo9000
from PIL import Image
from wordtree import WordTree
from yolo9000 import Detection, Detections, Detector

detector = Detector.load()
assert_type(detector, Detector)
assert_type(yolo9000.Detector.load("model.safetensors"), Detector)
one = detector("photo.jpg")
assert_type(one, Detections)
many = detector([Path("a.jpg"), Image.new("RGB", (8, 8))], 0.3, tree_threshold=0.5)
assert_type(detector(sorted(Path().iterdir())), list[Detections])
assert_type(detector("photo.jpg", conf=0.3, imgsz=416), Detections)
assert_type(detector(b"JPEG"), Detections)
assert_type(detector(torch.zeros(3, 8, 8)), Detections)
assert_type(one[0], Detection)
assert_type(one[:3], Detections)
assert_type(many, list[Detections])
for found in one:
    assert_type(found, Detection)
    assert_type(found.name, str)
    assert_type(found.box_xyxy, tuple[float, float, float, float])
assert_type(one.to_json(), str)
assert_type(one.save("out.jpg"), Path)
assert_type(detector.tree, WordTree)

tree = WordTree.default()
assert_type(tree.path("dog"), tuple[str, ...])
assert_type(tree.lca("dog", "cat"), int | None)
assert_type(wordtree.graft(tree, "dog", "mine").tree, WordTree)

store = data_prep.Store("data.h5")
assert_type(store[0], data_prep.Sample)
assert_type(len(store), int)

try:
    detector("missing.jpg")
except yolo9000.ImageError as error:
    assert_type(error, yolo9000.ImageError)
except (wordtree.TreeError, data_prep.DataError, yolo9000.ModelError, yolo9000.TrainingError):
    pass
"""

# One mistake a line: a checker that took everything for Any would find none.
MISTAKES = """
import yolo9000
from wordtree import WordTree
from yolo9000 import Detector

Detector.load(model=3, mapped="yes")
Detector.load()("photo.jpg").boxes
WordTree.default().path("dog").append("x")
yolo9000.Detectr
Detector.load()("photo.jpg", threshold="high")
"""


def public() -> list[tuple[str, object]]:
    """Every function, class and public method of what the packages list in __all__."""
    found = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            one = getattr(module, name)
            if inspect.isfunction(one):
                found.append((f"{package}.{name}", one))
            elif inspect.isclass(one) and not issubclass(one, Exception):
                for method, value in vars(one).items():
                    value = getattr(value, "__func__", value)
                    value = value.fget if isinstance(value, property) else value
                    if inspect.isfunction(value) and (not method.startswith("_") or method == "__init__"):
                        found.append((f"{package}.{name}.{method}", value))
    return found


def test_the_lists_of_names_are_those_that_are_imported_when_used():
    for package in PACKAGES:
        module = importlib.import_module(package)
        lazy = set(module._HOME) | set(getattr(module, "_MODULES", ()))
        assert lazy <= set(module.__all__), package
        eager = {name for name in module.__all__ if name in vars(module)}
        assert set(module.__all__) <= lazy | eager, package


def test_every_public_function_is_typed():
    functions = public()
    assert len(functions) > 60
    for name, function in functions:
        if name.endswith(".__init__") and "__dataclass_fields__" in vars(
            getattr(sys.modules[function.__module__], function.__qualname__.split(".")[0], object)
        ):
            continue  # made of typed fields
        signature = inspect.signature(function)
        bare = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
        ]
        assert not bare, f"{name}: no type for {', '.join(bare)}"
        given = signature.return_annotation is not signature.empty or name.endswith(".__init__")
        assert given, f"{name}: no type of what it gives"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (extra `dev`)")
def test_a_program_that_uses_them_passes_mypy_strict(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py", "mistakes.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    wrong = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not [line for line in wrong if line.startswith("program.py")], done.stdout
    assert {line.split(":")[1] for line in wrong} == {"6", "7", "8", "9", "10"}, done.stdout
