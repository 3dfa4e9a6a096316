"""What a run refuses before its first step, what it says of itself, and how it goes on after its end."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep import StoreWriter
from tests.yolo9000 import toys
from tests.yolo9000.test_train import CFG, settings
from wordtree import WordTree
from yolo9000 import Network, presets
from yolo9000.checkpoint import list_checkpoints, load_checkpoint
from yolo9000.config import TrainConfig, from_dict, to_dict
from yolo9000.distributed import World
from yolo9000.errors import TrainingError
from yolo9000.modelfile import load_model
from yolo9000.run import _as_now
from yolo9000.runlog import LOG_NAME, read_log
from yolo9000.tasks import make_task
from yolo9000.train import train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toys.prepare(tmp_path, CFG, boxed=20)


def pack_labels(path: Path, **labels: list[int]) -> Path:
    """Pictures with these labels of pictures and no boxes, one by one."""
    none = {"image_labels": [], "negative_labels": []}
    lists = {key: np.array(value, np.int64) for key, value in (none | labels).items()}
    with StoreWriter(path, toys.TREE) as writer:
        for k in range(2):
            sample = toys.square_sample(k, boxed=False, source=path.stem)
            writer.add(dataclasses.replace(sample, **lists))
    return path


def short(folder: Path, **top) -> TrainConfig:
    return settings(folder, **{"images": 4, "batch": 2, "log": {"log_every": 1}} | top)


def refused(config: TrainConfig, data: list[Path], out: Path, word: str) -> None:
    with pytest.raises(TrainingError, match=word):
        train(config, data, out, resume=True, progress=False)


def test_a_run_is_not_resumed_on_data_files_in_another_order(folder: Path) -> None:
    (folder / "toy.cfg").write_text(CFG.replace("filters=22", "filters=14").replace("classes=6", "classes=2"))
    data = [pack_labels(folder / f"{label}.h5", image_labels=[label]) for label in (2, 5)]
    model = {"cfg": str(folder / "toy.cfg"), "tree": "flat"}
    config = short(folder, model=model, data=[{"share": 1.0, "kind": "label"}])
    train(config, data, folder / "run", progress=False)
    refused(config, data[::-1], folder / "run", "node 0 is red, here it is blue; give the data files")
    assert train(config, data, folder / "run", resume=True, progress=False).batches == 2


@pytest.mark.parametrize(
    ("task", "used", "idle"),
    [
        ("distill", {"distill": {"boxes": True}, "loss": {"thresh": 0.5}}, {"distill": {"windows": [3]}}),
        ("distill", {"distill": {"boxes": True}}, {"distill": {"label_weight": 2.0}}),
        ("distill", {"distill": {"windows": [3], "label_weight": 2.0}}, {"loss": {"thresh": 0.5}}),
        ("rows", {"loss": {"target": 0.9}}, {"distill": {"classifier": "x.cfg x.weights"}}),
    ],
)
def test_a_run_with_tables_of_its_task_that_did_nothing_goes_on(
    folder: Path, task: str, used: dict, idle: dict
) -> None:
    """Its settings are those of a run without them, in which alone they are allowed now."""
    teacher = {"classifier": "x.cfg x.weights", "labels": "voc"} if task == "distill" else {}
    new = to_dict(short(folder, task=task)) | {"distill": {}, "loss": {}} | used
    new["distill"] = new["distill"] | teacher
    old = new | {table: new[table] | values for table, values in idle.items()}
    assert _as_now(new) == new == _as_now(old) != old
    tree, ((table, values),) = toys.TREE, idle.items()
    net = Network(presets.tiny9000(tree, ((1.5, 2.0),), shared_rows=True, image_size=64), tree)
    with pytest.raises(TrainingError, match=rf"^(\[{table}\]|{table}\.{next(iter(values))}) "):
        make_task(from_dict(TrainConfig, old, "old"), net, tree)


def test_a_run_whose_preset_was_given_a_tree_that_did_nothing_goes_on(folder: Path) -> None:
    new = to_dict(short(folder, model={"preset": "yolo9000", "arguments": {"slim": 0.02}}))
    old = new | {"model": new["model"] | {"arguments": {"slim": 0.02, "tree": "default"}}}
    assert _as_now(old) == new


def test_a_run_is_not_resumed_on_other_data(folder: Path) -> None:
    """Its own files go on wherever they lie; without one, in another order or changed they do not."""
    out = folder / "run"
    data = [pack_labels(folder / f"{label}.h5", image_labels=[label]) for label in (2, 5)]
    config = short(folder, data=[{"share": 1.0, "kind": "label"}])
    train(config, data, out, progress=False)
    refused(config, data[::-1], out, r"file 0 is 2\.h5 \(2 samples, \w{8}\), here it is 5\.h5 .* same order")
    refused(config, data[:1], out, r"its file 1 is 5\.h5 .*, here it is none; give the data files")
    refused(config, [*data, folder / "train.h5"], out, r"its file 2 is none, here it is train\.h5 \(20 ")
    moved = [shutil.copy(path, folder / f"moved-{path.name}") for path in data]
    longer = dataclasses.replace(config, images=8)
    assert train(longer, moved, out, resume=True, progress=False).batches == 4
    pack_labels(data[1], image_labels=[4])
    refused(longer, data, out, r"its file 1 is moved-5\.h5 .*, here it is 5\.h5 \(2 samples")
    path = list_checkpoints(out)[-1]
    state = load_checkpoint(path)
    del state["data"]  # as in versions before
    torch.save(state, path)
    assert train(dataclasses.replace(config, images=12), data, out, resume=True, progress=False).batches == 6


def test_a_run_is_not_resumed_on_another_tree_or_other_layers(folder: Path) -> None:
    data, out = [folder / "train.h5"], folder / "run"
    train(short(folder), data, out, progress=False)
    (folder / "toy.cfg").write_text(CFG.replace("3.6,3.6", "3.6,3.5"))
    refused(short(folder), data, out, "another network: layer 9 ")
    (folder / "toy.cfg").write_text(CFG.replace("width=64", "width=96"))  # no weight depends on it
    train(short(folder), data, out, resume=True, progress=False)
    moved = WordTree(toys.TREE.ids, [-1, -1, 0, 1, 1, 1])
    moved.save(folder / "tree.json")
    refused(short(folder), data, out, "its node 3 is warm/yellow, here it is cold/yellow.*model.tree")


def test_the_rate_that_is_logged_is_the_schedule_s(folder: Path) -> None:
    config = short(
        folder,
        optimiser={"lr": 0.25, "scales": {"layers.0.": 0.0}},
        schedule={"name": "steps", "burn_in": 0, "steps": [0.5], "factor": 0.5},
    )
    train(config, [folder / "train.h5"], folder / "run", progress=False)
    assert [line["rate"] for line in read_log(folder / "run") if line["event"] == "batch"] == [0.25, 0.125]


def test_a_burn_in_as_long_as_the_run_is_warned_of(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for burn_in, progress in ((1, True), (2, True), (2, False)):
        config = short(folder, schedule={"burn_in": burn_in})
        out = folder / f"run{burn_in}{progress}"
        train(config, [folder / "train.h5"], out, progress=progress)
        reasons = [line["reason"] for line in read_log(out) if line["event"] == "warning"]
        assert len(reasons) == (burn_in == 2)
        assert all("--set schedule.burn_in=0" in reason for reason in reasons)
        assert ("warning: schedule.burn_in = 2 batches of" in capsys.readouterr().err) == (
            burn_in == 2 and progress
        )


def test_a_classifier_refuses_a_part_that_says_nothing(folder: Path) -> None:
    model = {"preset": "darknet19", "arguments": {"slim": 0.03, "image_size": 64}}
    kinds = [{"name": kind, "share": 1.0, "kind": kind} for kind in ("boxed", "unlabelled")]
    config = short(folder, model=model, task="classify", loss={}, data=kinds)
    silent, absent = pack_labels(folder / "a.h5"), pack_labels(folder / "b.h5", negative_labels=[2])
    refused(config, [folder / "train.h5", silent], folder / "run", "data part unlabelled has no label")
    assert train(config, [folder / "train.h5", absent], folder / "run", progress=False).batches == 2


def test_one_picture_at_one_cell_is_nothing_to_normalise(folder: Path) -> None:
    data = [folder / "train.h5"]
    config = short(folder, batch=1, input={"sizes": [16, 8]})
    refused(config, data, folder / "run", "batch = 1 leaves .* one cell at input.sizes 8: .* batch to 2")
    assert not (folder / "run").exists()
    config = short(folder, batch=1, input={"sizes": [16]})
    assert train(config, data, folder / "a", progress=False).batches == 4
    train(short(folder, input={"sizes": [8]}), data, folder / "b", progress=False)
    model = {"start": str(folder / "b"), "freeze": 8}  # all batch norms
    still = short(folder, batch=1, input={"sizes": [8]}, model=model)
    assert train(still, data, folder / "c", progress=False).batches == 4


def test_boxes_without_names_taught_no_node(folder: Path) -> None:
    labels = pack_labels(folder / "l.h5", image_labels=[4])
    for names, boxes in ((True, [2, 3, 4, 5]), (False, [])):
        part = {"share": 1.0, "kind": "any", "names": names}
        made = train(
            short(folder, data=[part]), [folder / "train.h5", labels], folder / str(names), progress=False
        )
        assert load_model(made.model).record["nodes"] == {"boxes": boxes, "labels": [4]}


def test_more_processes_than_pictures_in_a_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo9000.train.join_world", lambda device: World(0, 3))
    refused(short(folder), [folder / "train.h5"], folder / "run", "batch = 2 leaves some of 3 processes")


def test_a_finished_run_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    def resume(**top):
        config = settings(folder, **{"images": 64, "validation": {"every": 2}} | top)
        return train(config, data, out, resume=True, progress=False, validation=[val])

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    data, out = [folder / "train.h5"], tmp_path / "run"
    val = toys.pack_squares(tmp_path / "val.h5", boxed=12, first=5000)
    whole, before = resume(), contents()
    again = resume()
    assert again.already and not whole.already and contents() == before
    assert dataclasses.replace(again, seconds=whole.seconds, already=False) == whole
    with pytest.raises(TrainingError, match="trained on 64 pictures already, more than the 32 of this"):
        resume(images=32)
    assert contents() == before
    # Killed before all its models were written: they are, as they were.
    wanted, log = load_model(out / "model.safetensors").record, read_log(out)
    (out / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in log[:-1]))
    assert not resume().already
    found = load_model(out / "model.safetensors").record
    assert found["losses"] == wanted["losses"] and found["images"] == wanted["images"]
    assert resume().already
    assert not resume(images=80).already


def test_scores_on_other_validation_data_are_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def run(out: str, images: int, val: str | None, **validation):
        config = settings(
            folder, images=images, validation={"every": 2} | validation, schedule={"burn_in": 0}
        )
        return train(config, data, tmp_path / out, True, True, None, [tmp_path / val] if val else [])

    data, out = [folder / "train.h5"], tmp_path / "a"
    easy, hard = (toys.pack_squares(tmp_path / name, boxed=9, first=k) for name, k in (("e", 0), ("h", 7000)))
    (tmp_path / "copy").write_bytes(easy.read_bytes())
    run("a", 32, easy.name)
    state = load_checkpoint(out)
    state["judge"]["best"] = state["best"]["value"] = 2.0  # which no later score is better than
    torch.save(state, list_checkpoints(out)[-1])
    shutil.copytree(out, tmp_path / "b")
    shutil.copytree(out, tmp_path / "c")
    assert run("a", 64, "copy").best == state["best"] and not list(out.glob("best-*"))
    assert "warning: other validation data" not in capsys.readouterr().err
    for name, val, more in (("b", hard.name, {}), ("c", easy.name, {"pictures": 3})):
        before = (tmp_path / name / "best.pt").read_bytes()
        assert run(name, 64, val, **more).best["batch"] == 4
        assert "kept as best-before-00000002.pt" in capsys.readouterr().err
        assert (tmp_path / name / "best-before-00000002.pt").read_bytes() == before
        assert load_checkpoint(tmp_path / name / "best.pt")["batch"] == 4
    assert run("b", 80, hard.name).best["batch"] in (4, 5) and len(list((tmp_path / "b").glob("best-*"))) == 1
