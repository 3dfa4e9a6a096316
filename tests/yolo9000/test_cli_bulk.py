"""Detection in parts: Parquet as input, and `yolo9000 detect --engine`. No Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from yolo9000.cli import _bulk
from yolo9000.errors import ImageError

pa = pytest.importorskip("pyarrow", reason="not installed (extra `ray`)")
pq = pytest.importorskip("pyarrow.parquet")

from tests.yolo9000.bulk import NAMES, PICTURES, job_of, make_model, make_photos, rows_of, run_job  # noqa: E402
from yolo9000.distributed.engines import run_local  # noqa: E402
from yolo9000.distributed.inputs import list_input  # noqa: E402
from yolo9000.distributed.rows import part_name  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path) -> Path:
    return make_photos(tmp_path / "photos")


# Parquet


def tables(photos: Path, folder: Path, form: str) -> Path:
    """The pictures as Parquet: two files of several row groups, bytes, structs or paths."""
    folder.mkdir()
    data = [(photos / name).read_bytes() for name in NAMES]
    if form == "bytes":
        table = pa.table({"extra": range(PICTURES), "id": NAMES, "bytes": data})
    elif form == "struct":  # as Hugging Face has them
        table = pa.table({"image": [{"bytes": d, "path": n} for n, d in zip(NAMES, data, strict=True)]})
    else:
        table = pa.table({"path": [f"../photos/{name}" for name in NAMES], "id": NAMES})
    pq.write_table(table.slice(0, 7), folder / "a.parquet", row_group_size=3)
    pq.write_table(table.slice(7), folder / "b.parquet", row_group_size=2)
    (folder / "_metadata.parquet").write_text("not looked at")
    return folder


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_parquet_gives_what_its_pictures_give_as_files(form, photos, tmp_path, model):
    run_job(photos, tmp_path / "wanted", model)
    folder = tables(photos, tmp_path / "tables", form)
    run_job(folder, tmp_path / "out", model)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "wanted")
    run_job(folder / "b.parquet", tmp_path / "alone", model, part_size=100)
    assert [row["picture"] for row in rows_of(tmp_path / "alone")] == NAMES[7:]


def test_pictures_without_a_name_and_without_bytes(photos, tmp_path, model):
    data = (photos / "00.png").read_bytes()
    pq.write_table(pa.table({"bytes": pa.array([data, None, b"", data])}), tmp_path / "x.parquet")
    run_job(tmp_path / "x.parquet", tmp_path / "out", model)
    rows = rows_of(tmp_path / "out")
    assert [row["picture"] for row in rows] == [f"x.parquet:{k}" for k in range(4)]
    assert [row["error"] for row in rows] == [None, "empty", "empty", None]


def test_inputs_that_are_none(photos, tmp_path):
    def refused(path: Path, why: str) -> None:
        with pytest.raises(ImageError, match=why):
            list_input(path)

    refused(tmp_path / "nothing", "no such file")
    refused(photos / "00.png", "neither a folder nor a .parquet file")
    refused(photos / "sub", "no pictures in this folder, nor Parquet files")
    bad = tmp_path / "bad.parquet"
    for data in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        bad.write_bytes(data)
        refused(bad, "not a Parquet file")
    pq.write_table(pa.table({"label": [1], "path": [2]}), bad)
    refused(bad, r"no column of pictures.*label \(int64\)")
    pq.write_table(pa.table({"bytes": pa.array([], pa.binary())}), bad)
    refused(bad, "no rows")
    pq.write_table(pa.table({"bytes": [b"x"]}), photos / "x.parquet")
    refused(photos, "pictures and Parquet")


def test_parquet_that_changes_or_breaks_below_is_told(photos, tmp_path, model):
    folder = tables(photos, tmp_path / "tables", "bytes")
    job, words = job_of(folder, tmp_path / "out", model)
    whole = (folder / "a.parquet").read_bytes()
    pq.write_table(pa.table({"bytes": [b"x"]}), folder / "a.parquet")
    with job.opened(), pytest.raises(ImageError, match="has changed"):
        list(run_local(job, job.parts, words))
    (folder / "a.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with job.opened(), pytest.raises(ImageError, match=r"a\.parquet: damaged"):
        list(run_local(job, job.parts, words))


# The command


def test_the_command_does_the_job_and_goes_on(run, photos, tmp_path, model):
    words = ("detect", "--engine", "local", "--input", photos, "--output", tmp_path / "out", "--model", model)
    words += ("--part-size", 4)
    status, out, err = run(*words)
    assert status == 1 and err == "1 picture could not be read; the column `error` says why\n"
    rows = rows_of(tmp_path / "out")
    detections = sum(len(row["nodes"] or ()) for row in rows)
    assert out == f"11 pictures: {detections:,} detections in {tmp_path / 'out'}\n"
    (tmp_path / "out" / part_name(2)).unlink()
    said = json.loads(run(*words, "--json")[1])
    assert (said["pictures"], said["done_before"], said["failed"], said["parts"]) == (11, 8, 1, 3)
    assert said["detections"] == detections and rows_of(tmp_path / "out") == rows
    # The same pictures by the command that prints them.
    printed = json.loads(run("detect", photos, "--model", model, "--json")[1])["pictures"]
    assert [Path(one["source"]).name for one in printed] == [row["picture"] for row in rows[:-1]]
    for one, row in zip(printed, rows, strict=False):
        assert [found["node"] for found in one["detections"]] == row["nodes"]
        boxes = np.array([found["box_xyxy"] for found in one["detections"]]).reshape(-1, 4)  # (0,) -> (0, 4)
        np.testing.assert_allclose(np.array(row["boxes_xyxy"]).reshape(-1, 4), boxes, atol=0.006)


def test_the_command_looks_at_what_the_other_looks_at(run, photos, tmp_path, model, monkeypatch):
    """Links and folders behind them, no results, and what cannot be read or listed is told."""
    (photos / "sub" / "refused").mkdir()
    (photos / "00.link.png").symlink_to("gone.png")
    (photos / "linked").symlink_to(photos)
    more = make_photos(tmp_path / "more")
    (photos / "sub" / "more").symlink_to(more)
    run("detect", photos / "00.png", more, "--out", photos / "found", "--model", model)
    scandir = os.scandir

    def refused(place="."):
        if str(place).endswith("refused"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    status, text, err = run("detect", photos, "--model", model, "--json")
    printed = json.loads(text)
    out = tmp_path / "out"
    words = ("detect", "--engine", "local", "--input", photos, "--output", out, "--model", model)
    engine_status, _, engine_err = run(*words)
    rows = rows_of(out)
    good = [row["picture"] for row in rows if row["error"] is None]
    assert good == [str(Path(one["source"]).relative_to(photos)) for one in printed["pictures"]]
    assert len(good) == 2 * (PICTURES - 1) and status == engine_status == 1
    assert {row["picture"] for row in rows if row["error"]} == {"00.link.png", "10.png", "sub/more/10.png"}
    assert "left out 11 with boxes" in err and "left out 11 with boxes" in engine_err
    told = f"skipped: {photos / 'sub' / 'refused'}: a folder that cannot be listed (Permission denied)\n"
    assert told in err and told in engine_err
    assert run(*words)[0] == 1  # and again, with nothing left to do


def test_words_that_do_not_go_together(run, photos, tmp_path):
    job = ("--engine", "local", "--input", photos, "--output", tmp_path / "out")
    for words, why in (
        (("--input", photos), "--output and --part-size go with --engine local or ray, --workers with"),
        (("--engine", "local", "--input", photos), "needs --input and --output"),
        ((*job, "--workers", 2), "--workers goes with --engine ray"),
        ((*job, "a.jpg"), "PICTURES does not go"),
        ((*job, "--out", tmp_path), "--out does not go"),
        ((*job, "--json-lines"), "--json-lines does not go"),
        ((*job, "--part-size", 0), "--part-size"),
        ((*job, "--size", 63), "63"),
    ):
        status, out, err = run("detect", *words)
        assert (status, out) == (2, "") and why in err, words
    assert not (tmp_path / "out").exists()


def test_without_ray_the_engine_says_what_to_install(run, photos, tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("detect", "--engine", "ray", "--input", photos, "--output", tmp_path / "out", "--model", model)
    status, _, err = run(*words)
    assert status == 1 and "pip install 'yolo9000[ray]'" in err and err.count("\n") == 1


def test_what_is_not_used_is_not_imported():
    """A training needs no Arrow, the command's help no torch, and nothing of this Ray."""
    code = (
        "import sys, yolo9000.distributed, yolo9000.cli.detect\n"
        "found = {'torch', 'pyarrow', 'ray'} & set(sys.modules)\n"
        "import yolo9000.distributed.world\n"
        "found |= {'pyarrow', 'ray'} & set(sys.modules)\n"
        "from yolo9000.distributed import engines\n"
        "print(sorted(found | {'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert _bulk.ENGINES == ("local", "ray")
