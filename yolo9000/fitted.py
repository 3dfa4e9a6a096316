"""Pictures that are ready for a network, and which of them can run together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from yolo9000.letterbox import Letterbox


@dataclass(frozen=True)
class Fitted:
    """A picture ready for the network. image: (3, H, W) in 0..1, of the network's type; box: where the
    picture lies in it; source: its file, if any; picture: its pixels (H, W, 3) uint8, if they are kept."""

    image: Tensor
    box: Letterbox
    source: str | None
    picture: np.ndarray | bytes | None


class Placed(Protocol):
    """Whatever knows where a picture lies in its input."""

    @property
    def box(self) -> Letterbox: ...


def alike(fitted: Sequence[Placed]) -> Iterator[list[int]]:
    """Positions of pictures whose inputs have one size, and so make one batch; each position once."""
    groups: dict[tuple[int, int], list[int]] = {}
    for k, one in enumerate(fitted):
        groups.setdefault(one.box.network_size, []).append(k)
    yield from groups.values()
