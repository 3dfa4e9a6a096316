"""What a step of training minimises: the seam between the loop (train.py) and losses. One class for each
task.

The tasks "distill" and "rows" are yolo9000.distill's and yolo9000.rowtask's; their modules have a function
`make_task(config, net, tree)` as here.
"""

import importlib
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from wordtree import WordTree
from yolo9000.assignment import collect, drop_moot
from yolo9000.batches import Batch
from yolo9000.config import TrainConfig, within
from yolo9000.errors import ModelError, TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy, tree_cross_entropy
from yolo9000.network import Network
from yolo9000.settings import keywords

_SHARES = ("thresh", "label_iou")  # RegionLoss's settings that are an IoU
_ELSEWHERE = {"distill": "yolo9000.distill", "rows": "yolo9000.rowtask"}


class Task(Protocol):
    """Called once a batch, under autocast where the run's precision is bfloat16."""

    def loss(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Scalars by name, for the log; "loss" is the one that is minimised."""
        ...


def make_task(config: TrainConfig, net: Network, tree: WordTree | None) -> Task:
    """The task that the configuration names, for this network."""
    if config.distill and config.task != "distill":
        raise TrainingError(f"[distill] belongs to the task distill; this run's is {config.task}")
    if config.task in _ELSEWHERE:
        return importlib.import_module(_ELSEWHERE[config.task]).make_task(config, net, tree)
    if config.task == "classify":
        return ClassifyTask(net, tree, **keywords(ClassifyTask, config.loss, "loss"))
    return DetectTask(net, tree, config.loss)


class DetectTask:
    """RegionLoss on the network's lazy output, boxes and labels in one batch (paper, section 4)."""

    def __init__(self, net: Network, tree: WordTree | None, settings: dict[str, Any]):
        from yolo9000.loss import RegionLoss

        region = net.spec.region
        if region is None:
            raise TrainingError(
                "the task detect needs a detector; this network is a classifier (task = classify)"
            )
        settings = keywords(RegionLoss, settings, "loss")
        if settings.get("class_loss") == "sigmoid":
            raise TrainingError("loss.class_loss: detectors read their classes by a softmax; leave it out")
        for key, value in settings.items():
            if key.endswith("scale") or key in _SHARES:
                within(f"loss.{key}", value, 0, 1 if key in _SHARES else 1e9)
        kinds = {"tree": tree} if tree is not None else {"classes": net.classes}
        try:
            self.region_loss = RegionLoss(net.anchors, **kinds, **settings)
        except ValueError as error:
            raise TrainingError(f"[loss]: {error}") from None
        self.region_loss.to(net.anchors.device)

    def loss(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        out = full_precision(net.lazy(batch.images))
        # Squares of small errors and sums over thousands of boxes: not for 8 bits of mantissa.
        with torch.autocast(batch.images.device.type, enabled=False):
            return self.region_loss(out, batch.targets, images_seen=batch.seen)


class ClassifyTask:
    """Cross entropy of a classifier's logits, over all classes or, with a tree, over the sibling groups on
    the label's path; and -log(1 - Pr) of the nodes that were verified to be nowhere in the picture, but for
    those that its labels contradict. Of several labels the mean counts, and so of several verified nodes. A
    picture without any, as where no box is left of those it had, costs nothing.
    """

    def __init__(self, net: Network, tree: WordTree | None, label_smoothing: float = 0.0):
        if net.spec.softmax is None:
            raise TrainingError(
                "the task classify needs a classifier; this network is a detector (task = detect)"
            )
        if label_smoothing:
            raise TrainingError("loss.label_smoothing is not there for the task classify")
        if tree is None and net.spec.softmax.groups > 1:
            raise ModelError(
                "the task classify learns one softmax, or a tree's; this network's has "
                f"{net.spec.softmax.groups} equal groups: set groups=1 in its [softmax], "
                "or give it a tree (model.tree)"
            )
        tree = tree or WordTree.flat([str(k) for k in range(net.classes)])
        self.hierarchy = Hierarchy(tree).to(next(net.parameters()).device)

    def loss(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        from yolo9000.loss import log_not

        logits = net.logits(batch.images)
        rows, nodes = image_nodes(batch)
        known = drop_moot(collect(batch.targets, len(self.hierarchy), logits.device), self.hierarchy)
        with torch.autocast(logits.device.type, enabled=False):
            loss = _mean_each(-self._log_pr(logits, rows, nodes), rows, len(logits))
            losses = {"loss": loss}
            if len(known.negative_labels):
                log_pr = self._log_pr(logits, known.negative_image, known.negative_labels)
                losses["negative"] = _mean_each(-log_not(log_pr), known.negative_image, len(logits))
                losses["loss"] = loss + losses["negative"]
        right = (logits.detach()[rows].argmax(-1) == nodes).float().mean()
        return losses | {"top1_all_nodes": right}

    def _log_pr(self, logits: Tensor, rows: Tensor, nodes: Tensor) -> Tensor:
        """Log Pr(node) of (row, node) pairs, (P,)."""
        return -tree_cross_entropy(self.hierarchy, logits.float()[rows], nodes)


def _mean_each(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """The mean over `count` pictures of the mean of each one's values (P,); 0 for one that has none."""
    each = torch.bincount(rows, minlength=count).clamp(min=1)
    return (values / each[rows]).sum() / count


def image_nodes(batch: Batch) -> tuple[Tensor, Tensor]:
    """All (row, node) pairs of a batch: (P,) each, rows rising, a node once a picture; boxed pictures' from
    their boxes, those whose names count.
    """
    rows, nodes = [], []
    for row, target in enumerate(batch.targets):
        found = target["labels"] if "labels" in target else target["image_labels"]
        if "named" in target:
            found = found[target["named"]]
        found = torch.unique(found)
        rows.append(torch.full_like(found, row))
        nodes.append(found)
    return torch.cat(rows), torch.cat(nodes)


def full_precision(out: LazyOutput) -> LazyOutput:
    """The same output with boxes and features in float32."""
    return replace(out, boxes=out.boxes.float(), features=out.features.float())
