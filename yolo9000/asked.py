"""Asked: what was looked for in each picture of data that is annotated picture by picture for some classes
only (LVIS calls it federated; Open Images is too), and what detections count there. Along the tree: a claim
that no dog is there is one for every breed, a husky that is there is a dog that is there.

Average precision is scoring.py's and node_precision.py's; what training makes of the same lists loss.py's."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from yolo9000.hierarchy import ranges

if TYPE_CHECKING:
    from yolo9000.hierarchy import Hierarchy
    from yolo9000.scoring import Boxes


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Asked:
    """exhaustive: (images,) bool, pictures in which all boxes of all nodes were drawn. In the others only
    these count: nodes that have boxes there, `seen`, which are known to be there otherwise, and `absent`,
    verified to be nowhere in the picture. `open`: nodes of which more may be there than have boxes. Each is
    (k,) numbers of pictures and (k,) nodes.
    """

    exhaustive: np.ndarray
    absent_image: np.ndarray = field(default_factory=_none)
    absent_node: np.ndarray = field(default_factory=_none)
    seen_image: np.ndarray = field(default_factory=_none)
    seen_node: np.ndarray = field(default_factory=_none)
    open_image: np.ndarray = field(default_factory=_none)
    open_node: np.ndarray = field(default_factory=_none)

    @classmethod
    def everything(cls, images: int) -> "Asked":
        return cls(np.ones(images, bool))

    @property
    def is_everything(self) -> bool:
        return bool(self.exhaustive.all() and not len(self.open_image))


def asked_for(
    hierarchy: "Hierarchy", asked: Asked, truth: "Boxes", found: "Boxes", exact: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections count at all, (n,) bool, and which are not wrong if they match no box, (n,) bool.

    truth.kind, found.kind: nodes; truth as it was drawn. A detection counts in an exhaustive picture, and
    where its node is there, or at or below one that is absent. A node is there if a box of it or of one below
    it is, or it is seen, or one below it is; exact: only if it has a box or is seen itself, for scores in
    which a husky's box is no dog's. A detection is not wrong where more of its node may be without boxes: at,
    above and below an open one, but for what is absent. An absent node that is there itself, by a box or as
    seen, is contradicted and says nothing.
    """
    n = hierarchy.nodes
    there = np.concatenate([truth.image, asked.seen_image]), np.concatenate([truth.kind, asked.seen_node])
    rows, nodes = on_paths(hierarchy, there[1].astype(np.int64))
    along = np.unique(there[0].astype(np.int64)[rows] * n + nodes)
    present = np.unique(there[0].astype(np.int64) * n + there[1].astype(np.int64)) if exact else along
    absent = np.setdiff1d(asked.absent_image * n + asked.absent_node, along)
    opened = np.unique(asked.open_image * n + asked.open_node)
    rows, nodes = on_paths(hierarchy, asked.open_node)
    above_open = np.unique(asked.open_image[rows] * n + nodes)

    image, node = found.image.astype(np.int64), found.kind.astype(np.int64)
    counts = asked.exhaustive[image] | isin(image * n + node, present)
    unsure = isin(image * n + node, above_open)
    # What lies at or below a listed node is known by its path, and only where it can matter.
    partial = np.flatnonzero(~counts | isin(image, np.unique(asked.open_image)))
    rows, nodes = on_paths(hierarchy, node[partial])
    keys = image[partial][rows] * n + nodes
    below_absent = np.zeros(len(node), bool)
    below_absent[partial[rows[isin(keys, absent)]]] = True
    unsure[partial[rows[isin(keys, opened)]]] = True
    return counts | below_absent, unsure & ~below_absent


def isin(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each value is among the sorted ones, (n,) bool."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values


def on_paths(hierarchy: "Hierarchy", nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each node of all paths to `nodes` (m,): which of the m, and the node."""
    import torch

    starts = hierarchy.path_starts.cpu()
    given = torch.from_numpy(np.ascontiguousarray(nodes, np.int64))
    entries, which = ranges(starts[given], starts[given + 1] - starts[given])
    return which.numpy(), hierarchy.path_nodes.cpu()[entries].numpy()
