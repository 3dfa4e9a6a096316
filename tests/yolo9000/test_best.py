"""What a run keeps and leaves: the best moment, a checkpoint on a full disk, log, curves, a summary."""

import dataclasses
import errno
import json
import os
import signal
import sys
import types
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from data_prep import Store, StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.test_train import CFG, assert_same_weights, settings
from yolo9000.checkpoint import load_checkpoint
from yolo9000.cli.info import command as info
from yolo9000.cli.train import command as train_command
from yolo9000.errors import LoaderError, TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.history import CURVES_NAME, differences, draw_curves, summary
from yolo9000.run import _as_now
from yolo9000.runlog import LOG_NAME, RunLog, append_line, read_log
from yolo9000.settings import to_dict
from yolo9000.start import build_network, load_any
from yolo9000.tasks import make_task
from yolo9000.train import train
from yolo9000.validation import Judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.prepare(tmp_path_factory.mktemp("toys"), CFG, boxed=60, labelled=10, val=(12, 0))


class Tampered:
    """The configured task, with something done before chosen batches."""

    def __init__(self, folder: Path, config, at: dict):
        net, tree, _ = build_network(config.model, [Store(folder / "train.h5")])
        self.task, self.at = make_task(config, net, tree), at

    def loss(self, net, batch):
        self.at.get(batch.number, lambda: None)()
        return self.task.loss(net, batch)


def test_the_best_moment_by_score_is_kept_and_exported(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, images=160, validation={"every": 4})
    out = tmp_path / "run"
    result = train(config, [folder / "train.h5"], out, progress=False, validation=[folder / "val.h5"])
    judged = [line for line in read_log(out) if line["event"] == "validation"]
    assert [line["batch"] for line in judged] == [4, 8, 10]
    assert {line["by"] for line in judged} == {"boxes AP50"}
    values = [line["value"] for line in judged]
    first = values.index(max(values))
    assert [line["best"] for line in judged] == [
        value > max(values[:k], default=-1) for k, value in enumerate(values)
    ]
    assert result.best["batch"] == judged[first]["batch"] == load_checkpoint(out / "best.pt")["batch"]
    # The score is that of the averaged weights, and of the file that is left of them.
    own = EvalSettings(64, resamples=0, workers=0, precision="float32")
    alone = evaluate(load_any(str(out / "best.safetensors")), [Store(folder / "val.h5")], own)
    assert alone["boxes"]["AP50"] == pytest.approx(result.best["value"], abs=1e-6)
    assert load_any(str(out / "best.safetensors")).seen == result.best["images"]


@pytest.mark.parametrize("tree", ["", "flat"])
def test_a_classifier_is_judged_by_top1(folder: Path, tmp_path: Path, tree: str) -> None:
    model = {"preset": "darknet19", "arguments": {"slim": 0.03, "image_size": 64}, "tree": tree}
    config = settings(folder, model=model, task="classify", loss={}, images=32, validation={"every": 1})
    result = train(config, [folder / "train.h5"], tmp_path / "run", False, False, None, [folder / "val.h5"])
    assert result.best["by"] == "labels top1" and 0 <= result.best["value"] <= 1
    assert load_any(str(tmp_path / "run" / "best.safetensors")).seen == result.best["images"]


def test_judging_changes_no_weight(folder: Path, tmp_path: Path) -> None:
    plain = settings(folder, images=96)
    often = settings(folder, images=96, validation={"every": 1, "pictures": 3})
    train(plain, [folder / "train.h5"], tmp_path / "a", progress=False)
    train(often, [folder / "train.h5"], tmp_path / "b", progress=False, validation=[folder / "val.h5"])
    assert_same_weights(
        load_any(str(tmp_path / "a")).state_dict(), load_any(str(tmp_path / "b")).state_dict()
    )
    assert not (tmp_path / "a" / "best.safetensors").exists()


def test_without_validation_data_the_mean_loss_decides_also_when_resumed(
    folder: Path, tmp_path: Path
) -> None:
    config = settings(folder, images=192, validation={"every": 4})
    whole = train(config, [folder / "train.h5"], tmp_path / "a", progress=False)
    for batch in (5, 7):  # stopped within a stretch, and just where the run is to be judged
        stop = {batch: lambda: os.kill(os.getpid(), signal.SIGTERM)}
        task = Tampered(folder, config, stop)
        found = train(config, [folder / "train.h5"], tmp_path / "b", resume=True, progress=False, task=task)
        assert (found.stopped, found.batches) == ("SIGTERM", batch + 1)
        assert load_checkpoint(tmp_path / "b")["batch"] == batch + 1
    resumed = train(config, [folder / "train.h5"], tmp_path / "b", resume=True, progress=False)
    assert whole.best == resumed.best and whole.best["by"] == "loss"
    a, b = (
        [
            (line["batch"], line["value"], line["best"])
            for line in read_log(tmp_path / out)
            if line["event"] == "validation"
        ]
        for out in "ab"
    )
    assert a == b and [batch for batch, _, _ in a] == [4, 8, 12]
    for out in "ab":
        assert load_checkpoint(tmp_path / out / "best.pt")["batch"] == whole.best["batch"]


