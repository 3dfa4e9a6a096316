"""docs/tutorial.md: every command on it runs, in its order, and comes to what the page says."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages

PAGE = pages.read(pages.ROOT / "docs" / "tutorial.md")


def lines() -> list[list[str]]:
    """The commands of the page, in order; what installs the package is left out."""
    found = []
    for block in PAGE.blocks:
        if block.language == "sh":
            found += [shlex.split(line, comments=True) for line in block.text.split("\n") if line.strip()]
    return [words for words in found if words[0] != "pip"]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    """One command line of the page, by the interpreter that runs the tests."""
    if words[0].startswith("scripts/"):
        words = [sys.executable, str(pages.ROOT / words[0]), *words[1:]]
    elif (program := Path(sys.executable).with_name(words[0])).exists():
        words = [str(program), *words[1:]]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
    )


def test_the_page_has_what_is_run():
    programs = [words[0] for words in lines()]
    assert programs[0] == "scripts/draw_shapes" and len(programs) >= 12
    assert set(programs) == {"scripts/draw_shapes", "wordtree", "data-prep", "yolo9000"}
    assert [block.title for block in PAGE.blocks if block.language == "toml"] == ["shapes.toml"]


def test_drawn_pictures_are_what_the_page_says(tmp_path):
    ran = run(["scripts/draw_shapes", "x", "--labels", "2", "--held-out", "10"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    again = run(["scripts/draw_shapes", "y", "--labels", "2", "--held-out", "10"], tmp_path)
    assert again.returncode == 0
    files = sorted(p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*") if p.is_file())
    assert all((tmp_path / "x" / f).read_bytes() == (tmp_path / "y" / f).read_bytes() for f in files)
    boxes = json.loads((tmp_path / "x/boxes.json").read_text())
    split = json.loads((tmp_path / "x/split.json").read_text())
    names = {category["id"]: category["name"] for category in boxes["categories"]}
    assert len(boxes["annotations"]) == 20
    assert {names[a["category_id"]] for a in boxes["annotations"]} == set(split["boxed"])
    assert len(split["boxed"]) == len(split["box_free"]) == 5
    held = json.loads((tmp_path / "x/held_out.json").read_text())
    assert {names[a["category_id"]] for a in held["annotations"]} == {*split["boxed"], *split["box_free"]}
    for a in held["annotations"]:
        x, y, w, h = a["bbox"]
        assert w > 15 and h > 8 and x >= 0 and y >= 0 and x + w <= 96 and y + h <= 96
    assert len(list((tmp_path / "x/labelled").glob("*/*.jpg"))) == 20


@pytest.mark.slow
def test_every_command_runs(tmp_path):
    for block in PAGE.blocks:
        if block.title:
            (tmp_path / block.title).write_text(block.text + "\n")
    scores = {}
    for words in lines():
        ran = run(words, tmp_path)
        assert ran.returncode == 0, f"{shlex.join(words)}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        if words[:2] == ["yolo9000", "eval"]:
            ran = run([*words, "--json"], tmp_path)
            scores[words[2]] = json.loads(ran.stdout)
    # Other machines round otherwise, so the page's figures come out about the same, not equal.
    first, second = read_scores(scores["runs/shapes"]), read_scores(scores["runs/second"])
    for found in (first, second):
        assert found["boxed"] > 0.4 and found["whatever"] > 0.35
        assert 0.05 < found["box_free"] < found["boxed"]
    assert second["box_free"] > first["box_free"]


def read_scores(told: dict) -> dict[str, float]:
    """AP50 of both halves and whatever the class, from `yolo9000 eval --json`."""
    boxes = told["boxes"]
    return {
        "boxed": boxes["groups"]["boxed"]["AP50"],
        "box_free": boxes["groups"]["box_free"]["AP50"],
        "whatever": boxes["any_class"]["AP50"],
    }
