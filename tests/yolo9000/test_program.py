"""Programs of oneDNN Graph give what the packed layers give that they stand for."""

import copy
import os
import pickle
import platform
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.small import small_detector
from tests.yolo9000.test_packed import images
from yolo9000 import program
from yolo9000.blocks import ConvolutionUnit
from yolo9000.detector import Detector
from yolo9000.layers import Convolution, MaxPool
from yolo9000.packed import PackedConvolution, PackedMaxPool, can_pack
from yolo9000.program import Programmed, can_program

graph = pytest.mark.skipif(
    not can_program() or platform.machine() not in ("x86_64", "AMD64"),
    reason="this PyTorch makes no programs",
)
needs_onednn = pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no oneDNN")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Programs after one run; however slow, for a busy machine would decide otherwise each time."""
    monkeypatch.setattr(program, "_AFTER", 0)
    monkeypatch.setattr(program, "_SLOWER", float("inf"))


def pool() -> PackedMaxPool:
    return PackedMaxPool(MaxPool(2, 2))


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def programs(layer: Programmed) -> int:
    return sum(run is not None for run in layer._settled.values())


@needs_onednn
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(("linear", "leaky", "relu", "logistic", "silu")),
    st.sampled_from([(1, 1, 0), (3, 1, 1), (3, 2, 1), (3, 1, 0)]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 3),
    st.tuples(st.integers(5, 17), st.integers(5, 17)),
    st.integers(1, 2),
)
@torch.inference_mode()
def test_a_convolution_stays_bit_for_bit_what_it_was(activation, form, channels, batch, grid, threads):
    dtype = torch.bfloat16 if can_pack(torch.bfloat16) else torch.float32
    size, stride, padding = form
    spec = Convolution(channels[1], size, stride, padding, activation, batch_normalize=False)
    unit = ConvolutionUnit(spec, channels[0], "darknet-gpu", init=True).to(dtype)
    layer = PackedConvolution(unit, grid)
    with computing_with(threads):
        for seed in range(4):
            x = images(batch, channels[0], *grid, seed=seed).to(dtype)
            assert torch.equal(layer(x), layer.packed(x))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(4, 11), st.integers(4, 11)),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_pool_stays_what_it_was(size, stride, padding, shape, last, dtype):
    layer = PackedMaxPool(MaxPool(size, stride, min(padding, size - 1)))
    for seed in range(4):
        x = images(*shape, seed=seed).to(dtype)
        x = x if last else x.contiguous()
        found = layer(x)
        assert torch.equal(found, layer.packed(x)) and found.stride() == layer.packed(x).stride()


@graph
def test_shapes_that_come_often_have_programs_but_not_too_many():
    layer = pool()
    for side in (8, 12, 16, 20):
        for _ in range(3):
            x = images(1, 16, side, side)
            assert torch.equal(layer(x), layer.packed(x))
    assert programs(layer) == program._MOST and len(layer._settled) == 4


@graph
def test_layers_make_theirs_at_runs_of_their_own(monkeypatch):
    monkeypatch.setattr(program, "_AFTER", 2)
    layers = [PackedMaxPool(MaxPool(2, 2), place) for place in range(3)]
    found = []
    for _ in range(6):
        for layer in layers:
            layer(images(1, 16, 8, 8))
        found.append([programs(layer) for layer in layers])
    assert found == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]


@graph
@pytest.mark.parametrize("threads", [1, 2])
def test_a_lane_of_one_thread_has_its_programs_made_elsewhere(monkeypatch, threads):
    made = []
    ours = Programmed._program
    monkeypatch.setattr(
        Programmed, "_program", lambda *given: made.append(threading.current_thread()) or ours(*given)
    )
    with computing_with(threads):
        layer = pool()
        for seed in range(3):
            x = images(1, 16, 8, 8, seed=seed)
            assert torch.equal(layer(x), layer.packed(x))
    assert programs(layer) == 1
    assert [thread is threading.current_thread() for thread in made] == [threads > 1]


@graph
def test_a_thread_that_outlives_the_main_one_has_programs_too(monkeypatch):
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setattr(program, "_maker", ended)
    with computing_with(1):
        assert programs_after_two_runs() == 1


