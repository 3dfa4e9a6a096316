"""Layers of a packed network as programs of oneDNN Graph, which PyTorch carries. At each call of a packed
convolution oneDNN looks its kernel up anew, and PyTorch's pools are not oneDNN's; a program has chosen once,
for one shape. For a small network that is a tenth of its time. Answers are the same bit for bit, or there is
no program. What the layers compute is packed.py's.
"""

import ctypes
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo9000.device import begun

# Runs of one shape before a layer has a program for it. Making one costs as much as it saves in about a
# hundred runs, so a few pictures are better off without.
_AFTER = 16
# Programs a layer: one shape for single pictures, another for several. Each holds the weights twice.
_MOST = 2
# A program so many times slower than the layer is dropped: another processor, other kernels. Less may be
# noise, for a layer takes some tens of microseconds.
_SLOWER = 1.25
_TIMED = 3  # runs to tell that, of which the fastest counts
# Values that must agree bit for bit, those of random inputs too if an output has fewer, and most outputs for
# that. Sums in another order differ in one value of thousands once they are rounded to bfloat16.
_VALUES, _OUTPUTS = 2**16, 8
# Private names, without which there are no programs. Of those that are public one keeps all weights for ever.
_NEEDED = ("_create_graph_by_tracing", "_create_function_from_graph", "_last_executed_optimized_graph")
# PyTorch has one switch for all that is compiled at a time.
_SWITCH = threading.Lock()
_maker: ThreadPoolExecutor | None = None

Run = Callable[[Tensor], Tensor]
Kind = tuple[torch.Size, tuple[int, ...], int]  # shape and strides of an input, threads


class Programmed(nn.Module):
    """A layer that many inputs of a few shapes go through, (N, C, H, W) -> (N, C', H', W'): `packed` runs
    them at first, later a program of `plain` for each shape and number of threads.

    A program's pool leaves out what is not a number in a window, where PyTorch's keeps it.
    """

    def __init__(self, place: int = 0) -> None:
        """place: the layer's number: each makes its program at a run of its own, so that no picture waits for
        all."""
        super().__init__()
        self._after = _AFTER + place
        self._settled: dict[Kind, Run | None] = {}  # programs; None: packed for good
        self._seen: Counter[Kind] = Counter()

    def packed(self, x: Tensor) -> Tensor:
        """The layer's output."""
        raise NotImplementedError

    def plain(self, x: Tensor) -> Run | None:
        """The same by PyTorch's own operations, which a program is made of; None where none pays for inputs
        like x."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        kind = (x.shape, x.stride(), torch.get_num_threads())
        if kind not in self._settled:
            return self._wait(kind, x)
        program = self._settled[kind]
        return self.packed(x) if program is None else program(x)

    def _wait(self, kind: Kind, x: Tensor) -> Tensor:
        """The output for a kind of input of which nothing is settled, and whether that changes."""
        output = self.packed(x)
        self._seen[kind] += 1
        # Whoever finds another at work, in whatever layer, goes on and comes again.
        if self._seen[kind] > self._after and not x.requires_grad and _SWITCH.acquire(blocking=False):
            try:
                room = sum(run is not None for run in self._settled.values()) < _MOST
                can = room and can_program()
                self._settled[kind] = _apart(partial(self._program, x, output)) if can else None
                _give_back()
            finally:
                _SWITCH.release()
        return output

    def _program(self, x: Tensor, wanted: Tensor) -> Run | None:
        """A program for inputs like x, whose output is `wanted`; None if it gave another one, is slower, or
        cannot be made."""
        plain = self.plain(x)
        if plain is None:
            return None
        with suppress(Exception), _fusing():  # whatever a compiler stumbles over, the layer runs without it
            graph = torch._C._create_graph_by_tracing(plain, (x,), lambda value: "", True, False)[0]
            program = torch._C._create_function_from_graph("layer", graph)
            program(x)  # sees types and shapes
            program(x)  # compiles for them
            fused = "oneDNNFusionGroup" in str(torch._C._last_executed_optimized_graph())
            good = fused and self._agrees(program, x, wanted)
            if good and _seconds(program, x) < _SLOWER * _seconds(self.packed, x):
                return program
        return None

    def _agrees(self, program: Run, x: Tensor, wanted: Tensor) -> bool:
        """Whether outputs are the same, and lie in memory the same way: that of x and of inputs like it."""
        chance = torch.Generator().manual_seed(0)
        for turn in range(min(_OUTPUTS, -(-_VALUES // wanted.numel()))):
            if turn:
                x = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).normal_(generator=chance)
                wanted = self.packed(x)
            found = program(x)
            if found.stride() != wanted.stride() or not torch.equal(found, wanted):
                return False
        return True

    def __getstate__(self) -> dict[str, Any]:  # a copy makes its own
        return {**self.__dict__, "_settled": {}, "_seen": Counter()}


def can_program() -> bool:
    """Whether this PyTorch can make programs, and nobody else is compiling around them."""
    busy = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not busy and torch.backends.mkldnn.enabled and all(hasattr(torch._C, name) for name in _NEEDED)


@contextmanager
def _fusing() -> Iterator[None]:
    """Has PyTorch look for what oneDNN Graph can run."""
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)


def _apart(make: Callable[[], Run | None]) -> Run | None:
    """What `make` gives; for a lane of one thread made in another, that lives on. What a program holds must
    not lie amid a lane's memory: glibc grants a thread heaps of 64 MB, and with less room in the first the
    layers would take and return a second at every picture, 1,350 page faults each. Several threads' programs
    are made in place: OpenMP would give the other thread as many more, and with more threads than processors
    let all of them sleep between layers."""
    global _maker
    if torch.get_num_threads() > 1:
        return make()
    try:
        if _maker is None:
            _maker = begun(1, "programs", 1)
        made = _maker.submit(torch.inference_mode()(make))
    except RuntimeError:  # the main thread has ended, and Python begins no more work for threads
        return make()
    return made.result()


def _forget_maker() -> None:
    global _maker
    _maker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_maker)  # threads are not inherited


def _give_back() -> None:
    """Returns what making a program took to the system: the C library would keep some 50 MB by the last
    layer. Only glibc can be asked to."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _seconds(run: Run, x: Tensor) -> float:
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return min(times)
