"""The lazy output: every way of asking gives the same logits as the dense form, and the same gradients."""

import pytest
import torch

from yolo9000.head import LazyOutput

N, A, C, D, H, W = 3, 2, 9, 6, 4, 5


def output(shared: bool, stored: list[int] | None, dtype=torch.float64) -> LazyOutput:
    torch.manual_seed(0)
    rows = C if stored is None else len(stored)
    sets = 1 if shared else A
    made = (
        torch.randn(N, A * 5, H, W),
        torch.randn(N, D, H, W),
        torch.randn(sets, rows, D),
        torch.randn(sets, rows),
    )
    tensors = (t.to(dtype).requires_grad_() for t in made)
    return LazyOutput(*tensors, None if stored is None else torch.tensor(stored), C, A)


def by_hand(out: LazyOutput) -> torch.Tensor:
    """(N, A, 5+C, H, W), one dot product at a time."""
    full = torch.full((N, A, 5 + C, H, W), -torch.inf, dtype=out.boxes.dtype)
    nodes = range(C) if out.stored is None else out.stored.tolist()
    for n in range(N):
        for a in range(A):
            full[n, a, :5] = out.boxes[n, a * 5 : a * 5 + 5]
            for k, node in enumerate(nodes):
                s = 0 if len(out.weight) == 1 else a
                for y in range(H):
                    for x in range(W):
                        full[n, a, 5 + node, y, x] = (
                            out.weight[s, k] @ out.features[n, :, y, x] + out.bias[s, k]
                        )
    return full


KINDS = [(False, None), (True, None), (False, [0, 3, 8]), (True, [7])]


@pytest.mark.parametrize("shared, stored", KINDS)
def test_dense_equals_dot_products(shared, stored):
    out = output(shared, stored)
    torch.testing.assert_close(out.dense(), by_hand(out).flatten(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared, stored", KINDS)
@pytest.mark.parametrize("m", [0, 1, 40])
def test_logits_at_chosen_boxes(shared, stored, m):
    out = output(shared, stored)
    where = [torch.randint(0, top, (m,)) for top in (N, A, H, W)]
    dense = out.dense().unflatten(1, (A, -1))
    image, anchor, row, col = where
    expected = dense[image, anchor, 5:, row, col]
    torch.testing.assert_close(out.logits(*where), expected, rtol=1e-12, atol=1e-12)
    nodes = torch.tensor([8, 0, 4])
    torch.testing.assert_close(out.logits(*where, nodes), expected[:, nodes], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.logits_of(nodes), dense[:, :, 5 + nodes], rtol=1e-12, atol=1e-12)
    none = torch.tensor([], dtype=torch.int64)
    assert out.logits(*where, none).shape == (m, 0) and out.logits_of(none).shape == (N, A, 0, H, W)


@pytest.mark.parametrize("shared, stored", KINDS)
def test_gradients_equal_those_of_the_dense_form(shared, stored):
    out = output(shared, stored)
    where = [torch.randint(0, top, (11,)) for top in (N, A, H, W)]
    image, anchor, row, col = where
    parameters = (out.features, out.weight, out.bias)

    def gradients(logits):
        loss = (logits.masked_fill(logits.isinf(), 0) ** 2).sum()
        return torch.autograd.grad(loss, parameters)

    dense = out.dense().unflatten(1, (A, -1))[image, anchor, 5:, row, col]
    for a, b in zip(gradients(out.logits(*where)), gradients(dense), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_bfloat16_features_and_float32_rows_work_together():
    out = output(False, None, torch.float32)
    mixed = LazyOutput(out.boxes.bfloat16(), out.features.bfloat16(), out.weight, out.bias, None, C, A)
    assert mixed.dense().dtype == torch.float32
    torch.testing.assert_close(mixed.dense(), out.dense(), rtol=0.05, atol=0.1)
    index = torch.zeros(1, dtype=torch.int64)
    assert mixed.logits(index, index, index, index).dtype == torch.float32


def test_some_images_and_no_gradient():
    out = output(False, [1, 2])
    for chosen in (slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True])):
        assert torch.equal(out.select(chosen).dense(), out.dense()[1:])
    assert out.select(slice(0, 0)).dense().shape == (0, A * (5 + C), H, W)
    assert not out.detach().dense().requires_grad
