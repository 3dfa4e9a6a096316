"""Which predicted box answers for which truth: a batch's targets as flat arrays, and their cells and anchors.

No loss (loss.py) and no logits. Checks what it is given: a box or label that cannot be meant is a
TrainingError that names the image's place in the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolo9000.boxes import iou_sizes
from yolo9000.errors import TrainingError
from yolo9000.hierarchy import Hierarchy

Target = Mapping[str, Any]

_NO_LABELS = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class Targets:
    """The targets of N images, each kind in one array with the image that each entry belongs to, ascending.

    boxed: (N,) bool, images whose boxes are known, though there may be none. boxes_cxcywh: (T, 4) as shares
    of the input; labels: (T,) nodes; named: (T,) bool, whether the label teaches; image: (T,).
    ignore_cxcywh: (I, 4), ignore_image: (I,): where objectness costs nothing. image_labels: (L,) nodes shown
    somewhere in label_image: (L,), images without boxes. negative_labels: (E,) nodes shown nowhere in
    negative_image: (E,), images of either kind. open_labels: (Q,) nodes of which more may be in open_image:
    (Q,), images with boxes, than were drawn. shown_labels: (S,) further nodes shown in shown_image: (S,),
    which teach nothing but that a negative label is contradicted.
    """

    boxed: Tensor
    boxes_cxcywh: Tensor
    labels: Tensor
    named: Tensor
    image: Tensor
    ignore_cxcywh: Tensor
    ignore_image: Tensor
    image_labels: Tensor
    label_image: Tensor
    negative_labels: Tensor
    negative_image: Tensor
    open_labels: Tensor
    open_image: Tensor
    shown_labels: Tensor
    shown_image: Tensor


@dataclass(frozen=True)
class Assignment:
    """The predicted box responsible for each of T truths.

    anchor, row, column: (T,) int64; slot: (T,) the predicted box's number, ((image * A + anchor) * H + row) *
    W + column. last: (T,) bool, False where a later truth has the same slot. goals: (T, 4) targets for
    sigmoid x, sigmoid y and the raw w and h.
    """

    anchor: Tensor
    row: Tensor
    column: Tensor
    slot: Tensor
    last: Tensor
    goals: Tensor


def collect(
    targets: Sequence[Target], nodes: int, device: torch.device | str, map: Tensor | None = None
) -> Targets:
    """Puts a batch's target dicts into flat arrays, and checks them.

    Each of targets: {"boxes": (n, 4) cxcywh in 0..1, "labels": (n,)}, where n may be 0 (an image known to be
    empty); or {"label": k} or {"image_labels": (m,)} for an image without boxes; or neither (unlabelled: it
    teaches nothing). Beside boxes, "ignore_boxes" (k, 4), "not_exhaustive_labels" (q,), and "named" (n,)
    bool, False for a box that teaches where something is, but not what; beside either, "negative_labels"
    (j,) and "shown_labels" (s,). Image labels beside boxes are left out: the boxes say more. nodes: how many
    classes there are. map: (d,) class of the data set -> node, applied to the labels of boxes only, as in
    Darknet. Raises TrainingError.
    """
    boxes, labels, named, ignore, image_labels, negatives, unsure, shown = (_Flat() for _ in range(8))
    for b, target in enumerate(targets):
        if not isinstance(target, Mapping):
            raise TrainingError(f"target {b} of the batch is no dict but {type(target).__name__}")
        if "boxes" in target:
            if "labels" not in target:
                raise TrainingError(f'target {b} of the batch has "boxes" but no "labels"')
            count = boxes.add(b, _boxes(target["boxes"], f'"boxes" of target {b}'))
            if labels.add(b, _labels(target["labels"], f'"labels" of target {b}')) != count:
                raise TrainingError(f"target {b} of the batch has {count} boxes and another number of labels")
            teaches = torch.ones(count, dtype=torch.bool)
            if "named" in target:
                teaches = _tensor(target["named"], f'"named" of target {b}')
                if teaches.dtype != torch.bool or teaches.shape != (count,):
                    raise TrainingError(f'"named" of target {b} has to be {count} times true or false')
            named.add(b, teaches.to(device))
            ignore.add(b, _boxes(target.get("ignore_boxes", ()), f'"ignore_boxes" of target {b}'))
            given = target.get("not_exhaustive_labels", ())
            unsure.add(b, _labels(given, f'"not_exhaustive_labels" of target {b}'))
        else:
            given = target.get("label", target.get("image_labels", ()))
            image_labels.add(b, _labels(given, f'"image_labels" of target {b}'))
        if "negative_labels" in target:
            negatives.add(b, _labels(target["negative_labels"], f'"negative_labels" of target {b}'))
        if "shown_labels" in target:
            shown.add(b, _labels(target["shown_labels"], f'"shown_labels" of target {b}'))
    result = Targets(
        torch.tensor(["boxes" in target for target in targets], dtype=torch.bool, device=device),
        boxes.joined(torch.zeros(0, 4), device),
        labels.joined(_NO_LABELS, device),
        named.joined(_NO_LABELS.bool(), device),
        boxes.owners(device),
        ignore.joined(torch.zeros(0, 4), device),
        ignore.owners(device),
        image_labels.joined(_NO_LABELS, device),
        image_labels.owners(device),
        negatives.joined(_NO_LABELS, device),
        negatives.owners(device),
        unsure.joined(_NO_LABELS, device),
        unsure.owners(device),
        shown.joined(_NO_LABELS, device),
        shown.owners(device),
    )
    _check_boxes(result.boxes_cxcywh, result.image)
    if map is not None:
        _check_labels(result.labels, result.image, len(map), "data set classes in the map")
        mapped = map.to(device)[result.labels]
        result = replace(result, labels=mapped)
    _check_labels(result.labels, result.image, nodes, "classes")
    _check_labels(result.image_labels, result.label_image, nodes, "classes")
    _check_labels(result.negative_labels, result.negative_image, nodes, "classes")
    _check_labels(result.open_labels, result.open_image, nodes, "classes")
    _check_labels(result.shown_labels, result.shown_image, nodes, "classes")
    return result


def drop_moot(known: Targets, hierarchy: Hierarchy, stored: Tensor | None = None) -> Targets:
    """The same without negative and open labels that say nothing: of nodes without a class row, whose
    probability is 0, and negatives on the path of a label that the image does show: where a data set's
    classes fell together on one node, "no poodle" is not "no dog". stored: (n,) bool, nodes with a row.
    """
    negatives, opened = len(known.negative_labels), len(known.open_labels)
    if not negatives and not opened:
        return known
    shown = torch.cat((known.labels, known.image_labels, known.shown_labels))
    image = torch.cat((known.image, known.label_image, known.shown_image))
    path, which = hierarchy.paths(shown)
    keys = known.negative_image * len(hierarchy) + known.negative_labels
    kept = ~torch.isin(keys, image[which] * len(hierarchy) + path)
    kept &= _has_rows(known.negative_labels, hierarchy, stored)
    open_kept = _has_rows(known.open_labels, hierarchy, stored)
    return replace(
        known,
        negative_labels=known.negative_labels[kept],
        negative_image=known.negative_image[kept],
        open_labels=known.open_labels[open_kept],
        open_image=known.open_image[open_kept],
    )


def _has_rows(nodes: Tensor, hierarchy: Hierarchy, stored: Tensor | None) -> Tensor:
    """(m,) bool for nodes (m,): whether every node on the path has a class row."""
    _, which = hierarchy.stored_paths(nodes, stored)
    return torch.bincount(which, minlength=len(nodes)) == hierarchy.depths[nodes] + 1


def assign(
    boxes_cxcywh: Tensor,
    image: Tensor,
    anchors: Tensor,
    grid: tuple[int, int],
    predicted_sizes: Tensor | None = None,
) -> Assignment:
    """Gives each truth the cell that its centre lies in and the anchor most like it in size.

    boxes_cxcywh: (T, 4) as shares of the input; image: (T,). anchors: (A, 2) in cells. grid: (H, W).
    predicted_sizes: (N, A, H, W, 2) widths and heights as shares of the input, compared with the truth in
    place of the anchors' own (Darknet's bias_match=0); None = the anchors' own.
    """
    (H, W), A = grid, len(anchors)
    scale = boxes_cxcywh.new_tensor([W, H])
    centres, sizes = boxes_cxcywh[:, :2] * scale, boxes_cxcywh[:, 2:] * scale  # in cells
    # A centre on the right or bottom border belongs to the last cell.
    column = centres[:, 0].long().clamp(0, W - 1)
    row = centres[:, 1].long().clamp(0, H - 1)
    if predicted_sizes is None:
        overlap = iou_sizes(sizes, anchors)  # (T, A)
    else:
        predicted = predicted_sizes[image, :, row, column] * scale  # (T, A, 2)
        overlap = iou_sizes(sizes.unsqueeze(1), predicted).squeeze(1)
    anchor = overlap.argmax(dim=1)
    slot = ((image * A + anchor) * H + row) * W + column
    order = torch.arange(len(slot), device=slot.device)
    latest = order.new_zeros(int(slot.max()) + 1 if len(slot) else 0).scatter_reduce(0, slot, order, "amax")
    goals = torch.stack(
        (
            centres[:, 0] - column,
            centres[:, 1] - row,
            (sizes[:, 0] / anchors[anchor, 0]).log(),
            (sizes[:, 1] / anchors[anchor, 1]).log(),
        ),
        dim=1,
    )
    return Assignment(anchor, row, column, slot, latest[slot] == order, goals)


def _boxes(values: Any, what: str) -> Tensor:
    boxes = _tensor(values, what, torch.float32)
    if boxes.numel() == 0:
        return boxes.reshape(0, 4)
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise TrainingError(f"{what} has shape {tuple(boxes.shape)}; wanted (n, 4), centre and size")
    return boxes


def _labels(values: Any, what: str) -> Tensor:
    labels = _tensor(values, what)
    if labels.numel() == 0:
        return labels.reshape(0).long()
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.dim() > 1:
        raise TrainingError(f"{what} is {labels.dtype} of shape {tuple(labels.shape)}; wanted integers (n,)")
    return labels.reshape(-1).long()


def _tensor(values: Any, what: str, dtype: torch.dtype | None = None) -> Tensor:
    try:
        return torch.as_tensor(values, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{what} is no array of numbers: {str(error).splitlines()[0]}") from None


class _Flat:
    """Arrays of several images, put one after another."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.images: list[int] = []
        self.counts: list[int] = []

    def add(self, image: int, part: Tensor) -> int:
        """Takes an image's part; returns its length."""
        if len(part):
            self.parts.append(part)
            self.images.append(image)
            self.counts.append(len(part))
        return len(part)

    def joined(self, empty: Tensor, device: torch.device | str) -> Tensor:
        if len({part.device for part in self.parts}) > 1:
            self.parts = [part.to(device) for part in self.parts]
        return (torch.cat(self.parts) if self.parts else empty).to(device)

    def owners(self, device: torch.device | str) -> Tensor:
        counts = torch.tensor(self.counts, dtype=torch.long)
        return torch.tensor(self.images, dtype=torch.long).repeat_interleave(counts).to(device)


def _check_boxes(boxes_cxcywh: Tensor, image: Tensor) -> None:
    centre, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    # Written so that a NaN fails.
    good = ((centre >= 0) & (centre <= 1) & (size > 0) & size.isfinite()).all(dim=1)
    if not good.all():
        k = int((~good).nonzero()[0, 0])
        box = [round(v, 4) for v in boxes_cxcywh[k].tolist()]
        raise TrainingError(
            f"target {int(image[k])} of the batch has the box {box}; wanted centre x, y and width, height as "
            "shares of the input, the centre in 0..1 and both sides above 0"
        )


def _check_labels(labels: Tensor, image: Tensor, limit: int, what: str) -> None:
    bad = (labels < 0) | (labels >= limit)
    if bad.any():
        k = int(bad.nonzero()[0, 0])
        has = f"target {int(image[k])} of the batch has label {int(labels[k])}"
        raise TrainingError(f"{has}; there are {limit} {what}")
