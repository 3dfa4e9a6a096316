"""Several processes train one network (torchrun): who is who, and the one exchange of a step. No loop.

Each process computes the gradient of its share of every batch; `World.average` makes them the gradient of the
whole. It is one all-reduce over one flat array, in which batch-norm statistics, the loss and the wish to stop
travel along, so all processes stay equal and end after the same batch.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolo9000.errors import TrainingError

# For a process that is still reading its data, or the leading one that scores validation data; a dead one is
# noticed at once.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """This process's place: `rank` of `ranks`; rank 0 writes files and talks."""

    rank: int = 0
    ranks: int = 1
    local: int = 0  # number of the process on its machine, and of its GPU

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def average(
        self,
        gradients: Sequence[Tensor],
        buffers: Sequence[Tensor],
        share: float,
        stop: bool,
    ) -> bool:
        """Makes `gradients` the sum over processes of share x gradient, `buffers` the mean over them.

        share: this process's part of the whole batch, 0..1; all add up to 1. Both lists have the same tensors
        in the same order in every process. Returns whether any process wants to stop.
        """
        if self.ranks == 1:
            return stop
        even = 1 / self.ranks
        parts = [g.detach().flatten() * share for g in gradients]
        parts += [b.detach().flatten() * even for b in buffers]
        flat = torch.cat([*parts, gradients[0].new_tensor([float(stop)])])
        with _all_alive():
            dist.all_reduce(flat)
        at = 0
        with torch.no_grad():
            for tensor in (*gradients, *buffers):
                tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()
        return bool(flat[-1] > 0)

    def gather(self, value: Any) -> list[Any]:
        """What every process gives here, plain data, in the order of their ranks."""
        found = [value] * self.ranks
        if self.ranks > 1:
            with _all_alive():
                dist.all_gather_object(found, value)
        return found

    def same(self, net: nn.Module) -> None:
        """Gives every process the leading one's weights."""
        if self.ranks > 1:
            for value in net.state_dict().values():
                dist.broadcast(value, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.ranks > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _all_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the library's word for a process that is gone
        raise TrainingError(f"another process of this run has ended: {str(error).splitlines()[0]}") from None


def join_world(device: str) -> World:
    """The world that torchrun started this process in, or a world of one."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return World()
    world = World(int(os.environ["RANK"]), ranks, int(os.environ.get("LOCAL_RANK", "0")))
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if gpu:
        torch.cuda.set_device(world.local)
    if not dist.is_initialized():
        store, rank, ranks = next(dist.rendezvous("env://", timeout=_PATIENCE))
        # torchrun keeps its store over a restart: without a name of its own a process would read the
        # addresses of those that are gone.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        backend = "nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=_PATIENCE)
    return world


def running_buffers(net: nn.Module) -> list[Tensor]:
    """The batch-norm statistics that move: those of modules in training mode."""
    return [
        buffer
        for module in net.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
