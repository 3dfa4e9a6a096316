"""What is exported: a detector from letterboxed pictures to suppressed boxes in pixels of the originals, or
to the raw channels, as a module that `torch.export` takes. It computes what `Detector` computes in float32;
tests hold the two equal. Files are written by files.py, described by description.py."""

import math

import torch
from torch import Tensor, nn

from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.decision import Decision
from yolo9000.descent import RULES
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.export.suppress import suppress
from yolo9000.export.walks import Walker
from yolo9000.head import LazyOutput
from yolo9000.options import Options
from yolo9000.voting import vote

# The outputs of DetectorGraph, in this order.
OUTPUTS = {
    "boxes_xyxy": "(n, 4) float32: left, top, right, bottom in pixels of the original picture",
    "scores": "(n,) float32 in 0..1: what the order goes by, best first within a picture",
    "nodes": "(n,) int64: index into tree.ids, tree.names, tree.parents",
    "objectness": "(n,) float32 in 0..1",
    "path_probabilities": "(n, L) float32: Pr of the nodes from the root down to nodes[i], 0 beyond",
    "pictures": "(n,) int64: which picture of the batch; ascending",
    "passed": "(batch,) int64: boxes above the threshold; more than options.candidates: the rest were not "
    "looked at",
}
INPUTS = {
    "images": "(batch, 3, height, width) float32: letterboxed pictures, RGB in 0..1",
    "image_sizes": "(batch, 2) int64: width and height of the original pictures in pixels",
}
RAW_OUTPUTS = {
    "raw": "(batch, A*(5+C), height/stride, width/stride) float32: for each anchor x, y, w, h, objectness "
    "and C class logits, before any sigmoid, exp or softmax; -inf: a class without a row"
}

# Enough for all boxes of five anchors at 320 px and of three at 416; a picture full of things has some 200.
CANDIDATES = 512
# Shares of the input beyond this are infinite; see walks.NEVER.
_LARGEST = torch.finfo(torch.float32).max


