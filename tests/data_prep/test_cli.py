"""The command line: usage, what anchors and stats print, and programs that end badly."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import DataError
from data_prep.cli import pack
from data_prep.recipe import KINDS
from data_prep.store import Store
from data_prep.writer import StoreWriter
from tests.data_prep.commands import boxed, run


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b", "c"],
        ["out.h5"],
        ["--coco", "a.json", "out.h5"],
        ["--folders", "a", "--coco", "b", "--images", "c", "out.h5"],
        ["--folders", "a", "--images", "c", "out.h5"],
        ["recipe.toml", "out.h5", "--map", "coco"],
        ["--folders", "a", "--flat", "--tree", "t.json", "out.h5"],
        ["--folders", "a", "--holdout-part", "x", "out.h5"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    assert run("pack", *arguments).exit_code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_help_says_which_data_sets_need_pictures_beside_them(kind):
    (option,) = (one for one in pack.command.params if one.name == kind)
    refused = run("pack", f"--{kind}", "x", "o.h5")
    assert ("with --images." in option.help) == (f"--{kind} needs --images" in refused.output)


def test_several_data_sets_go_into_a_recipe(data, tree_file):
    result = run("pack", *boxed(data, tree_file), *boxed(data, tree_file)[:4], data / "o.h5")
    assert result.exit_code == 2 and "--coco is given more than once" in result.output
    assert "a recipe" in result.output and not (data / "o.h5").exists()
    assert run("pack", *boxed(data, tree_file), "--coco", "x", "--help").exit_code == 0


def test_options_that_would_do_nothing_are_refused(data, tree_file):
    assert run("pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5").exit_code == 0
    result = run("check", data / "o.h5", "--map", "coco")
    assert (result.exit_code, "--map" in result.output) == (2, True)
    (data / "r.toml").write_text("[[source]]\n")
    result = run("check", data / "r.toml", "--holdout-part", "kept")
    assert (result.exit_code, "--holdout-part" in result.output) == (2, True)


@pytest.mark.parametrize("name", ["pack", "check", "anchors", "stats"])
def test_help_has_an_example(name):
    assert f"data-prep {name}" in run(name, "--help").output


def test_anchors_and_stats_of_a_file(data, tree_file):
    run("pack", *boxed(data, tree_file), data / "o.h5")
    found = json.loads(
        run("anchors", data / "o.h5", "--size", 0, "--unit", "pixels", "--k", 2, "--json").stdout
    )
    assert found["boxes"] == 2  # the crowd does not count
    assert np.allclose(found["anchors"], [[5, 5], [10, 5]])
    # Fitted into 40 x 40 the picture of 20 x 10 is twice as large.
    found = json.loads(run("anchors", data / "o.h5", "--size", 40, "--stride", 10, "--k", 2, "--json").stdout)
    assert np.allclose(found["anchors"], [[1, 1], [2, 1]])
    assert "anchors" in run("anchors", data / "o.h5").output
    assert isinstance(run("anchors", data / "o.h5", "--source", "none").exception, DataError)
    counts = json.loads(run("stats", data / "o.h5", "--json").stdout)[str(data / "o.h5")]
    dog = {"name": "dog", "depth": 1, "boxes": 2, "image_labels": 0, "all_boxes": 2, "all_image_labels": 0}
    assert counts["nodes"]["n00000004"] == dog
    assert sum(row["boxes"] for row in counts["levels"].values()) == 3
    assert sum(counts["box_sides"].values()) == 2
    assert run("stats", data / "o.h5").exit_code == 0


def test_no_boxes_no_anchors(data, tree_file):
    run("pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5")
    assert isinstance(run("anchors", data / "o.h5").exception, DataError)
    assert run("stats", data / "o.h5").exit_code == 0


@pytest.mark.parametrize("samples", [0, 1])
def test_empty_stores_are_counted_and_have_no_anchors(tmp_path, tree, make, samples):
    with StoreWriter(tmp_path / "s.h5", tree) as writer:
        for _ in range(samples):
            writer.add(make.sample(boxes=0))
    counts = json.loads(run("stats", tmp_path / "s.h5", "--json").stdout)[str(tmp_path / "s.h5")]
    assert (counts["pictures"], counts["nodes"]) == (samples, {})
    assert sum(counts["box_sides"].values()) == 0
    assert run("stats", tmp_path / "s.h5").exit_code == 0
    assert json.loads(run("check", tmp_path / "s.h5", "--json").stdout)["samples"] == samples
    assert "no boxes" in str(run("anchors", tmp_path / "s.h5", "--json").exception)


def test_names_that_are_no_text_are_reported_not_a_traceback(data, tree_file):
    content = json.loads((data / "boxes.json").read_text())
    content["images"][0]["file_name"] = "\ud800.jpg"
    (data / "boxes.json").write_text(json.dumps(content))
    command = boxed(data, tree_file)
    program = "from data_prep.cli import main; main()"
    for arguments in (["check", *command], ["check", *command, "--json"], ["pack", *command, data / "o.h5"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "missing picture" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_results_that_find_no_room_are_one_line_not_a_traceback(data, tree_file):
    run("pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5")
    program = "from data_prep.cli import main; main()"
    for arguments in (["stats"], ["stats", "--json"], ["check"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-c", program, *arguments, str(data / "o.h5")],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1 and [line[:6] for line in done.stderr.splitlines()] == ["error:"]


INTERRUPTED = """
import os, signal
from data_prep.writer import StoreWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
add, seen = StoreWriter.add, []
def add_then_interrupt(writer, sample):
    add(writer, sample)
    seen.append(sample)
    if len(seen) == 20:  # Ctrl-C, in the middle whatever the machine's load
        os.kill(os.getpid(), signal.SIGINT)
StoreWriter.add = add_then_interrupt
from data_prep.cli import main
main()
"""


def test_ctrl_c_leaves_no_half_file_and_the_next_run_goes_on(data, tree_file, make):
    for k in range(40):
        (data / "classes" / "n00000005" / f"{k}.png").write_bytes(make.picture(30, 30, "PNG"))
    program = "from data_prep.cli import main; main()"
    command = ["pack", "--folders", data / "classes", "--tree", tree_file, data / "o.h5", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert not (data / "o.h5").exists()
    pack_again = subprocess.run([sys.executable, "-c", program, *map(str, command)], check=False)
    assert pack_again.returncode == 0
    assert [path.name for path in data.glob("o.h5*")] == ["o.h5"]
    assert len(Store(data / "o.h5")) == 40 + 4
