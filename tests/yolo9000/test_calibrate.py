"""Calibration: evidence of networks that are told what to answer, and the command from data to answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from data_prep import Store
from tests.yolo9000 import toys
from tests.yolo9000.small import randomise, small_detector, trunk
from tests.yolo9000.test_evaluate import Oracle, samples
from tests.yolo9000.trees import random_conditionals, random_tree
from yolo9000.calibrate import ACCURACIES, Evidence, calibrate, format_report, gather
from yolo9000.cli.calibrate import command
from yolo9000.detector import Detector
from yolo9000.errors import ModelError, TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.head import LazyOutput
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.spec import Convolution, GlobalAveragePool, NetworkSpec, Region, Softmax

QUICK = EvalSettings(workers=0, precision="float32", threshold=0.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("toys") / "v.h5"
    return Store(toys.pack_squares(path, boxed=12, labelled=10, size=48, single=True))


def honest_evidence(boxes: int = 6000) -> tuple:
    random = np.random.default_rng(5)
    tree = random_tree(random, 20)
    hierarchy, logs = random_conditionals(random, tree, boxes)
    leaves = torch.tensor(tree.leaves.tolist())
    drawn = torch.multinomial(
        hierarchy.log_probabilities(logs)[:, leaves].exp(), 1, generator=torch.Generator().manual_seed(1)
    )
    return hierarchy, logs, leaves[drawn[:, 0]], torch.arange(boxes)


def test_every_object_is_found_at_its_place(store: Store) -> None:
    evidence = gather(Oracle(samples(store)), [store], QUICK)
    expected = [(k, int(n)) for k in range(len(store)) for n in store[k].nodes]
    assert sorted(zip(evidence.picture.tolist(), evidence.truths.tolist(), strict=True)) == sorted(expected)
    assert evidence.missed == 0
    best = evidence.log_conditionals[:, 2:].view(-1, 2, 2)  # (M, 4) -> (M, groups, members)
    group = (evidence.truths - 2) // 2
    assert torch.equal(2 + 2 * group + best.argmax(2)[range(len(group)), group], evidence.truths)


def test_what_is_not_sure_enough_is_missed(store: Store) -> None:
    with pytest.raises(TrainingError, match="none of the labelled"):
        gather(Oracle(samples(store)), [store], EvalSettings(workers=0, precision="float32", threshold=0.999))
    with pytest.raises(TrainingError, match="stride"):
        gather(Oracle(samples(store)), [store], EvalSettings(workers=0, size=50))


@pytest.mark.parametrize("judged", [gather, evaluate])
@pytest.mark.parametrize("part", ["features", "boxes", "weight"])
def test_what_is_no_number_is_no_answer(part: str, judged, tmp_path) -> None:
    class Damaged(Oracle):
        def lazy(self, images: torch.Tensor) -> LazyOutput:
            out = super().lazy(images)
            return replace(out, **{part: getattr(out, part) * float("nan")})

    for boxed, labelled in ((4, 0), (0, 4)):
        some = Store(toys.pack_squares(tmp_path / f"{boxed}.h5", boxed, labelled, size=48))
        with pytest.raises((TrainingError, ModelError), match="no number: its weights are damaged"):
            judged(Damaged(samples(some)), [some], QUICK)


def test_accuracies_hold_on_the_other_half() -> None:
    hierarchy, logs, truths, picture = honest_evidence()
    result = calibrate(hierarchy, Evidence(logs, truths, picture, 0))
    assert json.loads(json.dumps(result)) == result and result["temperatures"] == []
    assert sorted(map(float, result["lambdas"])) == list(ACCURACIES)
    for row in result["test"]:
        assert row["right"] >= row["accuracy"] - 0.02
        assert row["threshold"] is None or row["bits"] > row["threshold"]["bits"] - 0.02
    assert "0.95" in format_report(result)


def test_few_objects_say_nothing_of_high_accuracies() -> None:
    hierarchy, logs, truths, picture = honest_evidence(40)
    for count, known in ((6, 0), (10, 1), (20, 2), (40, 3)):
        few, some = list(ACCURACIES[known:]), slice(0, count)
        result = calibrate(hierarchy, Evidence(logs[some], truths[some], picture[some], 0))
        assert result["too_few"] == few and result["learnt_from"] == count // 2
        words = ", ".join(map(str, few))
        assert f"too few objects to learn {words} from (at the very least 100)" in format_report(result)
    assert calibrate(hierarchy, Evidence(logs, truths, picture, 0), [0.5, 0.95])["too_few"] == []


def test_too_sure_a_model_is_softened() -> None:
    hierarchy, logs, truths, picture = honest_evidence()
    sure = hierarchy.log_conditionals(3 * logs)
    result = calibrate(hierarchy, Evidence(sure, truths, picture, 0))
    assert result["temperatures"][0] == pytest.approx(3.0, rel=0.1)
    for row in result["test"]:
        assert row["right"] >= row["accuracy"] - 0.02


def test_one_picture_is_not_enough() -> None:
    hierarchy, logs, truths, _ = honest_evidence(4)
    with pytest.raises(TrainingError, match="two pictures"):
        calibrate(hierarchy, Evidence(logs, truths, torch.zeros(4, dtype=torch.long), 0))


def test_the_command(store: Store, tmp_path) -> None:
    n = len(toys.TREE)
    layers = (*trunk(), Convolution(5 + n, 1, activation="linear", batch_normalize=False))
    net = randomise(Network(NetworkSpec(64, 64, (*layers, Region(((2.0, 2.0),), n))), toys.TREE), 1)
    path = tmp_path / "m.safetensors"
    save_model(net, path, {"origin": "test"}, dtype="float16", defaults={"threshold": 0.05, "size": 64})
    size = path.stat().st_size
    arguments = [str(path), "--data", str(store.path), "--workers", "0", "--json", "--threshold", "0"]
    dry = CliRunner().invoke(command, [*arguments, "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0 and json.loads(dry.output)["written"] is None
    assert "lambdas" not in load_model(path).defaults
    done = CliRunner().invoke(command, [*arguments, "--accuracy", "0.5", "--accuracy", "0.6"])
    result = json.loads(done.output)
    again = load_model(path)
    assert again.defaults["lambdas"] == result["lambdas"] and set(result["lambdas"]) == {"0.5", "0.6"}
    assert again.defaults["threshold"] == 0.05 and again.record["origin"] == "test"
    assert again.record["calibration"]["learnt_from"] == result["learnt_from"]
    assert path.stat().st_size < 2 * size  # still of half precision
    detector = Detector.load(path)
    assert detector.options(accuracy=0.6).chosen_lambda == result["lambdas"]["0.6"]
    assert detector(np.zeros((50, 40, 3), np.uint8), accuracy=0.5) is not None
    with pytest.raises(ValueError, match=r"up to 0\.6"):
        detector(np.zeros((50, 40, 3), np.uint8), accuracy=0.9)


def test_the_command_drops_a_lambda_that_would_go_before(store: Store, tmp_path) -> None:
    n = len(toys.TREE)
    layers = (*trunk(), Convolution(5 + n, 1, activation="linear", batch_normalize=False))
    net = randomise(Network(NetworkSpec(64, 64, (*layers, Region(((2.0, 2.0),), n))), toys.TREE), 1)
    path, out = tmp_path / "m.safetensors", tmp_path / "o.safetensors"
    own = {"rule": "hedge", "hedge_lambda": 0.0, "accuracy": 0.6}
    save_model(net, path, {}, defaults=own)
    arguments = [
        str(path),
        "--data",
        str(store.path),
        "--workers",
        "0",
        "--threshold",
        "0",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(command, [*arguments, "--accuracy", "0.6"], catch_exceptions=False)
    assert "dropped, as no longer true: hedge_lambda\n" in done.output
    options = Detector.load(out).options()
    assert options.rule == "hedge" and options.chosen_lambda == load_model(out).defaults["lambdas"]["0.6"]
    # Lambdas that do not reach the default accuracy cannot stand for the one there is.
    done = CliRunner().invoke(command, [*arguments, "--accuracy", "0.5", "--json"], catch_exceptions=False)
    assert json.loads(done.output)["dropped"] == []
    detector = Detector.load(out)
    assert detector.options().chosen_lambda == 0 and detector.options(accuracy=0.5).chosen_lambda > 0
    # Where only the lambdas of before did, the rule cannot stay what is done by default.
    save_model(net, path, {}, defaults={"rule": "hedge", "lambdas": {"0.9": 1.0}})
    done = CliRunner().invoke(command, [*arguments, "--accuracy", "0.5"], catch_exceptions=False)
    assert "dropped, as no longer true: rule (yolo9000 convert --default)\n" in done.output
    options = Detector.load(out).options
    assert options().rule == "threshold" and options(accuracy=0.5).rule == "hedge"


def test_the_command_refuses(store: Store, tmp_path) -> None:
    save_model(small_detector(), tmp_path / "m.safetensors")
    for arguments, words in (
        ([str(tmp_path), "--data", str(store.path)], "where to?"),
        ([str(tmp_path), "--data", str(store.path), "--out", "x.bin"], "named .safetensors"),
        (["m.safetensors"], "--data"),
        (["--data", str(store.path)], "where to?"),  # the package's own model is never replaced
        (["model", "--data", str(store.path)], "where to?"),
    ):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2 and words in result.output
    # Where it could not be written that is said at once, whatever there is to calibrate on.
    (tmp_path / "f.safetensors").mkdir()
    words = [str(tmp_path / "m.safetensors"), "--data", "gone.h5", "--out", str(tmp_path / "f.safetensors")]
    result = CliRunner().invoke(command, words)
    assert isinstance(result.exception, ModelError) and "cannot be written" in str(result.exception)
    # A model of another tree knows none of these labels.
    result = CliRunner().invoke(command, [str(tmp_path / "m.safetensors"), "--data", str(store.path)])
    assert isinstance(result.exception, TrainingError)


def test_a_classifier(store: Store) -> None:
    n = len(toys.TREE)
    head = (Convolution(n, 1, activation="linear", batch_normalize=False), GlobalAveragePool(), Softmax())
    net = randomise(Network(NetworkSpec(64, 64, (*trunk(), *head)), toys.TREE), 1)
    evidence = gather(net, [store], QUICK)
    one_label = [k for k in range(len(store)) if len(set(store[k].nodes.tolist())) == 1]
    assert evidence.picture.tolist() == one_label and evidence.missed == len(store) - len(one_label)
