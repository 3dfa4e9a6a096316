#!/usr/bin/env python3
"""What does a tree of 9,418 classes cost a training step, beside 20 classes on the same trunk?

Three networks that differ in nothing but their class rows: 20 flat classes and the default tree, both
trained through the lazy head (class logits only where a label asks for them), and the default tree with all
logits computed. One step: forward, RegionLoss, backward, gradient norm, SGD. Time: all three in one process,
in turns, so that whatever else the machine does disturbs them alike; the ratio is the median over the rounds,
of seconds on the clock and, on a CPU, of seconds of the processor, which others disturb least. Memory: each
in processes of its own, the most they ever held (on a GPU, of tensors), the median. A batch is four labelled
pictures for each boxed one, as in the paper, of noise: the cost does not depend on what they show.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import click
import numpy as np
import torch
from tqdm import tqdm

from wordtree import WordTree
from yolo9000.batches import Batch
from yolo9000.config import OptimiserConfig
from yolo9000.device import find_device, wants_bfloat16
from yolo9000.errors import TrainingError
from yolo9000.loss import RegionLoss
from yolo9000.network import Network
from yolo9000.optim import make_optimiser
from yolo9000.presets import yolo9000
from yolo9000.spec import Convolution, NetworkSpec, Region
from yolo9000.tasks import DetectTask

FORMS = ("20", "9418", "dense")  # the first is what the others are measured by
TITLES = {"20": "20 classes", "9418": "9,418 classes", "dense": "9,418 classes, dense"}
MEMORY_ROUNDS = 3  # of the same process; what the allocator holds back differs by some percent
_COLUMNS = {
    "seconds": "s / step",
    "time_ratio": "ratio",
    "cpu_seconds": "CPU s",
    "cpu_time_ratio": "ratio",
    "peak_mib": "peak MiB",
    "memory_ratio": "ratio",
}
_WIDTH = 11
BOXES = 7  # on each boxed picture; COCO's mean is 7.3
LABELLED = 4  # pictures with a label for each with boxes (paper, section 4)


@dataclass(frozen=True)
class Setting:
    size: int
    batch: int
    slim: float
    head: str
    precision: str
    device: str


class Step:
    """A network, its optimiser and one batch, to be stepped again and again."""

    def __init__(self, form: str, setting: Setting):
        torch.manual_seed(0)
        self.device = find_device(setting.device, TrainingError)
        self.half = wants_bfloat16(setting.precision, self.device)
        self.tree = None if form == "20" else WordTree.default()
        classes = 20 if self.tree is None else len(self.tree)
        self.net = Network(network_spec(classes, setting), self.tree)
        self.net.to(self.device, memory_format=torch.channels_last).train()
        self.optimiser = make_optimiser(self.net, OptimiserConfig())
        self.batch = make_batch(classes, setting, self.device)
        self.task = DetectTask(self.net, self.tree, {})
        if form == "dense":
            kinds = {"tree": self.tree} if self.tree is not None else {"classes": 20}
            self.dense_loss = RegionLoss(self.net.anchors, **kinds).to(self.device)
        self.dense = form == "dense"

    def __call__(self) -> tuple[float, float]:
        """Seconds of one step: on the clock, and of the processor (all threads)."""
        self._wait()
        start, worked = time.perf_counter(), time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            if self.dense:
                parts = self.dense_loss(self.net(self.batch.images), self.batch.targets)
            else:
                parts = self.task.loss(self.net, self.batch)
        parts["loss"].backward()
        torch.nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        self.optimiser.step()
        self._wait()
        return time.perf_counter() - start, time.process_time() - worked

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Bytes: the most that this process (on a GPU: its tensors) ever held."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def network_spec(classes: int, setting: Setting) -> NetworkSpec:
    """Darknet-19's trunk with YOLO9000's head: rows for each anchor, or one set of rows for all anchors."""
    spec = yolo9000(classes=classes, image_size=setting.size, slim=setting.slim)
    if setting.head == "anchors":
        return spec
    trunk = spec.layers[:-2]
    anchors, features = spec.region.anchors, len(trunk) - 1
    boxes = Convolution(5 * len(anchors), 1, activation="linear", batch_normalize=False)
    region = Region(anchors, classes, boxes=features + 1, features=features, shared_rows=True)
    return NetworkSpec(spec.width, spec.height, (*trunk, boxes, region), bn=spec.bn)


def make_batch(classes: int, setting: Setting, device: torch.device) -> Batch:
    """Noise with boxes on one picture in five and a label on the others."""
    random = np.random.default_rng(0)
    shape = (setting.batch, setting.size, setting.size, 3)
    images = torch.from_numpy(random.random(shape, np.float32)).to(device).permute(0, 3, 1, 2)
    targets = []
    for k in range(setting.batch):
        if k % (LABELLED + 1):
            targets.append({"image_labels": torch.from_numpy(random.integers(0, classes, 1)).to(device)})
            continue
        boxes_cxcywh = random.uniform(0.1, 0.9, (BOXES, 4)).astype(np.float32)
        labels = random.integers(0, classes, BOXES)
        targets.append(
            {
                "boxes": torch.from_numpy(boxes_cxcywh).to(device),
                "labels": torch.from_numpy(labels).to(device),
            }
        )
    names = [str(k) for k in range(setting.batch)]
    return Batch(0, images, targets, names, torch.zeros(setting.batch, dtype=torch.long), 0)


def measure_time(setting: Setting, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds a step of each form, by round, on the clock and of the processor; a first round warms up and is
    not counted."""
    steps = {form: Step(form, setting) for form in FORMS}
    seconds: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for turn in tqdm(range(rounds + 1), desc="time", unit="round", leave=False):
        for form in FORMS if turn % 2 else FORMS[::-1]:
            found = steps[form]()
            if turn:
                seconds[form].append(found)
    return seconds


