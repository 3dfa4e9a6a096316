"""Two processes train as one that accumulates their halves of each batch."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data_prep import Store
from tests.yolo9000 import toys
from yolo9000.batches import Batches, to_batch
from yolo9000.checkpoint import list_checkpoints
from yolo9000.config import TrainConfig, from_dict
from yolo9000.distributed import World
from yolo9000.optim import make_optimiser, rate_factor, set_rate
from yolo9000.runlog import read_log
from yolo9000.start import build_network, load_any
from yolo9000.tasks import make_task
from yolo9000.train import train

STEPS = 20


def config_of(folder: Path, **top) -> TrainConfig:
    """No batch norm: its statistics are of a process's own pictures, and their average not the point."""
    layers = "".join(
        f"[convolutional]\nfilters={n}\nsize=3\nstride={s}\npad=1\nactivation=leaky\n"
        for n, s in ((8, 2), (16, 2), (24, 2))
    )
    layers += "[convolutional]\nfilters=22\nsize=1\nstride=1\npad=1\nactivation=linear\n"
    layers += "[region]\nanchors=2.4,2.4,3.6,3.6\nclasses=6\nnum=2\ncoords=4\nsoftmax=1\n"
    (folder / "plain.cfg").write_text("[net]\nwidth=64\nheight=64\nchannels=3\n" + layers)
    toys.TREE.save(folder / "tree.json")
    table = {
        "model": {"cfg": str(folder / "plain.cfg"), "tree": str(folder / "tree.json")},
        "images": 7 * STEPS,
        "batch": 7,  # does not divide by two
        "workers": 0,
        "threads": 1,
        "precision": "float32",
        "device": "cpu",
        "input": {"sizes": [64]},
        "optimiser": {"name": "sgd", "lr": 0.01},
        "schedule": {"name": "constant", "burn_in": 5},
        "data": [{"share": 5.0, "kind": "boxed"}, {"share": 2.0, "kind": "label"}],
    }
    return from_dict(TrainConfig, table | top, "test")


def torchrun(folder: Path, config: TrainConfig, out: Path, restarts: int = 0) -> subprocess.Popen:
    path = folder / f"{out.name}.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    script = folder / "run.py"
    script.write_text(
        "import json, sys, pathlib\nfrom yolo9000.config import TrainConfig, from_dict\n"
        "from yolo9000.train import train\n"
        "config = from_dict(TrainConfig, json.load(open(sys.argv[1])), 'test')\n"
        "train(config, [pathlib.Path(sys.argv[2])], pathlib.Path(sys.argv[3]), resume=True, progress=False)\n"
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words += [f"--max-restarts={restarts}", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*words, str(path), str(folder / "a.h5"), str(out)], env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toys")
    toys.pack_squares(path / "a.h5", boxed=40, labelled=16)
    return path


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates_the_halves(folder: Path) -> None:
    config = config_of(folder, log={"log_every": 1}, validation={"every": 4})
    assert torchrun(folder, config, folder / "two").wait(timeout=120) == 0
    # The halves one after the other, their gradients added up by their share of the batch.
    torch.manual_seed(config.seed)
    store = Store(folder / "a.h5")
    net, tree, maps = build_network(config.model, [store])
    net.train()
    task, optimiser = make_task(config, net, tree), make_optimiser(net, config.optimiser)
    halves = [Batches(config, [store], maps, rank, 2) for rank in range(2)]
    wanted = []
    for step in range(STEPS):
        set_rate(optimiser, config.optimiser.lr * rate_factor(config.schedule, step, STEPS))
        optimiser.zero_grad()
        wanted.append(dict.fromkeys(("loss", "no_objectness"), 0.0))
        for half in halves:
            batch = to_batch(half[step], torch.device("cpu"))
            parts, share = task.loss(net, batch), len(batch.names) / config.batch
            (parts["loss"] * share).backward()
            wanted[-1] = {
                key: value + share * float(parts[key].detach()) for key, value in wanted[-1].items()
            }
        optimiser.step()
    found = load_any(str(folder / "two")).state_dict()
    for key, value in net.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)
    # The losses that are logged, and by which the best moment is chosen, are those of whole batches.
    lines = read_log(folder / "two")
    logged = [line for line in lines if line["event"] == "batch"]
    for key in ("loss", "no_objectness"):
        assert [line[key] for line in logged] == pytest.approx([one[key] for one in wanted], rel=1e-4)
    judged = [line["value"] for line in lines if line["event"] == "validation"]
    means = [sum(one["loss"] for one in wanted[k : k + 4]) / 4 for k in range(0, STEPS, 4)]
    assert judged == pytest.approx(means, rel=1e-4)
    # Saved by two, resumed by one: the same run with more batches.
    longer = dataclasses.replace(config, images=7 * STEPS + 14)
    assert train(longer, [folder / "a.h5"], folder / "two", resume=True, progress=False).batches == STEPS + 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_of_two_ends_when_it_is_told_to(folder: Path, number: signal.Signals) -> None:
    """SIGTERM to the launcher saves and ends both; one process killed ends the other."""
    config = config_of(folder, images=7 * 100_000, log={"checkpoint_seconds": 0.5})
    out = folder / f"ended-{number.name}"
    process = torchrun(folder, config, out)
    deadline = time.monotonic() + 60
    while not list_checkpoints(out) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list_checkpoints(out)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), number)
    assert process.wait(timeout=60) != 0
    assert not (out / "model.safetensors").exists()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    if number == signal.SIGTERM:
        assert lines[-1]["event"] == "stopped" and lines[-1]["batch"] > 0


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_nothing_is_lost(folder: Path) -> None:
    """With --max-restarts: the weights of a run one of whose processes was killed are another run's."""
    config = config_of(folder, images=7 * 400, log={"checkpoint_seconds": 0.2})
    assert torchrun(folder, config, folder / "alone").wait(timeout=300) == 0
    out = folder / "restarted"
    process = torchrun(folder, config, out, restarts=1)
    deadline = time.monotonic() + 60
    while not list_checkpoints(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(timeout=300) == 0
    events = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert events.count("resume") == 1 and events[-1] == "model"
    found, wanted = (load_any(str(path)).state_dict() for path in (out, folder / "alone"))
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def test_a_world_of_one_exchanges_nothing() -> None:
    gradients = [torch.ones(3)]
    assert World().average(gradients, [], 0.5, stop=True) is True
    assert World().average(gradients, [], 0.5, stop=False) is False
    torch.testing.assert_close(gradients[0], torch.ones(3))
    assert World().leads and not World(1, 2).leads
