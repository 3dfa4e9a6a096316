#!/usr/bin/env python3
"""How specific to be, measured: what each rule of decision tells at which certainty, and what scores and
suppression do to average precision. On packed pictures with one boxed object each that the model never saw.

The even pictures calibrate, the odd ones test. Prints tables and --json; --picture draws all rules' curves.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from data_prep import Store, plots
from yolo9000 import Detector, calibrate, cuts, descent, hedging
from yolo9000.heldout import EvalSettings
from yolo9000.hierarchy import Hierarchy
from yolo9000.images import read_image
from yolo9000.modelfile import DEFAULT_PATH
from yolo9000.options import SCORES
from yolo9000.parts import label_map
from yolo9000.scoring import Boxes, average_precision
from yolo9000.start import load_any
from yolo9000.suppression import MODES
from yolo9000.temperature import fit_temperatures, kept_temperatures, temper

THRESHOLDS = [0.0, *(k / 50 for k in range(1, 50)), 0.99, 0.995, 0.999, 0.9999]  # of Pr(node)
LAMBDAS = [0.0, *(float(v) for v in np.logspace(-1, 5, 61))]  # from "tell most" to "say nothing wrong"
LEAST = 0.02  # objectness of boxes that average precision looks at: those below change its third digit
CHUNK = 512  # boxes at a time: 512 x 9,418 doubles are 39 MB


@dataclass(frozen=True)
class Point:
    """A rule at one setting: share of right answers, mean bits told by the right ones (wrong ones: 0)."""

    rule: str
    setting: float
    right: float
    bits: float


@click.command(
    epilog="Example: scripts/bench_rules.py --data val.h5 --size 128 --picture docs/pictures/rules.png"
)
@click.option("--model", default=str(DEFAULT_PATH), help="As for yolo9000 eval.  [default: the embedded one]")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Packed file, boxes in every picture."
)
@click.option("--size", default=0, help="Side of the square input in pixels; default: the model's own.")
@click.option("--limit", default=0, help="The first so many pictures only.")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG of the curve to write.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(model: str, data: Path, size: int, limit: int, picture: Path | None, as_json: bool) -> None:
    """Compare rules, scores and kinds of suppression on one model and one packed file."""
    net, store = load_any(model), Store(data)
    settings = EvalSettings(size=size, limit=limit)
    evidence = calibrate.gather(net, [store], settings, progress=not as_json)
    hierarchy = Hierarchy(net.tree)
    found = calibrate.calibrate(hierarchy, evidence)
    points = curves(hierarchy, evidence)
    result = {"calibration": found["test"], "objects": found["tested_on"]}
    result["points"] = [vars(point) for point in points]
    result["average_precision"] = precisions(Detector(net), store, size, limit, not as_json)
    if picture:
        series: dict[str, list[tuple[float, float]]] = {}
        for point in points:
            series.setdefault(point.rule, []).append((point.right, point.bits))
        chart = plots.curves("What an answer tells", "share of right answers", "bits told", series)
        plots.save(chart, picture)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(calibrate.format_report(found))
    for point in points:
        if point.rule in ("level", "leaf", "greedy"):
            click.echo(f"{point.rule:10}{point.setting:8g}  right {point.right:.3f}  bits {point.bits:.2f}")
    for row in result["average_precision"]:
        click.echo(
            f"{row['half']:8}{row['nms']:10}{row['score']:12}  AP50 {row['AP50']:.3f}  whatever the class "
            f"{row['any_class']:.3f}  boxes a picture {row['boxes']:.2f}"
        )


def curves(hierarchy: Hierarchy, evidence: calibrate.Evidence) -> list[Point]:
    """Every rule on the odd pictures, temperatures fitted on the even ones."""
    even = evidence.picture % 2 == 0
    learn, test = evidence.where(even), evidence.where(~even)
    fits = temperatures(hierarchy, learn)
    rules: list[tuple[str, float, Callable]] = [("leaf", 0, lambda c, p: descent.leaf(hierarchy, c))]
    rules += [("greedy", 0, lambda c, p: descent.greedy(hierarchy, c))]
    deepest = int(hierarchy.depths.max())
    rules += [("level", k, lambda c, p, k=k: cuts.at_depth(hierarchy, p, k)) for k in range(deepest + 1)]
    rules += [("threshold", t, lambda c, p, t=t: descent.threshold(hierarchy, c, t)) for t in THRESHOLDS]
    rules += [("hedge", v, lambda c, p, v=v: hedging.hedge(hierarchy, p, v)) for v in LAMBDAS]
    sums = np.zeros((len(rules), 2))
    reward = torch.cat([hedging.rewards(hierarchy), torch.zeros(1, dtype=torch.float64)])  # the last: node -1
    parts = zip(test.log_conditionals.split(CHUNK), test.truths.split(CHUNK), strict=True)
    for logs, truths in parts:
        logs = temper(hierarchy, logs, fits) if fits else logs
        absolute = hierarchy.log_probabilities(logs)
        for k, (_, _, rule) in enumerate(rules):
            nodes = rule(logs, absolute)
            right = hedging.is_right(hierarchy, nodes, truths)
            sums[k] += float(right.sum()), float((reward[nodes] * right).sum())
    sums /= max(1, len(test.truths))
    return [Point(name, setting, *row) for (name, setting, _), row in zip(rules, sums.tolist(), strict=True)]


def temperatures(hierarchy: Hierarchy, learn: calibrate.Evidence) -> tuple[float, ...]:
    """One a depth where they help, as `yolo9000 calibrate` would find them."""
    return tuple(kept_temperatures(fit_temperatures(hierarchy, learn.log_conditionals, learn.truths)))


def precisions(detector: Detector, store: Store, size: int, limit: int, progress: bool) -> list[dict]:
    """AP50 for each score on the even pictures, for each suppression on the odd ones. Leaves are answered, as
    truth names leaves."""
    nodes = label_map(store.tree.ids, detector.tree.ids)
    nodes = np.arange(len(store.tree)) if nodes is None else nodes
    count = min(limit or len(store), len(store))
    runs = [("even", 0, "related", score) for score in SCORES]
    runs += [("odd", 1, mode, "absolute") for mode in MODES]
    rows = []
    for half, first, mode, score in runs:
        options = {"rule": "leaf", "threshold": LEAST, "nms": mode, "score": score}
        options |= {"size": size} if size else {}
        chosen = range(first, count, 2)
        truth, found = [], []
        for place, sample, one in detected(detector, store, chosen, options, progress):
            centre, side = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:]
            scale = np.array([sample.width, sample.height] * 2)
            corners = np.concatenate([centre - side / 2, centre + side / 2], 1) * scale
            n = len(corners)
            ignored = sample.crowd | sample.difficult
            truth.append(Boxes(np.full(n, place), nodes[sample.labels], corners, np.ones(n), ignored))
            n = len(one)
            score_ = one.scores.astype(float)
            found.append(Boxes(np.full(n, place), one.nodes, one.boxes_xyxy, score_, np.zeros(n, bool)))
        truth, found = Boxes.join(truth), Boxes.join(found)
        kinds = sorted({int(k) for k in truth.kind})
        among = np.isin(found.kind, kinds)
        mine = Boxes(*(getattr(found, f)[among] for f in ("image", "kind", "boxes_xyxy", "score", "ignored")))
        named = average_precision(truth, mine, len(chosen), kinds)
        blind = average_precision(as_one(truth), as_one(found), len(chosen), [0])
        row = {"half": half, "nms": mode, "score": score, "AP50": named["AP50"], "any_class": blind["AP50"]}
        rows.append(row | {"boxes": len(found.image) / len(chosen)})
    return rows


def detected(
    detector: Detector, store: Store, chosen: range, options: dict, progress: bool
) -> Iterator[tuple[int, object, object]]:
    """(number, sample, Detections) of the chosen pictures, 32 at a time."""
    bar = tqdm(
        total=len(chosen), unit="img", disable=not progress, desc=f"{options['nms']}, {options['score']}"
    )
    with bar:
        for first in range(0, len(chosen), 32):
            samples = [store[i] for i in chosen[first : first + 32]]
            answers = detector([read_image(sample.image) for sample in samples], **options)
            for k, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
                yield first + k, sample, answer
            bar.update(len(samples))


def as_one(boxes: Boxes) -> Boxes:
    """All of one class."""
    return Boxes(boxes.image, np.zeros_like(boxes.kind), boxes.boxes_xyxy, boxes.score, boxes.ignored)


if __name__ == "__main__":
    sys.exit(main())
