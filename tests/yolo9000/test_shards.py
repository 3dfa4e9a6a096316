"""Training data in several packed files: every sample once an epoch, over processes and their workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_prep.shards import find_packed, shard_paths
from data_prep.store import Store
from tests.yolo9000 import toys
from tests.yolo9000.test_distributed import config_of
from yolo9000.batches import Batches, load_batches

SIZES = ((9, 4), (3, 5), (13, 0))  # pictures with boxes and with labels only, of each shard
EPOCHS = 3

# What a process of a training reads, by the way it reads it.
SCRIPT = """
import json, sys
import torch
from data_prep import Store
from data_prep.shards import find_packed
from yolo9000.batches import Batches, load_batches
from yolo9000.config import TrainConfig, from_dict
from yolo9000.distributed import join_world

config = from_dict(TrainConfig, json.load(open(sys.argv[1])), "test")
world = join_world("cpu")
stores = [Store(path) for path in find_packed([sys.argv[2]])]
batches = Batches(config, stores, rank=world.rank, ranks=world.ranks)
read = [batch.names for batch in load_batches(batches, 0, 2, torch.device("cpu"))]
json.dump(read, open(f"{sys.argv[3]}-{world.rank}.json", "w"))
world.wait()
world.leave()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for k, (path, (boxed, labelled)) in enumerate(
        zip(shard_paths(folder / "toys.h5", len(SIZES)), SIZES, strict=True)
    ):
        toys.pack_squares(path, boxed, labelled, first=1000 * k)
    return folder


def each_once(read: list[list[list[str]]], stores: list[Store]) -> None:
    """Holds what the processes read, [rank][batch][picture] -> name, against all samples there are: the
    pictures of a part, put together from all processes, are the same ones in each of EPOCHS stretches."""
    stream: dict[str, list[str]] = {}
    for shares in zip(*read, strict=True):  # one batch
        ranks, batch = len(shares), sum(map(len, shares))
        for k in range(batch):
            name = shares[k % ranks][k // ranks]  # process r has pictures r, r + ranks, ...
            stream.setdefault(name.split("/")[0], []).append(name)
    for source in ("squares", "labels"):
        names = sorted(store.name_of(k) for store in stores for k in range(len(store)))
        wanted = [name for name in names if name.startswith(source)]
        assert len(set(wanted)) == len(wanted) > 0
        assert len(stream[source]) >= EPOCHS * len(wanted)
        for epoch in range(EPOCHS):
            found = stream[source][epoch * len(wanted) : (epoch + 1) * len(wanted)]
            assert sorted(found) == wanted


def epochs_of(folder: Path):
    """A configuration that goes EPOCHS times over the part that takes longest."""
    return config_of(folder, images=0, epochs=float(EPOCHS))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (3, 0), (8, 0), (2, 2)])
def test_every_sample_once_an_epoch(ranks, workers, folder):
    """Also with more processes than pictures in a batch (8 of 7), and with worker processes."""
    stores = [Store(path) for path in find_packed([folder / "toys-*.h5"])]
    config, device = epochs_of(folder), torch.device("cpu")
    read = [
        [
            batch.names
            for batch in load_batches(Batches(config, stores, None, rank, ranks), 0, workers, device)
        ]
        for rank in range(ranks)
    ]
    each_once(read, stores)


@pytest.mark.slow
def test_every_sample_once_an_epoch_under_torchrun(folder):
    config, script = folder / "config.json", folder / "read.py"
    config.write_text(json.dumps(_plain(epochs_of(folder))))
    script.write_text(SCRIPT)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words += [str(script), str(config), str(folder / "toys-*.h5"), str(folder / "read")]
    assert subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    read = [json.loads((folder / f"read-{rank}.json").read_text()) for rank in range(2)]
    each_once(read, [Store(path) for path in find_packed([folder / "toys-*.h5"])])


def _plain(config) -> dict:
    from yolo9000.config import to_dict

    return to_dict(config)


def test_commands_take_a_pattern(run, folder, tmp_path):
    path = tmp_path / "config.toml"
    config_of(tmp_path)
    path.write_text(
        f'images = 14\nbatch = 7\nworkers = 0\nprecision = "float32"\ninput = {{ sizes = [64] }}\n'
        f'model = {{ cfg = "{tmp_path / "plain.cfg"}", tree = "{tmp_path / "tree.json"}" }}\n'
        '[[data]]\nshare = 5\nkind = "boxed"\n[[data]]\nshare = 2\nkind = "label"\n'
    )
    pattern = folder / "toys-*.h5"
    words = ("train", path, "--data", pattern, "--val", pattern, "--out", tmp_path / "out", "--json")
    status, out, err = run(*words)
    assert status == 0, err
    assert json.loads(out)["images"] == 14
    start = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert [part["samples"] for part in start["parts"]] == [25, 9] and len(start["data"]) == 3
    status, _, err = run("train", path, "--data", folder / "none-*.h5", "--out", tmp_path / "o")
    assert status == 1 and "no file matches" in err
    files = [word for path in find_packed([pattern]) for word in ("--data", path)]
    for words in (["eval"], ["calibrate", "--dry-run", "--threshold", 0]):
        words += [tmp_path / "out", "--json", "--workers", 0, "--size", 64]
        status, together, err = run(*words, "--data", pattern)
        assert status == 0, err
        assert json.loads(together) == json.loads(run(*words, *files)[1])
