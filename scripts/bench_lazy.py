#!/usr/bin/env python3
"""What do 9,418 classes cost a detection, beside 20 on the same trunk with the same surviving boxes?

From the picture's tensor to unsuppressed answers: the network's forward pass, boxes, objectness, and the
walk down the tree at the boxes that pass, by the lazy head; with the dense head (all logits computed, then
all conditionals) beside it. The networks differ in nothing but their class rows: trunk and box channels are
the same, random ones with batch norm fitted to noise, and the threshold lets exactly so many boxes through.
Random rows send the boxes down different paths, which costs more than a picture's few objects would. All
forms take turns in one process; a ratio is the median over the rounds, of seconds on the clock and of
processor time. Memory is that of fresh processes that read a model file, the median of a few: the most held
while pictures ran, less what was held before the first ("working") and in all ("peak"), and what was held
afterwards that no file holds ("private"); and all that with the file mapped (`load_model(mapped=True)`).
"""

import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from bench_head import network_spec
from bench_softmax import random_tree
from torch import nn
from tqdm import tqdm

from wordtree import WordTree
from yolo9000.boxes import decode
from yolo9000.classrows import row_parameters, view_rows
from yolo9000.detector import Detector
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.options import Options

# What a rule is told. Any lambda does, the work is the same. At depth 4 stands "animal", at 5 "vehicle".
TOLD = {"hedge": {"hedge_lambda": 5.0}, "level": {"level": 4}, "vocabulary": {"vocabulary": "coco"}}
# Name of a form: classes, rule, whether lazy. The first is what the others are measured by.
FORMS = {
    "20 greedy": (20, "greedy", True),
    "9418 greedy": (9418, "greedy", True),
    "9418 hedge": (9418, "hedge", True),
    "9418 level": (9418, "level", True),
    "9418 vocabulary": (9418, "vocabulary", True),
    "9418 leaf": (9418, "leaf", True),
    "100000 greedy": (100_000, "greedy", True),
    "9418 dense": (9418, "greedy", False),
}
# Pictures before it counts: layers become programs one by one (yolo9000/program.py), which takes its time.
_WARM = 100
_MEMORY = ("working", "peak", "private")
_TITLES = {
    **{"ms": "ms", "ratio": "ratio", "cpu_ms": "CPU ms", "cpu_ratio": "ratio", "working_mib": "working MiB"},
    **{"peak_mib": "peak MiB", "peak_ratio": "ratio", "private_mib": "private MiB", "private_ratio": "ratio"},
    **{"mapped_peak_mib": "mapped, peak", "mapped_peak_ratio": "ratio"},
    **{"mapped_private_mib": "private", "mapped_private_ratio": "ratio"},
}


@dataclass(frozen=True)
class Setting:
    size: int
    survivors: int
    head: str
    precision: str
    slim: float = 1.0
    batch: int = 1
    device: str = "cpu"


class Scene:
    """One form's detector, picture and options."""

    def __init__(self, form: str, setting: Setting, net: Network):
        _, rule, self.lazy = FORMS[form]
        self.detector = Detector(net, precision=setting.precision)
        self.image, threshold = self.picture(setting)
        self.options = Options(threshold=threshold, rule=rule, **TOLD.get(rule, {}))

    def picture(self, setting: Setting) -> tuple[torch.Tensor, float]:
        """Noise, and the objectness that exactly so many of its boxes exceed; bfloat16 makes ties."""
        for seed in range(100):
            random = torch.Generator().manual_seed(seed)
            image = torch.rand(1, 3, setting.size, setting.size, generator=random)
            objectness = decode(self.detector.run(image).boxes, self.detector.anchors)[1]
            highest = objectness.flatten().topk(setting.survivors + 1).values.tolist()
            if highest[-2] > highest[-1]:
                return image, highest[-1]
        raise click.ClickException(f"no picture where exactly {setting.survivors} boxes pass")

    def __call__(self) -> tuple[float, float]:
        """Seconds of one detection: on the clock, and of the processor."""
        start, worked = time.perf_counter(), time.process_time()
        output = self.detector.run(self.image)
        if not self.lazy:
            with torch.inference_mode():
                output = output.dense()
        self.detector.candidates(output, self.options)
        return time.perf_counter() - start, time.process_time() - worked


def make_network(form: str, setting: Setting) -> Network:
    classes, tree = FORMS[form][0], None
    if classes != 20:
        tree = WordTree.default() if classes == 9418 else random_tree(classes)
    torch.manual_seed(0)
    net = Network(network_spec(classes, setting), tree)
    same_boxes(net)
    return net


@torch.no_grad()
def same_boxes(net: Network) -> None:
    """The same trunk and box channels whatever the classes; batch norm fitted to noise, so that random
    features neither vanish nor burst."""
    random = torch.Generator().manual_seed(2)
    rows = {id(p) for p in row_parameters(net)}
    for parameter in net.parameters():
        if parameter.dim() > 1 and id(parameter) not in rows:
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=random)
    weight, bias = row_parameters(net)
    if net.spec.region.features is None:  # box channels among the rows
        for values in (weight, bias):
            of_anchors = values.unflatten(0, (len(net.spec.region.anchors), -1))
            own = of_anchors[:, :5]
            own.copy_(torch.randn(own.shape, generator=random) * 0.05)
    view_rows(net.spec, weight).normal_(0, 0.1)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train().lazy(torch.rand(2, 3, 128, 128, generator=random))
    net.eval()


