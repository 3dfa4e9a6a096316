"""A system that refuses to write a checkpoint to its end, nothing simulated; the rest is test_best.py's."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from tests.yolo9000.test_train import CFG, settings
from tests.yolo9000.toys import TREE, pack_squares
from yolo9000.checkpoint import list_checkpoints, load_checkpoint
from yolo9000.train import train

# Files may suddenly grow no further than to a limit: the system then refuses to write as on a full disk.
_RUN = """
import json, pathlib, resource, sys
from data_prep import Store
from yolo9000.config import TrainConfig, from_dict
from yolo9000.errors import TrainingError
from yolo9000.start import build_network
from yolo9000.tasks import make_task
from yolo9000.train import train

config, data, out, after, limit = sys.argv[1:]
config = from_dict(TrainConfig, json.loads(config), "test")
net, tree, _ = build_network(config.model, [Store(data)])

class Filling:
    def __init__(self, task, left):
        self.task, self.left = task, left
    def loss(self, net, batch):
        self.left -= 1
        if self.left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        return self.task.loss(net, batch)

try:
    task = Filling(make_task(config, net, tree), int(after))
    train(config, [pathlib.Path(data)], pathlib.Path(out), progress=False, task=task)
except TrainingError as error:
    print(error)
    sys.exit(3)
"""


LIMIT = 400_000  # bytes: more than the log takes, half of a checkpoint


def test_the_last_good_checkpoint_stays_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "toy.cfg").write_text(CFG)
    TREE.save(tmp_path / "tree.json")
    data, out = pack_squares(tmp_path / "train.h5", boxed=40, labelled=10), tmp_path / "run"
    config = settings(tmp_path, images=96, log={"checkpoint_seconds": 0.0, "log_every": 1})
    table = json.dumps(dataclasses.asdict(config))
    program = [sys.executable, "-c", _RUN, table, str(data), str(out), "4", str(LIMIT)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert len(done.stdout.splitlines()) == 1 and "is the disk full?" in done.stdout, done.stdout
    kept = list_checkpoints(out)
    assert [path.name for path in kept] == ["checkpoint-00000002.pt", "checkpoint-00000003.pt"]
    assert load_checkpoint(out)["batch"] == 3
    assert not list(out.glob(".*.part")) and not (out / "model.safetensors").exists()
    assert train(config, [data], out, resume=True, progress=False).batches == 6
