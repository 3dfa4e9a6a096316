"""Packing that is killed goes on where it was and makes the same file."""

import fcntl
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep import DataError, packing
from data_prep.packing import pack
from data_prep.recipe import Recipe, Source
from data_prep.store import Store


@pytest.fixture
def recipe(tmp_path, make, tree_file) -> Recipe:
    """Forty pictures of 130 kB (some broken, some with a label that is dropped) in five classes."""
    for k in range(40):
        path = tmp_path / "in" / f"n0000000{1 + k % 5}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"broken" if k % 13 == 7 else make.picture(220, 200, "PNG", seed=k))
    (tmp_path / "m.csv").write_text(
        "n00000003,,not wanted\n" + "".join(f"n{k:08},n{k:08}\n" for k in (1, 2, 4, 5))
    )
    return Recipe((Source("x", "folders", "in", map="m.csv"),), str(tree_file), root=tmp_path)


def contents(path) -> list:
    return [(one.name, one.image, one.image_labels.tolist(), one.width, one.height) for one in Store(path)]


class Killed(BaseException):
    """Like a kill: nothing that cleans up after errors may run on it."""


def stop_after(monkeypatch, count: int | None) -> list:
    """Let `fetch` die at call `count`; the list gets the names fetched."""
    fetched, real = [], packing.fetch

    def fetch(pictures, name, decode):
        if len(fetched) == count:
            raise Killed
        fetched.append(name)
        return real(pictures, name, decode)

    monkeypatch.setattr(packing, "fetch", fetch)
    return fetched


@pytest.mark.parametrize("stops", [[25], [12, 9, 9], [39], [1]])
def test_pictures_already_packed_are_not_looked_at_again(tmp_path, recipe, monkeypatch, stops):
    wanted = pack(recipe, tmp_path / "whole.h5").to_dict()
    times = {}
    monkeypatch.setattr(packing, "AHEAD", 1)
    for count in [*stops, None]:
        with monkeypatch.context() as patch:
            fetched = stop_after(patch, count)
            if count is None:
                report = pack(recipe, tmp_path / "o.h5")
            else:
                with pytest.raises(Killed):
                    pack(recipe, tmp_path / "o.h5")
                assert not (tmp_path / "o.h5").exists()
                with pytest.raises(DataError):
                    Store(tmp_path / "o.h5.partial")
        for name in fetched:
            times[name] = times.get(name, 0) + 1
    assert report.to_dict() == wanted
    assert (tmp_path / "o.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob("o.h5.partial*"))
    # Only what had not reached the disk is read again: under a chunk of 1 MiB (8 pictures) at each stop, and
    # the 8 pictures whose label is dropped, which are not kept.
    again = [name for name, count in times.items() if count > 1 and "n00000003" not in name]
    assert len(again) <= 9 * len(stops)
    if stops == [25]:
        assert len(fetched) < 40 - 25 + 9 + 5


def test_another_recipe_or_a_damaged_log_begins_anew(tmp_path, recipe, monkeypatch):
    pack(recipe, tmp_path / "whole.h5", decode=False)
    log = tmp_path / "o.h5.partial.log"
    for damage in ("key", "first line", "middle", "data", "places"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            stop_after(patch, 30)
            pack(recipe, tmp_path / "o.h5", decode=damage == "key")
        lines = log.read_bytes().splitlines(keepends=True)
        if damage == "first line":
            log.write_bytes(b"x" + log.read_bytes())
        elif damage == "middle":
            log.write_bytes(b"".join(lines[:10]) + b"nonsense\n" + b"".join(lines[10:])[:-5])
        elif damage == "data":
            partial = tmp_path / "o.h5.partial"
            partial.write_bytes(np.random.default_rng(0).bytes(partial.stat().st_size))
        elif damage == "places":
            (tmp_path / "o.h5.partial").unlink()
        pack(recipe, tmp_path / "o.h5", decode=False)
        assert contents(tmp_path / "o.h5") == contents(tmp_path / "whole.h5"), damage
        assert not list(tmp_path.glob("o.h5.partial*"))
        (tmp_path / "o.h5").unlink()


def test_two_processes_do_not_pack_one_file(tmp_path, recipe):
    with (tmp_path / "o.h5.partial.log").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            pack(recipe, tmp_path / "o.h5")


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, recipe, tree_file):
    pack(recipe, tmp_path / "whole.h5")
    command = ["pack", "--folders", "in", "--source", "x", "--map", "m.csv", "--tree", tree_file]
    command += ["--root", tmp_path, "--jobs", "1", "--skip-bad", tmp_path / "o.h5"]
    program = "from data_prep.cli import main; main()"
    dice = random.Random(0)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (tmp_path / "o.h5.partial.log").exists():
            time.sleep(0.005)
        time.sleep(dice.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "o.h5").exists():
            assert contents(tmp_path / "o.h5") == contents(tmp_path / "whole.h5")
            (tmp_path / "o.h5").unlink()
    subprocess.run([sys.executable, "-c", program, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "o.h5") == contents(tmp_path / "whole.h5")
    assert not list(tmp_path.glob("o.h5.partial*"))
