"""One run in progress: the loop over batches, the step, and the state that a checkpoint holds. How a run is
put together and what it leaves at its end is train.py's.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from wordtree import WordTree
from yolo9000.batches import Batch
from yolo9000.checkpoint import list_checkpoints, save_best, save_checkpoint, set_best_aside
from yolo9000.config import TrainConfig, from_dict, to_dict
from yolo9000.device import wants_bfloat16
from yolo9000.distributed import World, running_buffers
from yolo9000.errors import LoaderError, TrainingError
from yolo9000.network import Network
from yolo9000.optim import Average, rate_factor, set_rate, training_mode
from yolo9000.runlog import Meter, RunLog, rounded, timestamp
from yolo9000.sheet import sheet_name, write_sheet
from yolo9000.spec import NetworkSpec
from yolo9000.tasks import Task
from yolo9000.validation import Judge, Verdict

# Settings that may differ when a run is resumed: they change how it runs, not what it computes.
_FREE = ("images", "epochs", "threads", "workers", "log", "validation", "name", "about", "device")
_LOGGED = 30.0  # seconds between two states of the progress bar that go into a file


def _as_now(settings: dict[str, Any]) -> dict[str, Any]:
    """A saved run's settings with those that a later version has added, at their defaults."""
    try:
        return to_dict(from_dict(TrainConfig, _without_idle(settings), "checkpoint"))
    except TrainingError:
        return settings  # some mean nothing any more: they differ from today's, whatever these are


def _without_idle(settings: dict[str, Any]) -> dict[str, Any]:
    """Without those that earlier versions took and that did nothing; config.ModelConfig, tasks.make_task and
    distill.make_task refuse them.
    """
    model, distill, loss = (settings.get(key, {}) for key in ("model", "distill", "loss"))
    idle = set() if model.get("preset") else {"arguments", "stored", "shared_rows", "trunk_rows"}
    idle |= set() if model.get("trunk") else {"trunk_rows"}
    idle |= set() if model.get("freeze") else {"fold"}
    idle |= set() if model.get("cfg") else {"data_root"}
    if model.get("arguments"):
        model = {**model, "arguments": _without(model["arguments"], {"tree"})}
    if settings.get("task") != "distill":
        distill = {}
    elif distill.get("boxes"):
        distill = _without(distill, {"windows", "label_weight"})
    else:
        loss = {}
    return {**settings, "model": _without(model, idle), "distill": distill, "loss": loss}


