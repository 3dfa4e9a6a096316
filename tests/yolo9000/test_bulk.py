"""Detection in parts: each picture once, whatever happens in between; and the inputs it takes. No Ray."""

import fcntl
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.small import picture, small_detector
from yolo9000 import Detector
from yolo9000.errors import ImageError, ModelError
from yolo9000.modelfile import save_model

pa = pytest.importorskip("pyarrow", reason="not installed (extra `ray`)")
pq = pytest.importorskip("pyarrow.parquet")

from yolo9000.cli import _bulk  # noqa: E402
from yolo9000.distributed import DetectPictures, Job, PartWriter  # noqa: E402
from yolo9000.distributed.detecting import _ATTEMPTS  # noqa: E402
from yolo9000.distributed.engines import run_local  # noqa: E402
from yolo9000.distributed.inputs import Input, Part, list_input, read_part  # noqa: E402
from yolo9000.distributed.job import MANIFEST, SUCCESS  # noqa: E402
from yolo9000.distributed.rows import SCHEMA, attempts_name, part_name, read_counts  # noqa: E402

PICTURES = 11
NAMES = [f"{k:02d}.png" for k in range(PICTURES)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures of several sizes in folders below one another; the last is none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for k in range(PICTURES - 1):
        picture(k, 40 + 5 * k, 90 - 3 * k).save(folder / f"{k:02d}.png")
    (folder / "10.png").write_text("hello")
    return folder


def job_of(photos: Path, out: Path, model: Path, part_size: int = 4, **words) -> tuple[Job, dict]:
    detect = DetectPictures(model, threads=None, **words)
    return Job(list_input(photos), out, detect.facts(), part_size), detect.words


def run_job(photos: Path, out: Path, model: Path, part_size=4, most: int | None = None, **words) -> list:
    """Does what is missing, or the first `most` parts of it; the numbers of the parts that were done."""
    job, words = job_of(photos, out, model, part_size, **words)
    with job.opened():
        there = job.finished()
        missing = [part for part in job.parts if part.number not in there][:most]
        assert len(list(run_local(job, missing, words))) == len(missing)
        if most is None:
            job.finish()
    return [part.number for part in missing]


def rows_of(out: Path) -> list[dict]:
    return pq.read_table(out).to_pylist()


# Parts of an input


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 15), st.booleans())
def test_parts_hold_every_picture_once_in_order(rows, size, parquet):
    names = tuple(b"%d" % k for k in range(len(rows)))
    made = Input(Path(), names, ((1, 1),) * len(rows), tuple(rows) if parquet else None)
    parts = made.parts(size)
    if parquet:
        wanted = [(name, row) for name, count in zip(names, rows, strict=True) for row in range(count)]
        found = [
            (name, row)
            for part in parts
            for name, (start, stop) in zip(part.files, part.rows, strict=True)
            for row in range(start, stop)
        ]
    else:
        wanted, found = list(names), [name for part in parts for name in part.files]
    assert found == wanted and len(made) == len(wanted)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.first for part in parts] == [size * k for k in range(len(parts))]
    assert all(part.count == size for part in parts[:-1]) and all(0 < p.count <= size for p in parts[-1:])
    table = pa.Table.from_pylist([part.to_row() for part in parts]) if parts else pa.table({})
    assert [Part.from_row(row) for row in table.to_pylist()] == parts


def test_a_folder_is_listed_by_name_and_fingerprinted_wherever_it_lies(photos, tmp_path):
    (photos / "sub" / "b\udcff.png").write_bytes((photos / "00.png").read_bytes())
    found = list_input(photos)
    assert found.files == (*(name.encode() for name in NAMES), b"sub/b\xff.png")
    (part,) = found.parts(100)
    assert [name for name, _ in read_part(photos, part)][-1] == "sub/b\\xff.png"
    assert [path for _, path in read_part(photos, part)][-1].is_file()
    before = found.fingerprint
    moved = photos.rename(tmp_path / "moved")
    assert list_input(moved).fingerprint == before
    (moved / "00.png").rename(moved / "0.png")
    renamed = list_input(moved).fingerprint
    (moved / "01.png").write_bytes((moved / "01.png").read_bytes() + b"x")
    assert len({before, renamed, list_input(moved).fingerprint}) == 3


