#!/usr/bin/env python3
"""Does a folder of photographs keep the processors busy? The pipeline beside the network alone; its memory.

The network: YOLO9000 with the 9,418 nodes of the default tree and random weights, its threshold set so that
as many boxes pass as on a photograph; or a model file. The folder: 1,000 JPEGs made of those given, of 320 to
1,920 pixels a side. In turns, part by part, so that whatever else the machine does disturbs all alike:

    network alone   on pictures that are in memory and letterboxed already, as the pipeline runs it (one
                    thread a lane, one picture at a time) and with all threads on batches of 8
    one by one      Detector on one file after another, as a loop would
    a list          Detector on a list of files, in one call
    pipeline        Detector.stream over the files

Shares are of the faster network alone, medians over the parts. Processor time counts all threads. --memory
instead follows `yolo9000 detect --json-lines` over 10,000 pictures, the same ones again and again.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from wordtree import WordTree
from yolo9000.detector import Detector
from yolo9000.folders import find_images
from yolo9000.network import Network
from yolo9000.options import Options
from yolo9000.presets import yolo9000

SIDES = (320, 480, 640, 640, 640, 800, 1024, 1280, 1920)  # the longer; COCO's is 640
SURVIVORS = 10  # boxes above the threshold: a busy photograph's
BATCH = 8  # for the network alone; larger ones are no faster on a processor
HELD = 32  # letterboxed pictures that the network alone goes over
MARKS = (1_000, 5_000, 10_000)  # pictures after which memory is read
ALONE, BATCHES, LOOP, LIST, PIPELINE = (
    "network alone, lanes",
    "network alone, batches",
    "one by one",
    "a list",
    "pipeline",
)


def make_folder(sources: tuple[Path, ...], folder: Path, count: int) -> None:
    """`count` JPEGs of varied size; of coloured noise where there are no sources."""
    files, _ = find_images(sources)
    rng = np.random.default_rng(0)
    for k in tqdm(range(count), unit=" pictures made", delay=2, disable=None, leave=False):
        if files:
            with Image.open(files[k % len(files)]) as opened:
                opened.draft("RGB", (1024, 1024))
                picture = opened.convert("RGB")
        else:
            picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        scale = SIDES[k % len(SIDES)] / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture.resize(size, Image.Resampling.BILINEAR).save(folder / f"{k:05d}.jpg", quality=90)


def make_detector(model: str | None, precision: str) -> Detector:
    if model is not None:
        return Detector.load(None if model == "default" else model, precision=precision)
    tree = WordTree.default()
    torch.manual_seed(0)
    detector = Detector(Network(yolo9000(classes=len(tree)), tree).eval(), precision=precision)
    detector.size = (416, 416)
    return detector


def fitting_options(detector: Detector, files: list[Path], model: str | None) -> Options:
    """The model's own; of random weights, a threshold that SURVIVORS boxes of a picture pass."""
    if model is not None:
        return detector.options()
    highest = []
    for file in files[:5]:
        output = detector.run(detector.fit(file).image[None])
        raw = output.boxes.unflatten(1, (-1, 5))[:, :, 4]  # (1, A*5, H, W) -> (1, A, H, W) objectness
        highest.append(float(raw.sigmoid().flatten().sort(descending=True).values[SURVIVORS]))
    return detector.options(threshold=min(0.999, statistics.median(highest)))


