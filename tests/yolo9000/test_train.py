"""A run from packed data to a model file: it learns, it stops and goes on without a difference, it says
what went wrong."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from data_prep import Store
from tests.yolo9000 import toys
from yolo9000.batches import Batch
from yolo9000.checkpoint import list_checkpoints, load_checkpoint
from yolo9000.cli.train import command
from yolo9000.config import TrainConfig, from_dict
from yolo9000.device import wants_bfloat16
from yolo9000.errors import TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.network import Network
from yolo9000.start import load_any
from yolo9000.train import train

# A detector of 70,000 weights with cells of 8 pixels, small enough to learn squares in seconds.
CFG = "[net]\nwidth=64\nheight=64\nchannels=3\n"
for _filters in (8, 16, 32):
    CFG += (
        f"[convolutional]\nbatch_normalize=1\nfilters={_filters}\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
    )
    CFG += "[maxpool]\nsize=2\nstride=2\n"
for _filters in (48, 64):
    CFG += (
        f"[convolutional]\nbatch_normalize=1\nfilters={_filters}\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
    )
_LAST = "[convolutional]\nfilters=22\n"
CFG += _LAST + "size=1\nstride=1\npad=1\nactivation=linear\n"
CFG += "[region]\nanchors=2.4,2.4,3.6,3.6\nclasses=6\nnum=2\ncoords=4\nsoftmax=1\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.prepare(tmp_path_factory.mktemp("toys"), CFG, boxed=240, labelled=60, val=(60, 20))


def settings(folder: Path, **top) -> TrainConfig:
    table = {
        "model": {"cfg": str(folder / "toy.cfg"), "tree": str(folder / "tree.json")},
        "images": 320,
        "batch": 16,
        "workers": 0,
        "threads": 1,
        "ema": 0.98,
        "precision": "float32",
        "input": {"sizes": [64]},
        "optimiser": {"name": "adamw", "lr": 5e-3},
        "schedule": {"name": "cosine", "burn_in": 20},
        "loss": {"early_images": 0},
        "data": [
            {"share": 1.0, "kind": "boxed", "augment": {"scale": [0.8, 1.3], "aspect": 0.1, "hue": 0.0}}
        ],
    }
    return from_dict(TrainConfig, table | top, "test")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_any(str(out)).state_dict()


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a), "weights differ"


def test_progress_in_a_file_is_a_few_lines(folder: Path, tmp_path: Path, capsys) -> None:
    """Not one for every tenth of a second: the first, the last, and one every 30 seconds."""
    begun = time.monotonic()
    train(settings(folder, images=1600), [folder / "train.h5"], tmp_path / "run")
    states = capsys.readouterr().err.count("1600 [")
    assert 1 <= states <= 3 + (time.monotonic() - begun) / 30


def test_it_learns_to_find_squares_and_their_colours(folder: Path, tmp_path: Path) -> None:
    label_part = {"share": 0.25, "kind": "label", "augment": {"scale": [0.8, 1.3], "hue": 0.0}}
    config = settings(folder, images=5200)
    config = dataclasses.replace(
        config,
        data=(*config.data, from_dict(type(config.data[0]), label_part, "test")),
        batch=20,
        loss={"early_images": 0, "label_objectness": "none"},
    )
    result = train(config, [folder / "train.h5"], tmp_path / "run", progress=False)
    assert result.images == 5200 and result.stopped is None and result.skipped == 0
    scores = evaluate(
        load_any(str(result.model)), [Store(folder / "val.h5")], EvalSettings(workers=0, resamples=0)
    )
    # A network that has learnt nothing scores below 0.02; a trained one came to 0.75 and more.
    assert scores["boxes"]["AP50"] > 0.5
    assert scores["boxes"]["any_class"]["AP50"] > 0.5
    assert scores["labels"]["greedy"] > 0.6
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "batch"]
    assert lines[0]["event"] == "start" and lines[0]["parts"][0]["per_batch"] == 16
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"] and steps[-1]["images"] == 5200
    assert {"box", "objectness", "no_objectness", "classification", "rate", "images_per_second"} <= steps[
        -1
    ].keys()


@pytest.mark.parametrize("layer", ["", "[dropout]\nprobability=0.5\n"])  # one that draws random numbers
def test_stopped_and_resumed_is_bit_equal_to_undisturbed(folder: Path, tmp_path: Path, layer: str) -> None:
    (tmp_path / "net.cfg").write_text(CFG.replace(_LAST, layer + _LAST))
    model = {"cfg": str(tmp_path / "net.cfg"), "tree": str(folder / "tree.json")}
    config = settings(folder, model=model)
    data = [folder / "train.h5"]
    train(config, data, tmp_path / "whole", progress=False)

    class StopAfter:
        """The configured task, with Ctrl-C after some batches."""

        def __init__(self, task, batches: int):
            self.task, self.left = task, batches

        def loss(self, net: Network, batch: Batch) -> dict[str, torch.Tensor]:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return self.task.loss(net, batch)

    from yolo9000.start import build_network
    from yolo9000.tasks import make_task

    net, tree, _ = build_network(config.model, [Store(data[0])])
    for batches, done in ((7, 7), (6, 13)):
        task = StopAfter(make_task(config, net, tree), batches)
        result = train(config, data, tmp_path / "parts", resume=True, progress=False, task=task)
        assert result.stopped == "SIGINT" and result.batches == done and result.model is None
    result = train(config, data, tmp_path / "parts", resume=True, progress=False)
    assert result.batches == 20
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_is_bit_equal(folder: Path, tmp_path: Path) -> None:
    """SIGKILL at twenty instants, ten of them while a checkpoint is being written."""
    log, validation = {"checkpoint_seconds": 0.0, "keep": 2}, {"every": 7}
    config = settings(folder, images=16 * 250, log=log, validation=validation)
    train(config, [folder / "train.h5"], tmp_path / "whole", progress=False)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    code = (
        "import json, sys, pathlib; from yolo9000.config import *; from yolo9000.train import train\n"
        "c = from_dict(TrainConfig, json.load(open(sys.argv[1])), 'test')\n"
        "train(c, [pathlib.Path(sys.argv[2])], pathlib.Path(sys.argv[3]), resume=True, progress=False)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "config.json"), str(folder / "train.h5")]
    out, writing = tmp_path / "parts", 0
    dice = random.Random(0)
    for kill in range(20):
        process = subprocess.Popen([*arguments, str(out)])
        before = list_checkpoints(out)[-1:]
        while process.poll() is None and list_checkpoints(out)[-1:] == before:
            time.sleep(0.002)
        time.sleep(dice.random() / 10)  # a batch takes some hundredths of a second
        while kill % 2 and process.poll() is None and not list(out.glob(".*.part")):
            pass
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
        writing += bool(list(out.glob(".*.part")))
    assert writing >= 3, "few kills hit a checkpoint being written"
    assert subprocess.run([*arguments, str(out)], check=False).returncode == 0
    assert_same_weights(weights(tmp_path / "whole"), weights(out))
    assert not list(out.glob(".*.part"))
    best = [load_checkpoint(folder / "best.pt") for folder in (tmp_path / "whole", out)]
    assert best[0]["best"] == best[1]["best"]
    assert_same_weights(best[0]["net"], best[1]["net"])


def test_a_checkpoint_is_a_model_too(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, images=64), [folder / "train.h5"], tmp_path / "run", progress=False)
    path = list_checkpoints(tmp_path / "run")[-1]
    assert_same_weights(load_any(str(path)).state_dict(), weights(tmp_path / "run"))
    assert load_any(str(path)).tree == toys.TREE
    assert load_any(str(path)).seen == load_any(str(tmp_path / "run")).seen == 64


def test_a_folder_is_never_trained_over(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, images=32)
    train(config, [folder / "train.h5"], tmp_path / "run", progress=False)
    with pytest.raises(TrainingError, match="holds another run"):
        train(config, [folder / "train.h5"], tmp_path / "run", progress=False)
    other = dataclasses.replace(config, batch=8)
    with pytest.raises(TrainingError, match="has other settings: batch"):
        train(other, [folder / "train.h5"], tmp_path / "run", resume=True, progress=False)
    longer = dataclasses.replace(config, images=64)
    assert train(longer, [folder / "train.h5"], tmp_path / "run", resume=True, progress=False).batches == 4


def test_a_run_of_an_older_version_goes_on_where_it_lacks_a_setting(folder: Path, tmp_path: Path) -> None:
    config, out = settings(folder, images=32), tmp_path / "run"
    train(config, [folder / "train.h5"], out, progress=False)
    path = list_checkpoints(out)[-1]
    state = load_checkpoint(path)
    del state["config"]["model"]["follow"], state["config"]["data"][0]["names"]
    torch.save(state, path)
    longer = dataclasses.replace(config, images=64)
    assert train(longer, [folder / "train.h5"], out, resume=True, progress=False).batches == 4
    state["config"]["model"]["forgotten"] = 1
    torch.save(state, path)
    for later in list_checkpoints(out):
        later.unlink() if later != path else None
    (out / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match="has other settings: data, model"):
        train(longer, [folder / "train.h5"], out, resume=True, progress=False)


class _Spoiled:
    """A task whose loss is not a number once a certain picture is in the batch."""

    def __init__(self, name: str | None, gradient: bool = False):
        self.name, self.gradient, self.batches = name, gradient, 0

    def loss(self, net: Network, batch: Batch) -> dict[str, torch.Tensor]:
        self.batches += 1
        value = net.lazy(batch.images).boxes.square().mean()
        spoil = self.batches > 3 if self.name is None else self.name in batch.names
        if spoil and self.gradient:
            value = value + (value - value.detach()).clamp(min=0).sqrt()  # finite, with an infinite slope
        elif spoil:
            value = value * float("nan")
        return {"loss": value}


@pytest.mark.parametrize("gradient", [False, True])
def test_what_is_not_finite_stops_before_the_update_and_names_the_pictures(
    folder: Path, tmp_path: Path, gradient: bool
) -> None:
    config = settings(folder, images=3200, log={"checkpoint_seconds": 0.0})
    task = _Spoiled(None if gradient else "squares/7", gradient)
    wanted = "gradient is not finite" if gradient else "loss is not finite; pictures: squares/7[.]"
    with pytest.raises(TrainingError, match=wanted):
        train(config, [folder / "train.h5"], tmp_path / "run", progress=False, task=task)
    state = load_checkpoint(tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in state["net"].values() if v.is_floating_point())
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "not finite" and last["pictures"]


def test_frozen_layers_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, images=64)
    train(config, [folder / "train.h5"], tmp_path / "a", progress=False)
    model = {"start": str(tmp_path / "a"), "freeze": 4}
    train(settings(folder, images=64, model=model), [folder / "train.h5"], tmp_path / "b", progress=False)
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    for key in before:
        assert torch.equal(before[key], after[key]) == (int(key.split(".")[1]) < 4), key


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_has_a_rate_of_zero_stays_to_the_bit(folder: Path, tmp_path: Path, ema: float) -> None:
    """Weights and batch norm's statistics, also where the run is judged on the way."""
    data, validation = [folder / "train.h5"], [folder / "val.h5"]
    train(settings(folder, images=64), data, tmp_path / "a", progress=False)
    model = {"start": str(tmp_path / "a")}
    optimiser = {"lr": 0.01, "scales": {"layers.[0-6].": 0.0, "layers.7.conv": 0.0, "layers.4.": 1.0}}
    config = settings(folder, model=model, ema=ema, optimiser=optimiser, validation={"every": 5})
    train(config, data, tmp_path / "b", progress=False, validation=validation)
    before, after = (load_any(str(tmp_path / name)).eval() for name in "ab")
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        same = [torch.equal(before.features(images, k), after.features(images, k)) for k in (3, 4)]
    assert same == [True, False]
    states = before.state_dict(), after.state_dict()
    moved = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert all(key.startswith(("layers.4.", "layers.7.norm", "layers.8.")) for key in moved), moved
    assert {"layers.4.norm.running_mean", "layers.7.norm.running_var", "layers.8.conv.weight"} <= moved


