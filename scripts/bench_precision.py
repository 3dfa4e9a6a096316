#!/usr/bin/env python3
"""What does bfloat16 change? The embedded model (or another) in both precisions on the same pictures.

On photographs: detections that have a partner of the same node in the other precision, one to one, best
overlap first, and how far their scores and boxes lie apart. On packed data with boxes: the same, and average
precision from the outputs of the detector itself, with batch norm folded and convolutions packed as it runs,
scored as `yolo9000 eval` does. Beside it, what reading large JPEGs at reduced size changes.
"""

import io
import json
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from yolo9000.batches import open_store
from yolo9000.boxes import iou_xyxy
from yolo9000.detections import Detections
from yolo9000.detector import Detector
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.folders import find_images
from yolo9000.head import LazyOutput
from yolo9000.images import read_image

PRECISIONS = ("float32", "bfloat16")
CAMERA = 4000  # pixels, the longer side of 12 megapixels
OVERLAP = 0.5  # least of a pair; the mean is given, too
_AP = ("AP", "AP50", "AP75")


class Running(nn.Module):
    """A detector's network as the detector runs it, in the place of the network for `evaluate`."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.empty = nn.Parameter(torch.zeros(0))  # tells the device
        for name in ("spec", "tree", "classes", "stride", "anchors", "defaults"):
            setattr(self, name, getattr(detector.net, name))

    def lazy(self, images: Tensor) -> LazyOutput:
        return self.detector.run(images)


def pairs(a: Detections, b: Detections) -> list[tuple[int, int, float]]:
    """(index, index, overlap) of detections of one node, each in at most one pair."""
    overlaps = iou_xyxy(*(torch.from_numpy(np.array(found.boxes_xyxy)) for found in (a, b))).numpy()
    overlaps[a.nodes[:, None] != b.nodes[None, :]] = 0
    found = []
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        i, j = np.unravel_index(flat, overlaps.shape)
        if overlaps[i, j] < OVERLAP:
            break
        if all(i != k and j != m for k, m, _ in found):
            found.append((int(i), int(j), float(overlaps[i, j])))
    return found


def compare(
    ways: dict[str, Callable[[Any], Detections]], pictures: Iterable[Any], count: int
) -> dict[str, Any]:
    """Detections of the same pictures in two ways, and how they agree."""
    totals = dict.fromkeys((*ways, "matched"), 0)
    differences: list[float] = []
    overlaps: list[float] = []
    objectness: list[float] = []
    for picture in tqdm(pictures, total=count, unit="img", leave=False):
        a, b = (way(picture) for way in ways.values())
        found = pairs(a, b)
        for name, of in zip(ways, (a, b), strict=True):
            totals[name] += len(of)
        totals["matched"] += len(found)
        overlaps += [overlap for _, _, overlap in found]
        differences += [abs(float(a.scores[i] - b.scores[j])) for i, j, _ in found]
        objectness += [abs(float(a.objectness[i] - b.objectness[j])) for i, j, _ in found]
    return {
        "pictures": count,
        **totals,
        "matched_share": 2 * totals["matched"] / max(1, sum(totals[name] for name in ways)),
        "mean_overlap": statistics.fmean(overlaps or [1.0]),
        "score_difference_mean": statistics.fmean(differences or [0.0]),
        "score_difference_most": max(differences, default=0.0),
        "objectness_difference_mean": statistics.fmean(objectness or [0.0]),
    }


def enlarged(file: Path) -> bytes:
    """A photograph as a camera's JPEG of some 12 megapixels."""
    picture = Image.fromarray(read_image(file))
    factor = CAMERA / max(picture.size)
    buffer = io.BytesIO()
    size = tuple(round(side * factor) for side in picture.size)
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def score(detector: Detector, data: Path, size: int, limit: int) -> dict[str, float]:
    """Average precision over the classes, and whatever the class."""
    settings = EvalSettings(size=size, limit=limit, precision="float32", resamples=0, workers=0)
    boxes = evaluate(Running(detector), [open_store(data)], settings, progress=True)["boxes"]
    return {name: boxes[name] for name in _AP} | {f"any_{name}": boxes["any_class"][name] for name in _AP}


@click.command(epilog="Example: scripts/bench_precision.py --data val.h5 --size 128 --json precision.json")
@click.option("--model", type=click.Path(path_type=Path), help="A model file; default: the embedded model.")
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    default=Path("../shared/photos"),
    show_default=True,
    help="A folder.",
)
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="Packed pictures; repeatable.")
@click.option("--size", default=0, help="Input for packed pictures, in pixels a side; 0: the model's.")
@click.option("--limit", default=0, help="The first so many packed pictures only; 0: all.")
@click.option("--compared", default=300, show_default=True, help="Packed pictures detected one by one.")
@click.option("--threshold", type=float, help="Objectness of a detection; default: the model's own.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(
    model: Path | None,
    photos: Path,
    data: tuple[Path, ...],
    size: int,
    limit: int,
    compared: int,
    threshold: float | None,
    json_file: Path | None,
) -> None:
    """Detections and average precision in bfloat16 beside float32."""
    detectors = {precision: Detector.load(model, precision=precision) for precision in PRECISIONS}
    result: dict[str, Any] = {}
    files, complaints = find_images([photos])
    for complaint in complaints:
        click.echo(complaint, err=True)
    ways = {name: partial(detector, threshold=threshold) for name, detector in detectors.items()}
    if files:
        result["photos"] = {"detections": compare(ways, files, len(files))}
        exact = ways["float32"]
        reading = {"whole": lambda data: exact(read_image(data)), "reduced": exact}
        large = (enlarged(file) for file in files)
        result["photos of 12 megapixels, float32"] = {"detections": compare(reading, large, len(files))}
    for path in data:
        store = open_store(path)
        count = min(len(store), compared)
        pictures = (store[k].image for k in range(count))
        ways = {
            name: partial(detector, threshold=threshold, size=size or None)
            for name, detector in detectors.items()
        }
        found = {"detections": compare(ways, pictures, count)}
        found["pictures"] = min(len(store), limit or len(store))
        found["scores"] = {p: score(detector, path, size, limit) for p, detector in detectors.items()}
        result[path.stem] = found
    for name, found in result.items():
        click.echo(name)
        for key, value in found["detections"].items():
            click.echo(f"  {key:28} {value:.5g}")
        if "scores" in found:
            click.echo(f"  {'':28}" + "".join(f"{p:>10}" for p in (*PRECISIONS, "change")))
            for key in found["scores"]["float32"]:
                a, b = (100 * found["scores"][p][key] for p in PRECISIONS)
                click.echo(f"  {key + ', points':28}{a:10.2f}{b:10.2f}{b - a:+10.2f}")
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
