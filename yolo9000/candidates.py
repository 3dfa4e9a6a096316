"""Candidates: the boxes of a network's output that pass the threshold, with the nodes answered there. Boxes
are decoded by boxes.py, nodes chosen by decision.py; suppression and pixels are detector.py's.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from yolo9000.boxes import decode
from yolo9000.decision import Decision, last_of_path, step_of_path
from yolo9000.descent import DenseConditionals, LazyConditionals, path_log_probabilities
from yolo9000.head import LazyOutput
from yolo9000.voting import vote

# Boxes whose full class logits are held at a time: 1,024 x 9,418 floats are 39 MB.
_CHUNK = 1024


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
    boxes_cxcywh, objectness = vote(*decode(raw_boxes, anchors), options.vote_iou)
    good = (objectness > options.threshold) & boxes_cxcywh.isfinite().all(dim=-1)
    image, anchor, row, column = good.nonzero(as_tuple=True)  # in Darknet's order: anchor, row, column
    parts = [
        _answer(output, at, objectness, decision, class_map) for at in _chunks(image, anchor, row, column)
    ]
    if parts:
        which, node, log_path, log_given = zip(*parts, strict=True)
        longest = max(path.shape[1] for path in log_path)
        log_path = [F.pad(path, (0, longest - path.shape[1]), value=torch.nan) for path in log_path]
        which, node, log_path, log_given = map(torch.cat, (which, node, log_path, log_given))
    else:
        which = node = image
        log_path, log_given = objectness.new_zeros(0, 1), objectness.new_zeros(0)
    at = tuple(index[which] for index in (image, anchor, row, column))
    score = objectness[at]
    if decision.score != "objectness":
        score = score * (last_of_path(log_path) if decision.score == "absolute" else log_given).exp()
    return Candidates(at[0], boxes_cxcywh[at], objectness[at], node, score, log_path, log_given)


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
    image, anchor, row, column = place
    if isinstance(output, LazyOutput):
        conditionals = LazyConditionals(output, image, anchor, row, column)
    else:
        logits = output[image, anchor, 5:, row, column]  # (M, C)
        conditionals = DenseConditionals(hierarchy.log_conditionals(logits))
    if not options.mapped and not (options.rule == "darknet" and hierarchy.is_flat):
        answer = decision(conditionals)
        parts = number, answer.nodes, answer.log_path, answer.log_given
        if options.rule == "hedge":  # what is at least something is an answer
            return parts
        some = answer.nodes >= 0
        return tuple(part[some] for part in parts)
    logs = decision.conditionals(conditionals).all(hierarchy)
    log_probabilities = hierarchy.log_probabilities(logs)  # (M, C)
    scores = objectness[tuple(place)].unsqueeze(1) * log_probabilities.exp()
    if options.mapped:
        wanted = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        wanted[class_map.to(scores.device)] = True
        scores = scores.masked_fill(~wanted, 0)
    box, node = (scores > options.threshold).nonzero(as_tuple=True)
    log_path = path_log_probabilities(hierarchy, log_probabilities[box], node)
    return number[box], node, log_path, step_of_path(log_path)


def _chunks(*at: Tensor) -> Iterator[tuple[Tensor, ...]]:
    number = torch.arange(len(at[0]), device=at[0].device)
    for start in range(0, len(number), _CHUNK):
        yield tuple(index[start : start + _CHUNK] for index in (number, *at))
