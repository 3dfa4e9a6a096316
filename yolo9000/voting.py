"""Votes between boxes: a network says of one object many times over that it is there, from neighbouring cells
and anchors, each time a little off. Suppression keeps one of these boxes; here all of them are heard first.

After Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN model"
(2015), section 5, where boxes vote on the place; that they vote on objectness, as independent witnesses, is
ours. Darknet has neither: it is off (1) unless a model's own defaults or the caller say otherwise.
"""

import torch
from torch import Tensor

from yolo9000.boxes import cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh

# Boxes of a picture that vote, those of most objectness; a photograph has 50 to 200 above the floor.
_VOTERS = 256
# What has less objectness is background: it would neither move others nor be answered.
_FLOOR = 0.01
# Nobody is trusted wholly: no doubt at all has no logarithm.
_MOST_TRUST = 1 - 1e-6


def vote(boxes_cxcywh: Tensor, objectness: Tensor, vote_iou: float) -> tuple[Tensor, Tensor]:
    """Boxes (N, ..., 4), in any unit, and objectness (N, ...) in 0..1 of N pictures after a vote: each box
    hears those that it overlaps by `vote_iou` or more, itself included, and trusts one as far as IoU x
    objectness. It becomes their mean, weighted by the square of trust; its objectness the geometric mean of
    what it was and of the probability that at least one is right, 1 - prod(1 - trust). Nothing changes with a
    `vote_iou` of 1, nor for boxes with an objectness of 0.01 or less, not finite, or beyond the best 256.
    Returns the same shapes.
    """
    if vote_iou >= 1 or not objectness.numel():
        return boxes_cxcywh, objectness
    boxes, scores = boxes_cxcywh.flatten(1, -2), objectness.flatten(1)  # (N, M, 4), (N, M)
    finite = (boxes.abs() <= torch.finfo(boxes.dtype).max).all(-1)
    weight = torch.where(finite & (scores > _FLOOR), scores, 0.0)
    weight, at = weight.topk(min(_VOTERS, weight.shape[1]), dim=1)  # (N, K) twice, best first
    if not torch.compiler.is_compiling():  # a graph has one shape; here nobody waits for those without a vote
        most = int((weight > 0).sum(1).max())
        weight, at = weight[:, :most], at[:, :most]
    places = at.unsqueeze(-1).expand(-1, -1, 4)  # (N, K, 4)
    votes = (weight > 0).unsqueeze(-1)
    before = boxes.gather(1, places)
    corners = cxcywh_to_xyxy(torch.where(votes, before, 0.0))
    overlap = iou_xyxy(corners, corners)  # (N, hearing, heard)
    overlap = torch.maximum(overlap, torch.eye(overlap.shape[-1]).to(overlap))  # an empty box is itself, too
    trust = torch.where(overlap >= vote_iou, overlap * weight.unsqueeze(1), 0.0)
    share = trust.square()
    share = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
    one_right = -(-trust.clamp(max=_MOST_TRUST)).log1p().sum(-1).expm1()
    # All of an object's boxes would be nearly sure by that alone, and the best of them any of them.
    sure = (weight * one_right).sqrt()
    boxes = boxes.scatter(1, places, torch.where(votes, xyxy_to_cxcywh(share @ corners), before))
    scores = scores.scatter(1, at, torch.where(votes.squeeze(-1), sure, scores.gather(1, at)))
    return boxes.view_as(boxes_cxcywh), scores.view_as(objectness)
