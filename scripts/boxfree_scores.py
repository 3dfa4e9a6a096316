#!/usr/bin/env python3
"""What stands in the way of classes without boxes: AP50 of a detector one level up the tree, and with the
truth given for one thing at a time.

For scripts/bench_boxfree, whose val pictures and two lists of classes it takes; the same candidates, pairs
and suppression as `yolo9000 eval`, whose AP50 of the lists it repeats. No training.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from wordtree import WordTree
from yolo9000.errors import TrainingError
from yolo9000.evaluate import best_pairs
from yolo9000.heldout import EvalSettings, HeldOut
from yolo9000.node_pairs import node_shares
from yolo9000.scoring import Boxes, average_precision

# A box that touches the object so much is one of the object, wherever its edges are; chance boxes are below.
NEAR = 0.1
RIGHT = 0.5  # IoU from which AP50 takes a box as right


@dataclass(frozen=True)
class Candidates:
    """Of one picture: boxes_xyxy (M, 4) in pixels, objectness (M,), probability (M, K) of each class and (M,
    P) of each parent, and the truth, boxes (T, 4) with their classes (T,).
    """

    boxes_xyxy: np.ndarray
    objectness: np.ndarray
    probability: np.ndarray
    parents: np.ndarray
    truth_xyxy: np.ndarray
    truth: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(M, K) objectness x Pr(class)."""
        return self.objectness[:, None] * self.probability

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """For each box the truth that it overlaps most, and their IoU: (M,) each; 0 and 0 without truth."""
        if not len(self.truth):
            return np.zeros(len(self.boxes_xyxy), np.int64), np.zeros(len(self.boxes_xyxy))
        import torch

        from yolo9000.boxes import iou_xyxy

        iou = iou_xyxy(torch.from_numpy(self.boxes_xyxy), torch.from_numpy(self.truth_xyxy)).numpy()  # (M, T)
        best = iou.argmax(axis=1)
        return best, iou[np.arange(len(best)), best]


def boxes_given(picture: Candidates) -> Candidates:
    """Every box near an object lies exactly on it."""
    truth, iou = picture.nearest()
    boxes = picture.boxes_xyxy.copy()
    boxes[iou >= NEAR] = picture.truth_xyxy[truth[iou >= NEAR]]
    return replace(picture, boxes_xyxy=boxes)


def names_given(picture: Candidates) -> Candidates:
    """Every box that is right has its object's class, for certain."""
    truth, iou = picture.nearest()
    probability = picture.probability.copy()
    probability[iou >= RIGHT] = np.eye(probability.shape[1])[picture.truth[truth[iou >= RIGHT]]]
    return replace(picture, probability=probability)


def objectness_given(picture: Candidates) -> Candidates:
    """Objectness is 1 for every box that is right, 0 for all others."""
    return replace(picture, objectness=(picture.nearest()[1] >= RIGHT).astype(float))


GIVEN: dict[str, Callable[[Candidates], Candidates]] = {
    "as it is": lambda picture: picture,
    "boxes given": boxes_given,
    "names given": names_given,
    "objectness given": objectness_given,
}


def gather(held: HeldOut, tree: WordTree, progress: bool = False) -> tuple[list[Candidates], np.ndarray]:
    """What a detector says of every picture, before any choice, and what is true; and parents_above in
    `tree`, the data's. For a network without these parents their probabilities are sums of its classes'.
    """
    import torch

    from yolo9000.augment import in_picture
    from yolo9000.boxes import cxcywh_to_xyxy

    known = held.net.spec.region.nodes if held.detector else ()
    rows = torch.zeros(held.hierarchy.nodes, dtype=torch.bool, device=held.device)
    rows[slice(None) if known is None else list(known)] = True
    kinds = held.truth.kinds
    if min(kinds, default=-1) < 0 or not bool(rows[list(kinds)].all()):
        raise TrainingError("wanted a detector with class rows for every class of the data")
    above, parents = parents_above(held.truth.ids, tree)
    own = {wnid: node for node, wnid in enumerate(held.tree.ids)}
    if all(wnid in own for wnid in parents):
        others, below = [own[wnid] for wnid in parents], np.eye(len(parents), dtype=np.float32)
    else:
        others = [node for node in rows.nonzero()[:, 0].tolist() if held.tree.ids[node] in tree]
        below = _below([held.tree.ids[node] for node in others], parents, tree).astype(np.float32)
    few = held.hierarchy.restrict(torch.tensor([*kinds, *others], device=held.device), rows)
    pictures = []
    with torch.inference_mode():
        for said in held.outputs(progress):
            at = (said.objectness >= held.settings.objectness).nonzero(as_tuple=True)
            probability = node_shares(few, said.lazy, at).cpu().numpy()
            upper = probability[:, len(kinds) :] @ below
            boxes = cxcywh_to_xyxy(said.boxes_cxcywh[at]).cpu().numpy()
            objectness, image = said.objectness[at].cpu().numpy(), at[0].cpu().numpy()
            for k, place in enumerate(said.places):
                mine, size = image == k, np.tile(held.pictures.pixels(place), 2)
                sample = held.truth.samples[place]
                centre, half = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:] / 2
                truth = np.concatenate([centre - half, centre + half], axis=1) * size
                found = in_picture(boxes[mine], said.placements[k]) * size
                classes = held.truth.columns[place]
                share = probability[mine, : len(kinds)]
                said_here = Candidates(found, objectness[mine], share, upper[mine], truth, classes)
                pictures.append(said_here)
    return pictures, above


