"""`Classifier`: photographs in, names of what they show out, for networks that end in a softmax, flat or over
a tree.

Boxes are detector.py's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import yolo9000.device  # noqa: F401 (computes in forked processes, too)
from yolo9000.decision import Decision
from yolo9000.detections import SOMETHING
from yolo9000.errors import ModelError
from yolo9000.hierarchy import Hierarchy
from yolo9000.images import read_image
from yolo9000.letterbox import as_planes, scale
from yolo9000.names import tree_of
from yolo9000.options import Options, merged

if TYPE_CHECKING:
    from yolo9000.network import Network


@dataclass(frozen=True)
class Classification:
    """What a picture shows. nodes, ids, names, probabilities: the most probable leaves of the tree (all
    classes, of a flat list), the best first. answer, path, path_names, path_probabilities: the node that the
    rule of decision answers and its path, root first, -1 and empty where it says no more than "something"; of
    a flat list simply the best class. source: the file, if it was one."""

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
                "name": self.path_names[-1] if self.path else SOMETHING,
                "id": self.path[-1] if self.path else None,
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
        self.size: int = min(net.own_size)
        self._running = net.fuse().to(memory_format=torch.channels_last).eval()

    def __call__(
        self, pictures: Any, top: int = 5, *, size: int | None = None, batch: int = 16, **options: Any
    ) -> Classification | list[Classification]:
        """What a picture, or each of a list, shows. pictures: what read_image takes; the shorter side is
        scaled to `size`, bilinear, and the middle square looked at. top: how many leaves to name. options:
        rule, tree_threshold, level, vocabulary, accuracy, hedge_lambda, as Detector.__call__ has them.

        Raises ImageError for a picture that cannot be read, ValueError for impossible options.
        """
        many = isinstance(pictures, list | tuple)
        found = self.find(pictures if many else [pictures], self.options(**options), top, size, batch)
        return found if many else found[0]

    def options(self, **given: Any) -> Options:
        """The given options of decision, completed by the model's defaults; as Detector.options. Raises
        ValueError."""
        unknown = given.keys() - _OPTIONS
        if unknown:
            raise ValueError(f"a classifier has no option {', '.join(sorted(unknown))}")
        own = {name: value for name, value in self.net.defaults.items() if name in _OPTIONS}
        options = merged(own, given)
        Decision(self.tree, self.hierarchy, options)  # refuses nodes that the tree has not
        return options

    def find(
        self,
        pictures: Sequence[Any],
        options: Options,
        top: int = 5,
        size: int | None = None,
        batch: int = 16,
    ) -> list[Classification]:
        """What each picture shows, by options made once with `options`. Raises as __call__."""
        size = self.size if size is None else size
        for name, value in (("top", top), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        if not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"the size lies between {_SMALLEST} and {_LARGEST} pixels, not {size}")
        decision = Decision(self.tree, self.hierarchy, options)
        leaves = torch.from_numpy(self.tree.leaves.copy())
        found: list[Classification] = []
        for start in range(0, len(pictures), batch):
            chosen = pictures[start : start + batch]
            images = torch.stack([central_square(as_planes(read_image(picture)), size) for picture in chosen])
            logs = self.log_conditionals(images)
            answer = decision(logs)
            probabilities = self.hierarchy.log_probabilities(logs).exp()
            best, place = probabilities[:, leaves].topk(min(top, len(leaves)))
            for i, picture in enumerate(chosen):
                node = int(answer.nodes[i])
                path = self.tree.path_nodes(node) if node >= 0 else ()
                nodes = tuple(leaves[place[i]].tolist())
                found.append(
                    Classification(
                        nodes,
                        tuple(self.tree.ids[k] for k in nodes),
                        tuple(self.tree.names[k] for k in nodes),
                        tuple(best[i].tolist()),
                        node,
                        tuple(self.tree.ids[k] for k in path),
                        tuple(self.tree.names[k] for k in path),
                        tuple(answer.log_path[i, : len(path)].exp().tolist()),
                        str(picture) if isinstance(picture, str | Path) else None,
                    )
                )
        return found

    @torch.inference_mode()
    def log_conditionals(self, images: Tensor) -> Tensor:
        """Log Pr(class | parent) (N, C) of pictures (N, 3, H, W) in 0..1."""
        return self._running(images.contiguous(memory_format=torch.channels_last)).log()


# What decides of Options: the others are about boxes.
_OPTIONS = {
    "rule",
    "tree_threshold",
    "level",
    "vocabulary",
    "accuracy",
    "hedge_lambda",
    "lambdas",
    "temperatures",
}

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
