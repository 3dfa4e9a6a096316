"""The store in programs of their own: read afresh, written without room or files to open, killed."""

import json
import pickle
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from data_prep import DataError
from data_prep.layout import CHUNK
from data_prep.store import Store
from data_prep.writer import StoreWriter
from tests.data_prep.test_store import random_samples, write


def test_a_fresh_process_reads_a_pickled_store(tmp_path, tree, make):
    store = Store(write(tmp_path / "s.h5", tree, random_samples(make, 30)))
    program = (
        "import pickle, sys, zlib; s = pickle.load(sys.stdin.buffer); print([zlib.crc32(x.image) for x in s])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(store), capture_output=True, check=True
    )
    assert json.loads(done.stdout) == [zlib.crc32(one.image) for one in store]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="wants a file system that takes no files: /proc")
def test_a_place_that_takes_no_files_is_no_full_disk(tree):
    with pytest.raises(DataError, match="writing failed") as caught:
        StoreWriter("/proc/s.h5", tree)
    assert "disk full" not in str(caught.value)


_NO_MORE_FILES = """
import os, resource, sys
from data_prep import DataError
from data_prep.writer import StoreWriter
from wordtree import WordTree
tree = WordTree.flat(["a"])
StoreWriter(sys.argv[1] + ".first", tree).__exit__(ValueError, None, None)  # now everything is imported
next_one = os.dup(1)
os.close(next_one)
resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, next_one))
try:
    StoreWriter(sys.argv[1], tree)
except DataError as error:
    print(error)
"""


def test_too_many_open_files_are_no_full_disk(tmp_path):
    program = [sys.executable, "-c", _NO_MORE_FILES, str(tmp_path / "s.h5")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert "oo many open files" in done.stdout, done.stderr
    assert "disk full" not in done.stdout


_FULL_DISK = """
import resource, sys
from data_prep import DataError
from data_prep.sample import Sample
from data_prep.writer import StoreWriter
from wordtree import WordTree
import numpy as np
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
none, marks = np.zeros(0, np.int64), np.zeros(0, bool)
boxes, bytes_ = np.zeros((0, 4), np.float32), bytes(300_000)
one = Sample("a", bytes_, 5, 5, boxes, none, none, none, marks, marks, "s", True)
try:
    with StoreWriter(sys.argv[1], WordTree.flat(["a"])) as writer:
        for _ in range(20):
            writer.add(one)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100, 4_000_000, 6_291_500])
def test_a_full_disk_leaves_the_older_file(tmp_path, tree, make, limit):
    path = write(tmp_path / "s.h5", tree, [make.sample("old")])
    program = [sys.executable, "-c", _FULL_DISK, str(path), str(limit)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert "disk full" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert Store(path)[0].name == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_killed_at_any_moment_the_older_file_stays_and_the_next_run_works(tmp_path, tree, make):
    path = write(tmp_path / "s.h5", tree, [make.sample("old")])
    # It is killed before its end: 30 MB and a wait, which this process standing still can't make gigabytes.
    endless = _FULL_DISK.replace("RLIMIT_FSIZE", "RLIMIT_CORE").replace(
        "range(20):\n            writer.add(one)",
        "range(100):\n            writer.add(one)\n        import time; time.sleep(600)",
    )
    assert "sleep" in endless
    process = subprocess.Popen([sys.executable, "-c", endless, str(path), "0"])
    partial = tmp_path / "s.h5.partial"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 10 * CHUNK):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert Store(path)[0].name == "old"
    with pytest.raises(DataError):
        Store(partial)
    assert Store(write(path, tree, [make.sample("new")]))[0].name == "new"
    assert not partial.exists()
