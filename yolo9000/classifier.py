"""`Classifier`: photographs in, names of what they show out, for networks that end in a softmax, flat or over
a tree.

Boxes are detector.py's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yolo9000.descent import RULES, descend
from yolo9000.errors import ModelError
from yolo9000.hierarchy import Hierarchy
from yolo9000.images import read_image
from yolo9000.letterbox import as_planes, scale
from yolo9000.names import tree_of

if TYPE_CHECKING:
    from yolo9000.network import Network


@dataclass(frozen=True)
class Classification:
    """What a picture shows. nodes, ids, names, probabilities: the most probable leaves of the tree (all
    classes, of a flat list), the best first. answer, path, path_names, path_probabilities: the node that the
    rule of descent stops at and its path, root first; of a flat list simply the best class. source: the file,
    if it was one."""

    nodes: tuple[int, ...]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    answer: int
    path: tuple[str, ...]
    path_names: tuple[str, ...]
    path_probabilities: tuple[float, ...]
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; probabilities to five digits."""
        best = zip(self.names, self.ids, self.nodes, self.probabilities, strict=True)
        return {
            "source": self.source,
            "best": [{"name": n, "id": i, "node": k, "probability": round(p, 5)} for n, i, k, p in best],
            "answer": {
                "name": self.path_names[-1],
                "id": self.path[-1],
                "node": self.answer,
                "path": list(self.path),
                "path_names": list(self.path_names),
                "path_probabilities": [round(p, 5) for p in self.path_probabilities],
            },
        }


class Classifier:
    """Names whole pictures. Attributes: net, tree (one group of roots for a flat list), size (side of the
    input in pixels)."""

    def __init__(self, net: "Network", *, names: Sequence[str] | str | Path | None = None) -> None:
        """net: a network that ends in a softmax; names: of its classes, a sequence or a file. Raises
        ModelError for a detector."""
        if net.spec.softmax is None:
            raise ModelError(
                "classifying needs a network that ends in a softmax; this one is a detector (Detector)"
            )
        self.net = net
        self.tree = tree_of(net, names)
        self.hierarchy = Hierarchy(self.tree)
        self.size = min(net.spec.width, net.spec.height)
        self._running = net.fuse().to(memory_format=torch.channels_last).eval()

    def __call__(
        self,
        pictures: Any,
        top: int = 5,
        rule: str = "threshold",
        *,
        tree_threshold: float = 0.5,
        size: int | None = None,
        batch: int = 16,
    ) -> Classification | list[Classification]:
        """What a picture, or each of a list, shows. pictures: what read_image takes; the shorter side is
        scaled to `size`, bilinear, and the middle square looked at. top: how many leaves to name. rule,
        tree_threshold: see descent.py.

        Raises ImageError for a picture that cannot be read, ValueError for impossible options.
        """
        size = self.size if size is None else size
        self.check(top, rule, tree_threshold, size)
        if batch < 1:
            raise ValueError(f"batch is at least 1, not {batch}")
        many = isinstance(pictures, list | tuple)
        pictures = pictures if many else [pictures]
        found: list[Classification] = []
        for start in range(0, len(pictures), batch):
            chosen = pictures[start : start + batch]
            images = torch.stack([central_square(as_planes(read_image(picture)), size) for picture in chosen])
            logs = self.log_conditionals(images)
            descent = descend(self.hierarchy, logs, rule, tree_threshold)
            probabilities = self.hierarchy.log_probabilities(logs).exp()
            leaves = torch.from_numpy(self.tree.leaves.copy())
            best, place = probabilities[:, leaves].topk(min(top, len(leaves)))
            for i, picture in enumerate(chosen):
                source = str(picture) if isinstance(picture, str | Path) else None
                nodes = tuple(leaves[place[i]].tolist())
                path = self.tree.path_nodes(int(descent.nodes[i]))
                found.append(
                    Classification(
                        nodes,
                        tuple(self.tree.ids[k] for k in nodes),
                        tuple(self.tree.names[k] for k in nodes),
                        tuple(best[i].tolist()),
                        path[-1],
                        tuple(self.tree.ids[k] for k in path),
                        tuple(self.tree.names[k] for k in path),
                        tuple(descent.log_path[i, : len(path)].exp().tolist()),
                        source,
                    )
                )
        return found if many else found[0]

    def check(self, top: int, rule: str, tree_threshold: float, size: int | None) -> None:
        """Raises ValueError for options that __call__ would refuse."""
        if top < 1:
            raise ValueError(f"top is at least 1, not {top}")
        if rule not in RULES:
            raise ValueError(f"the rule is one of {', '.join(RULES)}, not {rule!r}")
        if not 0 <= tree_threshold <= 1:
            raise ValueError(f"tree_threshold lies in 0..1, not {tree_threshold}")
        if size is not None and not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"the size lies between {_SMALLEST} and {_LARGEST} pixels, not {size}")

    @torch.inference_mode()
    def log_conditionals(self, images: Tensor) -> Tensor:
        """Log Pr(class | parent) (N, C) of pictures (N, 3, H, W) in 0..1."""
        return self._running(images.contiguous(memory_format=torch.channels_last)).log()


# Below, no network has cells left; above, a slip of the keyboard.
_SMALLEST, _LARGEST = 32, 4096


def central_square(pixels: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 to float32 (3, size, size) in 0..1: the shorter side scaled to `size`, bilinear, the
    middle kept."""
    _, height, width = pixels.shape
    shorter = min(height, width)
    # Only the square is scaled: of a picture 1 pixel high and 5,000 wide the rest would be enormous.
    top, left = (height - shorter) // 2, (width - shorter) // 2
    return scale(pixels[:, top : top + shorter, left : left + shorter], (size, size), "smooth").clamp(0, 1)
