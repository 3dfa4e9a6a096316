"""Checkpoints are whole or absent; the newest sound one is found."""

from pathlib import Path

import pytest
import torch

from yolo9000.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    save_best,
    save_checkpoint,
    set_best_aside,
    write_atomically,
)
from yolo9000.errors import TrainingError


def state(batch: int) -> dict:
    return {"config": {}, "batch": batch, "net": {"w": torch.full((50, 50), float(batch))}}


def test_the_newest_are_kept_and_come_back_the_same(tmp_path: Path) -> None:
    for batch in (5, 10, 1000):
        save_checkpoint(tmp_path, batch, state(batch), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "checkpoint-00000010.pt",
        "checkpoint-00001000.pt",
    ]
    found = load_checkpoint(tmp_path)
    assert found["batch"] == 1000
    torch.testing.assert_close(found["net"]["w"], state(1000)["net"]["w"])


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 1, state(1), keep=5)
    path = save_checkpoint(tmp_path, 2, state(2), keep=5)
    data = path.read_bytes()
    if damage == "other":
        torch.save({"something": 1}, path)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>"}[damage])
    assert load_checkpoint(tmp_path)["batch"] == 1
    with pytest.raises(TrainingError, match="no checkpoint can be read"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"config": Evil()}, tmp_path / "checkpoint-00000001.pt")
    with pytest.raises(TrainingError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint in this folder"):
        load_checkpoint(tmp_path)
    with pytest.raises(TrainingError, match="no checkpoint can be read"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("write failed")])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise error

    with pytest.raises(TrainingError, match="cannot be written"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_best_one_set_aside_is_not_written_over(tmp_path: Path) -> None:
    """As where a run was killed after it had set the best aside and before its next checkpoint."""
    save_best(tmp_path, state(1))
    aside = set_best_aside(tmp_path, 5)
    best = save_best(tmp_path, state(2))
    assert set_best_aside(tmp_path, 5) == aside
    assert [load_checkpoint(path)["batch"] for path in (aside, best)] == [1, 2]


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000007.pt.123.part").write_text("half")
    path = save_checkpoint(tmp_path, 8, state(8), keep=2)
    assert list(tmp_path.iterdir()) == [path]
