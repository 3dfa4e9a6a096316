"""The training loop: batches in, weights out, nothing lost on the way. Losses are tasks.py, networks from
configurations start.py.
"""

import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from yolo9000.batches import Batch, Batches, Samples, load_batches, open_store
from yolo9000.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint, write_atomically
from yolo9000.config import TrainConfig, to_dict
from yolo9000.device import find_device, wants_bfloat16
from yolo9000.distributed import World, join_world, running_buffers
from yolo9000.errors import TrainingError
from yolo9000.network import Network
from yolo9000.optim import Average, make_optimiser, rate_factor, set_rate
from yolo9000.record import about, known_nodes, without_folders
from yolo9000.runlog import Meter, append_line, rounded, timestamp
from yolo9000.signals import caught_signals
from yolo9000.start import build_network
from yolo9000.tasks import Task, make_task

MODEL_NAME = "model.safetensors"
# Settings that may differ when a run is resumed: they change how it runs, not what it computes.
_FREE = ("images", "epochs", "threads", "workers", "log", "name", "about", "device")


@dataclass
class Result:
    """What a run came to. stopped: the signal that ended it early, or None."""

    batches: int
    images: int
    seconds: float  # of this process, without loading
    losses: dict[str, float]
    model: Path | None
    stopped: str | None = None
    skipped: int = 0


def train(
    config: TrainConfig,
    data: Sequence[Path],
    out: Path,
    resume: bool = False,
    progress: bool = True,
    task: Task | None = None,
) -> Result:
    """Trains as the configuration says on packed files and writes checkpoints, log and model into the folder
    `out`.

    resume: go on from the newest sound checkpoint in `out`, if there is one. task: in place of the one the
    configuration names. Ctrl-C and SIGTERM end the run after the batch, with a checkpoint. Raises
    TrainingError.
    """
    out = Path(out)
    resuming = resume and bool(list_checkpoints(out))
    if not resuming and (list_checkpoints(out) or (out / MODEL_NAME).exists()):
        raise TrainingError(f"{out}: holds another run; go on with --resume, or choose another folder")
    stores = [open_store(Path(path)) for path in data]
    if not stores:
        raise TrainingError("no packed data given (--data)")
    world = join_world(config.device)
    try:
        return _train(config, stores, out, resuming, progress and world.leads, task, world)
    finally:
        world.leave()


def _train(
    config: TrainConfig,
    stores: Sequence[Samples],
    out: Path,
    resuming: bool,
    progress: bool,
    task: Task | None,
    world: World,
) -> Result:
    device = find_device(config.device, TrainingError)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    net, tree, label_maps = build_network(config.model, stores)
    batches = Batches(config, stores, label_maps, world.rank, world.ranks)
    net.to(device, memory_format=torch.channels_last)
    net.freeze(config.model.freeze)
    net.train()
    _check_sizes(config, net)
    optimiser = make_optimiser(net, config.optimiser)
    average = Average(net, config.ema) if config.ema else None
    start = _restore(load_checkpoint(out), config, net, optimiser, average) if resuming else 0
    task = task or make_task(config, net, tree)
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(config, net, task, optimiser, average, out, start, len(batches), world)
    run.describe(stores, batches, resuming)
    with caught_signals() as caught:
        run.loop(load_batches(batches, start, config.workers, device), caught, progress)
    result = run.result()
    if result.stopped is None:
        record = {"nodes": known_nodes(config, stores, batches.parts, label_maps, tree)}
        result.model = run.export(out / MODEL_NAME, record, stores)
    world.wait()
    return result


