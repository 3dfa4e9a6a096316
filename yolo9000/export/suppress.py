"""Suppression as a graph: what `suppression.nms` does, without data-dependent Python, so that other runtimes
run it. A test holds the two equal.

One loop (`torch.while_loop`, in ONNX `Loop`), each turn a few operations on vectors as long as there are
boxes; it ends when no box waits. All pictures of a batch go through it together: boxes of different pictures
are no rivals."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch._higher_order_ops import while_loop


def suppress(
    boxes_xyxy: Tensor,
    scores: Tensor,
    pictures: Tensor,
    path: Tensor,
    depth: Tensor,
    evidence: Tensor | None,
    valid: Tensor,
    *,
    iou: float,
    mode: str,
) -> Tensor:
    """Which of M boxes, at least one, stay: (M,) bool.

    boxes_xyxy (M, 4); scores (M,); pictures (M,) int64, the picture of each; path (M, L) int64, the nodes
    from the root to the one answered, -1 beyond; depth (M,) int64, where on the path the answer stands;
    evidence (M, L) the score at each node of the path, or None; valid (M,) bool, others are not looked at.
    iou, mode, and what evidence does: see suppression.nms.
    """
    if mode == "none":
        return valid
    turn = torch.arange(scores.shape[0], device=scores.device)
    rival = _rivals(pictures, path, depth, mode) & _overlap(boxes_xyxy, iou)
    rival = rival & (turn.unsqueeze(1) != turn)
    better = None
    if mode == "related" and evidence is not None:
        # [i, j]: j lies further down and bears i's node out as well as i does.
        better = (scores.unsqueeze(1) <= evidence.index_select(1, depth).T) & rival
        better = better & (depth > depth.unsqueeze(1))

    def some_wait(waiting: Tensor, kept: Tensor, held: Tensor) -> Tensor:
        return waiting.any()

    # Kept, suppressed, or, if another's evidence is better, that one held in its place: one box a turn.
    def take(waiting: Tensor, kept: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best = torch.where(held >= 0, held, _first_best(scores, waiting))  # (1,)
        is_best = turn == best
        beaten = rival.index_select(0, best).squeeze(0) & waiting
        if better is None:
            return waiting & ~is_best & ~beaten, kept | is_best, held.clone()
        above = better.index_select(0, best).squeeze(0) & waiting
        gives_way = above.any().unsqueeze(0)
        following = torch.where(gives_way, _first_best(scores, above), -1)
        waiting = waiting & ~is_best & (gives_way | ~beaten)
        return waiting, kept | (is_best & ~gives_way), following

    start = (valid, torch.zeros_like(valid), torch.full((1,), -1, device=scores.device))
    _, kept, _ = _loop(some_wait, take, start)
    return kept


def _loop(condition: Callable[..., Tensor], body: Callable[..., tuple], start: tuple) -> tuple:
    """while_loop, which would be compiled where no graph is being made."""
    if torch.compiler.is_exporting():
        return while_loop(condition, body, start)
    while condition(*start):
        start = body(*start)
    return start


def _first_best(scores: Tensor, among: Tensor) -> Tensor:
    """(1,) the first of the highest scores, where `among` (M,) says."""
    return torch.where(among, scores, -1.0).argmax(0, keepdim=True)


def _rivals(pictures: Tensor, path: Tensor, depth: Tensor, mode: str) -> Tensor:
    """(M, M) bool, symmetric: which may suppress which."""
    rival = pictures.unsqueeze(1) == pictures
    if mode == "agnostic":
        return rival
    node = path.gather(1, depth.unsqueeze(1))  # (M, 1)
    if mode == "class":
        return rival & (node == node.T)
    above = node == path.index_select(1, depth).T  # [i, j]: i's node is on j's path
    return rival & (above | above.T)


def _overlap(boxes_xyxy: Tensor, iou: float) -> Tensor:
    """(M, M) bool: intersection over union above `iou`."""
    left, top, right, bottom = boxes_xyxy.unbind(1)
    area = (right - left) * (bottom - top)
    left, top, right, bottom = (edge.unsqueeze(1) for edge in (left, top, right, bottom))
    width = (torch.minimum(right, right.T) - torch.maximum(left, left.T)).clamp(min=0)
    height = (torch.minimum(bottom, bottom.T) - torch.maximum(top, top.T)).clamp(min=0)
    common = width * height
    # Without a division an empty union needs no care.
    return common > iou * (area.unsqueeze(1) + area - common)
