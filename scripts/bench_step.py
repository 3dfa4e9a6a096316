#!/usr/bin/env python3
"""Where does the time of a training step go, and how fast are batches made?

Steps exactly as `yolo9000 train` takes them, from a named configuration and packed data, but every phase on
its own clock: reading (bytes out of the packed file), decoding (JPEG to the pixels wanted, and placing them),
augmenting (everything else that makes a batch: choosing, targets, colours), forward, loss (target assignment
included), its own way back, the network's way back, and the update (norm, clipping, optimiser, average). The
first three run in worker processes while the others train; the share is of the sum of the latter. Processor
time, the median over the steps. Then pictures a second that worker processes make, without any training.
"""

import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from yolo9000 import augment
from yolo9000.batches import Batch, Batches, load_batches, open_store, to_batch
from yolo9000.config import load_config
from yolo9000.device import wants_bfloat16
from yolo9000.optim import Average, make_optimiser
from yolo9000.start import build_network
from yolo9000.tasks import DetectTask, full_precision, make_task

MAKING = ("read", "decode", "augment")
TRAINING = ("forward", "loss", "loss back", "backward", "update")
WARM = 2  # steps not counted: the first ones allocate


@dataclass
class Clock:
    """Processor seconds of this process by phase, of each step."""

    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    now: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.now[name] += time.process_time() - start

    def timed(self, name: str, work: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return work(*args, **kwargs)

        return wrapped

    def end_step(self, counted: bool) -> None:
        for name, seconds in self.now.items():
            if counted:
                self.steps[name].append(seconds)
        self.now.clear()


class TimedStore:
    """A packed file whose reading is timed."""

    def __init__(self, store: Any, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> Any:
        with self._clock.phase("read"):
            return self._store[index]


class Trainer:
    """What `yolo9000 train` sets up, and one step of it in phases."""

    def __init__(self, config: Any, paths: tuple[Path, ...], clock: Clock) -> None:
        self.config, self.clock = config, clock
        torch.manual_seed(config.seed)
        stores = [open_store(path) for path in paths]
        self.net, tree, self.maps = build_network(config.model, stores)
        self.batches = Batches(config, stores, self.maps)
        self.timed = Batches(config, stores, self.maps)
        self.timed.stores = [TimedStore(store, clock) for store in stores]
        self.net.to(memory_format=torch.channels_last).train()
        self.optimiser = make_optimiser(self.net, config.optimiser)
        self.average = Average(self.net, config.ema) if config.ema else None
        task = make_task(config, self.net, tree)
        if not isinstance(task, DetectTask):
            raise click.UsageError("only steps of the task detect are taken apart")
        self.loss = task.region_loss
        self.half = wants_bfloat16(config.precision, torch.device("cpu"))

    def make(self, number: int) -> Batch:
        """A batch, its phases timed; augmenting is what is neither reading nor decoding."""
        start = time.process_time()
        originals = augment.open_image, augment.draw
        augment.open_image, augment.draw = (self.clock.timed("decode", work) for work in originals)
        try:
            item = self.timed[number]
        finally:
            augment.open_image, augment.draw = originals
        if "error" in item:
            raise click.ClickException(item["error"])
        batch = to_batch(item, torch.device("cpu"))
        rest = self.clock.now["read"] + self.clock.now["decode"]
        self.clock.now["augment"] = time.process_time() - start - rest
        return batch

    def step(self, batch: Batch) -> None:
        phase = self.clock.phase
        self.optimiser.zero_grad(set_to_none=True)
        with phase("forward"), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            out = full_precision(self.net.lazy(batch.images))
        boxes, features = (values.detach().requires_grad_() for values in (out.boxes, out.features))
        with phase("loss"):
            parts = self.loss(replace(out, boxes=boxes, features=features), batch.targets, batch.seen)
        with phase("loss back"):  # to where the network ends, and to the class rows
            parts["loss"].backward(retain_graph=True)  # box channels may share the rows' parameter
        ends = [(of, at.grad) for of, at in ((out.boxes, boxes), (out.features, features))]
        ends = [(of, gradient) for of, gradient in ends if gradient is not None]
        with phase("backward"):
            torch.autograd.backward(*map(list, zip(*ends, strict=True)))
        with phase("update"):
            gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if self.config.optimiser.clip:
                torch._foreach_mul_(gradients, (self.config.optimiser.clip / (norm + 1e-6)).clamp(max=1.0))
            self.optimiser.step()
            if self.average:
                self.average.update(self.net)


def loading_rate(batches: Batches, workers: int, seconds: float) -> float:
    """Pictures a second that worker processes make, from the second batch on."""
    begun, pictures = None, 0
    for batch in load_batches(batches, 0, workers, torch.device("cpu")):
        now = time.perf_counter()
        if begun is None:  # the first batch waits for the processes to start
            begun = now
            continue
        pictures += len(batch.names)
        if now - begun > seconds:
            break
    return pictures / (now - begun)


@click.command(epilog="Example: scripts/bench_step.py tiny-joint --data tiny.h5 --size 64 --json")
@click.argument("config")
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True, required=True
)
@click.option(
    "--size", type=click.IntRange(32), multiple=True, help="Pixels a side.  [default: the configuration's]"
)
@click.option("--batch", type=click.IntRange(1), help="Pictures.  [default: the configuration's]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As yolo9000 train --set.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--workers", type=click.IntRange(0), default=2, show_default=True, help="For the loader's rate."
)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of loading; 0: leave it out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    config: str,
    data: tuple[Path, ...],
    size: tuple[int, ...],
    batch: int | None,
    settings: tuple[str, ...],
    steps: int,
    workers: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Phases of a training step of a named configuration, and the rate at which batches are made."""
    rows = []
    for side in size or (None,):
        words = list(settings) + ([f"batch={batch}"] if batch else [])
        words += [f"input.sizes=[{side}]"] if side else []
        chosen = load_config(config, tuple(words))
        clock = Clock()
        trainer = Trainer(chosen, data, clock)
        for number in tqdm(range(steps + WARM), desc=f"{side or config}", unit="step", leave=False):
            made = trainer.make(number)
            trainer.step(made)
            clock.end_step(number >= WARM)
        medians = {name: statistics.median(clock.steps[name]) for name in (*MAKING, *TRAINING)}
        total = sum(medians[name] for name in TRAINING)
        row: dict[str, Any] = {"size": made.size[0], "batch": chosen.batch}
        row |= {name: {"ms": medians[name] * 1e3, "share": medians[name] / total} for name in medians}
        row["loss_share"] = (medians["loss"] + medians["loss back"]) / total
        row["trained_per_second"] = chosen.batch / total
        row["made_per_second_and_core"] = chosen.batch / sum(medians[name] for name in MAKING)
        if seconds:
            row["loaded_per_second"] = loading_rate(trainer.batches, workers, seconds)
        rows.append(row)
    facts = {"config": config, "threads": torch.get_num_threads(), "workers": workers}
    facts |= {"torch": torch.__version__, "machine": platform.machine()}
    if as_json:
        click.echo(json.dumps({**facts, "cases": rows}, indent=1))
        return
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    for row in rows:
        click.echo(f"{row['size']} px, batch {row['batch']}")
        for name in (*MAKING, *TRAINING):
            click.echo(f"  {name:10} {row[name]['ms']:9.2f} ms {row[name]['share']:7.1%}")
        click.echo(f"  loss, both ways {row['loss_share']:15.1%}")
        for name in ("trained_per_second", "made_per_second_and_core", "loaded_per_second"):
            if name in row:
                click.echo(f"  {name.replace('_', ' '):25} {row[name]:9.0f} pictures")


if __name__ == "__main__":
    main()