# What is found


def test_rows_are_what_the_detector_finds_on_each_picture(photos, tmp_path, model):
    run_job(photos, tmp_path / "out", model, precision="float32")
    detector = Detector.load(model, precision="float32")
    rows = rows_of(tmp_path / "out")
    assert [row["index"] for row in rows] == list(range(PICTURES))
    assert [row["picture"] for row in rows] == NAMES
    assert sum(len(row["nodes"] or ()) for row in rows) > PICTURES  # there is something to compare
    for row in rows[:-1]:
        found = detector(photos / row["picture"])  # alone: not in the same batch, so rounded otherwise
        assert (row["width"], row["height"], row["error"]) == (*found.image_size, None)
        assert row["nodes"] == found.nodes.tolist() and tuple(row["names"]) == found.names
        assert [tuple(path) for path in row["paths"]] == list(found.paths)
        boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)  # none: (0,) -> (0, 4)
        np.testing.assert_allclose(boxes, found.boxes_xyxy, atol=1e-3)
        for name in ("scores", "objectness", "probabilities"):
            np.testing.assert_allclose(row[name], getattr(found, name), atol=1e-5)
    assert "not a picture" in rows[-1]["error"] and str(photos) not in rows[-1]["error"]
    assert {name for name, value in rows[-1].items() if value is not None} == {"index", "picture", "error"}


def test_parts_of_any_even_size_hold_the_same_rows(photos, tmp_path, model):
    """To the last bit: two pictures run together, the same two whatever the parts."""
    for size in (2, 4, 100):
        run_job(photos, tmp_path / f"{size}", model, size)
    assert rows_of(tmp_path / "2") == rows_of(tmp_path / "4") == rows_of(tmp_path / "100")


def test_the_callable_takes_bytes_and_paths_and_survives_pickling(photos, model):
    detect = DetectPictures(model, threshold=0.25, size=64, threads=None)
    data = [(photos / name).read_bytes() for name in NAMES]
    found = detect(pa.table({"id": NAMES, "bytes": data}))
    assert found.schema == SCHEMA and found["picture"].to_pylist() == NAMES
    assert found["error"].null_count == PICTURES - 1 and found.to_pylist()[-1]["error"]
    packed = pickle.dumps(detect)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    assert again.options == detect.options and again.detector.size == (64, 64)
    assert again({"bytes": data, "id": NAMES}).equals(found)
    by_path = again({"path": [str(photos / name) for name in NAMES]})
    assert by_path.drop_columns("picture").equals(found.drop_columns("picture"))
    assert len(detect(pa.table({"bytes": pa.array([], pa.binary())}))) == 0


def test_a_model_that_was_replaced_is_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(model.read_bytes())
    packed = pickle.dumps(DetectPictures(path, threads=None))
    save_model(small_detector("stored", seed=1), path)
    with pytest.raises(ModelError, match="another model"):
        pickle.loads(packed)


# Going on


def test_what_is_done_is_not_done_again(photos, tmp_path, model):
    run_job(photos, tmp_path / "whole", model)
    out = tmp_path / "out"
    assert run_job(photos, out, model, most=2) == [0, 1]
    assert not (out / SUCCESS).exists()
    with pytest.raises(ImageError, match="1 parts are missing"):
        job_of(photos, out, model)[0].finish()
    stamps = [(out / part_name(k)).stat().st_mtime_ns for k in range(2)]
    assert run_job(photos, out, model) == [2] and (out / SUCCESS).exists()
    assert stamps == [(out / part_name(k)).stat().st_mtime_ns for k in range(2)]
    assert rows_of(out) == rows_of(tmp_path / "whole")
    assert run_job(photos, out, model) == []


