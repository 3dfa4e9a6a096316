"""Worker processes: those that make batches end with the training process, however it ends; those that detect
compute though they were forked."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data_prep import Store
from tests.yolo9000.test_evaluate import Oracle
from tests.yolo9000.test_train import CFG, settings
from tests.yolo9000.toys import TREE, pack_squares
from yolo9000 import calibrate
from yolo9000.batches import Batch
from yolo9000.errors import LoaderError, TrainingError
from yolo9000.evaluate import evaluate
from yolo9000.heldout import EvalSettings, HeldOut
from yolo9000.naming import Naming
from yolo9000.network import Network
from yolo9000.start import load_any
from yolo9000.train import train

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


def kill_loaders(*_: object) -> None:
    """As the system does where memory runs out."""
    for process in multiprocessing.active_children():
        process.kill()
    time.sleep(10)  # until this process is told, which ends it


class Killing:
    """A task in whose course the loading processes are killed."""

    def loss(self, net: Network, batch: Batch) -> dict[str, torch.Tensor]:
        kill_loaders()
        return {"loss": sum(p.sum() for p in net.parameters()) * 0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no signal tells of it here")
def test_a_loading_process_that_is_killed_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "toy.cfg").write_text(CFG)
    TREE.save(tmp_path / "tree.json")
    data, out = pack_squares(tmp_path / "train.h5", boxed=40, labelled=10), tmp_path / "run"
    config = settings(tmp_path, images=160, workers=1)
    with pytest.raises(TrainingError, match=r"loads pictures was killed, .*Killed.* --resume and fewer work"):
        train(config, [data], out, progress=False, task=Killing())
    fewer = dataclasses.replace(config, workers=0)
    assert train(fewer, [data], out, resume=True, progress=False).batches == 10
    held = HeldOut(load_any(str(out)), [Store(data)], EvalSettings(workers=1, batch=1))
    held.net.layers[0].register_forward_hook(kill_loaders)
    with pytest.raises(TrainingError, match=r"loads pictures was killed, .* fewer workers, or a smaller"):
        next(held.outputs())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no signal tells of it here")
@pytest.mark.parametrize("judged", [evaluate, calibrate.gather])
def test_it_is_told_so_wherever_the_signal_comes(judged, tmp_path: Path, monkeypatch) -> None:
    """Here while what the network said of a batch is looked at."""
    store = Store(pack_squares(tmp_path / "x.h5", boxed=0, labelled=12, size=48))
    monkeypatch.setattr(Naming, "add_boxes", kill_loaders)
    monkeypatch.setattr(calibrate, "_boxes_of", kill_loaders)
    with pytest.raises(LoaderError, match=r"loads pictures was killed, .* fewer workers, or a smaller"):
        judged(Oracle([store[k] for k in range(12)]), [store], EvalSettings(workers=1, batch=1))


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
