"""Dense targets and plain predictions, as YOLO_V2 of the Lucid library has them: for data and code that come
from there.

A dense target holds one vector for every cell and anchor, (N, H, W, A*(5+C)). RegionLoss (loss.py) needs none
of this: it takes lists of boxes, and matches them itself. Flat class lists only. docs/from_lucid.md has the
whole table of counterparts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo9000.assignment import Target, assign, collect
from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.errors import TrainingError
from yolo9000.suppression import nms

if TYPE_CHECKING:
    from yolo9000.detections import Detections

SIZES = ("log", "cells")
CLASS_LOSSES = ("sigmoid", "softmax")


def encode_targets(
    targets: Sequence[Target],
    anchors: Tensor | Sequence[Sequence[float]],
    classes: int,
    grid: int | tuple[int, int],
    sizes: str = "log",
) -> Tensor:
    """Boxes to a dense target (N, H, W, A*(5+C)), float32.

    targets: N dicts {"boxes": (n, 4) cxcywh in 0..1, "labels": (n,)}. anchors: (A, 2) width and height in
    cells. grid: S for S x S cells, or (H, W). At the cell of a box's centre and the anchor of the most
    similar size stand x, y (the centre's place in the cell, 0..1), w, h, 1, and the class as one-hot; all
    else is 0. w, h with sizes="log" are log(size / anchor), as Lucid documents; with "cells" sizes in cells,
    which its get_loss compares. Of boxes that share a cell and anchor the last remains. Raises TrainingError
    for impossible boxes and labels.
    """
    _one_of("sizes", sizes, SIZES)
    anchors = torch.as_tensor(anchors, dtype=torch.float32).reshape(-1, 2)
    H, W = (grid, grid) if isinstance(grid, int) else grid
    for b, target in enumerate(targets):
        if "boxes" not in target:
            raise TrainingError(
                f"target {b} has no boxes; a dense target cannot hold an image with labels only"
            )
    known = collect(targets, classes, "cpu")
    truth = assign(known.boxes_cxcywh, known.image, anchors, (H, W))
    dense = torch.zeros(len(targets), H, W, len(anchors), 5 + classes)
    last = truth.last
    at = (known.image[last], truth.row[last], truth.column[last], truth.anchor[last])
    goals = truth.goals[last]
    if sizes == "cells":
        goals = torch.cat((goals[:, :2], goals[:, 2:].exp() * anchors[at[3]]), dim=1)
    onehot = F.one_hot(known.labels[last], classes).float()
    dense[at] = torch.cat((goals, torch.ones(len(goals), 1), onehot), dim=1)
    return dense.flatten(3)  # (N, H, W, A, 5+C) -> (N, H, W, A*(5+C))


def decode_targets(
    dense: Tensor, anchors: Tensor | Sequence[Sequence[float]], sizes: str = "log"
) -> list[dict[str, Tensor]]:
    """A dense target (N, H, W, A*(5+C)) or (N, H, W, A, 5+C) back to boxes, as RegionLoss takes them.

    Returns N dicts {"boxes": (n, 4) cxcywh in 0..1, "labels": (n,)}: one box wherever the fifth number is
    above 0, in the order of rows, columns and anchors.
    """
    _one_of("sizes", sizes, SIZES)
    anchors = torch.as_tensor(anchors, dtype=torch.float32).reshape(-1, 2).to(dense.device)
    dense = _by_anchor(dense, len(anchors))
    _, H, W, _, _ = dense.shape
    image, row, column, anchor = (dense[..., 4] > 0).nonzero(as_tuple=True)
    found = dense[image, row, column, anchor].float()  # (T, 5+C)
    size = found[:, 2:4].exp() * anchors[anchor] if sizes == "log" else found[:, 2:4]
    cell = torch.stack((column, row), dim=1)
    boxes = torch.cat((found[:, :2] + cell, size), dim=1) / found.new_tensor([W, H, W, H])
    labels = found[:, 5:].argmax(dim=1)
    return [{"boxes": boxes[image == b], "labels": labels[image == b]} for b in range(len(dense))]


class DenseLoss(nn.Module):
    """The loss of YOLO_V2.get_loss, over dense targets.

    The sum over images, divided by N, of lambda_coord x squared errors of x, y, w, h where a box is;
    squared error of objectness there, and lambda_noobj x squared objectness elsewhere; and the classes where
    a box is: class_loss="sigmoid" takes each class for itself (binary cross entropy), "softmax" one against
    the others. sizes says what the targets' w, h are, see encode_targets. Unlike RegionLoss it knows no boxes
    that overlap well enough to be let off, no weight for small boxes, and no early pull.
    """

    def __init__(
        self,
        anchors: Tensor | Sequence[Sequence[float]],
        classes: int,
        *,
        lambda_coord: float = 5.0,
        lambda_noobj: float = 0.5,
        class_loss: str = "sigmoid",
        sizes: str = "log",
    ) -> None:
        super().__init__()
        _one_of("class_loss", class_loss, CLASS_LOSSES)
        _one_of("sizes", sizes, SIZES)
        anchors = torch.as_tensor(anchors, dtype=torch.float32).detach().reshape(-1, 2).clone()
        self.register_buffer("anchors", anchors, persistent=False)
        self.classes = classes
        self.lambda_coord, self.lambda_noobj = lambda_coord, lambda_noobj
        self.class_loss, self.sizes = class_loss, sizes

    def forward(self, raw: Tensor, target: Tensor) -> dict[str, Tensor]:
        """raw: (N, A*(5+C), H, W) from Network; target: (N, H, W, A*(5+C)) or (N, H, W, A, 5+C).

        Returns scalars "loss", "box", "objectness", "no_objectness", "classification", the first the sum of
        the rest.
        """
        A = len(self.anchors)
        wanted = (raw.shape[0], raw.shape[2], raw.shape[3], A * (5 + self.classes))
        if raw.shape[1] != wanted[3] or target.flatten(3).shape != wanted:
            shapes = f"{tuple(raw.shape)} and {tuple(target.shape)}"
            raise TrainingError(
                f"output and target have shapes {shapes}; wanted a target of {wanted} for {A} anchors"
            )
        raw = _by_anchor(raw.permute(0, 2, 3, 1), A).float()  # (N, H, W, A, 5+C)
        target = _by_anchor(target, A).to(raw)
        where = target[..., 4] > 0
        at, goal = raw[where], target[where]  # (T, 5+C)
        sizes = at[:, 2:4]
        if self.sizes == "cells":
            sizes = sizes.exp() * self.anchors[where.nonzero()[:, 3]]
        box = (at[:, :2].sigmoid() - goal[:, :2]).square().sum() + (sizes - goal[:, 2:4]).square().sum()
        if self.class_loss == "sigmoid":
            classification = F.binary_cross_entropy_with_logits(at[:, 5:], goal[:, 5:], reduction="sum")
        else:
            classification = F.cross_entropy(at[:, 5:], goal[:, 5:].argmax(1), reduction="sum")
        losses = {
            "box": self.lambda_coord * box,
            "objectness": (at[:, 4].sigmoid() - goal[:, 4]).square().sum(),
            "no_objectness": self.lambda_noobj * raw[..., 4][~where].sigmoid().square().sum(),
            "classification": classification,
        }
        losses = {name: value / len(raw) for name, value in losses.items()}
        return {"loss": sum(losses.values()), **losses}


@torch.no_grad()
def predict(
    raw: Tensor,
    anchors: Tensor | Sequence[Sequence[float]],
    image_size: int | tuple[int, int],
    conf_thresh: float = 0.5,
    iou_thresh: float = 0.5,
    classes: str = "softmax",
) -> list[list[dict[str, Any]]]:
    """Raw output to plain predictions: for each image a list of {"box", "score", "class_id"}, best score
    first.

    raw: (N, A*(5+C), H, W). image_size: the network's input in pixels, (width, height) or one number. box:
    [left, top, right, bottom] in those pixels; score: objectness x class probability, above conf_thresh; a
    box may stand for several classes. iou_thresh: overlap above which the better of two boxes of a class
    stays alone. classes: "softmax" or "sigmoid", as trained. For photographs of any size, and for trees, use
    Detector and `prediction_dicts`.
    """
    _one_of("classes", classes, CLASS_LOSSES)
    anchors = torch.as_tensor(anchors, dtype=torch.float32).reshape(-1, 2).to(raw.device)
    channels = raw.unflatten(1, (len(anchors), -1)).float()  # (N, A, 5+C, H, W)
    boxes_cxcywh, objectness = decode(channels[:, :, :5].flatten(1, 2), anchors)
    logits = channels[:, :, 5:]
    probability = logits.softmax(2) if classes == "softmax" else logits.sigmoid()
    scores = (objectness.unsqueeze(2) * probability).movedim(2, -1).flatten(1, 3)  # (N, A*H*W, C)
    width, height = (image_size, image_size) if isinstance(image_size, int) else image_size
    scale = boxes_cxcywh.new_tensor([width, height, width, height])
    boxes_xyxy = (cxcywh_to_xyxy(boxes_cxcywh) * scale).flatten(1, 3).cpu().numpy()  # (N, A*H*W, 4)
    results = []
    for boxes, table in zip(boxes_xyxy, scores.cpu().numpy(), strict=True):
        box, class_id = np.nonzero(table > conf_thresh)
        score = table[box, class_id]
        kept = nms(boxes[box], score, class_id, iou_thresh, mode="class")
        results.append([_prediction(boxes[box[k]], score[k], class_id[k]) for k in kept])
    return results


def prediction_dicts(
    found: "Detections | Sequence[Detections]",
) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
    """What a Detector found, as {"box", "score", "class_id"}: a list for one picture, a list of lists for
    several.

    box: [left, top, right, bottom] in pixels of the original picture; class_id: index of the node.
    """
    if isinstance(found, Sequence):
        return [prediction_dicts(one) for one in found]
    return [_prediction(*one) for one in zip(found.boxes_xyxy, found.scores, found.nodes, strict=True)]


def _prediction(box_xyxy: np.ndarray, score: float, class_id: int) -> dict[str, Any]:
    return {"box": [float(v) for v in box_xyxy], "score": float(score), "class_id": int(class_id)}


def _by_anchor(dense: Tensor, anchors: int) -> Tensor:
    """(N, H, W, A*(5+C)) or (N, H, W, A, 5+C) to the latter."""
    if dense.dim() == 5 and dense.shape[3] == anchors:
        return dense
    if dense.dim() != 4 or dense.shape[3] % anchors or dense.shape[3] // anchors < 6:
        shape = f"(N, H, W, {anchors}*(5+C))"
        raise TrainingError(
            f"a dense target of {anchors} anchors has shape {shape}, not {tuple(dense.shape)}"
        )
    return dense.unflatten(3, (anchors, -1))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(choices)}")