class RawGraph(nn.Module):
    """A network's dense output, computed as the lazy one is."""

    def __init__(self, detector: Detector) -> None:
        """detector: in float32."""
        super().__init__()
        self.net = _network(detector)
        self.lazy = detector.lazy
        row_of = None
        if self.lazy and self.net.stored is not None:
            row_of = torch.full((self.net.classes,), len(self.net.stored))  # the row of -inf put after all
            row_of[self.net.stored] = torch.arange(len(self.net.stored))
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) -> (B, A*(5+C), H/stride, W/stride)."""
        if not self.lazy or self.row_of is None:
            return self.net(images)
        out = self.net.lazy(images)
        N, _, H, W = out.boxes.shape
        boxes = out.boxes.reshape(N, out.anchors, 5, H, W)  # (N, A*5, H, W) -> (N, A, 5, H, W)
        logits = out._everywhere(out.weight, out.bias)  # (N, A, K, H, W)
        logits = torch.cat((logits, torch.full_like(logits[:, :, :1], -math.inf)), 2)
        logits = logits.index_select(2, self.row_of)
        return torch.cat((boxes, logits), 2).flatten(1, 2)  # (N, A, 5+C, H, W) -> (N, A*(5+C), H, W)


class DetectorGraph(nn.Module):
    """Letterboxed pictures and the sizes of the originals to boxes, scores and nodes: decoding, the lazy
    head, descent, suppression.

    Class logits are computed for the boxes above the threshold only, up to `candidates` a picture, those of
    most objectness; how many they are is found while running.
    """

    def __init__(
        self, detector: Detector, options: Options, size: tuple[int, int], batch: int, candidates: int
    ) -> None:
        """detector: in float32. size: (width, height) of the input. Raises ModelError for options that have
        no graph."""
        super().__init__()
        check(detector, options, candidates)
        self.net = _network(detector)
        self.lazy = detector.lazy
        self.options = options
        self.size, self.batch = size, batch
        self.darknet = detector.resize == "darknet"
        self.score = Decision(detector.tree, detector.hierarchy, options).score
        self.anchors = len(detector.anchors)
        self.classes = self.net.classes
        stored = self.net.stored if self.lazy else None
        self.walker = Walker(
            detector.tree, stored, options.rule, options.tree_threshold, tuple(options.temperatures or ())
        )
        self.cells = (size[0] // detector.stride) * (size[1] // detector.stride)
        self.boxes = self.anchors * self.cells  # a picture's
        self.candidates = min(candidates, self.boxes)
        number = torch.arange(self.boxes)  # anchor, row, column: Darknet's order
        self.register_buffer("anchor_sizes", detector.anchors.clone(), persistent=False)
        self.register_buffer("anchor_of", number // self.cells, persistent=False)
        self.register_buffer("cell_of", number % self.cells, persistent=False)
        picture = torch.arange(batch).repeat_interleave(self.candidates)
        self.register_buffer("picture_of", picture, persistent=False)

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """As INPUTS and OUTPUTS say."""
        images = images.contiguous(memory_format=torch.channels_last)
        output = self.net.lazy(images) if self.lazy else self.net(images)
        boxes_cxcywh, objectness = self._decoded(output)  # (B, N, 4), (B, N)
        good = (objectness > self.options.threshold) & (boxes_cxcywh.abs() <= _LARGEST).all(-1)
        numbers, valid = self._chosen(objectness, good)  # (B*K,) twice
        # The first of each picture's candidates goes along in any case, so that there is always something.
        first = torch.arange(len(valid), device=valid.device) % self.candidates == 0
        rows = (valid | first).nonzero().squeeze(1)  # (M,)
        valid, number = valid.index_select(0, rows), numbers.index_select(0, rows)
        picture = self.picture_of.index_select(0, rows)
        at = picture * self.boxes + number
        boxes_cxcywh = boxes_cxcywh.flatten(0, 1).index_select(0, at)
        objectness = objectness.flatten().index_select(0, at)
        walk = self.walker(self._logits(output, picture, number))

        shares = walk.log_path.exp()  # (M, L)
        deepest = walk.depth.unsqueeze(1)
        given = shares.gather(1, deepest).squeeze(1)
        if self.score == "objectness":
            evidence = objectness.unsqueeze(1).expand(shares.shape)
            score = objectness
        elif self.score == "absolute":
            evidence = objectness.unsqueeze(1) * shares
            score = objectness * given
        else:
            evidence = None
            score = objectness * _last_step(walk.log_path, deepest).exp()

        width, height = image_sizes.index_select(0, picture).unbind(1)
        boxes_xyxy = self._in_pixels(boxes_cxcywh, width, height)
        edges = torch.stack((width, height, width, height), 1).to(boxes_xyxy.dtype)
        if self.options.clip:  # boxes wholly outside must not suppress any inside
            inside = (boxes_xyxy[:, :2] < edges[:, :2]).all(1) & (boxes_xyxy[:, 2:] > 0).all(1)
            valid = valid & inside
        kept = suppress(
            boxes_xyxy,
            score,
            picture,
            walk.path,
            walk.depth,
            evidence,
            valid,
            iou=self.options.nms_iou,
            mode=self.options.nms,
        )
        if self.options.clip:
            boxes_xyxy = torch.minimum(boxes_xyxy.clamp(min=0), edges)
        order = self._order(score, picture, kept)
        node = walk.path.gather(1, deepest).squeeze(1)
        parts = (boxes_xyxy, score, node, objectness, shares, picture)
        return (*(part.index_select(0, order) for part in parts), good.sum(1))

    def _decoded(self, output: LazyOutput | Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) in shares of the input, and objectness (B, N), by anchor, row, column, after their
        vote."""
        if isinstance(output, LazyOutput):
            raw = output.boxes
        else:
            raw = output.unflatten(1, (self.anchors, -1))[:, :, :5].flatten(1, 2)
        boxes_cxcywh, objectness = decode(raw, self.anchor_sizes)
        return vote(boxes_cxcywh.flatten(1, 3), objectness.flatten(1), self.options.vote_iou)

    def _chosen(self, objectness: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates of each picture in ascending order, and whether each is good: (B*K,) twice."""
        if self.candidates == self.boxes:
            return torch.arange(self.boxes, device=good.device).repeat(self.batch), good.flatten()
        best = torch.where(good, objectness, -1.0).topk(self.candidates, dim=1).indices
        best = best.sort(dim=1).values
        return best.flatten(), good.gather(1, best).flatten()

    def _logits(self, output: LazyOutput | Tensor, picture: Tensor, number: Tensor) -> Tensor:
        """Class logits (M, K) at M boxes, one for each row that there is."""
        anchor = self.anchor_of.index_select(0, number)
        cell = picture * self.cells + self.cell_of.index_select(0, number)
        if not isinstance(output, LazyOutput):
            logits = output.unflatten(1, (self.anchors, -1))[:, :, 5:]  # (B, A, C, H, W)
            logits = logits.movedim(2, -1).flatten(0, 3)  # -> (B*A*H*W, C)
            return logits.index_select(0, picture * self.boxes + number)
        features = output.features.movedim(1, -1).flatten(0, 2)  # (B, D, H, W) -> (B*H*W, D)
        features = features.index_select(0, cell)
        if output.expand is not None:
            features = output.expand(features)
        logits = nn.functional.linear(features, output.weight[0], output.bias[0])
        for a in range(1, len(output.weight)):
            # Every anchor's rows for every box, of which there are few: no gather of rows, no empty product.
            others = nn.functional.linear(features, output.weight[a], output.bias[a])
            logits = torch.where((anchor == a).unsqueeze(1), others, logits)
        return logits

    def _in_pixels(self, boxes_cxcywh: Tensor, width: Tensor, height: Tensor) -> Tensor:
        """Letterbox.to_image and pixels: (M, 4) corners; width, height: (M,) int64 of each box's picture."""
        wide, high = self.size
        bound_by_width = wide * height < high * width
        across = torch.where(bound_by_width, wide, _whole(width * high, height).clamp(min=1))
        down = torch.where(bound_by_width, _whole(height * wide, width).clamp(min=1), high)
        content = torch.stack((across, down), 1).to(boxes_cxcywh.dtype)  # (M, 2)
        whole = torch.tensor([float(wide), float(high)], device=content.device)
        shift = (whole - content) / 2
        shift = (shift if self.darknet else shift.floor()) / whole
        share = content / whole
        boxes = torch.cat(((boxes_cxcywh[:, :2] - shift) / share, boxes_cxcywh[:, 2:] / share), 1)
        pixels = torch.stack((width, height, width, height), 1).to(boxes.dtype)
        return cxcywh_to_xyxy(boxes) * pixels

    def _order(self, score: Tensor, picture: Tensor, kept: Tensor) -> Tensor:
        """Indices of the kept boxes, picture by picture, best first, at most max_detections of each."""
        number = torch.arange(score.shape[0], device=score.device)
        higher = score > score.unsqueeze(1)
        higher = higher | ((score == score.unsqueeze(1)) & (number < number.unsqueeze(1)))
        mine = picture == picture.unsqueeze(1)
        # [i, j]: j comes before i. Runtimes have no stable sort, but these places are all different.
        before = (picture < picture.unsqueeze(1)) | (mine & higher)
        order = before.long().sum(1).sort().indices
        rank = (before & mine & kept).long().sum(1)
        kept = kept & (rank < self.options.max_detections)
        return order.index_select(0, kept.index_select(0, order).nonzero().squeeze(1))


def check(detector: Detector, options: Options, candidates: int) -> None:
    """Raises ModelError for what has no graph."""
    if options.rule not in RULES:
        raise ModelError(f"the rule {options.rule!r} cannot be exported; {', '.join(RULES)} can")
    if options.mapped:
        raise ModelError("answers by the network's map (mapped) cannot be exported; export --raw")
    if options.rule == "darknet" and detector.hierarchy.is_flat:
        raise ModelError(
            "the rule 'darknet' answers several classes a box on a flat list, which cannot be exported; "
            "'threshold' answers the best, or export --raw"
        )
    if candidates < 1:
        raise ModelError(f"there is at least 1 candidate a picture, not {candidates}")


def _network(detector: Detector) -> nn.Module:
    """The fused network, in float32."""
    return detector.net.fuse().requires_grad_(False).to(memory_format=torch.channels_last).eval()


def _whole(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.div(numerator, denominator, rounding_mode="trunc")


def _last_step(log_path: Tensor, deepest: Tensor) -> Tensor:
    """Log Pr(node | parent) (M,), as decision.step_of_path."""
    last = log_path.gather(1, deepest)
    before = torch.where(deepest > 0, log_path.gather(1, (deepest - 1).clamp(min=0)), 0.0)
    return (last - before).squeeze(1).clamp(max=0)
