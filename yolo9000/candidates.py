"""Candidates: the boxes of a network's output that pass the threshold, with the nodes answered there. Boxes
are decoded by boxes.py, nodes chosen by decision.py; suppression and pixels are detector.py's.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from yolo9000 import boxes as box_math
from yolo9000.boxes import decode, decode_at
from yolo9000.conditionals import DenseConditionals, LazyConditionals
from yolo9000.decision import Decision, last_of_path, step_of_path
from yolo9000.descent import path_log_probabilities
from yolo9000.head import LazyOutput
from yolo9000.voting import vote

# Boxes whose full class logits are held at a time: 1,024 x 9,418 floats are 39 MB.
_CHUNK = 1024

# Boxes up to which each is asked for itself: finding those of one cell takes longer than asking twice.
_FEW = 16


@dataclass(frozen=True)
class Candidates:
    """Answers of one batch before suppression. image, node: (M,); boxes_cxcywh: (M, 4) shares of the
    network's input; objectness, score: (M,); log_path: (M, L) and log_given: (M,), see decision.Answer."""

    image: Tensor
    boxes_cxcywh: Tensor
    objectness: Tensor
    node: Tensor
    score: Tensor
    log_path: Tensor
    log_given: Tensor

    def of(self, image: int) -> "Candidates":
        """Those of one picture of the batch."""
        rows = self.image == image
        if rows.all():
            return self
        return Candidates(*(getattr(self, part.name)[rows] for part in dataclasses.fields(self)))

    def evidence(self, score: str) -> Tensor:
        """The score, of that kind (options.SCORES), that each candidate would have as "something" and at each
        node of its path, (M, 1 + L), NaN below its node."""
        shares = F.pad(self.log_path, (1, 0)).exp()
        if score == "objectness":
            shares = torch.where(shares.isnan(), shares, 1.0)
        return self.objectness[:, None] * shares


@torch.inference_mode()
def candidates(
    output: LazyOutput | Tensor, anchors: Tensor, decision: Decision, class_map: Tensor | None = None
) -> Candidates:
    """What the network's output, lazy or dense (N, A*(5+C), H, W), holds above the decision's threshold.

    anchors: (A, 2) in cells. class_map: node of each data set class, for the option `mapped`.
    """
    options = decision.options
    if isinstance(output, LazyOutput):
        raw_boxes = output.boxes
    else:
        N, _, H, W = output.shape
        A, C = len(anchors), len(decision.hierarchy.parents)
        output = output.view(N, A, 5 + C, H, W)  # (N, A*(5+C), H, W) -> (N, A, 5+C, H, W)
        raw_boxes = output[:, :, :5].reshape(N, A * 5, H, W)  # -> (N, A*5, H, W)
    if options.vote_iou < 1:
        everywhere, objectness = vote(*decode(raw_boxes, anchors), options.vote_iou)
    else:
        everywhere, objectness = None, box_math.objectness(raw_boxes, len(anchors))
    at = (objectness > options.threshold).nonzero(as_tuple=True)  # in Darknet's order: anchor, row, column
    boxes_cxcywh = decode_at(raw_boxes, anchors, at) if everywhere is None else everywhere[at]  # (M, 4)
    finite = boxes_cxcywh.isfinite()
    if not finite.all():
        rows = finite.all(dim=-1)
        at, boxes_cxcywh = tuple(index[rows] for index in at), boxes_cxcywh[rows]
    parts = [_answer(output, some, objectness, decision, class_map) for some in _chunks(*at)]
    if len(parts) == 1:  # as on all but crowded pictures
        which, node, log_path, log_given = parts[0]
    elif parts:
        which, node, log_path, log_given = zip(*parts, strict=True)
        longest = max(path.shape[1] for path in log_path)
        log_path = [F.pad(path, (0, longest - path.shape[1]), value=torch.nan) for path in log_path]
        which, node, log_path, log_given = map(torch.cat, (which, node, log_path, log_given))
    else:
        which = node = at[0]
        log_path, log_given = objectness.new_zeros(0, 1), objectness.new_zeros(0)
    at = tuple(index[which] for index in at)
    held = score = objectness[at]
    if decision.score != "objectness":
        score = score * (last_of_path(log_path) if decision.score == "absolute" else log_given).exp()
    return Candidates(at[0], boxes_cxcywh[which], held, node, score, log_path, log_given)


def _answer(
    output: LazyOutput | Tensor,
    at: tuple[Tensor, ...],
    objectness: Tensor,
    decision: Decision,
    class_map: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For the boxes `at` (their number in the whole, image, anchor, row, column): which box, node, log path
    and log Pr among what may be answered of each answer."""
    hierarchy, options = decision.hierarchy, decision.options
    number, *place = at
    cells = None  # of each box the number of its cell, where boxes of one cell have the same classes
    if isinstance(output, LazyOutput):
        asked = tuple(place)
        if len(output.weight) == 1 and len(number) > _FEW:
            asked, cells = _cells(output, *place)
        conditionals = LazyConditionals(output, *asked)
    else:
        image, anchor, row, column = place
        logits = output[image, anchor, 5:, row, column]  # (M, C)
        conditionals = DenseConditionals(hierarchy.log_conditionals(logits))
    if not options.mapped and not (options.rule == "darknet" and hierarchy.is_flat):
        answer = decision(conditionals)
        parts = answer.nodes, answer.log_path, answer.log_given
        parts = number, *(part if cells is None else part.index_select(0, cells) for part in parts)
        if options.rule == "hedge":  # what is at least something is an answer
            return parts
        some = parts[1] >= 0
        return parts if some.all() else tuple(part[some] for part in parts)
    logs = decision.conditionals(conditionals).all(hierarchy)
    log_probabilities = hierarchy.log_probabilities(logs)  # (M, C)
    if cells is not None:
        log_probabilities = log_probabilities.index_select(0, cells)
    scores = objectness[tuple(place)].unsqueeze(1) * log_probabilities.exp()
    if options.mapped:
        wanted = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        wanted[class_map.to(scores.device)] = True
        scores = scores.masked_fill(~wanted, 0)
    box, node = (scores > options.threshold).nonzero(as_tuple=True)
    log_path = path_log_probabilities(hierarchy, log_probabilities[box], node)
    return number[box], node, log_path, step_of_path(log_path)


def _cells(
    output: LazyOutput, image: Tensor, anchor: Tensor, row: Tensor, column: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Each cell of the boxes (M,) once, as image, anchor 0, row, column; and which of them is each box's."""
    height, width = output.boxes.shape[2:]
    cell, which = ((image * height + row) * width + column).unique(return_inverse=True)
    rows = cell.div(width, rounding_mode="floor")
    place = (rows.div(height, rounding_mode="floor"), torch.zeros_like(cell), rows % height, cell % width)
    return place, which


def _chunks(*at: Tensor) -> Iterator[tuple[Tensor, ...]]:
    number = torch.arange(len(at[0]), device=at[0].device)
    for start in range(0, len(number), _CHUNK):
        yield tuple(index[start : start + _CHUNK] for index in (number, *at))