def _without(table: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _paths(tree: WordTree | None) -> list[str]:
    """The ids from a root down to each node."""
    nodes = range(len(tree)) if tree is not None else ()
    return ["/".join(tree.ids[k] for k in tree.path_nodes(node)) for node in nodes]


def _first_difference(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, Any, Any] | None:
    """The first place where they differ, and what is there in each."""
    pairs = enumerate(zip_longest(old, new))
    return next(((place, a, b) for place, (a, b) in pairs if a != b), None)


class Run:
    """What the loop needs, and what goes into a checkpoint. total: batches of the whole run; data: the files
    that these are made of (record.about).
    """

    def __init__(
        self,
        config: TrainConfig,
        net: Network,
        task: Task,
        optimiser: torch.optim.Optimizer,
        average: Average | None,
        judge: Judge,
        out: Path,
        total: int,
        world: World,
        data: Sequence[dict[str, Any]] = (),
    ):
        self.data = list(data)
        self.config, self.net, self.task, self.out, self.world = config, net, task, out, world
        self.optimiser, self.average, self.judge = optimiser, average, judge
        self.done, self.total = 0, total
        self.saved = 0
        self.skipped = 0
        self.stopped: str | None = None
        self.seconds = 0.0
        self.rate = 0.0  # of the last batch, before optimiser.scales
        self.losses: dict[str, float] = {}
        self.best: dict[str, Any] | None = None  # what the best moment so far came to
        self.board: RunLog | None = None
        device = next(net.parameters()).device
        self.half = wants_bfloat16(config.precision, device)
        self.device = device.type

    @property
    def images(self) -> int:
        """Pictures that have gone through the network."""
        return self.done * self.config.batch

    def open_log(self) -> None:
        """From here on lines are written."""
        self.board = RunLog(self.out, self.config.log.tensorboard and self.world.leads, self.images)

    def log(self, line: dict[str, Any]) -> None:
        if self.world.leads or line["event"] in ("skipped", "not finite"):
            self.board.write(line)

    def loop(self, batches: Iterator[Batch], caught: list[str], progress: bool) -> None:
        """All batches, or until a signal; ends with a checkpoint."""
        meter, log = Meter(), self.config.log
        last_save = last_log = begun = time.monotonic()
        waited, counted = 0.0, 0
        self._warn_of_burn_in(progress)
        bar = tqdm(
            total=self.total * self.config.batch,
            initial=self.images,
            unit="img",
            disable=not progress,
            smoothing=0.05,
            mininterval=0.1 if sys.stderr.isatty() else _LOGGED,
            maxinterval=_LOGGED,
        )
        with bar:
            self._judge()  # where a run was stopped that was to be judged
            before = time.monotonic()
            for batch in batches:
                waited += time.monotonic() - before
                self._report_skipped(batch)
                parts, stop = self.step(batch, bool(caught))
                meter.add(parts, len(batch.names) / self.config.batch)
                self.judge.add(float(parts["loss"]))
                counted += self.config.batch
                self.done += 1
                bar.update(self.config.batch)
                now = time.monotonic()
                if self.done % log.log_every == 0 or self.done == self.total:
                    self.losses = meter.take(self.world.gather)
                    line = {"event": "batch", "batch": self.done, "images": self.images}
                    line |= rounded(self.losses)
                    line |= {"rate": self.rate, "size": batch.size[0]}
                    line["images_per_second"] = round(counted / max(now - last_log, 1e-9), 1)
                    line["waited"] = round(waited / max(now - last_log, 1e-9), 3)  # share of the time
                    line["seconds"] = round(now - begun, 1)  # of this process
                    self.log(line)
                    bar.set_postfix({k: f"{v:.3g}" for k, v in self.losses.items()}, refresh=False)
                    last_log, waited, counted = now, 0.0, 0
                if stop or (caught and self.world.ranks == 1):
                    self.stopped = caught[0] if caught else "SIGTERM"  # of another process
                    break
                self._judge()
                last_log += time.monotonic() - now  # judging is no time of training
                if now - last_save > log.checkpoint_seconds:
                    self.save()
                    last_save = time.monotonic()
                before = time.monotonic()
        self.seconds = time.monotonic() - begun
        if self.saved != self.done or not list_checkpoints(self.out):
            self.save()
        if self.stopped:
            line = {"event": "stopped", "signal": self.stopped, "batch": self.done}
            self.log(line | {"seconds": round(self.seconds, 1), "time": timestamp()})

    def _warn_of_burn_in(self, progress: bool) -> None:
        """Says in the log, and above the bar of progress, that the rate never gets to what was asked for."""
        burn_in = self.config.schedule.burn_in
        if not self.world.leads or burn_in < self.total:
            return
        reason = (
            f"schedule.burn_in = {burn_in} batches of a run of {self.total}: the learning rate stays below "
            f"optimiser.lr, and little is learnt; try --set schedule.burn_in={self.total // 10}"
        )
        self.warn(reason, progress)

    def warn(self, reason: str, progress: bool) -> None:
        """Says it in the log and, with `progress`, to whoever watches."""
        self.log({"event": "warning", "reason": reason})
        if progress:
            print(f"warning: {reason}", file=sys.stderr)

    def step(self, batch: Batch, stop: bool = False) -> tuple[dict[str, Tensor], bool]:
        """One update of the weights; TrainingError, before any update, where loss or gradient is not finite.

        stop: this process wants to end; returned beside the parts of the loss: whether any process does. Of
        the parts "loss" is that of the whole batch, the others are those of this process's share.
        """
        config = self.config.optimiser
        self.rate = config.lr * rate_factor(self.config.schedule, self.done, self.total)
        set_rate(self.optimiser, self.rate)
        self.optimiser.zero_grad(set_to_none=True)  # first: gradients take no memory while features do
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            parts = self.task.loss(self.net, batch)
        loss = parts["loss"]
        parts = {key: value.detach() for key, value in parts.items()}
        finite = bool(torch.isfinite(loss))
        if not finite and self.world.ranks == 1:
            self._stop(batch, "loss")
        loss.backward()
        learning = [p for group in self.optimiser.param_groups for p in group["params"] if p.requires_grad]
        if self.world.ranks > 1:
            for p in learning:  # all processes exchange the same, used or not
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            share = len(batch.names) / self.config.batch
            parts["loss"] = parts["loss"].clone()  # like a gradient it is a sum of shares
            whole = [*(p.grad for p in learning), parts["loss"]]
            stop = self.world.average(whole, running_buffers(self.net), share, stop)
        gradients = [p.grad for p in learning if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self._stop(batch, "gradient" if finite else "loss")
        if config.clip:
            torch._foreach_mul_(gradients, (config.clip / (norm + 1e-6)).clamp(max=1.0))
        self.optimiser.step()
        if self.average:
            self.average.update(self.net)
        return parts | {"gradient": norm}, stop

    def save(self) -> None:
        """A checkpoint of everything that the next batch depends on; all processes have the same."""
        self.saved = self.done
        if self.world.leads:
            save_checkpoint(self.out, self.done, self.state(), self.config.log.keep)

    def state(self) -> dict[str, Any]:
        """Everything that the next batch depends on, and what the network carries beside its weights."""
        return {
            "config": to_dict(self.config),
            "data": self.data,
            "batch": self.done,
            "net": self.net.state_dict(),
            "spec": self.net.spec.to_dict(),
            "tree": self.net.tree.to_dict() if self.net.tree is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "judge": self.judge.state_dict(),
            "best": self.best,
            "losses": self.losses,
            "random": torch.get_rng_state(),
            "seen": self.net.seen + self.images,  # the network's own is of before the run
            "names": self.net.names,
            "class_map": self.net.class_map,
            "defaults": self.net.defaults,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts a checkpoint's state back. TrainingError where it is of another run, network or data."""
        new, old = to_dict(self.config), _as_now(state["config"])
        keys = sorted((set(new) | set(old)) - set(_FREE))
        changed = [key for key in keys if new.get(key) != old.get(key)]
        if changed:
            raise TrainingError(
                f"the run to resume has other settings: {', '.join(changed)}; "
                "resume with its own, or start another run"
            )
        self._check_same(state)
        self._check_data(state)
        try:
            self.net.load_state_dict(state["net"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average:
                self.average.load_state_dict(state["average"])
            if "judge" in state:  # not in checkpoints of versions that judged nothing
                self.judge.load_state_dict(state["judge"])
                self.best = None if self.judge.forgot else state["best"]
            self.losses = state.get("losses", {})
            torch.set_rng_state(state["random"])
            self.done = self.saved = int(state["batch"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            message = str(error).splitlines()[0]
            raise TrainingError(f"the checkpoint does not fit this network: {message}") from None

    def forget_best(self, progress: bool) -> None:
        """Says so, and keeps its file, where the best moment of before was judged on something else."""
        if not (self.judge.forgot and self.world.leads):
            return
        aside = set_best_aside(self.out, self.done)
        kept = f"; it is kept as {aside.name}" if aside else ""
        reason = "other validation data or another size than before: the best moment until now does not count"
        self.warn(reason + kept, progress)

    def _check_same(self, state: dict[str, Any]) -> None:
        """Raises TrainingError where a checkpoint is of other layers or another tree, whose weights may have
        the same shapes. Input sizes may differ: no weight depends on them.
        """
        old = WordTree.from_dict(state["tree"]) if state["tree"] else None
        if found := _first_difference(_paths(old), _paths(self.net.tree)):
            raise TrainingError(
                "the run to resume has another tree: its node {} is {}, here it is {}; give the data files "
                "of its start in the same order, and the file of model.tree as it was".format(*found)
            )
        if found := _first_difference(NetworkSpec.from_dict(state["spec"]).layers, self.net.spec.layers):
            raise TrainingError(
                f"the run to resume has another network: layer {found[0]} is set up differently; give the "
                "data files of its start, and the files that [model] names as they were"
            )

    def _check_data(self, state: dict[str, Any]) -> None:
        """TrainingError where a checkpoint is of a run on other pictures, or on these in another order.
        Names of files may differ; checkpoints of versions that did not say are believed.
        """
        old = state.get("data", self.data)
        if found := _first_difference(
            *([file["fingerprint"] for file in files] for files in (old, self.data))
        ):
            text = "{file} ({samples:,} samples, {fingerprint:.8})"
            there, here = (
                text.format(**files[found[0]]) if found[0] < len(files) else "none"
                for files in (old, self.data)
            )
            raise TrainingError(
                f"the run to resume has other training data: its file {found[0]} is {there}, here it is "
                f"{here}; give the data files of its start in the same order, or begin another run from "
                "its model (model.start)"
            )

    def _judge(self) -> None:
        """Where it is time: keeps this moment if it is the best so far. What cannot be judged is logged, and
        ends no run.
        """
        if not (self.world.leads and self.judge.due(self.done)):
            return
        line = {"event": "validation", "batch": self.done, "images": self.images}
        try:
            verdict = self.judge.judge(self.net, self.average)
        except LoaderError:  # nor can the rest be
            raise
        except TrainingError as error:
            self.log({"event": "not judged", "batch": self.done, "reason": str(error)})
            return
        if verdict.better:
            self.best = {"by": verdict.by, "value": verdict.value} | {k: line[k] for k in ("batch", "images")}
            save_best(self.out, self.state())
        line |= {"by": verdict.by, **rounded({**verdict.scores, "value": verdict.value})}
        self.log(line | {"best": verdict.better})
        self._draw_sheet(verdict)

    def _draw_sheet(self, verdict: Verdict) -> None:
        """What the model answers on a few held-out pictures now. A sheet that cannot be drawn is logged, and
        ends no run.
        """
        if self.judge.witness is None:
            return
        try:
            title = f"after {self.images:,} images: {verdict.by} {verdict.value:.3f}"
            write_sheet(self.judge.witness, self.out / sheet_name(self.done), title)
        except TrainingError as error:
            self.log({"event": "no sheet", "batch": self.done, "reason": str(error)})
        self.judge.witness = None  # it holds the answers and the data

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
        training_mode(self.net)
        # With several processes the fault may lie in another's pictures, which that one names.
        names = blamed or (batch.names if self.world.ranks == 1 else ["those of another process"])
        self.log({"event": "not finite", "what": what, "batch": batch.number, "pictures": names})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise TrainingError(
            f"batch {batch.number}: the {what} is not finite; pictures: {shown}. The last checkpoint stands; "
            "a lower optimiser.lr, optimiser.clip or a longer schedule.burn_in may help"
        )