@graph
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_makes_its_own():
    with computing_with(1):
        pool()(images(1, 16, 8, 8))  # the thread that makes programs is there
        with get_context("fork").Pool(1) as workers:
            assert workers.apply_async(programs_after_two_runs).get(timeout=60) == 1


def programs_after_two_runs() -> int:
    layer = pool()
    for _ in range(2):
        layer(images(1, 16, 8, 8))
    return programs(layer)


@graph
def test_threads_share_a_layer():
    layer, expected = pool(), pool()
    inputs = [images(1, 64, 40, 40, seed=seed) for seed in range(200)]
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(layer, inputs))
    assert all(torch.equal(a, expected.packed(x)) for a, x in zip(found, inputs, strict=True))


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="bfloat16 is emulated here")
@pytest.mark.parametrize(
    "channels, filters, grid, single, several",
    [
        (64, 64, 13, True, True),
        (64, 64, 104, False, True),
        (128, 1024, 13, True, True),
        (128, 2048, 13, False, False),
    ],
)
def test_large_convolutions_have_programs_only_where_threads_share_them(
    channels, filters, grid, single, several
):
    spec = Convolution(filters, 3, 1, 1, "leaky", batch_normalize=False)
    unit = ConvolutionUnit(spec, channels, "darknet-gpu", init=True).to(torch.bfloat16)
    layer = PackedConvolution(unit, (grid, grid))
    x = torch.zeros(1, channels, grid, grid, dtype=torch.bfloat16)
    for threads, has in ((1, single), (2, several)):
        with computing_with(threads):
            assert (layer.plain(x) is not None) == has
            assert layer.plain(x.float()) is None


class Odd(Programmed):
    """Doubles its input; what a program would be made of is given."""

    def __init__(self, plain):
        super().__init__()
        self._plain = plain

    def packed(self, x):
        return 2 * x

    def plain(self, x):
        return self._plain


def _raising(x):
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(
    "plain",
    [None, _raising, lambda x: torch.relu(x) * 2.001, lambda x: (2 * x).contiguous(), lambda x: x * 2],
    ids=["none", "raises", "differs", "other layout", "nothing to fuse"],
)
def test_what_is_no_program_changes_nothing(plain):
    layer, x = Odd(plain), images(1, 16, 8, 8)
    for _ in range(4):
        assert torch.equal(layer(x), 2 * x)
    assert len(layer._settled) == 1 and not programs(layer)


@graph
def test_a_slow_program_is_dropped(monkeypatch):
    monkeypatch.setattr(program, "_SLOWER", 0.0)
    layer, x = pool(), images(1, 16, 8, 8)
    for _ in range(3):
        assert torch.equal(layer(x), layer.packed(x))
    assert layer._settled and not programs(layer)


@graph
def test_nothing_is_left_switched_on_and_nothing_said():
    assert not torch.jit.onednn_fusion_enabled()
    layer = pool()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            layer(images(1, 16, 8, 8))
    assert programs(layer) == 1 and not torch.jit.onednn_fusion_enabled()


@graph
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_makes_its_own(copied):
    layer, x = pool(), images(1, 16, 8, 8)
    for _ in range(3):
        layer(x)
    twin = copied(layer)
    assert programs(layer) == 1 and not twin._settled
    for _ in range(3):
        assert torch.equal(twin(x), layer(x))
    assert programs(twin) == 1


def test_what_learns_has_no_program():
    layer = pool()
    x = images(1, 16, 8, 8).requires_grad_()
    for _ in range(4):
        layer(x).sum().backward()
    assert not layer._settled and x.grad.sum() == 4 * 16 * 16


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_detector_says_the_same_with_programs_and_without(precision):
    detector = Detector(small_detector("shared").eval(), precision=precision)
    pictures = [(images(1, 3, 64, 64, seed=seed) + 0.3).clamp(0, 1) for seed in range(30)]
    layers = [layer for layer in detector._running.layers if isinstance(layer, Programmed)]
    with torch.inference_mode():
        first = [detector.run(x) for x in pictures]
        for layer in layers:
            layer._settled = dict.fromkeys(layer._settled)
        for x, found in zip(pictures, first, strict=True):
            plain = detector.run(x)
            assert torch.equal(plain.boxes, found.boxes) and torch.equal(plain.features, found.features)
