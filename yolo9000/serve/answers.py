"""What is answered for pictures that go through the network together: detections as the command line writes
them, and on request all boxes before a node is chosen, with the conditionals of every node.

Uses a Detector's public parts; runs in one thread (batching.py). HTTP is detecting.py's."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from yolo9000 import boxes as box_math
from yolo9000.conditionals import DenseConditionals, LazyConditionals
from yolo9000.cuts import never_learnt, rowless
from yolo9000.decision import Decision
from yolo9000.fitted import alike
from yolo9000.head import LazyOutput
from yolo9000.letterbox import Letterbox
from yolo9000.voting import vote

if TYPE_CHECKING:
    from yolo9000.detector import Detector
    from yolo9000.options import Options

# Sets of options that are kept ready; a client asks again and again with the same.
_KEPT = 64

# An answer carries so many times the usual number of candidates at most, where so many boxes pass the
# threshold.
_BEYOND = 4

# In sizes of the network's input: beyond, pixels might be infinite in float32, which JSON has no word for.
_FARTHEST = 1e30


@dataclass(frozen=True, eq=False)
class Question:
    """One picture. image: (3, H, W) in 0..1, letterboxed; box: where the picture lies in it; options:
    of the answer; floor: objectness above which candidates are answered too, None for none."""

    image: torch.Tensor
    box: Letterbox
    options: "Options"
    floor: float | None = None


@dataclass(frozen=True, eq=False)
class Wanted:
    """How a request wants its answers: its options, and what its client is warned of, a line each."""

    options: "Options"
    warnings: tuple[str, ...]


@dataclass(eq=False)
class Answerer:
    """A detector as the server asks it. Not for several threads at once but for `fit`.

    model, tree: fingerprints, that of the model file and of the tree; most_candidates: boxes that one
    picture's answer carries with their conditionals, more only where more pass the threshold."""

    detector: "Detector"
    model: str
    most_candidates: int
    tree: str = field(init=False)

    def __post_init__(self) -> None:
        self.tree = self.detector.tree.fingerprint
        self._wanted: dict[tuple[tuple[str, Any], ...], Wanted] = {}

    @property
    def reduced(self) -> tuple[int, int] | None:
        """(width, height) up to which a picture is looked at, None where all of its pixels count."""
        detector = self.detector
        return None if detector.resize == "darknet" else detector.checked_size(detector.size)

    def fit(self, pixels: np.ndarray, image_size: tuple[int, int]) -> tuple[torch.Tensor, Letterbox]:
        """Pixels (H, W, 3) uint8 of a picture of `image_size` = (width, height) into the network's input.
        Any thread."""
        return self.detector.letterboxed(pixels, image_size)

    def known(self, given: Mapping[str, Any]) -> Wanted | None:
        """What `wanted` made of the same before, if it still has it. Any thread."""
        return self._wanted.get(tuple(sorted(given.items())))

    def wanted(self, given: Mapping[str, Any]) -> Wanted:
        """Options of a request, completed by the model's; the same object for the same request, so that its
        decision is made once. Lists are tuples here. Raises ValueError."""
        key = tuple(sorted(given.items()))
        if key not in self._wanted:
            detector = self.detector
            options = detector.options(**given)
            cut = Decision(detector.tree, detector.hierarchy, options).cut
            never = rowless(detector.net, detector.tree, cut)
            if len(self._wanted) >= _KEPT:
                del self._wanted[next(iter(self._wanted))]
            self._wanted[key] = Wanted(options, (never_learnt(detector.tree, never),) if never else ())
        return self._wanted[key]

    def __call__(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """For each picture {width, height, detections}, and `candidates` where asked for."""
        records: dict[int, dict[str, Any]] = {}
        for rows in alike(questions):
            records |= zip(rows, self._together([questions[k] for k in rows]), strict=True)
        return [records[k] for k in range(len(questions))]

    def _together(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """The same for pictures whose inputs have one size."""
        output = self.detector.run(torch.stack([question.image for question in questions]))
        records: list[dict[str, Any]] = [{} for _ in questions]
        groups: dict[int, list[int]] = {}
        for k, question in enumerate(questions):
            groups.setdefault(id(question.options), []).append(k)
        for rows in groups.values():
            options = questions[rows[0]].options
            found = self.detector.candidates(_select(output, rows, len(questions)), options)
            for place, k in enumerate(rows):
                detections = self.detector.detections(found.of(place), questions[k].box, options)
                records[k] = detections.to_dict()
                del records[k]["source"]
        for k, question in enumerate(questions):
            if question.floor is not None:
                one = _select(output, [k], len(questions))
                records[k]["candidates"] = self._candidates(one, question)
        return records

    @torch.inference_mode()
    def _candidates(self, output: "LazyOutput | torch.Tensor", question: Question) -> dict[str, Any]:
        """All boxes of one picture above the floor, after their vote and before suppression, in the
        detector's order; see schema.py."""
        detector, A, C = self.detector, len(self.detector.anchors), len(self.detector.tree)
        lazy = isinstance(output, LazyOutput)
        if lazy:
            raw_boxes = output.boxes
        else:
            _, _, H, W = output.shape
            output = output.view(1, A, 5 + C, H, W)  # (1, A*(5+C), H, W) -> (1, A, 5+C, H, W)
            raw_boxes = output[:, :, :5].reshape(1, A * 5, H, W)  # -> (1, A*5, H, W)
        boxes_cxcywh, objectness = vote(
            *box_math.decode(raw_boxes, detector.anchors), question.options.vote_iou
        )
        good = (objectness > question.floor) & (boxes_cxcywh.abs() < _FARTHEST).all(dim=-1)
        at = good.nonzero(as_tuple=True)
        floor, values = question.floor, objectness[at]
        # What the detections were chosen from is there, if it can be.
        wanted = int((values > question.options.threshold).sum())
        most = min(max(self.most_candidates, wanted), _BEYOND * self.most_candidates)
        if len(values) > most:  # what lies above the best that is left out is complete
            floor = float(values.sort(descending=True).values[most])
            kept = (values > floor).nonzero().squeeze(1)
            at = tuple(index[kept] for index in at)
        if lazy:
            conditionals = LazyConditionals(output, *at)
        else:
            logits = output[at[0], at[1], 5:, at[2], at[3]]  # (M, C)
            conditionals = DenseConditionals(detector.hierarchy.log_conditionals(logits))
        softened = Decision(detector.tree, detector.hierarchy, question.options).conditionals(conditionals)
        logs = softened.all(detector.hierarchy).float().cpu().numpy()
        box = question.box
        pixels = box.to_pixels(boxes_cxcywh[at].cpu().numpy())
        options = question.options
        return {
            "floor": floor,
            "nodes": C,
            "boxes_xyxy": pixels.tolist(),
            "objectness": objectness[at].cpu().tolist(),
            "log_conditionals": base64.b64encode(np.ascontiguousarray(logs, "<f4")).decode(),
            "options": {
                "threshold": options.threshold,
                "tree_threshold": options.tree_threshold,
                "nms": options.nms,
                "nms_iou": options.nms_iou,
                "clip": options.clip,
                "max_detections": options.max_detections,
            },
        }


def _select(output: "LazyOutput | torch.Tensor", rows: list[int], count: int) -> "LazyOutput | torch.Tensor":
    if len(rows) == count:
        return output
    index = torch.tensor(rows)
    return output.select(index) if isinstance(output, LazyOutput) else output[index]


def fingerprint(net: torch.nn.Module) -> str:
    """SHA-256 over the names and bytes of all tensors: what a network is called that is no model file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
