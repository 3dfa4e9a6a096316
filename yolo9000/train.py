"""Training: packed data and a configuration in, a folder with weights and their history out. The loop is
run.py's, losses are tasks.py's, networks from configurations start.py's.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolo9000.average import drop_fitted
from yolo9000.batches import Batches, Samples, load_batches, open_store
from yolo9000.checkpoint import BEST_NAME, list_checkpoints, load_checkpoint, write_atomically
from yolo9000.config import TrainConfig, to_dict
from yolo9000.device import find_device, loaders_told
from yolo9000.distributed import World, join_world
from yolo9000.errors import TrainingError
from yolo9000.history import CURVES_NAME, draw_curves, models_left
from yolo9000.modelfile import MODEL_NAME
from yolo9000.network import Network
from yolo9000.optim import Average, make_optimiser, training_mode
from yolo9000.record import about, going_on, known_nodes, without_folders
from yolo9000.run import Run
from yolo9000.runlog import read_log, rounded, timestamp
from yolo9000.signals import caught_signals
from yolo9000.start import build_network
from yolo9000.tasks import Task, make_task
from yolo9000.twin import hold_first_expert, hold_second_expert
from yolo9000.validation import Judge, nearest_size

BEST_MODEL_NAME = "best.safetensors"  # only where validation data says which is the best

_KILLED = (
    "the last checkpoint stands: go on with --resume and fewer workers (--set workers=0 takes least memory), "
    "or begin anew with a smaller batch"
)


@dataclass
class Result:
    """What a run came to. stopped: the signal that ended it early, or None. skipped: pictures that could not
    be read. best: the best moment, {"by": "loss" or a score's name, "value", "batch", "images"}. already:
    the run had finished before, and nothing was done.
    """

    batches: int
    images: int
    seconds: float  # of this process, without loading
    losses: dict[str, float]
    model: Path | None
    stopped: str | None = None
    skipped: int = 0
    best: dict[str, Any] | None = None
    already: bool = False


def train(
    config: TrainConfig,
    data: Sequence[Path],
    out: Path,
    resume: bool = False,
    progress: bool = True,
    task: Task | None = None,
    validation: Sequence[Path] = (),
) -> Result:
    """Trains as the configuration says on packed files and writes checkpoints, log, curves and model into the
    folder `out`.

    resume: go on from the newest sound checkpoint in `out`, if there is one; a run that has finished is left
    as it is. task: in place of the one the
    configuration names. validation: packed files whose scores say which moment of the run is the best; none:
    the loss says it. Ctrl-C and SIGTERM end the run after the batch, with a checkpoint. Raises TrainingError.
    """
    out = Path(out)
    resuming = resume and bool(list_checkpoints(out))
    if not resuming and (list_checkpoints(out) or (out / MODEL_NAME).exists()):
        raise TrainingError(f"{out}: holds another run; go on with --resume, or choose another folder")
    stores = [open_store(Path(path)) for path in data]
    held_out = [open_store(Path(path)) for path in validation]
    if not stores:
        raise TrainingError("no packed data given (--data)")
    world = join_world(config.device)
    try:
        return _train(config, stores, held_out, out, resuming, progress and world.leads, task, world)
    finally:
        world.leave()


def _train(
    config: TrainConfig,
    stores: Sequence[Samples],
    held_out: Sequence[Samples],
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
    before = net.seen
    dropped = drop_fitted(net)
    config = _sized(config, net)
    resized = _fit_input(config, net)
    batches = Batches(config, stores, label_maps, world.rank, world.ranks, before)
    net.to(device, memory_format=torch.channels_last)
    net.freeze(config.model.freeze)
    if config.model.hold:
        hold_first_expert(net)
    if config.model.hold_second:
        hold_second_expert(net)
    _check_sizes(config, net)
    _check_batches(batches)
    optimiser = make_optimiser(net, config.optimiser)
    training_mode(net)
    average = Average(net, config.ema) if config.ema else None
    judge = Judge(config, net, held_out, len(batches))
    task = task or make_task(config, net, tree)
    _check_norms(config, net, world.ranks)
    files = [about(store) for store in stores]
    run = Run(config, net, task, optimiser, average, judge, out, len(batches), world, files)
    if resuming:
        run.restore(load_checkpoint(out))
        if _finished(run):
            return Result(run.done, run.images, 0.0, run.losses, out / MODEL_NAME, None, 0, run.best, True)
    out.mkdir(parents=True, exist_ok=True)
    run.open_log()
    try:
        _describe(run, stores, held_out, batches, resuming, dropped)
        for warning in filter(None, (resized, judge.warning)):
            run.warn(warning, progress)
        run.forget_best(progress)
        with caught_signals() as caught, loaders_told(_KILLED):
            run.loop(load_batches(batches, run.done, config.workers, device), caught, progress)
        model = None
        if run.stopped is None:
            nodes = known_nodes(config, stores, batches.parts, label_maps, tree)
            model = _export(run, going_on(net.record, nodes), stores, before)
        if world.leads:
            draw_curves(read_log(out), out / CURVES_NAME)
    finally:
        run.board.close()
    world.wait()
    return Result(run.done, run.images, run.seconds, run.losses, model, run.stopped, run.skipped, run.best)


def _finished(run: Run) -> bool:
    """Whether a run that is to go on has left all its files already. TrainingError where it was trained for
    longer than it is to be now."""
    if run.done > run.total:
        wanted = run.total * run.config.batch
        raise TrainingError(
            f"{run.out}: trained on {run.images:,} pictures already, more than the {wanted:,} of this "
            "configuration (images, epochs); ask for more, or start another run in another folder"
        )
    files = {MODEL_NAME, BEST_MODEL_NAME} if _has_best(run) else {MODEL_NAME}
    left = {name for name in models_left(read_log(run.out)) if (run.out / name).exists()}
    run.world.wait()  # until all have looked: the leading one may write to the log from here on
    return run.done == run.total and left >= files


def _has_best(run: Run) -> bool:
    """Whether scores chose a best moment, whose weights are there."""
    return bool(run.judge.stores and run.best and (run.out / BEST_NAME).exists())


def _describe(
    run: Run,
    stores: Sequence[Samples],
    held_out: Sequence[Samples],
    batches: Batches,
    resuming: bool,
    dropped: Sequence[str],
) -> None:
    """The first line of the log: what this run is and where it runs. dropped: what calibration had fitted to
    the weights that it starts from."""
    parts = [
        {"name": p.config.name or str(k), "samples": len(p.where), "per_batch": p.count}
        for k, p in enumerate(batches.parts)
    ]
    facts = {
        "event": "resume" if resuming else "start",
        "batch": run.done,
        "batches": run.total,
        "config": to_dict(run.config),
        "data": [about(store) for store in stores],
        "validation": [about(store) for store in held_out],
        "parts": parts,
        "dropped": list(dropped),
        "bfloat16": run.half,
        "device": run.device,
        "threads": torch.get_num_threads(),
        "processes": run.world.ranks,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "time": timestamp(),
    }
    run.log(facts)
    text = json.dumps(to_dict(run.config), indent=1)
    if run.world.leads:
        write_atomically(run.out / "config.json", lambda path: path.write_text(text, encoding="utf-8"))


def _export(run: Run, record: dict[str, Any], stores: Sequence[Samples], before: int) -> Path:
    """The averaged (or plain) weights as a model file, and those of the best moment if scores chose it.
    before: pictures that the network was trained on before the run."""
    path = run.out / MODEL_NAME
    if not run.world.leads:
        return path
    record |= {
        "name": run.config.name,
        "config": without_folders(to_dict(run.config)),
        "data": [about(store) for store in stores],
        "made": timestamp(),
    }
    net = run.net
    _save(run, path, record | {"images": run.images, "losses": rounded(run.losses)}, before)
    if _has_best(run):
        state = load_checkpoint(run.out / BEST_NAME)
        net.load_state_dict(state["net"])
        if run.average:
            run.average.load_state_dict(state["average"])
        moment = state["best"] or run.best
        _save(run, run.out / BEST_MODEL_NAME, record | {"images": moment["images"], "best": moment}, before)
    return path


def _save(run: Run, path: Path, record: dict[str, Any], before: int) -> None:
    from yolo9000.modelfile import save_model

    if run.average:
        run.average.copy_to(run.net)
    run.net.eval()
    run.net.seen = before + record["images"]
    save_model(run.net, path, record)
    run.log({"event": "model", "file": path.name, "time": timestamp()})


def _sized(config: TrainConfig, net: Network) -> TrainConfig:
    """The configuration with input sizes; where it has none, the network's own, an eighth and a
    quarter less."""
    if config.input.sizes:
        return config
    cells = max(net.own_size) / net.stride
    sizes = dict.fromkeys(round(cells * part / 8) * net.stride for part in (6, 7, 8))
    return replace(config, input=replace(config.input, sizes=tuple(sizes)))


def _fit_input(config: TrainConfig, net: Network) -> str:
    """What the network takes by itself becomes what it is trained on: pictures scaled smoothly, whoever
    trained it first, and where its size is beyond all in training the nearest of these. Returns what is to be
    said of a trained network that changes its size so."""
    net.defaults = {key: value for key, value in net.defaults.items() if key != "resize"}
    if not min(config.sizes) <= max(net.own_size) <= max(config.sizes):
        old, new = max(net.own_size), nearest_size(config, net)
        net.defaults = {**net.defaults, "size": new}
        if config.model.start or config.model.weights:
            return (
                f"the model runs at {new} px from now on, no longer at {old}: of input.sizes the nearest; "
                f"to keep its size train at it, as with --set 'input.sizes=[{old}]'"
            )
    return ""


def _check_batches(batches: Batches) -> None:
    config, ranks = batches.config, batches.ranks
    if config.batch < ranks:
        raise TrainingError(
            f"batch = {config.batch} leaves some of {ranks} processes without a picture; make it {ranks} or "
            "more, or start fewer (torchrun --nproc-per-node)"
        )
    for k, part in enumerate(batches.parts if config.task in ("classify", "rows") else ()):
        said = (batches.stores[s].annotation(int(i)) for s, i in part.where)
        if not any(len(a.labels) or len(a.image_labels) or len(a.negative_labels) for a in said):
            raise TrainingError(
                f"data part {part.config.name or k} has no label, and the task {config.task} learns from "
                "nothing else; select kind boxed or label"
            )


def _check_sizes(config: TrainConfig, net: Network) -> None:
    for size in config.sizes:
        if size % net.stride:
            raise TrainingError(
                f"input.sizes: {size} is not a multiple of the network's stride, {net.stride}"
            )


def _check_norms(config: TrainConfig, net: Network, ranks: int) -> None:
    """One value a channel, of one picture at one cell, has no variance that a batch norm could divide by."""
    if config.batch >= 2 * ranks:
        return
    learning = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    alone: list[bool] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        alone.append(output[0, 0].numel() == 1)

    hooks = [module.register_forward_hook(note) for module in learning]
    size, first = min(config.sizes), next(net.parameters())
    net.eval()
    with torch.no_grad():
        net(first.new_zeros(1, net.spec.channels, size, size))
    training_mode(net)
    for hook in hooks:
        hook.remove()
    if any(alone):
        raise TrainingError(
            f"batch = {config.batch} leaves a process one picture, of which a batch norm sees one cell at "
            f"input.sizes {size}: no variance; set batch to {2 * ranks} or more, or train at larger sizes"
        )
