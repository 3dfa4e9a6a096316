"""Pictures, a small model and jobs of detecting in parts, for tests. Needs pyarrow."""

from pathlib import Path

import pyarrow.parquet as pq

from tests.yolo9000.small import picture, small_detector
from yolo9000.distributed import DetectPictures, Job
from yolo9000.distributed.engines import run_local
from yolo9000.distributed.inputs import list_input
from yolo9000.modelfile import save_model

PICTURES = 11
NAMES = [f"{k:02d}.png" for k in range(PICTURES)]


def make_model(folder: Path) -> Path:
    path = folder / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


def make_photos(folder: Path) -> Path:
    """Pictures of several sizes, and a folder below them with none; the last is no picture."""
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