def memory(scene: Scene) -> tuple[int, int, int]:
    """Bytes, of `_MEMORY`: what pictures add at most, the most that the process holds meanwhile, and what it
    holds afterwards that no file does. Linux only."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _of_status("VmRSS")
    for _ in range(3):
        scene()
    most = _of_status("VmHWM")
    return most - before, most, _of_status("RssAnon")


def _of_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure_memory(form: str, setting: Setting, processes: int) -> dict[str, float]:
    """MiB of `memory` in fresh processes that read a model file, mapped and not; nothing where the system
    does not tell."""
    found: dict[str, float] = {}
    if not Path("/proc/self/clear_refs").exists():
        return found
    words = [f"--{name}={getattr(setting, name)}" for name in ("size", "survivors", "head", "precision")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_model(make_network(form, setting), file)
        for prefix, more in (("", []), ("mapped_", ["--mapped"])):
            command = [sys.executable, __file__, *words, "--memory-of", form, "--model", str(file), *more]
            told = []
            for _ in range(processes):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                    raise click.ClickException(f"the process that measures memory failed: {last}")
                told.append([int(value) / 2**20 for value in done.stdout.split()])
            for name, values in zip(_MEMORY, zip(*told, strict=True), strict=True):
                found[f"{prefix}{name}_mib"] = statistics.median(values)
    return found


def measure(setting: Setting, forms: list[str], rounds: int, processes: int) -> dict[str, dict[str, float]]:
    scenes = {form: Scene(form, setting, make_network(form, setting)) for form in forms if rounds}
    seconds: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for scene in tqdm(scenes.values(), desc=f"{setting.size} px, warming up", unit="form", leave=False):
        for _ in range(_WARM):
            scene()
    for turn in tqdm(range(rounds), desc=f"{setting.size} px", unit="round", leave=False):
        for form in forms if turn % 2 else forms[::-1]:
            seconds[form].append(scenes[form]())
    del scenes
    rows = {}
    for form in forms:
        row: dict[str, float] = {}
        for clock, name in enumerate(("", "cpu_") if rounds else ()):
            mine, base = ([pair[clock] for pair in seconds[of]] for of in (form, forms[0]))
            row[f"{name}ms"] = statistics.median(mine) * 1e3
            row[f"{name}ratio"] = statistics.median(a / b for a, b in zip(mine, base, strict=True))
        if processes:
            row |= measure_memory(form, setting, processes)
        rows[form] = row
        for name in [name for name in row if name.endswith("_mib")]:
            row[name.replace("_mib", "_ratio")] = row[name] / rows[forms[0]][name]
    return rows


@click.command(epilog="Example: scripts/bench_lazy.py --size 416 --survivors 20 --json")
@click.option("--size", type=click.IntRange(32), multiple=True, default=(416,), show_default=True)
@click.option("--survivors", type=click.IntRange(1), multiple=True, default=(20, 100), show_default=True)
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
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="The median counts.")
@click.option("--no-memory", is_flag=True, help="Time only; else memory at the most boxes.")
@click.option("--form", "forms", type=click.Choice(list(FORMS)), multiple=True, help="Only these.")
@click.option("--no-time", is_flag=True, help="Memory only.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="That tell their memory, mapped and not; what the allocator holds back differs by some percent.",
)
@click.option("--memory-of", type=click.Choice(list(FORMS)), hidden=True)
@click.option("--model", type=click.Path(path_type=Path), hidden=True)
@click.option("--mapped", is_flag=True, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    size: tuple[int, ...],
    survivors: tuple[int, ...],
    head: str,
    precision: str,
    rounds: int,
    no_memory: bool,
    no_time: bool,
    processes: int,
    forms: tuple[str, ...],
    memory_of: str | None,
    model: Path | None,
    mapped: bool,
    as_json: bool,
) -> None:
    """Time and memory of a detection at 9,418 classes against 20, by the lazy head."""
    settings = [Setting(side, count, head, precision) for side in size for count in survivors]
    if any(side % 32 for side in size):
        raise click.UsageError("--size is a multiple of the stride, 32")
    if memory_of:
        scene = Scene(memory_of, settings[0], load_model(model, mapped=mapped))
        click.echo(" ".join(map(str, memory(scene))))
        return
    rounds, processes = 0 if no_time else rounds, 0 if no_memory else processes
    chosen = [form for form in FORMS if not forms or form in forms or form == next(iter(FORMS))]
    results = [
        {
            **asdict(setting),
            "forms": measure(
                setting, chosen, rounds, processes if setting.survivors == max(survivors) else 0
            ),
        }
        for setting in tqdm(settings, desc="settings", leave=False)
    ]
    facts = {
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    if as_json:
        click.echo(json.dumps({**facts, "cases": results}, indent=1))
        return
    click.echo(", ".join(f"{name} {value}" for name, value in {**facts, "head": head}.items()))
    for result in results:
        rows = result["forms"]
        shown = [key for key in _TITLES if key in rows[chosen[0]]]
        title = f"{result['size']} px, {result['survivors']} boxes"
        click.echo(f"{title:20}" + "".join(f"{_TITLES[key]:>13}" for key in shown))
        for form, row in rows.items():
            click.echo(f"  {form:18}" + "".join(f"{row[key]:13.3f}" for key in shown))


if __name__ == "__main__":
    main()