class _Run:
    """One run in progress: what the loop needs, and what goes into a checkpoint."""

    def __init__(
        self,
        config: TrainConfig,
        net: Network,
        task: Task,
        optimiser: torch.optim.Optimizer,
        average: Average | None,
        out: Path,
        start: int,
        total: int,
        world: World,
    ):
        self.config, self.net, self.task, self.out, self.world = config, net, task, out, world
        self.optimiser, self.average = optimiser, average
        self.done, self.total = start, total
        self.saved = start
        self.skipped = 0
        self.stopped: str | None = None
        self.seconds = 0.0
        self.losses: dict[str, float] = {}
        device = next(net.parameters()).device
        self.half = wants_bfloat16(config.precision, device)
        self.device = device.type

    def describe(self, stores: Sequence[Any], batches: Batches, resuming: bool) -> None:
        """The first line of the log: what this run is and where it runs."""
        parts = [
            {"name": p.config.name or str(k), "samples": len(p.where), "per_batch": p.count}
            for k, p in enumerate(batches.parts)
        ]
        facts = {
            "event": "resume" if resuming else "start",
            "batch": self.done,
            "batches": self.total,
            "config": to_dict(self.config),
            "data": [about(store) for store in stores],
            "parts": parts,
            "bfloat16": self.half,
            "device": self.device,
            "threads": torch.get_num_threads(),
            "processes": self.world.ranks,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "time": timestamp(),
        }
        self.log(facts)
        text = json.dumps(to_dict(self.config), indent=1)
        if not self.world.leads:
            return
        write_atomically(self.out / "config.json", lambda path: path.write_text(text, encoding="utf-8"))

    def loop(self, batches: Iterator[Batch], caught: list[str], progress: bool) -> None:
        """All batches, or until a signal; ends with a checkpoint."""
        meter, log = Meter(), self.config.log
        last_save = last_log = begun = time.monotonic()
        waited, counted = 0.0, 0
        bar = tqdm(
            total=self.total * self.config.batch,
            initial=self.done * self.config.batch,
            unit="img",
            disable=not progress,
            smoothing=0.05,
        )
        with bar:
            before = time.monotonic()
            for batch in batches:
                waited += time.monotonic() - before
                self._report_skipped(batch)
                parts, stop = self.step(batch, bool(caught))
                meter.add(parts)
                counted += self.config.batch
                self.done += 1
                bar.update(self.config.batch)
                now = time.monotonic()
                if self.done % log.log_every == 0 or self.done == self.total:
                    self.losses = meter.take()
                    line = {"event": "batch", "batch": self.done, "images": self.done * self.config.batch}
                    line |= rounded(self.losses)
                    line |= {"rate": self.optimiser.param_groups[0]["lr"], "size": batch.size[0]}
                    line["images_per_second"] = round(counted / max(now - last_log, 1e-9), 1)
                    line["waited"] = round(waited / max(now - last_log, 1e-9), 3)  # share of the time
                    self.log(line)
                    bar.set_postfix({k: f"{v:.3g}" for k, v in self.losses.items()}, refresh=False)
                    last_log, waited, counted = now, 0.0, 0
                if stop or (caught and self.world.ranks == 1):
                    self.stopped = caught[0] if caught else "SIGTERM"  # of another process
                    break
                if now - last_save > log.checkpoint_seconds:
                    self.save()
                    last_save = time.monotonic()
                before = time.monotonic()
        self.seconds = time.monotonic() - begun
        if self.saved != self.done or not list_checkpoints(self.out):
            self.save()
        if self.stopped:
            self.log({"event": "stopped", "signal": self.stopped, "batch": self.done, "time": timestamp()})

    def step(self, batch: Batch, stop: bool = False) -> tuple[dict[str, Tensor], bool]:
        """One update of the weights; TrainingError, before any update, where loss or gradient is not finite.

        stop: this process wants to end; returned beside the parts of the loss: whether any process does.
        """
        config = self.config.optimiser
        set_rate(self.optimiser, config.lr * rate_factor(self.config.schedule, self.done, self.total))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            parts = self.task.loss(self.net, batch)
        loss = parts["loss"]
        finite = bool(torch.isfinite(loss))
        if not finite and self.world.ranks == 1:
            self._stop(batch, "loss")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        if self.world.ranks > 1:
            for p in learning:  # all processes exchange the same, used or not
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            share = len(batch.names) / self.config.batch
            gradients = [p.grad for p in learning]
            stop = self.world.average(gradients, running_buffers(self.net), share, stop)
        gradients = [p.grad for p in learning if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self._stop(batch, "gradient" if finite else "loss")
        if config.clip:
            torch._foreach_mul_(gradients, (config.clip / (norm + 1e-6)).clamp(max=1.0))
        self.optimiser.step()
        if self.average:
            self.average.update(self.net)
        return {key: value.detach() for key, value in parts.items()} | {"gradient": norm}, stop

    def save(self) -> None:
        """A checkpoint of everything that the next batch depends on; all processes have the same."""
        self.saved = self.done
        if not self.world.leads:
            return
        state = {
            "config": to_dict(self.config),
            "batch": self.done,
            "net": self.net.state_dict(),
            "spec": self.net.spec.to_dict(),
            "tree": self.net.tree.to_dict() if self.net.tree is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "random": torch.get_rng_state(),
        }
        save_checkpoint(self.out, self.done, state, self.config.log.keep)

    def export(self, path: Path, record: dict[str, Any], stores: Sequence[Any]) -> Path:
        """The averaged (or plain) weights as a model file."""
        from yolo9000.modelfile import save_model

        if not self.world.leads:
            return path
        if self.average:
            self.average.copy_to(self.net)
        self.net.eval()
        self.net.seen = self.done * self.config.batch
        record |= {
            "name": self.config.name,
            "config": without_folders(to_dict(self.config)),
            "data": [about(store) for store in stores],
            "images": self.net.seen,
            "losses": rounded(self.losses),
            "made": timestamp(),
        }
        save_model(self.net, path, record)
        self.log({"event": "model", "file": path.name, "time": timestamp()})
        return path

    def result(self) -> Result:
        images = self.done * self.config.batch
        return Result(self.done, images, self.seconds, self.losses, None, self.stopped, self.skipped)

    def log(self, line: dict[str, Any]) -> None:
        if not self.world.leads and line["event"] not in ("skipped", "not finite"):
            return
        append_line(self.out, line)

    def _report_skipped(self, batch: Batch) -> None:
        for complaint in batch.skipped:
            self.skipped += 1
            self.log({"event": "skipped", "batch": batch.number, "picture": complaint})

    def _stop(self, batch: Batch, what: str) -> None:
        """Names the pictures whose own loss is not finite, or all of them where none is to blame alone."""
        blamed = []
        self.net.eval()
        for k, name in enumerate(batch.names):
            row = slice(k, k + 1)
            one = Batch(
                batch.number, batch.images[row], batch.targets[row], [name], batch.parts[row], batch.seen
            )
            with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.half):
                try:
                    bad = not bool(torch.isfinite(self.task.loss(self.net, one)["loss"]))
                except Exception:  # what one picture alone raises is not what stopped the run
                    bad = False
            if bad:
                blamed.append(name)
        self.net.train()
        # With several processes the fault may lie in another's pictures, which that one names.
        names = blamed or (batch.names if self.world.ranks == 1 else ["those of another process"])
        self.log({"event": "not finite", "what": what, "batch": batch.number, "pictures": names})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise TrainingError(
            f"batch {batch.number}: the {what} is not finite; pictures: {shown}. The last checkpoint stands; "
            "a lower optimiser.lr, optimiser.clip or a longer schedule.burn_in may help"
        )


def _check_sizes(config: TrainConfig, net: Network) -> None:
    for size in config.input.sizes:
        if size % net.stride:
            raise TrainingError(
                f"input.sizes: {size} is not a multiple of the network's stride, {net.stride}"
            )


def _restore(
    state: dict[str, Any],
    config: TrainConfig,
    net: Network,
    optimiser: torch.optim.Optimizer,
    average: Average | None,
) -> int:
    """Puts a checkpoint's state back; the number of batches it had done."""
    new, old = to_dict(config), state["config"]
    keys = sorted((set(new) | set(old)) - set(_FREE))
    changed = [key for key in keys if new.get(key) != old.get(key)]
    if changed:
        raise TrainingError(
            f"the run to resume has other settings: {', '.join(changed)}; "
            "resume with its own, or start another run"
        )
    try:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        if average:
            average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        message = str(error).splitlines()[0]
        raise TrainingError(f"the checkpoint does not fit this network: {message}") from None
    return int(state["batch"])
