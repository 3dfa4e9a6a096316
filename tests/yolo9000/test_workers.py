"""Worker processes: those that make batches end with the training process, however it ends; those that detect
compute though they were forked."""

import dataclasses
import json
import os
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


_FORKED = """
import multiprocessing, sys
import numpy, torch
from tests.yolo9000.small import picture, small_detector
from yolo9000 import Detector

torch.set_num_threads(2)
detector = Detector(small_detector("stored"), precision="float32")
pictures = [numpy.asarray(picture(k, 400, 300)) for k in range(2)]

def nodes():
    alone = [detector(one, threshold=0.3).nodes.tolist() for one in pictures]
    return alone, [found.nodes.tolist() for found in detector(pictures, threshold=0.3)]

wanted = nodes()
workers = multiprocessing.get_context("fork").Pool(1)
print(workers.apply_async(nodes).get(60) == wanted, any(wanted[0]), torch.get_num_threads())
workers.terminate()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_detects_as_its_parent_did() -> None:
    """OpenMP's threads are not inherited, and it would wait for them for ever."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    program = [sys.executable, "-W", "ignore", "-c", _FORKED]
    root = Path(__file__).parents[2]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, cwd=root, env=environment)
    assert done.stdout.split() == ["True", "True", "2"], done.stderr
