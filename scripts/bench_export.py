#!/usr/bin/env python3
"""How fast do exported files find what the detector finds, and how alike is it?

From the letterboxed picture to suppressed boxes, with the descent inside: the detector in float32, and its
exported files under their own runtimes, in one process and in turns, so that whatever else the machine does
disturbs them alike. Seconds are the median over the rounds. Beside the time: bytes of the files, seconds to
make them, and the largest difference of a score and of a box's edge from the detector's.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch

from yolo9000.cli._pictures import load_network
from yolo9000.detector import Detector
from yolo9000.errors import ImageError, ModelError
from yolo9000.export import FORMATS, export
from yolo9000.images import read_image
from yolo9000.letterbox import letterbox

RUNTIMES = {"pt2": "torch", "onnx": "onnxruntime", "openvino": "openvino"}

Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]  # images, sizes -> boxes, scores


@click.command(epilog="Example: scripts/bench_export.py photo.jpg --threads 1 --size 416")
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Model file.  [default: in the package]")
@click.option("--size", type=int, help="Input of the network.  [default: the model's]")
@click.option("--threshold", type=click.FloatRange(0, 1), help="On objectness.  [default: the model's]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(3), default=30, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    picture: Path,
    model: Path | None,
    size: int | None,
    threshold: float | None,
    threads: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Time the detector and its exported files on PICTURE."""
    torch.set_num_threads(threads)
    try:
        detector = Detector(load_network(model, None, None, None), precision="float32")
        if size is not None:
            detector.size = detector.checked_size(size)
        options = detector.options(threshold=threshold)
        pixels = read_image(picture)
        fitted, box = letterbox(pixels, detector.size, resize=detector.resize)
        images, sizes = fitted[None].numpy(), np.array([box.image_size])

        def eager(images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
            found = detector.candidates(detector.run(torch.from_numpy(images)), options)
            found = detector.detections(found, box, options)
            return found.boxes_xyxy, found.scores

        runs: dict[str, Run] = {"detector": eager}
        rows = {"detector": {"bytes": None, "made_s": None}}
        with tempfile.TemporaryDirectory() as folder:
            for format, (suffix, packages) in FORMATS.items():
                if any(importlib.util.find_spec(name) is None for name in (*packages, RUNTIMES[format])):
                    continue
                start = time.perf_counter()
                files = export(detector, Path(folder) / f"x{suffix}", options=options)
                rows[format] = {
                    "bytes": sum(file.stat().st_size for file in files),
                    "made_s": round(time.perf_counter() - start, 1),
                }
                runs[format] = _LOADERS[format](files[0], threads)
    except (ImageError, ModelError, ValueError) as error:
        sys.exit(f"error: {error}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        boxes, scores = run(images, sizes)  # and a warm start
        if len(scores) != len(eager(images, sizes)[1]):
            sys.exit(f"error: {name} finds {len(scores)} boxes, another number than the detector")
        for key, ours, theirs in zip(("box_px", "score"), (boxes, scores), eager(images, sizes), strict=True):
            rows[name][key] = float(np.abs(ours - theirs).max(initial=0))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(images, sizes)
            times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        rows[name]["ms"] = round(1000 * statistics.median(seconds), 2)
        rows[name]["ratio"] = round(rows[name]["ms"] / rows["detector"]["ms"], 3)
    found = len(eager(images, sizes)[1])
    if as_json:
        print(json.dumps({"size": detector.size, "threads": threads, "objects": found, "rows": rows}))
        return
    print(f"{picture.name}, {detector.size[0]} x {detector.size[1]}, {found} objects, {threads} threads")
    print(f"{'':10}{'ms':>9}{'ratio':>8}{'MB':>8}{'made in s':>11}{'box, px':>11}{'score':>11}")
    for name, row in rows.items():
        made = f"{row['bytes'] / 1e6:8.1f}{row['made_s']:11.1f}" if row["bytes"] else " " * 19
        print(f"{name:10}{row['ms']:9.1f}{row['ratio']:8.2f}{made}{row['box_px']:11.1e}{row['score']:11.1e}")


def _pt2(path: Path, threads: int) -> Run:
    module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(part.numpy() for part in module(torch.from_numpy(images), torch.from_numpy(sizes))[:2])

    return run


def _onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda images, sizes: tuple(
        session.run(["boxes_xyxy", "scores"], {"images": images, "image_sizes": sizes})
    )


def _openvino(path: Path, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.compile_model(path, "CPU", settings)

    def run(images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = compiled({"images": images, "image_sizes": sizes})
        return outputs["boxes_xyxy"], outputs["scores"]

    return run


_LOADERS = {"pt2": _pt2, "onnx": _onnx, "openvino": _openvino}

if __name__ == "__main__":
    main()