def in_lanes(run: Callable[[int], object], count: int) -> None:
    """run(0), run(1), ... in as many threads as torch has, each with one thread of torch's."""
    threads, numbers, lock = torch.get_num_threads(), iter(range(count)), threading.Lock()

    def lane() -> None:
        if threads > 1:
            torch.set_num_threads(1)
        while True:
            with lock:
                k = next(numbers, None)
            if k is None:
                return
            run(k)

    lanes = [threading.Thread(target=lane) for _ in range(threads)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    torch.set_num_threads(threads)


def contenders(detector: Detector, options: Options, files: list[Path]) -> dict[str, Callable]:
    """name -> function of the files of one part; the network alone takes as many pictures."""
    from yolo9000.pipeline import outcomes

    held = [detector.fit(file).image[None] for file in files[:HELD]]
    batches = [torch.cat([held[(k + i) % len(held)] for i in range(BATCH)]) for k in range(0, HELD, BATCH)]

    def alone(part: list[Path]) -> None:
        in_lanes(lambda k: detector.run(held[k % len(held)]), len(part))

    def in_batches(part: list[Path]) -> None:
        for k in range(len(part) // BATCH):
            detector.run(batches[k % len(batches)])

    def loop(part: list[Path]) -> None:
        for file in part:
            detector.find(file, options)

    def listed(part: list[Path]) -> None:
        detector(part, options.threshold)  # all that `fitting_options` chooses

    def pipeline(part: list[Path]) -> None:
        for outcome in outcomes(detector, part, options):
            if outcome.error is not None:
                raise outcome.error

    return {ALONE: alone, BATCHES: in_batches, LOOP: loop, LIST: listed, PIPELINE: pipeline}


def measure(detector: Detector, options: Options, files: list[Path], parts: int) -> dict[str, dict]:
    work = contenders(detector, options, files)
    length = len(files) // parts // BATCH * BATCH  # whole batches
    # Half of a part says as much of what does not depend on the files.
    lengths = {
        name: length if name == PIPELINE else max(BATCH, length // 2 // BATCH * BATCH) for name in work
    }
    for run in work.values():
        run(files[:BATCH])
    rates: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    for k in tqdm(range(parts), unit=" parts", delay=2, disable=None, leave=False):
        part = files[k * length : (k + 1) * length]
        for name, run in work.items():
            chosen = part[: lengths[name]]
            began, used = time.perf_counter(), time.process_time()
            run(chosen)
            rates[name].append(len(chosen) / (time.perf_counter() - began))
            cpu[name].append((time.process_time() - used) / len(chosen))
    best = max((ALONE, BATCHES), key=lambda name: statistics.median(rates[name]))
    table = {}
    for name in work:
        shares = [a / b for a, b in zip(rates[name], rates[best], strict=True)]
        shares_cpu = [b / a for a, b in zip(cpu[name], cpu[best], strict=True)]
        table[name] = {
            "pictures": lengths[name] * parts,
            "pictures_per_second": statistics.median(rates[name]),
            "cpu_ms": 1000 * statistics.median(cpu[name]),
            "share": statistics.median(shares),
            "cpu_share": statistics.median(shares_cpu),
        }
    return table


def follow_memory(files: list[Path], model: str | None, folder: Path) -> list[dict]:
    """MiB that `yolo9000 detect` holds, now and at most, after each of MARKS pictures."""
    for k in range(MARKS[-1]):
        os.link(files[k % len(files)], folder / f"{k:05d}.jpg")
    words = [sys.executable, "-m", "yolo9000", "detect", str(folder), "--json-lines"]
    words += ["--model", model] if model not in (None, "default") else []
    rows = []
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    bar = tqdm(process.stdout, total=MARKS[-1], unit=" pictures", delay=2, disable=None, leave=False)
    for k, _ in enumerate(bar, 1):
        if k in (100, *MARKS):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            kib = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
            rows.append(
                {"pictures": k, "mib": int(kib["VmRSS"]) / 1024, "peak_mib": int(kib["VmHWM"]) / 1024}
            )
    if process.wait():
        raise click.ClickException(f"detect ended with status {process.returncode}")
    return rows


@click.command(epilog="Example: scripts/bench_pipeline.py ../shared/photos ../shared/data/coco128 --json")
@click.argument("sources", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--as-they-are", is_flag=True, help="Use the pictures of SOURCES themselves.")
@click.option("--pictures", type=click.IntRange(BATCH), default=1000, show_default=True)
@click.option("--parts", type=click.IntRange(1), default=8, show_default=True)
@click.option("--model", help="A model file, or 'default', the one in the package.")
@click.option("--precision", type=click.Choice(("auto", "float32", "bfloat16")), default="auto")
@click.option("--memory", is_flag=True, help="Memory over 10,000 pictures instead; some minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    sources: tuple[Path, ...],
    as_they_are: bool,
    pictures: int,
    parts: int,
    model: str | None,
    precision: str,
    memory: bool,
    as_json: bool,
) -> None:
    """SOURCES: pictures and folders of them; without any, coloured noise."""
    if pictures < parts * BATCH:
        raise click.UsageError(f"a part has at least {BATCH} pictures")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "made"
        folder.mkdir()
        if not as_they_are:
            make_folder(sources, folder, pictures)
        files = find_images(sources if as_they_are else [folder])[0]
        if not files:
            raise click.UsageError("no pictures there")
        files = [files[k % len(files)] for k in range(pictures)]
        result = {"processor": _processor(), "threads": torch.get_num_threads()}
        if memory:
            repeated = Path(temporary) / "repeated"
            repeated.mkdir()
            result["memory"] = follow_memory(files, model, repeated)
        else:
            detector = make_detector(model, precision)
            options = fitting_options(detector, files, model)
            result["precision"] = detector.precision
            result["rates"] = measure(detector, options, files, parts)
    click.echo(json.dumps(result, indent=2) if as_json else as_text(result))


def as_text(result: dict) -> str:
    lines = [f"{result['processor']}, {result['threads']} threads"]
    if "memory" in result:
        lines.append(f"{'pictures':>10} {'MiB':>8} {'at most':>8}")
        lines += [f"{r['pictures']:>10,} {r['mib']:8.0f} {r['peak_mib']:8.0f}" for r in result["memory"]]
        return "\n".join(lines)
    lines.append(f"{'':<24} {'pictures':>9} {'per s':>7} {'share':>6} {'CPU ms':>7} {'share':>6}")
    for name, row in result["rates"].items():
        lines.append(
            f"{name:<24} {row['pictures']:9,} {row['pictures_per_second']:7.1f} {row['share']:6.0%} "
            f"{row['cpu_ms']:7.1f} {row['cpu_share']:6.0%}"
        )
    return "\n".join(lines)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
