"""One class more for the model in the package, from 20 pictures and nothing else, as the docs have it."""

import tarfile
from pathlib import Path

import pytest
import torch

from yolo9000 import Detector

# Drawings of cartoon figures: the default tree has no node for them, the model no row, and it never saw them.
NODE, PARENT, FOLDERS = "cartoon", "artifact", ("garfield", "snoopy")
OTHERS = 48


def pictures(tar: Path, folder: Path, classes: tuple[str, ...] | None) -> list[Path]:
    with tarfile.open(tar) as archive:
        found = [m for m in archive if m.isfile() and (not classes or Path(m.name).parent.name in classes)]
        archive.extractall(folder, found, filter="data")
    return sorted(folder / member.name for member in found)


@pytest.mark.slow
@pytest.mark.reference
def test_twenty_pictures_teach_a_class(run, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    every = pictures(shared / "data" / "caltech101" / "images.tar", tmp_path / "all", FOLDERS)
    teach, held = every[::2], every[1::2]
    assert len(teach) == len(held) == 20
    labelled = tmp_path / "pictures" / NODE
    labelled.mkdir(parents=True)
    for k, picture in enumerate(teach):
        (labelled / f"{k}{picture.suffix}").write_bytes(picture.read_bytes())
    words = ["--add", NODE, PARENT, "--out", "edited.safetensors", "--tree-out", "tree.json"]
    assert run("edit", *words)[0] == 0
    from data_prep.cli import cli as data_prep

    words = ["pack", "--folders", str(labelled.parent), "--tree", "tree.json", "one.h5"]
    data_prep(words, standalone_mode=False)
    words = ["--data", "one.h5", "--out", "run", "--set", "model.start=edited.safetensors", "--json"]
    assert run("train", "one-class", *words)[0] == 0

    before, after = Detector.load(), Detector.load("run/model.safetensors")
    found = after(held, tree_threshold=0.5)
    assert NODE not in before.tree  # so before not one was answered so
    assert sum(any(path[-1] == NODE for path in one.paths) for one in found) >= 12  # 19 when this was written

    parent = before.tree.ids[before.tree.index(PARENT)]
    others = pictures(shared / "data" / "imagenet1k-sample" / "images.tar", tmp_path / "others", None)
    others = others[:: len(others) // OTHERS]
    wrong = 0
    for old, new in zip(before(others, tree_threshold=0.5), after(others, tree_threshold=0.5), strict=True):
        if not any(parent in path for path in old.paths):
            assert old.paths == new.paths and (old.scores == new.scores).all()
        wrong += any(path[-1] == NODE for path in new.paths)
    assert wrong <= len(others) // 8  # 3 of 125 when this was written
