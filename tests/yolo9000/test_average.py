"""yolo9000.average and `yolo9000 average`: means of weights, and what has none."""

import json

import pytest
import torch

from tests.yolo9000.small import FORMS, small_detector
from tests.yolo9000.test_distill import started
from tests.yolo9000.test_twin import difference_learnt
from wordtree import WordTree
from yolo9000.average import average, shrink_difference
from yolo9000.errors import ModelError
from yolo9000.layers import AveragePool, RoiAverage
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.spec import NetworkSpec
from yolo9000.start import follow_boxes
from yolo9000.twin import add_twin


@pytest.mark.parametrize("form", FORMS)
def test_every_value_is_the_mean(form):
    nets = [small_detector(form, seed=seed) for seed in range(3)]
    mean, dropped = average(nets)
    for name, value in mean.state_dict().items():
        values = [net.state_dict()[name] for net in nets]
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack(values).mean(0), rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(value, values[0])
    assert not dropped and not mean.training


def test_the_mean_of_equal_models_says_the_same_to_the_bit():
    net, images = small_detector("stored"), torch.rand(2, 3, 64, 64)
    for nets in ([net], [net, net], [net] * 3):
        with torch.inference_mode():
            assert torch.equal(average(nets)[0](images), net(images))


def test_what_lies_between_two_models_on_a_line_lies_there():
    """Of convolutions alone, layer by layer the last one's bias: the output moves as the weights do."""
    one, two = (small_detector("rows", seed=0) for _ in range(2))
    with torch.no_grad():
        two.layers[-1].rows.bias += 2.0
        images = torch.rand(1, 3, 64, 64)
        between = average([one, two])[0](images)
        torch.testing.assert_close(between, (one(images) + two(images)) / 2, rtol=1e-5, atol=1e-5)


def test_models_that_have_no_mean():
    one = small_detector("stored")
    with pytest.raises(ModelError, match="one model at least"):
        average([])
    with pytest.raises(ModelError, match=r"model 2 has another layer \d+ \(region\) than the first"):
        average([one, small_detector("shared")])
    with pytest.raises(ModelError, match="model 3 has 3 layers, the first 7"):
        average([one, one, Network(NetworkSpec(64, 64, one.spec.layers[:3]))])
    with pytest.raises(ModelError, match=r"layer 5 \(convolution\)"):
        average([one, small_detector("darknet")])
    other = small_detector("stored")
    other.tree = WordTree([*other.tree.ids[:-1], "other"], other.tree.parents.tolist())
    with pytest.raises(ModelError, match="other classes than the first"):
        average([one, other])
    broken = small_detector("stored")
    with torch.no_grad():
        broken.layers[0].conv.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"layers\.0\.conv\.weight has values that are not finite"):
        average([one, broken])


def test_the_command(run, tmp_path):
    nets = [small_detector("stored", seed=seed) for seed in range(2)]
    fitted = {"temperatures": [1.0, 2.0, 3.0], "lambdas": {"0.9": 1.0}, "rule": "hedge"}
    nets[0].defaults = {"size": 32, "threshold": 0.3, **fitted}
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for net, path in zip(nets, paths, strict=True):
        save_model(net, path, {"licence": "MIT"})
    out = tmp_path / "mean.safetensors"
    status, text, _ = run("average", *paths, "--out", out, "--json")
    assert status == 0
    assert json.loads(text) == {"written": str(out), "models": 2, "dropped": list(fitted)}
    mean = load_model(out)
    assert mean.record["mean_of"] == ["a.safetensors", "b.safetensors"] and mean.record["licence"] == "MIT"
    assert mean.defaults == {"size": 32, "threshold": 0.3}
    expected = average(nets)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in mean.state_dict().items())
    status, text, _ = run("average", *paths, "--out", tmp_path / "half.safetensors", "--half")
    assert "temperatures (yolo9000 calibrate)" in text and "rule (yolo9000 convert --default)" in text
    assert status == 0 and "the mean of 2 models" in text


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["a", "--out", "x.safetensors"], 2, "two models or more"),
        (["a", "b", "--out", "x.pt"], 2, "is named .safetensors, not x.pt"),
        (["a", "b", "--out", "x.safetensors"], 1, "a: no such file or folder"),
        (["a", "b", "--out", "."], 2, "is named .safetensors"),
        ([], 2, "MODEL"),
        (["a", "b", "--difference", "0.5", "--out", "x.safetensors"], 2, "for one model alone"),
        (["a", "--difference", "0.5", "--twins", "--out", "x.safetensors"], 2, "for one model alone"),
        (["a", "--difference", "1.5", "--out", "x.safetensors"], 2, "1.5 is not in the range"),
        (["a", "--difference", "0.5", "--out", "x.safetensors"], 1, "a: no such file or folder"),
    ],
)
def test_words_that_make_no_mean(words, status, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, _, error = run("average", *words)
    assert found == status and message in error and "Traceback" not in error


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("twin", [False, True])
@torch.no_grad()
def test_a_share_of_the_learnt_difference(follow, twin):
    """Features by hand: windows' means, and half of what was added to them. A twin's are added to as well."""
    net = difference_learnt(started()[1])
    net = follow_boxes(net, 3) if follow else net
    net = add_twin(net, 9) if twin else net
    made, _ = shrink_difference(net, 0.5)
    images = torch.rand(2, 3, 64, 96)
    averages = [i for i, layer in enumerate(net.spec) if isinstance(layer, AveragePool | RoiAverage)]
    sums = [next(k for k in range(i, len(net.spec)) if i in net.spec.inputs(k)) for i in averages]
    assert len(averages) == 1 + twin
    before, after = net.outputs(images, (*averages, *sums)), made.outputs(images, (*averages, *sums))
    for mean, total in zip(averages, sums, strict=True):
        difference = before[total] - before[mean]
        assert difference.abs().max() > 0.01, "a test of nothing"
        torch.testing.assert_close(after[total], before[mean] + difference / 2)
    changed = [k for k, value in made.state_dict().items() if not torch.equal(value, net.state_dict()[k])]
    assert len({name.rpartition(".")[0] for name in changed}) == 1  # one convolution
    assert torch.equal(shrink_difference(net, 1)[0](images), net(images))
    none = shrink_difference(net, 0)[0].outputs(images, (averages[0], sums[0]))
    assert torch.equal(none[averages[0]], none[sums[0]])


def test_what_has_no_difference_and_shares_that_are_none():
    with pytest.raises(ModelError, match="only a detector of the preset tiny9000"):
        shrink_difference(small_detector(), 0.5)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ModelError, match=r"lies in 0\.\.1"):
            shrink_difference(started()[1], share)


def test_a_share_by_the_command(run, tmp_path):
    net = difference_learnt(started()[1])
    net.defaults = {"threshold": 0.3, "lambdas": {"0.9": 1.0}}
    save_model(net, tmp_path / "m.safetensors", {"licence": "MIT"})
    out = tmp_path / "half.safetensors"
    words = ("average", tmp_path / "m.safetensors", "--difference", 0.5, "--out", out)
    status, text, _ = run(*words)
    assert status == 0 and "with 0.5 of its difference" in text and "lambdas (yolo9000 calibrate)" in text
    made = load_model(out)
    assert made.record == {"licence": "MIT", "difference": 0.5} and made.defaults == {"threshold": 0.3}
    expected = shrink_difference(net, 0.5)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in made.state_dict().items())
