#!/usr/bin/env python3
"""Is what Ray's workers find what one process finds, also if a worker or the driver is killed? And how fast.

Makes a folder of pictures from those given (coloured noise without any), detects on it in one process by
Detector.stream, and then by `yolo9000 detect --engine` in processes of their own:

    local            one process in parts
    ray              a local cluster
    worker killed    the same; one worker gets SIGKILL when half of the parts are there
    driver killed    the same; the driver gets SIGKILL when half of the parts are there, the same command is
                     started again, and must go on

Each folder of parts is read as one table and held against the one process's detections, every number exactly:
every picture once, in order. Exit status 1 where one is not equal. Seconds are on the clock, Ray's start
included; those of `driver killed` are of both commands.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from bench_pipeline import make_folder

from yolo9000.detections import Detections
from yolo9000.detector import Detector
from yolo9000.folders import find_images

MADE = 100  # different pictures; the others are links to them
LOOK = 0.01  # seconds between two looks at the folder of parts


def link_pictures(sources: tuple[Path, ...], folder: Path, count: int) -> Path:
    """A folder of `count` pictures, MADE of them different."""
    made, links = folder / "made", folder / "photos"
    made.mkdir()
    links.mkdir()
    make_folder(sources, made, min(count, MADE))
    files = sorted(made.iterdir())
    for k in range(count):
        (links / f"{k:06d}.jpg").hardlink_to(files[k % len(files)])
    return links


def one_process(photos: Path, model: Path | None) -> tuple[list[Detections], float]:
    """What a Detector finds on each file, and the seconds it took."""
    detector = Detector.load(model)
    files, _ = find_images([photos])
    begun = time.monotonic()
    return list(detector.stream(iter(files))), time.monotonic() - begun


def is_equal(out: Path, wanted: list[Detections]) -> bool:
    """Whether the parts have a row for each picture, in order and once, with exactly these detections."""
    rows = pq.read_table(out).to_pylist()
    if [row["index"] for row in rows] != list(range(len(wanted))):
        return False
    for row, found in zip(rows, wanted, strict=True):
        said = {
            "error": None,
            "boxes_xyxy": found.boxes_xyxy.tolist(),
            "scores": found.scores.tolist(),
            "nodes": found.nodes.tolist(),
            "names": list(found.names),
            "paths": [list(path) for path in found.paths],
        }
        if Path(found.source).name != row["picture"] or any(row[k] != value for k, value in said.items()):
            return False
    return True


def descendants(pid: int) -> list[int]:
    """Process ids below a process; Linux."""
    below = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except OSError:  # ended meanwhile
            continue
        for child in children:
            below += [child, *descendants(child)]
    return below


def workers_of(pid: int) -> list[int]:
    """Processes below the driver that detect."""
    found = []
    for child in descendants(pid):
        try:
            if b"ray::MapWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


def start(words: list[str]) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "yolo9000", "detect", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def half_done(process: subprocess.Popen, out: Path, half: int) -> int:
    """Parts that are there as soon as these are half; click.ClickException if the process ends before."""
    while process.poll() is None:
        there = len(list(out.glob("part-*.parquet"))) if out.exists() else 0
        if there >= half:
            return there
        time.sleep(LOOK)
    raise click.ClickException(f"it ended with status {process.returncode} before anything could be killed")


def run_case(name: str, words: list[str], out: Path, parts: int) -> dict[str, Any]:
    """One row of the table, but for whether it is equal."""
    words = [*words, "--output", str(out), "--engine", "local" if name == "local" else "ray", "--json"]
    begun = time.monotonic()
    process = start(words)
    row: dict[str, Any] = {"case": name, "killed_at": None}
    try:
        if name.endswith("killed"):
            row["killed_at"] = half_done(process, out, parts // 2)
            if name.startswith("worker"):
                os.kill(workers_of(process.pid)[0], signal.SIGKILL)
            else:
                process.kill()
                process.wait()
                row["after_kill"] = len(list(out.glob("part-*.parquet")))
                process = start(words)
        text, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.terminate()
    row["seconds"] = round(time.monotonic() - begun, 1)
    try:
        row["summary"] = json.loads(text) if process.returncode == 0 else None
    except ValueError:
        raise click.ClickException(f"{name}: no summary on stdout but {text[:500]!r}") from None
    return row


@click.command(epilog="Example: scripts/bench_ray.py ../shared/photos ../shared/data/voc100 --json ray.json")
@click.argument("sources", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", type=click.IntRange(8), default=2000, show_default=True)
@click.option("--part-size", type=click.IntRange(2), default=50, show_default=True, help="Even.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--model", type=click.Path(path_type=Path), help="Model file.  [default: the embedded one]")
@click.option("--case", "chosen", multiple=True, help="Only these cases; repeatable.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures here, too.")
def main(
    sources: tuple[Path, ...],
    pictures: int,
    part_size: int,
    workers: int,
    model: Path | None,
    chosen: tuple[str, ...],
    target: Path | None,
) -> None:
    """Detect by one process, by Ray's workers, and by Ray's workers while they are killed."""
    cases = chosen or ("local", "ray", "worker killed", "driver killed")
    parts = -(-pictures // part_size)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        photos = link_pictures(sources, folder, pictures)
        wanted, seconds = one_process(photos, model)
        rows = [{"case": "one process", "seconds": round(seconds, 1), "equal": True, "killed_at": None}]
        words = ["--input", str(photos), "--part-size", str(part_size)]
        words += ["--model", str(model)] if model else []
        for number, name in enumerate(cases):
            out = folder / f"found-{number}.parquet"
            ray = [] if name == "local" else ["--workers", str(workers)]
            row = run_case(name, [*words, *ray], out, parts)
            rows.append(row | {"equal": row["summary"] is not None and is_equal(out, wanted)})
    click.echo(f"{'case':16} {'seconds':>8} {'pictures/s':>10}  {'killed at':>12}  equal")
    for row in rows:
        at = f"{row['killed_at']} of {parts}" if row["killed_at"] else "-"
        rate = pictures / row["seconds"]
        said = "yes" if row["equal"] else "NO"
        click.echo(f"{row['case']:16} {row['seconds']:8.1f} {rate:10.1f}  {at:>12}  {said}")
    found = sum(map(len, wanted))
    click.echo(f"{pictures:,} pictures, {found:,} detections, {parts} parts")
    if target:
        figures = {
            "pictures": pictures,
            "detections": found,
            "parts": parts,
            "workers": workers,
            "cases": rows,
        }
        target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not all(row["equal"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