def test_a_validation_picture_that_cannot_be_read_ends_no_run(folder: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "val.h5", toys.TREE) as writer:
        good = toys.square_sample(1)
        writer.add(good)
        writer.add(dataclasses.replace(good, name="half", image=good.image[: len(good.image) // 2]))
    config = settings(folder, images=32)
    result = train(
        config, [folder / "train.h5"], tmp_path / "run", progress=False, validation=[tmp_path / "val.h5"]
    )
    assert result.model is not None and result.best is None
    lines = [line for line in read_log(tmp_path / "run") if line["event"] == "not judged"]
    assert lines and lines[0]["reason"]


def test_a_killed_loader_of_validation_pictures_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    def killed(*_: object) -> None:
        raise LoaderError("killed")

    monkeypatch.setattr(Judge, "judge", killed)
    config, val = settings(folder, images=32), toys.pack_squares(tmp_path / "val.h5", boxed=4)
    with pytest.raises(LoaderError, match="killed"):
        train(config, [folder / "train.h5"], tmp_path / "run", progress=False, validation=[val])


def test_a_run_with_settings_that_did_nothing_is_known_again(folder: Path) -> None:
    now = to_dict(settings(folder))
    idle = {
        "arguments": {"slim": 0.5},
        "trunk_rows": True,
        "shared_rows": True,
        "fold": True,
        "stored": "labels",
    }
    assert _as_now({**now, "model": now["model"] | idle}) == now


def test_a_corrupt_picture_is_skipped_counted_and_reported(folder: Path, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "train.h5", toys.TREE) as writer:
        for number in range(20):
            good = toys.square_sample(number)
            half = good.image[: len(good.image) // 2]
            writer.add(dataclasses.replace(good, image=half) if number == 7 else good)
    config = tmp_path / "toy.toml"
    config.write_text(
        f'epochs = 3.0\nbatch = 4\nworkers = 0\nthreads = 1\n[model]\ncfg = "{folder / "toy.cfg"}"\n'
        f'tree = "{folder / "tree.json"}"\n[input]\nsizes = [64]\n[[data]]\nshare = 1\nkind = "boxed"\n'
    )
    out = tmp_path / "run"
    words = [str(config), "--data", str(tmp_path / "train.h5"), "--out", str(out)]
    done = CliRunner().invoke(train_command, words, catch_exceptions=False)
    lines = [line for line in read_log(out) if line["event"] == "skipped"]
    # Once an epoch it is drawn; in another picture's place it may be drawn again.
    assert done.exit_code == 0 and len(lines) >= 3
    assert all(line["picture"].startswith("squares/7: ") for line in lines)
    assert f"{len(lines)} pictures could not be read" in done.output
    assert summary(read_log(out))["skipped"] == len(lines)


@pytest.mark.parametrize("what", ["checkpoint", "best", "log"])
def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config = settings(
        folder,
        images=160,
        log={"checkpoint_seconds": 0.0, "keep": 1, "log_every": 1},
        validation={"every": 6},
    )
    full, save, out = [False], torch.save, tmp_path / "run"

    def half_saved(state, path):
        if full[0] and (what == "checkpoint" or what in Path(path).name):
            Path(path).write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", half_saved)
    if what == "log":
        real = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda path, *a, **k: real(
                Path("/dev/full") if full[0] and path.name == LOG_NAME else path, *a, **k
            ),
        )
    task = Tampered(folder, config, {5: lambda: full.__setitem__(0, True)})
    with pytest.raises(TrainingError, match="No space left"):
        train(config, [folder / "train.h5"], out, progress=False, task=task)
    assert load_checkpoint(out)["batch"] == 5
    assert not list(out.glob(".*")) and not (out / "best.pt").exists()
    full[0] = False
    train(config, [folder / "train.h5"], out, resume=True, progress=False)
    train(config, [folder / "train.h5"], tmp_path / "whole", progress=False)
    assert_same_weights(load_any(str(out)).state_dict(), load_any(str(tmp_path / "whole")).state_dict())


def test_lines_after_half_a_line_are_whole(tmp_path: Path) -> None:
    append_line(tmp_path, {"event": "start"})
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"event": "bat')
    append_line(tmp_path, {"event": "resume", "batch": 3})
    append_line(tmp_path, {"event": "model"})
    assert [line["event"] for line in read_log(tmp_path)] == ["start", "resume", "model"]
    with (tmp_path / LOG_NAME).open("ab") as file:
        file.write(b'\n\xff\xfe{"a"\n[1]\n7\n')
    assert len(read_log(tmp_path)) == 3
    assert read_log(tmp_path / "nowhere") == []
    with pytest.raises(TrainingError, match=LOG_NAME):
        append_line(tmp_path / "nowhere", {})


def test_tensorboard_gets_the_figures_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None):
            told.append((Path(folder).name, purge_step))

        def add_scalar(self, *values):
            told.append(values)

        def close(self):
            told.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = RunLog(tmp_path, board=True, images=32)
    log.write({"event": "batch", "batch": 3, "images": 48, "loss": 1.5, "best": True, "by": "loss"})
    log.write({"event": "stopped", "batch": 3})
    log.close()
    assert told == [("tensorboard", 33), ("batch/loss", 1.5, 48), "closed"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where it is not installed
    RunLog(tmp_path, board=True).write({"event": "batch", "batch": 4, "images": 64, "loss": 1.0})
    assert len(read_log(tmp_path)) == 3 and len(told) == 3


def test_tensorboard_itself_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, board=True)
    for images in (16, 32):
        log.write({"event": "batch", "batch": images // 16, "images": images, "loss": 1 / images})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("batch/loss")] == [(16, 1 / 16), (32, 1 / 32)]


def test_info_says_what_a_run_was(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(
        f'images = 64\nbatch = 16\nworkers = 0\nname = "squares"\n[model]\ncfg = "{folder / "toy.cfg"}"\n'
        f'tree = "{folder / "tree.json"}"\n[input]\nsizes = [64]\n[log]\nlog_every = 1\n'
        f'[[data]]\nshare = 1\nkind = "boxed"\n'
    )
    out = tmp_path / "run"
    words = [
        str(config),
        "--data",
        str(folder / "train.h5"),
        "--val",
        str(folder / "val.h5"),
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(train_command, [*words, "--set", "threads=1"], catch_exceptions=False)
    assert done.exit_code == 0 and "best boxes AP50" in done.output
    found = json.loads(CliRunner().invoke(info, [str(out), "--json"], catch_exceptions=False).output)
    run = found["run"]
    assert run["state"] == "finished" and run["images"] == [64, 64] and run["batches"] == [4, 4]
    assert run["data"][0]["file"] == "train.h5" and run["data"][0]["samples"] == 70
    assert run["seconds"] > 0 and run["skipped"] == 0 and run["best"]["by"] == "boxes AP50"
    assert run["losses"]["loss"] == [line for line in read_log(out) if line["event"] == "batch"][-1]["loss"]
    assert run["configuration"]["input.sizes"] == [64] and "optimiser.name" not in run["configuration"]
    text = CliRunner().invoke(info, [str(out)], catch_exceptions=False).output
    for word in ("squares", "finished", "train.h5", "boxes AP50", "input.sizes", "no_objectness", "64 of 64"):
        assert word in text, text
    with Image.open(out / CURVES_NAME) as image:
        image.load()
        assert image.width > 300 and len(image.getcolors(1 << 20)) > 5


def test_summaries_of_runs_that_did_not_finish() -> None:
    start = {
        "event": "start",
        "batch": 0,
        "batches": 10,
        "config": {"batch": 4, "odd": {"a": 1}},
        "time": "t",
    }
    batch = {"event": "batch", "batch": 3, "images": 12, "loss": 2.0, "rate": 0.1, "seconds": 7.0}
    assert summary([])["state"] == "running, or killed"
    found = summary([start, batch])
    assert (found["state"], found["images"], found["losses"]) == (
        "running, or killed",
        [12, 40],
        {"loss": 2.0},
    )
    assert found["configuration"] == {"batch": 4, "odd.a": 1} and "best" not in found
    resume = start | {"event": "resume", "batch": 2}
    stopped = {"event": "stopped", "signal": "SIGTERM", "batch": 3, "seconds": 9.0}
    skipped = {"event": "skipped", "picture": "a.jpg: cut"}
    found = summary([start, batch, skipped, resume, batch, stopped])
    assert (found["state"], found["seconds"], found["resumed"]) == ("stopped by SIGTERM", 16.0, 1)
    assert found["skipped"] == 1
    spoilt = {"event": "not finite", "what": "loss", "batch": 3}
    assert summary([start, spoilt])["state"] == "ended: the loss of batch 3 was not finite"


def test_differences_are_those_from_the_defaults(folder: Path) -> None:
    config = settings(folder)
    found = differences(dataclasses.asdict(config))
    assert found["data.0.augment.hue"] == 0.0 and found["loss.early_images"] == 0 and found["batch"] == 16
    assert "data.0.augment.flip" not in found and "log.keep" not in found and "precision" in found


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_curves_of_few_lines_and_of_many(tmp_path: Path, count: int) -> None:
    lines = [
        {
            "event": "batch",
            "batch": k,
            "images": 16 * k,
            "loss": 1e9 if k == 1 else 5 / k,
            "rate": 0.1,
            "avg_iou": 0.5,
        }
        for k in range(1, count + 1)
    ]
    lines += [{"event": "validation", "images": 16, "by": "boxes AP50", "value": float("nan")}]
    assert draw_curves(lines, tmp_path / "c.png") == (count > 0)
    assert (tmp_path / "c.png").exists() == (count > 0)
