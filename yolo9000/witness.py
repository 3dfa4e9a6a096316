"""What a model answers on held-out pictures, kept while `evaluate` goes through them: for the report, and for
the sheet of detections of a run. Running the model is heldout.py's, what became of the answers outcomes.py's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from yolo9000.augment import open_image
from yolo9000.boxes import cxcywh_to_xyxy
from yolo9000.candidates import candidates
from yolo9000.errors import TrainingError
from yolo9000.outcomes import Outcome, judge
from yolo9000.suppression import nms

if TYPE_CHECKING:
    from PIL import Image

    from yolo9000.decision import Decision
    from yolo9000.heldout import HeldOut, Output
    from yolo9000.node_precision import NodePrecision
    from yolo9000.scoring import Boxes


@dataclass(frozen=True)
class Answers:
    """What a detector answers on one picture, best score first. boxes_xyxy: (k, 4) pixels; nodes: (k,), -1 is
    "something"; scores: (k,)."""

    boxes_xyxy: np.ndarray
    nodes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Named:
    """What is answered for a picture with labels only. answer: None where no box was found or none of
    the listed nodes fits, -1 "something"; truth: of several labels the one nearest to the answer."""

    place: int
    answer: int | None
    truth: int


class Witness:
    """Sees what `evaluate` sees, and keeps what is answered.

    places: positions of the pictures whose answers are kept; None = all. Afterwards: held, the data and the
    model; answers: place -> Answers, of a detector; named: of pictures with labels only; truth, found, blind:
    boxes as average precision was made of (kinds: columns of held.truth; `blind`: whatever the class); nodes:
    precision per node, if it was asked for. None where there was nothing of that sort.
    """

    def __init__(self, places: Collection[int] | None = None) -> None:
        self.places = places
        self.answers: dict[int, Answers] = {}
        self.named: list[Named] = []
        self.truth: Boxes | None = None
        self.found: Boxes | None = None
        self.blind: Boxes | None = None
        self.nodes: NodePrecision | None = None

    def begin(self, held: "HeldOut", decision: "Decision") -> None:
        self.held, self.decision = held, decision
        if not held.detector:
            return
        self.anchors = torch.tensor(held.net.spec.region.anchors, dtype=torch.float32, device=held.device)
        mapped = held.net.class_map
        self.class_map = None if mapped is None else torch.as_tensor(mapped, dtype=torch.long)

    def add(self, said: "Output") -> None:
        """One batch of a detector."""
        chosen = [k for k, place in enumerate(said.places) if self._wanted(int(place))]
        if not chosen:
            return
        options = self.decision.options
        found = candidates(said.lazy, self.anchors, self.decision, self.class_map)
        for k in chosen:
            place, mine = int(said.places[k]), found.of(k)
            size = np.array(self.held.pictures.pixels(place) * 2, np.float64)  # width, height, twice
            # Of the view -> of the picture, not cut to it: suppression comes first.
            left, top, right, bottom = said.placements[k].source
            boxes = cxcywh_to_xyxy(mine.boxes_cxcywh).cpu().numpy()
            boxes = (boxes * ([right - left, bottom - top] * 2) + [left, top] * 2) * size
            scores, nodes = mine.score.cpu().numpy(), mine.node.cpu().numpy()
            score = self.decision.score
            there = (boxes[:, :2] < size[:2]).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
            there = np.flatnonzero(there)  # boxes wholly outside must not suppress any inside
            evidence = None if score == "conditional" else mine.evidence(score).cpu().numpy()[there]
            kept = nms(
                boxes[there],
                scores[there],
                nodes[there],
                options.nms_iou,
                options.nms,
                self.held.tree.parents,
                evidence,
            )
            rows = there[kept][: options.max_detections]
            self.answers[place] = Answers(np.clip(boxes[rows], 0, size), nodes[rows], scores[rows])

    def add_named(self, named: Sequence[tuple[int, int | None, int]]) -> None:
        """Place, answer and truth of pictures with labels only."""
        self.named += [Named(*row) for row in named if self._wanted(row[0])]

    def _wanted(self, place: int) -> bool:
        return self.places is None or place in self.places

    def truth_of(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes xyxy (t, 4) in pixels, nodes (t,), -1 = unknown, and which need not be found (t,)."""
        truth = self.held.truth
        sample, size = truth.samples[place], np.array(self.held.pictures.pixels(place) * 2, np.float64)
        centre, half = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * size
        nodes = np.array(truth.kinds, np.int64)[truth.columns[place]]
        return boxes, nodes, sample.crowd | sample.difficult

    def outcome(self, place: int) -> Outcome:
        """What became of the boxes and answers of a picture with boxes."""
        boxes, nodes, ignored = self.truth_of(place)
        said, known = self.answers[place], self.held.truth
        absent = None if known.asked.exhaustive[place] else known.absent[place]
        opened = known.asked.open_node[known.asked.open_image == place].tolist()
        answers = said.boxes_xyxy, said.nodes.tolist()
        return judge(self.held.tree, boxes, nodes.tolist(), ignored, *answers, absent, opened)

    def boxed(self) -> list[int]:
        """Places of the pictures with boxes (perhaps none on them) whose answers were kept."""
        return [place for place in sorted(self.answers) if self.held.truth.samples[place].boxed]

    def name(self, place: int) -> str:
        return str(self.held.truth.samples[place].name)

    def thumbnail(self, place: int, side: int) -> "Image.Image":
        """The picture, upright, RGB, no side longer than `side` pixels. Raises TrainingError."""
        store, index = self.held.pictures.where[place]
        try:
            image = open_image(self.held.pictures.stores[store][int(index)].image)
            image.thumbnail((side, side))
            return image.convert("RGB")
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.name(place)}: cannot be shown ({error})") from error
