"""What a command imports and leaves behind when it starts; how long that takes: scripts/bench_start.py."""

import gc
import subprocess
import sys

import pytest
import torch

from tests.yolo9000.small import picture, small_detector
from yolo9000.cli import _pictures
from yolo9000.modelfile import save_model

_RUN = """
import sys
from yolo9000.cli import cli
cli(sys.argv[1:], standalone_mode=False)
sys.stderr.write(" ".join(sys.modules))
"""


def modules(*words: str) -> set[str]:
    """What a process has imported after `yolo9000 WORDS`."""
    done = subprocess.run([sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("detect", "--help")])
def test_help_imports_nothing_heavy(words):
    found = modules(*words)
    assert "click" in found
    assert not found & {"torch", "numpy", "PIL", "tqdm", "nltk", "networkx", "cv2", "wordtree.tree"}


def test_detect_imports_neither_what_builds_trees_nor_what_traces_networks(tmp_path):
    save_model(small_detector("stored"), tmp_path / "small.safetensors")
    picture().save(tmp_path / "a.png")
    found = modules("detect", str(tmp_path / "a.png"), "--model", str(tmp_path / "small.safetensors"))
    assert {"torch", "yolo9000.pipeline", "wordtree.tree"} <= found
    # sympy: by torch's symbolic shapes, a third of a second.
    assert not found & {"sympy", "nltk", "networkx", "cv2", "pycocotools", "h5py", "wordtree.growth"}
    assert "torch.fx.experimental.symbolic_shapes" not in found


@pytest.mark.parametrize("error", [None, ValueError])
def test_a_quick_start_leaves_collector_and_threads_as_they_were(error):
    threads = torch.get_num_threads()
    assert gc.isenabled()
    try:
        with _pictures.quick_start():
            assert not gc.isenabled() and torch.get_num_threads() == 1
            if error is not None:
                raise error
    except ValueError:
        assert error is ValueError
    assert gc.isenabled() and torch.get_num_threads() == threads
    gc.unfreeze()
