"""Rows taken from a bank against rows indexed: values, gradients, and when the gradient is made."""

import pytest
import torch

from wordtree import WordTree
from yolo9000.loss import RegionLoss
from yolo9000.network import Network
from yolo9000.rowbank import RowBank
from yolo9000.spec import Convolution, MaxPool, NetworkSpec, Region

ANCHORS = ((1.0, 1.0), (2.0, 3.0))
TREE = WordTree([f"k{i}" for i in range(9)], [-1, -1, 0, 0, 0, 3, 3, 1, 1])


@pytest.mark.parametrize("shape", [(7, 4), (7, 4, 1, 1)], ids=["linear", "convolution"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_indexing(shape, layout):
    """Rows asked for twice, in several takes, and not at all."""
    weight, bias = torch.randn(shape, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    if len(shape) == 4:
        weight = weight.to(memory_format=layout)
    takes = [torch.tensor(rows) for rows in ([3, 3, 0], [6], [], [0, 2])]
    takes[2] = takes[2].long()
    found = []
    for banked in (True, False):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        bank = RowBank(w, b)
        total = 0
        for k, rows in enumerate(takes):
            some, offset = bank.take(rows) if banked else (w.flatten(1)[rows], b[rows])
            total = total + (k + 1) * some.square().sum() + (offset * some.sum(1)).sum()
        total.backward(retain_graph=True)
        total.backward()  # the second adds as much again
        found.append((total.detach(), w.grad, b.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("shape", [(7, 4), (7, 4, 1, 1)], ids=["linear", "convolution"])
@pytest.mark.parametrize("wanted", [True, False], ids=["input learns", "input stands still"])
def test_applied_rows_are_a_product_with_rows_taken(shape, wanted):
    """Rows asked for twice, in several products, beside rows taken, for no input, and not at all."""
    weight, bias = torch.randn(shape, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    products = [([3, 3, 0], 5), ([6], 1), ([], 2), ([0, 2], 0), ([2, 0, 6], 3)]
    inputs = [torch.randn(count, 4, dtype=torch.float64) for _, count in products]
    found = []
    for applied in (True, False):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        xs = [x.clone().requires_grad_(wanted) for x in inputs]
        bank = RowBank(w, b)
        some, offset = bank.take(torch.tensor([6, 3]))
        total = some.square().sum() + (offset * some.sum(1)).sum()
        outputs = []
        for (rows, _), x in zip(products, xs, strict=True):
            rows = torch.tensor(rows, dtype=torch.long)
            outputs.append(bank.apply(x, rows) if applied else x @ w.flatten(1)[rows].T + b[rows])
            total = total + outputs[-1].square().sum()
        total.backward(retain_graph=True)
        total.backward()
        found.append((*outputs, w.grad, b.grad, *(x.grad for x in xs if wanted)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_applied_rows_are_as_precise_as_they_are_under_autocast():
    weight, bias = torch.randn(7, 4, requires_grad=True), torch.randn(7, requires_grad=True)
    x, rows = torch.randn(3, 4, requires_grad=True), torch.tensor([5, 1])
    bank = RowBank(weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        found = bank.apply(x, rows)
    assert torch.equal(found, torch.nn.functional.linear(x, weight[rows], bias[rows]))
    found.sum().backward()
    assert torch.allclose(x.grad, weight[rows].sum(0).expand(3, 4))


def test_a_product_keeps_no_rows_and_no_gradient_of_their_size():
    """Of what a product lays by for its way back nothing has a value for each row and channel."""
    kept: list[torch.Tensor] = []

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    weight, bias = torch.randn(90, 50, requires_grad=True), torch.zeros(90, requires_grad=True)
    bank, rows = RowBank(weight, bias), torch.arange(40)
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        x = torch.randn(2, 50, requires_grad=True)
        found = bank.apply(x, rows)
    own = weight.untyped_storage().data_ptr()
    assert all(t.numel() <= 100 for t in kept if t.untyped_storage().data_ptr() != own)
    found.sum().backward()
    assert weight.grad[:40].abs().sum() > 0 and not weight.grad[40:].any()


@pytest.mark.parametrize("learns", [(True, False), (False, True)])
def test_one_of_the_two_may_stand_still(learns):
    weight, bias = torch.randn(5, 3, requires_grad=learns[0]), torch.randn(5, requires_grad=learns[1])
    some, offset = RowBank(weight, bias).take(torch.tensor([1, 4]))
    (some.sum() + offset.sum()).backward()
    assert (weight.grad is not None, bias.grad is not None) == learns
    if learns[0]:
        assert weight.grad.sum(1).tolist() == [0, 3, 0, 0, 3]


def make_network(form: str) -> Network:
    torch.manual_seed(0)
    trunk = (Convolution(6, 3), MaxPool(2, 2), Convolution(8, 3))
    if form == "channels":
        width = len(ANCHORS) * (5 + len(TREE))
        head = (Convolution(width, 1, activation="linear", batch_normalize=False), Region(ANCHORS, len(TREE)))
    else:
        stored = (0, 1, 2, 3, 5, 6) if form == "few rows" else None
        region = Region(ANCHORS, len(TREE), boxes=3, features=2, shared_rows=form != "anchors", stored=stored)
        boxes = Convolution(len(ANCHORS) * 5, 1, activation="linear", batch_normalize=False)
        head = (boxes, region)
    return Network(NetworkSpec(16, 16, (*trunk, *head)), TREE).train()


TARGETS = [
    {"boxes": torch.tensor([[0.4, 0.5, 0.3, 0.4], [0.7, 0.2, 0.1, 0.1]]), "labels": torch.tensor([6, 4])},
    {"image_labels": torch.tensor([7]), "negative_labels": torch.tensor([2])},
]


@pytest.mark.parametrize("form", ["channels", "anchors", "shared", "few rows"])
def test_a_step_learns_what_the_dense_form_learns(form):
    grads = []
    for lazy in (True, False):
        net = make_network(form)
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        out = net.lazy(images) if lazy else net(images)
        RegionLoss(net.anchors, TREE)(out, TARGETS)["loss"].backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    for name, expected in grads[1].items():
        torch.testing.assert_close(
            grads[0][name], expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("form", ["channels", "shared"])
def test_the_rows_gradient_is_made_last(form):
    """When what the trunk kept for its way back is gone."""
    net = make_network(form)
    order = []
    for name, p in net.named_parameters():
        p.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    RegionLoss(net.anchors, TREE)(net.lazy(torch.rand(2, 3, 16, 16)), TARGETS)["loss"].backward()
    assert len(order) == len(list(net.parameters()))
    last = "layers.3.conv" if form == "channels" else "layers.4.rows"
    assert {name.rsplit(".", 1)[0] for name in order[-2:]} == {last}


def test_without_learning_there_is_no_bank():
    net = make_network("channels")
    with torch.no_grad():
        assert net.lazy(torch.rand(1, 3, 16, 16)).bank is None
    out = net.lazy(torch.rand(1, 3, 16, 16))
    assert out.bank is not None and out.detach().bank is None
