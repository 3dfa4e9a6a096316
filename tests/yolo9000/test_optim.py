"""Which parameters decay, the learning rate over a run, and averaged weights."""

import itertools

import pytest
import torch
from torch import nn

from yolo9000.config import OptimiserConfig, ScheduleConfig
from yolo9000.errors import TrainingError
from yolo9000.network import Network
from yolo9000.optim import Average, make_optimiser, rate_factor, set_rate
from yolo9000.spec import Convolution, NetworkSpec, Region


def small_network() -> Network:
    layers = (
        Convolution(4, 3),
        Convolution(4, 3),
        Convolution(10, 1, activation="linear", batch_normalize=False),
        Region(((1.0, 1.0), (2.0, 2.0)), 3, boxes=2, features=1),
    )
    torch.manual_seed(0)
    return Network(NetworkSpec(16, 16, layers))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_of_convolutions_and_class_rows_decay(name: str) -> None:
    net = small_network()
    optimiser = make_optimiser(net, OptimiserConfig(name=name, weight_decay=0.1))
    decayed = {id(p) for g in optimiser.param_groups if g["weight_decay"] for p in g["params"]}
    plain = {id(p) for g in optimiser.param_groups if not g["weight_decay"] for p in g["params"]}
    for key, parameter in net.named_parameters():
        wanted = key.endswith("conv.weight") or key.endswith("rows.weight")
        assert (id(parameter) in decayed) == wanted and (id(parameter) in plain) != wanted, key


def test_frozen_parameters_are_left_out_and_prefixes_scale() -> None:
    net = small_network().freeze(1)
    optimiser = make_optimiser(net, OptimiserConfig(scales={"layers.3": 10.0}))
    held = {id(p) for g in optimiser.param_groups for p in g["params"]}
    assert not held & {id(p) for p in net.layers[0].parameters()}
    set_rate(optimiser, 0.5)
    rates = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert rates[id(net.layers[3].rows.weight)] == 5.0 and rates[id(net.layers[1].conv.weight)] == 0.5
    one_of = make_optimiser(net, OptimiserConfig(scales={"layers.[2-3].rows": 3.0}))
    scale = {id(p): g["scale"] for g in one_of.param_groups for p in g["params"]}
    assert scale[id(net.layers[3].rows.weight)] == 3 and scale[id(net.layers[1].conv.weight)] == 1
    with pytest.raises(TrainingError, match="no parameter that learns begins with nothing"):
        make_optimiser(net, OptimiserConfig(scales={"nothing": 2.0}))
    with pytest.raises(TrainingError, match="nothing is left to train"):
        make_optimiser(small_network().freeze(4), OptimiserConfig())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nesterov_is_left_out_where_there_is_no_momentum(momentum: float) -> None:
    config = OptimiserConfig(name="sgd", momentum=momentum, nesterov=True)
    assert make_optimiser(small_network(), config).defaults["nesterov"] == (momentum > 0)


def test_burn_in_rises_to_the_rule() -> None:
    config = ScheduleConfig(burn_in=10, burn_in_power=4, steps=(0.5, 0.75))
    factors = [rate_factor(config, b, 100) for b in range(100)]
    assert factors[:10] == pytest.approx([((b + 1) / 10) ** 4 for b in range(10)])
    assert factors[10:50] == [1.0] * 40 and factors[50:75] == pytest.approx([0.1] * 25)
    assert factors[75:] == pytest.approx([0.01] * 25)


@pytest.mark.parametrize("name", ["polynomial", "cosine"])
def test_smooth_rules_fall_from_one_to_nothing(name: str) -> None:
    config = ScheduleConfig(name=name, burn_in=0)
    factors = [rate_factor(config, b, 50) for b in range(51)]
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(factors))
    assert rate_factor(config, 60, 50) == pytest.approx(0.0, abs=1e-12)  # past the end


def test_a_constant_rate_and_a_run_of_no_batches() -> None:
    config = ScheduleConfig(name="constant", burn_in=0)
    assert {rate_factor(config, b, t) for b, t in ((0, 0), (5, 10), (10, 10))} == {1.0}


def test_the_average_is_the_running_mean_written_out() -> None:
    net = nn.Linear(2, 2)
    average = Average(net, 0.95)
    wanted = net.weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            net.weight += torch.randn(2, 2)
        average.update(net)
        decay = min(0.95, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * net.weight.detach()
    average.copy_to(net)
    torch.testing.assert_close(net.weight.detach(), wanted)


def test_the_average_holds_batch_norm_but_nothing_frozen() -> None:
    net = small_network().freeze(1).train()
    average = Average(net, 0.9)
    assert "layers.1.norm.running_mean" in average.values
    assert not any(key.startswith("layers.0.") for key in average.values)
    net.lazy(torch.rand(2, 3, 16, 16))
    average.update(net)
    copy = Average(small_network().freeze(1).train(), 0.9)
    copy.load_state_dict(average.state_dict())
    for key, value in average.values.items():
        torch.testing.assert_close(copy.values[key], value)
    with pytest.raises(TrainingError, match="another network"):
        copy.load_state_dict({"updates": 1, "values": {"a": torch.zeros(1)}})


def test_a_state_from_when_a_rate_of_zero_was_averaged_is_taken():
    before, now = small_network().train(), small_network().train()
    config = OptimiserConfig(scales={"layers.0.": 0.0})
    old = make_optimiser(before, config).state_dict() | {"state": {}}
    averages = Average(small_network().train(), 0.9).state_dict()  # of all
    optimiser = make_optimiser(now, config)
    optimiser.load_state_dict(old)
    average = Average(now, 0.9)
    average.load_state_dict(averages)
    assert set(average.values) < set(averages["values"])
    assert all(
        group["scale"] or not p.requires_grad for group in optimiser.param_groups for p in group["params"]
    )