def ap50(
    pictures: Sequence[Candidates],
    groups: Mapping[str, Sequence[int]],
    given: Callable[[Candidates], Candidates],
    settings: EvalSettings,
) -> dict[str, float]:
    """AP50 of groups of classes with something given."""
    found = Boxes.join([best_pairs(k, *_said(given(p)), settings) for k, p in enumerate(pictures)])
    truth = _truth(pictures, np.eye(pictures[0].probability.shape[1], dtype=bool))
    kinds = sorted({k for members in groups.values() for k in members})
    result = average_precision(truth, found, len(pictures), kinds, groups)
    return {name: result["groups"][name]["AP50"] for name in groups}


def ap50_above(
    pictures: Sequence[Candidates],
    groups: Mapping[str, Sequence[int]],
    above: np.ndarray,
    settings: EvalSettings,
) -> dict[str, float]:
    """AP50 of groups of classes, each counting as its parent.

    above: (K, P) bool, which of K classes lie below which of P parents. A group's parents are those of its
    classes; an object of another group below one of them is neither to be found nor wrong to find.
    """
    scores = [p.objectness[:, None] * p.parents for p in pictures]  # (M, P) each
    found = Boxes.join([best_pairs(k, p.boxes_xyxy, scores[k], settings) for k, p in enumerate(pictures)])
    truth = _truth(pictures, above)
    classes = np.concatenate([np.repeat(p.truth, above[p.truth].sum(axis=1)) for p in pictures])
    result = {}
    for name, members in groups.items():
        parents = np.flatnonzero(above[list(members)].any(axis=0))
        mine = replace(truth, ignored=~np.isin(classes, members))
        result[name] = average_precision(mine, found, len(pictures), parents.tolist())["AP50"]
    return result


def parents_above(ids: Sequence[str], tree: WordTree) -> tuple[np.ndarray, list[str]]:
    """Ids of the parents of K ids, P of them, and (K, P) bool: which of the K lie below which of these."""
    parents = sorted({int(tree.parents[tree.index(wnid)]) for wnid in ids} - {-1})
    names = [tree.ids[node] for node in parents]
    return _below(ids, names, tree), names


def _below(ids: Sequence[str], parents: Sequence[str], tree: WordTree) -> np.ndarray:
    """(K, P) bool: which of K ids lie below which of P."""
    place = {tree.index(wnid): k for k, wnid in enumerate(parents)}
    below = np.zeros((len(ids), len(parents)), bool)
    for k, wnid in enumerate(ids):
        node = tree.index(wnid)
        while (node := int(tree.parents[node])) >= 0:
            if node in place:
                below[k, place[node]] = True
    return below


def _said(picture: Candidates) -> tuple[np.ndarray, np.ndarray]:
    return picture.boxes_xyxy, picture.scores


def _truth(pictures: Sequence[Candidates], above: np.ndarray) -> Boxes:
    """Each object once for every thing above its class: (K, P) bool."""
    parts = []
    for k, picture in enumerate(pictures):
        which, kind = above[picture.truth].nonzero()
        count, boxes = len(which), picture.truth_xyxy[which]
        parts.append(Boxes(np.full(count, k), kind, boxes, np.ones(count), np.zeros(count, bool)))
    return Boxes.join(parts)


@click.command(epilog="Example: scripts/boxfree_scores.py runs/boxfree/none-0 --data runs/boxfree/val.h5 ...")
@click.argument("model")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Packed pictures with boxes.")
@click.option("--classes", type=click.Path(path_type=Path), required=True, help="JSON: name -> ids.")
@click.option("--size", default=0, help="Side of the input in pixels; 0: the model's own.")
@click.option("--limit", default=0, help="The first so many pictures only; 0 = all.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(model: str, data: Path, classes: Path, size: int, limit: int, as_json: bool) -> None:
    """AP50 one level up the tree, and with boxes, names or objectness given."""
    from yolo9000.batches import open_store
    from yolo9000.start import load_any

    try:
        store, lists = open_store(data), json.loads(classes.read_text(encoding="utf-8"))
        held = HeldOut(load_any(model), [store], EvalSettings(size=size, limit=limit))
        pictures, above = gather(held, store.tree, not as_json)
    except (TrainingError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    column = {wnid: k for k, wnid in enumerate(held.truth.ids)}
    groups = {name: [column[i] for i in ids if i in column] for name, ids in lists.items()}
    scores = {name: ap50(pictures, groups, given, held.settings) for name, given in GIVEN.items()}
    scores["one level up"] = ap50_above(pictures, groups, above, held.settings)
    if as_json:
        click.echo(json.dumps(scores, indent=1))
        return
    width = max(map(len, scores))
    click.echo(" " * width + "".join(f"  {name:>10}" for name in groups))
    for name, row in scores.items():
        click.echo(f"{name:{width}}" + "".join(f"  {row[group]:10.3f}" for group in groups))


if __name__ == "__main__":
    main()