def test_ctrl_c_leaves_whole_parts(photos, tmp_path, model, monkeypatch):
    run_job(photos, tmp_path / "whole", model)
    real = Detector.fit

    def fit(self, image, size=None):
        if Path(image).name == "06.png":  # the third of the second part
            raise KeyboardInterrupt
        return real(self, image, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Detector, "fit", fit)
        run_job(photos, tmp_path / "out", model)
    assert [file.name for file in sorted((tmp_path / "out").glob("[!._]*"))] == [part_name(0)]
    assert run_job(photos, tmp_path / "out", model) == [1, 2]
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["cut", "empty", "text", "other place", "other job", "gone"])
def test_a_part_that_is_not_whole_is_done_again(harm, photos, tmp_path, model):
    out, file = tmp_path / "out", tmp_path / "out" / part_name(1)
    run_job(photos, out, model)
    before, data = rows_of(out), file.read_bytes()
    if harm == "other job":
        run_job(photos, tmp_path / "other", model, threshold=0.9)
        data = (tmp_path / "other" / file.name).read_bytes()
    bad = {"cut": data[:-20], "empty": b"", "text": b"hello", "other job": data}
    bad["other place"] = (out / part_name(0)).read_bytes()
    file.unlink()
    if harm != "gone":
        file.write_bytes(bad[harm])
    (out / f".{file.name}.123.part").write_bytes(b"half")  # as a killed process leaves it
    assert run_job(photos, out, model) == [1]
    assert rows_of(out) == before and not list(out.glob(".*.part"))


def test_a_part_given_to_two_workers_is_done_once(photos, tmp_path, model):
    job, words = job_of(photos, tmp_path, model, part_size=100)
    first, second = (PartWriter(photos, tmp_path, job.key, words | {"threads": None}) for _ in range(2))
    rows = pa.Table.from_pylist([part.to_row() for part in job.parts])
    counts = first(rows)
    file = tmp_path / part_name(0)
    stamp = file.stat().st_mtime_ns
    assert second(rows).equals(counts) and file.stat().st_mtime_ns == stamp
    assert counts.to_pylist() == [read_counts(file, job.key, 0, PICTURES)]
    assert counts["pictures"].to_pylist() == [PICTURES] and counts["failed"].to_pylist() == [1]


def test_a_part_that_ends_its_workers_is_given_up(photos, tmp_path, model):
    job, words = job_of(photos, tmp_path / "out", model)
    with job.opened():
        (tmp_path / "out" / attempts_name(1)).write_bytes(b"." * _ATTEMPTS)
        with pytest.raises(ImageError, match=r"10 workers .* pictures 4 to 7"):
            list(run_local(job, job.parts, words))
    assert run_job(photos, tmp_path / "out", model) == [1, 2]  # told to start again, it tries again
    assert not list((tmp_path / "out").glob(".attempts*"))


# What is refused


def test_a_folder_of_another_job_is_refused(photos, tmp_path, model):
    out = tmp_path / "out"
    run_job(photos, out, model)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    other = tmp_path / "other.safetensors"
    save_model(small_detector("stored", seed=1), other, defaults={"threshold": 0.3})
    for why, words in (
        ("options are others", {"threshold": 0.4}),
        ("options are others", {"size": 96}),
        ("model is another", {"model": other}),
        ("parts have another size", {"part_size": 5}),
    ):
        with pytest.raises(ImageError, match=why):
            run_job(photos, out, **({"model": model} | words))
    picture(3).save(photos / "new.png")
    with pytest.raises(ImageError, match="input is another"):
        run_job(photos, out, model)
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}


def test_places_that_are_no_output_are_refused(photos, tmp_path, model):
    file = tmp_path / "file.parquet"
    file.write_text("mine")
    with pytest.raises(ImageError, match="is no folder"):
        run_job(photos, file, model)
    with pytest.raises(ImageError, match="something else"):
        run_job(photos, photos, model)
    assert file.read_text() == "mine" and sorted(p.name for p in photos.glob("*.png")) == NAMES
    for text in ("{", "[]", '{"format": "other"}'):
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / MANIFEST).write_text(text)
        with pytest.raises(ImageError, match=MANIFEST):
            run_job(photos, tmp_path / "odd", model)


def test_two_processes_do_not_share_a_folder(photos, tmp_path, model):
    out = tmp_path / "out"
    run_job(photos, out, model, most=1)
    with (out / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ImageError, match="another process"):
            run_job(photos, out, model)
    assert run_job(photos, out, model) == [1, 2]


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


def test_words_that_do_not_go_together(run, photos, tmp_path):
    job = ("--engine", "local", "--input", photos, "--output", tmp_path / "out")
    for words, why in (
        (("--input", photos), "go with --engine"),
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
