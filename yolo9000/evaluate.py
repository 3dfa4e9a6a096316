"""Scores of a model on packed data: average precision along the tree and whatever the class, and how well
label-only pictures are named.

The data and the model's outputs on it are heldout.py's; the arithmetic of average precision scoring.py's;
naming of label-only pictures naming.py's; boxes at every node of the tree node_pairs.py's; scores as text
tables.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wordtree import TreeError, WordTree
from yolo9000.asked import asked_for
from yolo9000.augment import in_picture
from yolo9000.boxes import cxcywh_to_xyxy
from yolo9000.decision import Decision
from yolo9000.device import loaders_told
from yolo9000.errors import TrainingError
from yolo9000.heldout import KILLED, EvalSettings, HeldOut, Output, numbers
from yolo9000.naming import Naming
from yolo9000.network import Network
from yolo9000.node_pairs import NodePairs, node_shares
from yolo9000.parts import Samples
from yolo9000.scoring import Boxes, average_precision, suppress
from yolo9000.temperature import by_depth
from yolo9000.witness import Witness


def evaluate(
    net: Network,
    stores: Sequence[Samples],
    settings: EvalSettings | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    progress: bool = False,
    witness: Witness | None = None,
) -> dict[str, Any]:
    """All scores that the data allows, as JSON-able data: "boxes" where pictures have boxes, "labels" where
    they have labels only.

    groups: name -> ids of nodes, or their names; AP50 and the rest are then given for each too, over those
    that occur in the truth. "boxes": AP, AP50, AP75,
    AR100 over the nodes present in the truth, score = objectness x Pr(node) for each (box, node) pair, and
    "any_class": the same with all boxes one class, score = objectness; "nodes", if the settings ask for it:
    the same at every node of the truths' paths, see NodePairs. In pictures that were annotated for some
    classes only ("partial" of them) only those count, see asked.py. "labels": see `Naming`. "raised": how
    many boxes and labels are of nodes that the model's tree has not and count along the tree as the nearest
    node above; "left_out": for how many it has none. witness: keeps what is answered. Raises TrainingError
    where nothing can be scored, where the network answers with what is no number, and for groups of nodes
    that neither the data's trees nor the model's have.
    """
    held = HeldOut(net, stores, settings or EvalSettings())
    settings, truth, images = held.settings, held.truth, len(held.pictures.where)
    try:
        decision = Decision(held.tree, held.hierarchy, settings.options(net))
    except ValueError as error:  # nodes that the tree has not
        raise TrainingError(str(error)) from error
    groups = _group_ids(groups or {}, [store.tree for store in stores] + [net.tree] * (net.tree is not None))
    naming = Naming(decision, settings, held.detector)
    temperatures = by_depth(decision.options.temperatures or (), held.hierarchy.depths)
    boxes = _Pairs(held, temperatures) if held.detector and truth.kinds else None
    if witness is not None:
        witness.begin(held, decision)
    with torch.inference_mode(), loaders_told(KILLED):
        for said in held.outputs(progress):
            if not held.detector:
                naming.add_logits(said.logits, truth, said.places)
                continue
            if boxes is not None:
                boxes.add(said)
            if witness is not None:
                witness.add(said)
            naming.add_boxes(said.lazy, said.objectness, truth, said.places)
    result: dict[str, Any] = {"pictures": images, "size": settings.size_said, "rect": settings.rect}
    result |= {"bfloat16": held.bfloat16, "raised": sum(truth.raised), "left_out": sum(truth.left_out)}
    facts = len(result)
    if boxes is not None:
        result["boxes"] = boxes.scores(images, groups)
    labels = naming.scores()
    if labels:
        result["labels"] = labels
    if witness is not None:
        witness.add_named(naming.named)
        if boxes is not None:
            witness.truth, witness.found, witness.blind = boxes.joined()
            witness.nodes = boxes.nodes.result if boxes.nodes else None
    if len(result) == facts:
        why = truth.complaint or "the data has neither boxes nor labels that this model could be scored on"
        raise TrainingError(why)
    return result


def _group_ids(groups: Mapping[str, Sequence[str]], trees: Sequence[WordTree]) -> dict[str, list[str]]:
    """The ids of each group's members, by the first of the trees that knows the member. Raises TrainingError
    for one that none does, with what it may have been meant for."""

    def found(name: str, member: str) -> str:
        if any(member in tree for tree in trees):
            return member
        for tree in trees:
            if len(tree.lookup.called(member)) == 1:
                return tree.ids[tree.index(member)]
        try:  # to hear what was meant
            return trees[0].ids[trees[0].index(member)]
        except TreeError as error:
            raise TrainingError(f"group {name!r} of classes: {error}") from error

    return {name: list(dict.fromkeys(found(name, str(one)) for one in some)) for name, some in groups.items()}


class _Pairs:
    """Gathers (box, node) pairs: per picture the best by objectness x Pr(node) over the nodes present in the
    truth.
    """

    def __init__(self, held: HeldOut, temperatures: Tensor):
        """temperatures: (n,) of every node, as answers are softened."""
        self.truth, self.pictures, self.settings = held.truth, held.pictures, held.settings
        self.temperatures = temperatures
        truth, hierarchy, settings = held.truth, held.hierarchy, held.settings
        self.hierarchy = hierarchy
        self.nodes: NodePairs | None = None
        if settings.nodes:
            kinds, asked = truth.kinds_along, truth.asked_along
            self.nodes = NodePairs(kinds, hierarchy, settings, asked, temperatures)
        device = hierarchy.parents.device
        self.known = [k for k, node in enumerate(truth.kinds) if node >= 0]
        nodes = torch.tensor([truth.kinds[k] for k in self.known], dtype=torch.long, device=device)
        # Only the sibling groups on the paths of these nodes are computed.
        self.few = hierarchy.restrict(nodes)
        self.truths: list[Boxes] = []
        self.found: list[Boxes] = []
        self.blind: list[Boxes] = []

    def add(self, said: Output) -> None:
        at = (said.objectness >= self.settings.objectness).nonzero(as_tuple=True)
        probability = numbers(node_shares(self.few, said.lazy, at, self.temperatures))  # (M, known kinds)
        score = said.objectness[at]
        pairs = (score[:, None] * probability).cpu().numpy()
        boxes = cxcywh_to_xyxy(said.boxes_cxcywh[at]).cpu().numpy()
        shares = self.nodes.shares(said.lazy, at) if self.nodes else None
        image, score = at[0].cpu().numpy(), score.cpu().numpy()
        bounds = np.searchsorted(image, np.arange(len(said.places) + 1))
        for k, place in enumerate(said.places):
            sample = self.truth.samples[place]
            if not sample.boxed:
                continue
            mine, size = slice(bounds[k], bounds[k + 1]), self.pictures.pixels(place)
            self._add_truth(sample, place, size)
            found = in_picture(boxes[mine], said.placements[k]) * np.array([*size, *size])
            self._add_found(found, score[mine], pairs[mine], place)
            if self.nodes:
                truth = _in_nodes(self.truths[-1], self.truth.kinds_along)
                self.nodes.add(place, truth, found, score[mine], shares[mine])

    def _add_truth(self, sample: Any, place: int, size: tuple[int, int]) -> None:
        centre, half = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * np.array([*size, *size])
        count = len(boxes)
        ignored = sample.crowd | sample.difficult
        kinds = self.truth.columns[place]
        self.truths.append(Boxes(np.full(count, place), kinds, boxes, np.ones(count), ignored))

    def _add_found(self, boxes: np.ndarray, score: np.ndarray, pairs: np.ndarray, place: int) -> None:
        order = np.argsort(-score, kind="stable")[: self.settings.pairs]
        kept = order[suppress(boxes[order], np.zeros(len(order), int), self.settings.nms)]
        self.blind.append(_detections(place, np.zeros(len(kept), int), boxes[kept], score[kept]))
        found = best_pairs(place, boxes, pairs, self.settings)
        self.found.append(replace(found, kind=np.asarray(self.known, np.int64)[found.kind]))

    def joined(self) -> tuple[Boxes, Boxes, Boxes]:
        """Truth, (box, node) pairs found, and boxes found whatever the class, of all pictures."""
        truth, found, blind = (_whole(Boxes.join(parts)) for parts in (self.truths, self.found, self.blind))
        asked = self.truth.asked
        if not asked.is_everything:
            kinds = self.truth.kinds
            drawn = _in_nodes(truth, kinds)
            drawn = drawn.rows(drawn.kind >= 0)
            found = found.where_asked(
                *asked_for(self.hierarchy, asked, drawn, _in_nodes(found, kinds), exact=True)
            )
            # Nobody drew everything: what matches no box may be something all the same.
            blind = replace(blind, ignored=~asked.exhaustive[blind.image])
        return truth, found, blind

    def scores(self, images: int, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        (truth, found, seen), ids = self.joined(), self.truth.ids
        position = {wnid: k for k, wnid in enumerate(ids)}
        columns = {name: [position[i] for i in members if i in position] for name, members in groups.items()}
        settings = self.settings
        result = average_precision(truth, found, images, range(len(ids)), columns, settings.resamples)
        result["per_class"] = {ids[k]: value for k, value in result["per_class"].items()}
        result["classes"] = len(ids)
        result["unknown"] = [ids[k] for k, node in enumerate(self.truth.kinds) if node < 0]
        result["truths"] = len(truth.image)
        known = zip(self.truth.samples, self.truth.asked.exhaustive, strict=True)
        result["partial"] = sum(bool(sample.boxed and not whole) for sample, whole in known)
        one = Boxes(truth.image, np.zeros_like(truth.kind), truth.boxes_xyxy, truth.score, truth.ignored)
        blind = average_precision(one, seen, images, [0], None, settings.resamples)
        blind.pop("per_class")
        result["any_class"] = blind
        if self.nodes:
            result["nodes"] = self.nodes.scores(images)
        return result


def best_pairs(place: int, boxes_xyxy: np.ndarray, scores: np.ndarray, settings: EvalSettings) -> Boxes:
    """What a detector finds in the picture at `place`: of its (box, column) pairs the best, suppressed.

    boxes_xyxy: (M, 4); scores: (M, K) of each box as each of K things; the kinds found are columns.
    """
    flat = scores.ravel()  # (M, K) -> (M*K,)
    count = min(settings.pairs, len(flat))
    best = np.argpartition(-flat, count - 1)[:count] if count else np.zeros(0, int)
    best = best[np.argsort(-flat[best], kind="stable")]
    best = best[flat[best] > 0]  # what is impossible, as a node without a class row, is not found
    box, column = np.divmod(best, max(1, scores.shape[1]))
    kept = suppress(boxes_xyxy[box], column, settings.nms)
    return _detections(place, column[kept], boxes_xyxy[box[kept]], flat[best[kept]])


def _in_nodes(boxes: Boxes, kinds: Sequence[int]) -> Boxes:
    """With nodes in place of columns; kinds: the node of each column."""
    return replace(boxes, kind=np.array(kinds, np.int64)[boxes.kind])


def _whole(boxes: Boxes) -> Boxes:
    """Numbers of pictures and kinds as whole numbers, also where there are none."""
    return replace(boxes, image=boxes.image.astype(np.int64), kind=boxes.kind.astype(np.int64))


def _detections(place: int, kinds: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Boxes:
    count = len(kinds)
    return Boxes(np.full(count, place), kinds, boxes, scores.astype(float), np.zeros(count, bool))
