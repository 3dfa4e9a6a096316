"""Worker processes that make batches: they end with the training process, however it ends."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.yolo9000.test_train import CFG, settings
from tests.yolo9000.toys import TREE, pack_squares

_RUN = """
import json, pathlib, sys
from data_prep import Store
from yolo9000.config import TrainConfig, from_dict
from yolo9000.train import train

config, data, out = sys.argv[1:]

class Broken:
    def loss(self, net, batch):
        raise RuntimeError("nobody foresaw this")

config = from_dict(TrainConfig, json.loads(config), "test")
train(config, [pathlib.Path(data)], pathlib.Path(out), progress=False, task=Broken())
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_nobody_catches_ends_the_run(tmp_path: Path, workers: int) -> None:
    """Its traceback keeps the loader to the very end, and so the workers, which take no SIGTERM of others."""
    (tmp_path / "toy.cfg").write_text(CFG)
    TREE.save(tmp_path / "tree.json")
    data = pack_squares(tmp_path / "train.h5", boxed=40, labelled=10)
    table = json.dumps(dataclasses.asdict(settings(tmp_path, images=160, workers=workers)))
    program = [sys.executable, "-c", _RUN, table, str(data), str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "nobody foresaw this" in done.stderr