def test_training_in_another_thread_works_without_signals(folder: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            train(settings(folder, images=16), [folder / "train.h5"], tmp_path / "run", progress=False)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and (tmp_path / "run" / "model.safetensors").exists()


def test_classifiers_learn_labels_flat_and_on_the_tree(folder: Path, tmp_path: Path) -> None:
    for tree in ("", "flat"):
        model = {"preset": "darknet19", "arguments": {"slim": 0.03, "image_size": 64}, "tree": tree}
        data = [{"share": 1.0, "augment": {"layout": "resized_crop", "scale": [0.7, 1.0], "hue": 0.0}}]
        config = settings(folder, model=model, task="classify", data=data, loss={}, images=160, epochs=0.0)
        result = train(config, [folder / "train.h5"], tmp_path / f"run{tree}", progress=False)
        net = load_any(str(result.model))
        assert net.classes == (4 if tree == "flat" else 6)
        scores = evaluate(net, [Store(folder / "val.h5")], EvalSettings(workers=0, resamples=20))
        assert "boxes" not in scores and scores["labels"]["pictures"] == 80
        assert 0 <= scores["labels"]["top1"] <= scores["labels"]["top5"] <= 1


def test_class_rows_of_named_nodes_only(folder: Path, tmp_path: Path) -> None:
    model = {"preset": "yolo9000", "arguments": {"slim": 0.02, "image_size": 64}, "stored": "labels"}
    config = settings(folder, images=32, model=model | {"shared_rows": True})
    result = train(config, [folder / "train.h5"], tmp_path / "run", progress=False)
    net = load_any(str(result.model))
    assert net.spec.region.stored == tuple(range(6)) and net.layers[-1].rows.weight.shape[0] == 1
    assert net.record["nodes"] == {"boxes": [2, 3, 4, 5], "labels": []}


def test_the_command_trains_and_reports(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(
        f'images = 32\nbatch = 16\nworkers = 0\n[model]\ncfg = "{folder / "toy.cfg"}"\n'
        f'tree = "{folder / "tree.json"}"\n[input]\nsizes = [64]\n[[data]]\nshare = 1\nkind = "boxed"\n'
    )
    arguments = [str(config), "--data", str(folder / "train.h5"), "--out", str(tmp_path / "run"), "--json"]
    found = CliRunner().invoke(command, [*arguments, "--set", "threads=1"], catch_exceptions=False)
    assert found.exit_code == 0 and json.loads(found.output)["images"] == 32
    with pytest.raises(TrainingError, match="holds another run"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    arguments[-1] = "--resume"
    found = CliRunner().invoke(command, [*arguments, "--set", "threads=1"], catch_exceptions=False)
    assert found.output.startswith("finished already: 32 images; model: ")
    with pytest.raises(TrainingError, match="unknown key batchs; did you mean batch"):
        CliRunner().invoke(command, [*arguments, "--set", "batchs=3"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"input": {"sizes": [60]}}, "not a multiple of the network's stride, 8"),
        ({"task": "classify", "loss": {}}, "task classify needs a classifier"),
        ({"loss": {"object_scal": 3}}, "unknown key loss.object_scal; did you mean object_scale"),
        ({"device": "nowhere"}, "cannot be used"),
        ({"model": {"preset": "yolov3"}}, "did you mean yolov2"),
        ({"model": {"preset": "yolov2", "arguments": {"slimm": 1}}}, "did you mean slim"),
        ({"distill": {"x": 1}}, "belongs to the task distill"),
        ({"distill": {"x": 1}, "task": "rows", "loss": {}}, "belongs to the task distill"),
    ],
)
def test_runs_that_cannot_start_leave_no_trace(folder: Path, tmp_path: Path, change: dict, word: str) -> None:
    with pytest.raises(TrainingError, match=word):
        train(settings(folder, **change), [folder / "train.h5"], tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_bfloat16_is_asked_for_or_where_the_processor_has_it() -> None:
    cpu = torch.device("cpu")
    assert wants_bfloat16("bfloat16", cpu) and not wants_bfloat16("float32", cpu)
    assert isinstance(wants_bfloat16("auto", cpu), bool)
