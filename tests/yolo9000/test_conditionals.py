import numpy as np
import pytest
import torch

from yolo9000 import conditionals
from yolo9000.conditionals import ClassProducts


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("little", [0, 500, 10**9])  # all by PyTorch; some; all by NumPy
def test_class_products_are_pieces_of_one_whole_product(monkeypatch, sets, dtype, little):
    monkeypatch.setattr(conditionals, "_LITTLE", little)
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(9, 16, generator=draw)
    weight = torch.randn(sets, 40, 16, generator=draw).to(dtype)
    own = torch.arange(9) % sets  # which set each box has
    boxes, counts = np.array([3, 0, 8, 8, 1, 2, 4, 7]), np.array([1, 4, 2, 1])
    first, last = np.array([39, 0, 5, 7]), np.array([40, 3, 5, 37])  # the third without a row
    products = ClassProducts(features, weight.requires_grad_())
    found = products(boxes, counts, first, last, own.numpy()[boxes] if sets > 1 else None)
    whole = torch.einsum("mkd,md->mk", weight.detach().float()[own], features).numpy()
    rows = zip(boxes, first.repeat(counts), last.repeat(counts), strict=True)
    expected = np.concatenate([whole[box, a:b] for box, a, b in rows])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