def measure_memory(form: str, setting: Setting) -> int:
    """Bytes at the peak of two steps, in a fresh process."""
    words = [f"--{name}={value}" for name, value in asdict(setting).items()]
    command = [sys.executable, __file__, *words, "--memory-of", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise click.ClickException(f"the process that measures memory ended with {done.returncode}: {last}")
    return int(done.stdout)


@click.command(epilog="Example: scripts/bench_head.py --size 224 --batch 4 --rounds 5 --json")
@click.option("--size", type=click.IntRange(32), default=416, show_default=True, help="Pixels a side.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Pictures.")
@click.option("--slim", type=float, default=1.0, show_default=True, help="Factor on the trunk's channels.")
@click.option(
    "--head",
    type=click.Choice(["anchors", "shared"]),
    default="shared",
    show_default=True,
    help="One set of class rows for all anchors; or one for each, as the paper's 28,269 channels.",
)
@click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True
)
@click.option("--device", default="auto", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The median counts.")
@click.option("--no-memory", is_flag=True, help="Time only.")
@click.option("--no-time", is_flag=True, help="Memory only.")
@click.option("--memory-of", type=click.Choice(FORMS), hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    rounds: int, no_memory: bool, no_time: bool, memory_of: str | None, as_json: bool, **settings
) -> None:
    """Time and peak memory of a training step at 9,418 classes against 20, the dense form beside it."""
    setting = Setting(**settings)
    if setting.size % 32:
        raise click.UsageError("--size is a multiple of the stride, 32")
    if memory_of:
        step = Step(memory_of, setting)
        for _ in range(2):  # the second has the optimiser's state
            step()
        click.echo(step.peak())
        return
    peaks = {}
    if not no_memory:
        bar = tqdm(FORMS * min(rounds, MEMORY_ROUNDS), desc="memory", unit="process", leave=False)
        found = [(form, measure_memory(form, setting)) for form in bar]
        peaks = {form: statistics.median(peak for of, peak in found if of == form) for form in FORMS}
    seconds = {} if no_time else measure_time(setting, rounds)
    device = find_device(setting.device, TrainingError)
    facts = {
        **asdict(setting),
        "device": device.type,
        "bfloat16": wants_bfloat16(setting.precision, device),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    rows = {form: _row(form, seconds, peaks) for form in FORMS}
    if device.type != "cpu":
        rows = {form: {k: v for k, v in row.items() if not k.startswith("cpu")} for form, row in rows.items()}
    if as_json:
        click.echo(json.dumps({**facts, "forms": rows}, indent=1))
        return
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    click.echo(f"{'':22}" + "".join(f"{title:>{_WIDTH}}" for title in _COLUMNS.values()))
    for form, row in rows.items():
        cells = (f"{row[key]:{_WIDTH}.3f}" if key in row else f"{'-':>{_WIDTH}}" for key in _COLUMNS)
        click.echo(f"{TITLES[form]:22}" + "".join(cells))


def _row(
    form: str, seconds: dict[str, list[tuple[float, float]]], peaks: dict[str, float]
) -> dict[str, float]:
    """Median seconds and peak, and both over those of 20 classes; the time's ratio is that of each round."""
    row = {}
    for clock, name in enumerate(("", "cpu_") if seconds else ()):
        mine, base = ([pair[clock] for pair in seconds[of]] for of in (form, FORMS[0]))
        row[f"{name}seconds"] = statistics.median(mine)
        row[f"{name}time_ratio"] = statistics.median(a / b for a, b in zip(mine, base, strict=True))
    if peaks:
        row["peak_mib"] = peaks[form] / 2**20
        row["memory_ratio"] = peaks[form] / peaks[FORMS[0]]
    return row


if __name__ == "__main__":
    main()
