#!/usr/bin/env python3
"""What a million pictures cost on this machine, step by step, and what a billion would.

Every step is measured by itself, on one core and by processor time where it computes, so that other programs
disturb little: detecting from file to rows (the embedded model), reading and letterboxing alone, writing the
rows, listing a folder of empty files and Parquet of empty rows (time and memory of a process that does
nothing else), looking whether parts are done, and opening a packed file for training. The second table is
plain multiplication. How Ray fares is bench_ray.py's, other networks' speed bench_pipeline.py's.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench_pipeline import make_folder

from data_prep import Sample, Store, StoreWriter
from wordtree import WordTree
from yolo9000.distributed import DetectPictures
from yolo9000.distributed.inputs import list_input, read_part
from yolo9000.distributed.job import PART_SIZE
from yolo9000.distributed.rows import part_name, read_counts, table_of, write_part

MILLION = 1_000_000

TABLES, ROWS = 500, 10_000  # of Parquet to list: a file of 10,000 photographs is about a gigabyte

# Run by itself: processor seconds and most memory of a piece of work beyond what importing took. Linux.
ALONE = """
import re, sys, time
from pathlib import Path
{setup}
def kilobytes(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # forgets the most so far
before, begun = kilobytes("VmRSS"), time.process_time()
{work}
print(time.process_time() - begun, (kilobytes("VmHWM") - before) * 1024)
"""
LISTING = "from yolo9000.distributed.inputs import list_input"
LIST = "found = list_input(sys.argv[1]); found.fingerprint; parts = found.parts({size})"
OPENING = "from data_prep import Store"


def cpu(work: Callable[[], object]) -> tuple[object, float]:
    """What the work gives, and processor seconds."""
    begun = time.process_time()
    found = work()
    return found, time.process_time() - begun


def alone(setup: str, work: str, *arguments: str) -> tuple[float, float]:
    """Processor seconds and bytes of memory of a piece of Python in a process of its own."""
    code = ALONE.format(setup=setup, work=work)
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    seconds, memory = run.stdout.split()
    return float(seconds), float(memory)


def detection(folder: Path, sources: tuple[Path, ...], count: int) -> dict[str, float]:
    """Milliseconds of a core, and bytes, a picture."""
    photos, out = folder / "photos", folder / "found"
    photos.mkdir()
    out.mkdir()
    make_folder(sources, photos, count)
    detect = DetectPictures(threads=1)
    pictures = list_input(photos)
    (part,) = pictures.parts(count)
    detector = detect.detector
    first = detect.found((file.name, file) for file in list(photos.iterdir())[:4])
    write_part(out / part_name(1), table_of(first), 0, "key")  # pays for what is made once
    _, reading = cpu(lambda: [detector.fit(path) for _, path in read_part(photos, part)])
    found, detecting = cpu(lambda: list(detect.found(read_part(photos, part))))
    table, making = cpu(lambda: table_of(found))
    file = out / part_name(0)
    _, writing = cpu(lambda: write_part(file, table, 0, "key"))
    _, checking = cpu(lambda: [read_counts(file, "key", 0, count) for _ in range(200)])
    return {
        "detect_ms": 1e3 * detecting / count,
        "read_ms": 1e3 * reading / count,
        "rows_ms": 1e3 * (making + writing) / count,
        "picture_bytes": sum(path.stat().st_size for path in photos.iterdir()) / count,
        "row_bytes": file.stat().st_size / count,
        "check_part_ms": 1e3 * checking / 200,
    }


def listing(folder: Path, count: int) -> dict[str, float]:
    """Microseconds and bytes of memory a picture: of a folder, and of Parquet with ROWS a file."""
    files, tables = folder / "files", folder / "tables"
    for k in range(count):
        if k % 1000 == 0:
            (files / f"{k // 1000:06d}").mkdir(parents=True)
        (files / f"{k // 1000:06d}" / f"{k:012d}.jpg").touch()
    tables.mkdir()
    empty = pa.table({"bytes": pa.array([b""] * ROWS)})
    for k in range(TABLES):
        pq.write_table(empty, tables / f"{k:06d}.parquet")
    work = LIST.format(size=PART_SIZE)
    seconds, memory = alone(LISTING, work, str(files))
    table_seconds, table_memory = alone(LISTING, work, str(tables))
    rows = TABLES * ROWS
    return {
        "list_us": 1e6 * seconds / count,
        "list_bytes": memory / count,
        "list_parquet_us": 1e6 * table_seconds / rows,
        "list_parquet_bytes": table_memory / rows,
    }


def training(folder: Path, count: int) -> dict[str, float]:
    """Microseconds to open, and bytes of memory that each process holds, a sample of a packed file (a box and
    an image label each, pictures of a byte)."""
    path, tree = folder / "train.h5", WordTree.default()
    none = np.zeros(0, np.int64)
    with StoreWriter(path, tree) as writer:
        for k in range(count):
            box = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
            writer.add(
                Sample(
                    name=f"{k:012d}.jpg",
                    image=b"x",
                    width=640,
                    height=480,
                    boxes_cxcywh=box,
                    labels=np.array([5]),
                    image_labels=np.array([5]),
                    negative_labels=none,
                    crowd=np.zeros(1, bool),
                    difficult=np.zeros(1, bool),
                    source="bench",
                    boxed=True,
                )
            )
    assert len(Store(path)) == count
    seconds, memory = alone(OPENING, "store = Store(sys.argv[1])", str(path))
    return {"open_us": 1e6 * seconds / count, "open_bytes": memory / count}


def summary(figures: dict[str, float], pictures: int, part_size: int) -> dict[str, float]:
    """What so many pictures come to, in the units of the second table."""
    parts = -(-pictures // part_size)
    return {
        "pictures": pictures,
        "core_hours": figures["detect_ms"] * pictures / 3.6e6,
        "of_it_reading_percent": 100 * figures["read_ms"] / figures["detect_ms"],
        "input_gb": figures["picture_bytes"] * pictures / 1e9,
        "output_gb": figures["row_bytes"] * pictures / 1e9,
        "parts": parts,
        "look_again_s": figures["check_part_ms"] * parts / 1e3,
        "list_files_s": figures["list_us"] * pictures / 1e6,
        "list_files_gb": figures["list_bytes"] * pictures / 1e9,
        "list_parquet_s": figures["list_parquet_us"] * pictures / 1e6,
        "list_parquet_gb": figures["list_parquet_bytes"] * pictures / 1e9,
        "open_packed_s": figures["open_us"] * pictures / 1e6,
        "open_packed_gb": figures["open_bytes"] * pictures / 1e9,
    }


@click.command(
    epilog="Example: scripts/bench_scale.py ../shared/photos ../shared/data/coco128 --json scale.json"
)
@click.argument("sources", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", type=click.IntRange(10), default=400, show_default=True, help="To detect on.")
@click.option("--files", type=click.IntRange(1000), default=100_000, show_default=True, help="To list.")
@click.option("--samples", type=click.IntRange(1000), default=100_000, show_default=True, help="To open.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures here, too.")
def main(sources: tuple[Path, ...], pictures: int, files: int, samples: int, target: Path | None) -> None:
    """Measure what each step costs a picture, and multiply."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        figures = {
            **detection(folder, sources, pictures),
            **listing(folder, files),
            **training(folder, samples),
        }
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in figures.items():
        click.echo(f"{name:20} {value:12.3f}")
    sizes = [MILLION, 10 * MILLION, 100 * MILLION, 1000 * MILLION]
    table = [summary(figures, size, PART_SIZE) for size in sizes]
    click.echo()
    for name in table[0]:
        click.echo(f"{name:24}" + "".join(f"{row[name]:18,.1f}" for row in table))
    if target:
        content = {"a_picture": figures, "totals": table}
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
