"""The region loss of YOLOv2 and YOLO9000, for images with boxes and images with labels only in one batch.

Gradients are Darknet's. Truths are matched to predicted boxes in assignment.py, class logits come from
classlogits.py, the tree's probabilities from hierarchy.py. Nothing here knows files, data sets or optimisers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo9000.assignment import Assignment, Target, Targets, assign, collect, drop_moot
from yolo9000.boxes import cxcywh_to_xyxy, decode, iou_xyxy
from yolo9000.claims import best_claims, claimed, largest_proposals
from yolo9000.classlogits import DenseLogits, LazyLogits
from yolo9000.errors import TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy, soft_tree_cross_entropy, tree_cross_entropy

if TYPE_CHECKING:
    from wordtree import WordTree

__all__ = ["RegionLoss", "check_finite", "soft_tree_cross_entropy", "tree_cross_entropy"]

LABEL_OBJECTNESS = ("paper", "darknet2017", "darknet", "none")
LABEL_BOXES = ("best", "largest")
CLASS_LOSSES = ("softmax", "sigmoid")


class RegionLoss(nn.Module):
    """The loss of a detector with anchors, over a flat list of classes or over a tree.

    For an image with boxes, half the sum of scale x (wanted - predicted)^2 over the activated x, y,
    objectness and the raw w, h, and class_scale x cross entropy of every sibling group on each truth's path
    (paper, sections 2 and 4). One predicted box is responsible for each truth: that of its cell and best
    anchor; of truths that share one, the last, but groups that only an earlier one's path has still train.
    Every other box should have objectness 0, unless it overlaps a truth, or lies where the target says
    "ignore_boxes".

    anchors: A (width, height) pairs in cells. tree: a WordTree; or classes: their number, for a flat list.
    map: (d,) class of the data set -> node, for labels of boxes. object_scale, noobject_scale, coord_scale,
    class_scale: weights. thresh: a box whose IoU with a truth is above it costs no objectness. rescore: the
    objectness wanted of a responsible box is its IoU with the truth, else 1. bias_match: truths choose among
    the anchors' own sizes, else among the predicted ones. early_images, early_scale: until so many images
    were seen, every box that is not responsible is pulled to its cell's centre and its anchor's size, that
    strongly. Defaults: Darknet's cfg files of YOLOv2 and YOLO9000, and for the last two its constants.
    class_loss: "softmax" over sibling groups; "sigmoid", each class for itself, for flat lists only.

    An image without boxes trains its label at one predicted box: label_box "best", the default, that with the
    largest objectness x Pr(label); "largest", that which covers most of the image of those with an objectness
    above label_iou, of several as large the best, and of all where none is so sure. (The latter is Detic's
    max-size rule, Zhou et al. 2022, whose proposals are cut to the surest before; objectness here is the IoU
    that is expected, label_iou what a label's box is taken to have.) A negative label trains -log(1 - Pr) at
    its own best box; one that a positive label of the image lies at or below is contradicted, and left out.
    Of classes that an image names in no way nothing is said anywhere: federated data sets need no more. Where
    more of a class may be in an image with boxes than were drawn ("not_exhaustive_labels"), a box's
    objectness costs 1 - Pr(class) of what it would. What becomes of objectness in images without boxes is
    label_objectness:

    - "paper": the chosen box is taken to overlap the truth by label_iou, so it is pushed up to that if below;
    - "darknet2017": that, and every other box of the image is pushed to 0 (the release of January 2017);
    - "darknet": the chosen box is left alone, every other box is pushed to 0 (today's program);
    - "none", the default: objectness is left alone. It trains best, with boxes for half of the classes,
      from random weights and from a classifier (docs/boxfree.md has "paper" beside it).

    A class without a row (logit -inf) has probability 0 and costs nothing: where one lies on a truth's path,
    only the groups above it train; as a negative label it says nothing.
    """

    anchors: Tensor
    map: Tensor | None

    def __init__(
        self,
        anchors: Tensor | Sequence[Sequence[float]],
        tree: "WordTree | None" = None,
        *,
        classes: int | None = None,
        map: Tensor | Sequence[int] | None = None,
        object_scale: float = 5.0,
        noobject_scale: float = 1.0,
        class_scale: float = 1.0,
        coord_scale: float = 1.0,
        thresh: float = 0.6,
        rescore: bool = True,
        bias_match: bool = True,
        early_images: int = 12800,
        early_scale: float = 0.01,
        class_loss: str = "softmax",
        label_objectness: str = "none",
        label_box: str = "best",
        label_iou: float = 0.3,
    ) -> None:
        super().__init__()
        if (tree is None) == (classes is None):
            raise ValueError("RegionLoss wants either a tree or the number of classes")
        _one_of("label_objectness", label_objectness, LABEL_OBJECTNESS)
        _one_of("label_box", label_box, LABEL_BOXES)
        _one_of("class_loss", class_loss, CLASS_LOSSES)
        if tree is None:
            from wordtree import WordTree

            tree = WordTree.flat([str(k) for k in range(classes)])
        self.hierarchy = Hierarchy(tree)
        if class_loss == "sigmoid" and not self.hierarchy.is_flat:
            raise ValueError(
                "class_loss='sigmoid' is for flat class lists; a tree's siblings compete in a softmax"
            )
        anchors = torch.as_tensor(anchors, dtype=torch.float32).detach()
        if anchors.dim() != 2 or anchors.shape[1] != 2 or not len(anchors) or not (anchors > 0).all():
            raise ValueError(f"anchors are (width, height) pairs above 0, in cells; got {anchors.tolist()}")
        self.register_buffer("anchors", anchors.clone(), persistent=False)
        map = None if map is None else torch.as_tensor(map).long()
        if map is not None and bool(((map < 0) | (map >= self.hierarchy.nodes)).any()):
            raise ValueError(f"map gives nodes outside the {self.hierarchy.nodes} there are: {map.tolist()}")
        self.register_buffer("map", map, persistent=False)
        self.object_scale, self.noobject_scale = object_scale, noobject_scale
        self.class_scale, self.coord_scale = class_scale, coord_scale
        self.thresh, self.rescore, self.bias_match = thresh, rescore, bias_match
        self.early_images, self.early_scale = early_images, early_scale
        self.class_loss = class_loss
        self.label_objectness, self.label_iou = label_objectness, label_iou
        self.label_box = label_box

    def forward(
        self, raw: Tensor | LazyOutput, targets: Sequence[Target], images_seen: int = 0
    ) -> dict[str, Tensor]:
        """The loss of N images, the sum over them divided by N.

        raw: (N, A*(5+C), H, W) before any sigmoid or softmax, or the same as a LazyOutput, of which only the
        class logits that matter are computed. targets: N dicts, see assignment.collect. images_seen: how many
        images were trained on before.

        Returns scalars: "loss", the sum of "box", "objectness", "no_objectness" and "classification"; and for
        the log, without gradient, "boxes" and "labels", the counts of truths and image labels, and means over
        the truths: "avg_iou", "recall50" (share with IoU above 0.5), "avg_objectness", "avg_probability"
        (Pr(label)), "avg_label_probability" (at the boxes chosen for image labels): NaN where there is none.
        Raises TrainingError for impossible targets. Computed in float32 whatever the autocast around it.
        """
        device = raw.device if isinstance(raw, Tensor) else raw.boxes.device
        with torch.autocast(device.type, enabled=False):
            return self._losses(raw, targets, images_seen)

    def _losses(
        self, raw: Tensor | LazyOutput, targets: Sequence[Target], images_seen: int
    ) -> dict[str, Tensor]:
        boxes, logits = self._split(raw)
        N, A, _, H, W = boxes.shape
        if len(targets) != N:
            raise TrainingError(f"{N} images and {len(targets)} targets")
        if not N:
            raise TrainingError("a batch without images")
        if self.anchors.device != boxes.device:
            self.to(boxes.device)
        known = collect(targets, self.hierarchy.nodes, boxes.device, self.map)
        known = drop_moot(known, self.hierarchy, logits.stored)
        with torch.no_grad():
            decoded_cxcywh, _ = decode(boxes.reshape(N, A * 5, H, W), self.anchors)
            sizes = None if self.bias_match else decoded_cxcywh[..., 2:]
            truth = assign(known.boxes_cxcywh, known.image, self.anchors, (H, W), sizes)
            decoded_xyxy = cxcywh_to_xyxy(decoded_cxcywh)
            at_truth = (known.image, truth.anchor, truth.row, truth.column)
            truths_xyxy = cxcywh_to_xyxy(known.boxes_cxcywh)
            iou = iou_xyxy(decoded_xyxy[at_truth], truths_xyxy, pairwise=False)  # (T,)
            background = self._background(decoded_cxcywh, decoded_xyxy, known, truths_xyxy)
            background = background.to(boxes.dtype)
            sigmoid = self.class_loss == "sigmoid"
            labels = torch.cat((known.image_labels, known.negative_labels))
            image = torch.cat((known.label_image, known.negative_image))
            among = None
            if self.label_box == "largest":
                among = largest_proposals(boxes[:, :, 4], decoded_xyxy, self.label_iou)[image]
                among[len(known.image_labels) :] = True
            chosen = best_claims(self.hierarchy, logits, boxes[:, :, 4], labels, image, sigmoid, among)
            if len(known.open_labels):
                what = known.open_labels, known.open_image
                background *= 1 - claimed(self.hierarchy, logits, (N, A, H, W), *what, sigmoid)
        responsible = torch.zeros(N * A * H * W, dtype=torch.bool, device=boxes.device)
        responsible[truth.slot] = True
        responsible = responsible.view(N, A, H, W)
        objectness = boxes[:, :, 4].sigmoid()  # (N, A, H, W)
        losses = {
            "box": self._box(boxes, known, truth, at_truth, responsible, images_seen),
            "objectness": self._object(objectness, iou, truth, at_truth, known, chosen),
            "no_objectness": self._no_object(objectness, background * ~responsible, known, chosen),
        }
        losses["classification"], logs = self._classify(logits, known, truth, at_truth, chosen)
        losses = {name: value / N for name, value in losses.items()}
        with torch.no_grad():
            record = {
                "boxes": iou.new_tensor(float(len(iou))),
                "labels": iou.new_tensor(float(len(known.image_labels))),
                "avg_iou": iou.mean(),
                "recall50": (iou > 0.5).float().mean(),
                "avg_objectness": objectness[at_truth].mean(),
                "avg_probability": logs[: len(iou)].exp().mean(),
                "avg_label_probability": logs[len(iou) : len(iou) + len(known.image_labels)].exp().mean(),
            }
        return {"loss": sum(losses.values()), **losses, **record}

    def _split(self, raw: Tensor | LazyOutput) -> tuple[Tensor, DenseLogits | LazyLogits]:
        """Box channels (N, A, 5, H, W) in float32 or float64, and the class logits, unread."""
        A, C = len(self.anchors), self.hierarchy.nodes
        if isinstance(raw, Tensor):
            if raw.dim() != 4 or raw.shape[1] != A * (5 + C):
                wanted = f"(N, {A}*(5+{C}) = {A * (5 + C)}, H, W)"
                raise TrainingError(f"the network's output has shape {tuple(raw.shape)}; wanted {wanted}")
            boxes, classes = raw.unflatten(1, (A, 5 + C)).split([5, C], dim=2)
            logits = DenseLogits(classes)
        else:
            if raw.anchors != A or raw.classes != C:
                has = f"{raw.anchors} anchors and {raw.classes} classes"
                raise TrainingError(f"the network has {has}, the loss {A} and {C}")
            boxes, logits = raw.boxes.unflatten(1, (A, 5)), LazyLogits(raw)
        return (boxes if boxes.dtype == torch.float64 else boxes.float()), logits

    def _background(
        self, decoded_cxcywh: Tensor, decoded_xyxy: Tensor, known: Targets, truths_xyxy: Tensor
    ) -> Tensor:
        """(N, A, H, W) bool: predicted boxes of boxed images that overlap no truth and no ignored region."""
        N, A, H, W, _ = decoded_xyxy.shape
        ignored = torch.zeros(N, A * H * W, dtype=torch.bool, device=decoded_xyxy.device)
        flat_xyxy = decoded_xyxy.view(N, -1, 4)
        overlap = iou_xyxy(flat_xyxy[known.image], truths_xyxy[:, None], pairwise=False)  # (T, A*H*W)
        which, box = (overlap > self.thresh).nonzero(as_tuple=True)
        ignored[known.image[which], box] = True
        if len(known.ignore_image):
            region = cxcywh_to_xyxy(known.ignore_cxcywh)[:, None]  # (I, 1, 4)
            overlap = iou_xyxy(flat_xyxy[known.ignore_image], region, pairwise=False)  # (I, A*H*W)
            centre = decoded_cxcywh.view(N, -1, 4)[known.ignore_image, :, :2]
            inside = ((centre >= region[..., :2]) & (centre <= region[..., 2:])).all(dim=-1)
            which, box = ((overlap > self.thresh) | inside).nonzero(as_tuple=True)
            ignored[known.ignore_image[which], box] = True
        return (known.boxed[:, None] & ~ignored).view(N, A, H, W)

    def _box(
        self,
        boxes: Tensor,
        known: Targets,
        truth: Assignment,
        at_truth: tuple[Tensor, ...],
        responsible: Tensor,
        images_seen: int,
    ) -> Tensor:
        image, anchor, row, column = at_truth
        raw = boxes[image, anchor, :4, row, column]  # (T, 4)
        predicted = torch.cat((raw[:, :2].sigmoid(), raw[:, 2:]), dim=1)
        # Small boxes weigh up to twice as much as one that fills the picture.
        weight = self.coord_scale * (2 - known.boxes_cxcywh[:, 2] * known.boxes_cxcywh[:, 3]) * truth.last
        loss = (weight[:, None] * (truth.goals - predicted).square()).sum() / 2
        if images_seen < self.early_images:
            off = (boxes[:, :, :2].sigmoid() - 0.5).square().sum(2) + boxes[:, :, 2:4].square().sum(2)
            pulled = known.boxed[:, None, None, None] & ~responsible
            loss = loss + self.early_scale / 2 * torch.where(pulled, off, 0).sum()
        return loss

    def _object(
        self,
        objectness: Tensor,
        iou: Tensor,
        truth: Assignment,
        at_truth: tuple[Tensor, ...],
        known: Targets,
        chosen: tuple[Tensor, ...],
    ) -> Tensor:
        wanted = iou if self.rescore else torch.ones_like(iou)
        loss = (truth.last * (wanted - objectness[at_truth]).square()).sum()
        if self.label_objectness in ("paper", "darknet2017"):
            at_label = _distinct(chosen, len(known.image_labels))
            loss = loss + (self.label_iou - objectness[at_label]).clamp(min=0).square().sum()
        return self.object_scale / 2 * loss

    def _no_object(
        self, objectness: Tensor, background: Tensor, known: Targets, chosen: tuple[Tensor, ...]
    ) -> Tensor:
        if self.label_objectness in ("darknet2017", "darknet"):
            background = background.clone()
            background[known.label_image] = 1
            background[tuple(index[: len(known.image_labels)] for index in chosen)] = 0
        return self.noobject_scale / 2 * (background * objectness.square()).sum()

    def _classify(
        self,
        logits: DenseLogits | LazyLogits,
        known: Targets,
        truth: Assignment,
        at_truth: tuple[Tensor, ...],
        chosen: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """The classification loss, and log Pr(label) of the T truths, L image labels and E negative
        labels.
        """
        labels = torch.cat((known.labels, known.image_labels, known.negative_labels))
        truths = len(known.labels)
        positives = truths + len(known.image_labels)
        few = self.hierarchy.restrict(labels, logits.stored)
        where = (torch.cat(pair) for pair in zip(at_truth, chosen, strict=True))
        values = logits.at(*where, few.columns)  # (T+L+E, U)
        positive = few.which < positives
        if self.class_loss == "sigmoid":
            taught = truth.last & known.named
            return self._classify_sigmoid(values, few.target, few.which, taught, positives)
        steps = few.log_conditionals(values)  # (P,)
        logs = steps.new_zeros(len(labels)).index_add(0, few.which, steps)
        # Where a later truth has the same box, its path replaces the earlier one's in the groups that both
        # have.
        counted = F.pad(known.named, (0, len(labels) - truths), value=True)[few.which]
        overwritten = ~truth.last
        if bool(overwritten.any()):
            is_truth = (few.which < truths) & counted
            key = truth.slot[few.which[is_truth]] * few.segments + few.segment_of_path[is_truth]
            key = key.unique(return_inverse=True)[1]
            order = torch.arange(len(key), device=key.device)
            latest = order.new_zeros(len(key)).scatter_reduce(0, key, order, "amax")
            counted[is_truth] = latest[key] == order
        loss = -torch.where(positive & counted, steps, 0).sum() - log_not(logs[positives:]).sum()
        return self.class_scale * loss, logs.detach()

    def _classify_sigmoid(
        self, values: Tensor, target: Tensor, which: Tensor, taught: Tensor, positives: int
    ) -> tuple[Tensor, Tensor]:
        """Each class for itself: binary cross entropies, as Darknet's softmax=0. taught: (T,) bool."""
        found = torch.zeros(len(values), device=values.device, dtype=values.dtype)
        found = found.index_add(0, which, values[which, target])
        has_row = torch.zeros_like(found, dtype=torch.bool)
        has_row[which] = True
        counted = has_row[:positives].clone()
        counted[: len(taught)] &= taught
        positive = F.softplus(values[:positives]).sum(1) - found[:positives]
        negative = torch.where(has_row[positives:], F.softplus(found[positives:]), 0)
        loss = torch.where(counted, positive, 0).sum() + negative.sum()
        return self.class_scale * loss, F.logsigmoid(found.detach())


def check_finite(losses: dict[str, Tensor], names: Sequence[str]) -> None:
    """Raises TrainingError, naming the images of the batch and the parts at fault, if the loss is not
    finite.
    """
    if bool(torch.isfinite(losses["loss"].detach()).all()):
        return
    parts = ("box", "objectness", "no_objectness", "classification")
    values = [f"{part} {float(losses[part].detach()):g}" for part in parts if part in losses]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise TrainingError(
        f"the loss is {float(losses['loss'].detach()):g} ({', '.join(values)}) on the images {shown}; "
        "try a lower learning rate or a longer burn-in, and check these images' boxes"
    )


def log_not(log_probability: Tensor) -> Tensor:
    """log(1 - p) of log p. Near p = 1 it is held at 1 - 1e-6, where the logarithm is still finite, but not
    its slope, so that the logits feel the full push until float32 itself cannot tell p from 1.
    """
    held = log_probability + (log_probability.clamp(max=-1e-6) - log_probability).detach()
    return torch.log1p(-held.exp())


def _distinct(where: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    """The first `count` boxes, each once."""
    return tuple(torch.stack(where)[:, :count].unique(dim=1))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(choices)}")
