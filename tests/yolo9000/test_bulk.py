"""Detection in parts: each picture once, whatever happens in between. No Ray, no Parquet as input and no
command line, which are test_ray.py's and test_cli_bulk.py's."""

import fcntl
import pickle
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

from tests.yolo9000.bulk import NAMES, PICTURES, job_of, make_model, make_photos, rows_of, run_job  # noqa: E402
from yolo9000.distributed import DetectPictures, PartWriter  # noqa: E402
from yolo9000.distributed.detecting import _ATTEMPTS  # noqa: E402
from yolo9000.distributed.engines import run_local  # noqa: E402
from yolo9000.distributed.inputs import Input, Part, list_input, read_part  # noqa: E402
from yolo9000.distributed.job import MANIFEST, SUCCESS  # noqa: E402
from yolo9000.distributed.rows import SCHEMA, attempts_name, part_name, read_counts  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path) -> Path:
    return make_photos(tmp_path / "photos")


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
