"""Calibration on held-back data: temperatures per depth, and the lambdas with which hedged answers are right
as often as a user asks.

Half of the pictures teach, the other half tests. What is fitted is hedging.py's and temperature.py's; here is
how the evidence is gathered and what is reported."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo9000 import descent
from yolo9000.boxes import cxcywh_to_xyxy, iou_xyxy
from yolo9000.conditionals import LazyConditionals
from yolo9000.device import loaders_told
from yolo9000.errors import TrainingError
from yolo9000.hedging import Frontier, fit_lambda, is_right, rewards, share_right
from yolo9000.heldout import KILLED, EvalSettings, HeldOut, Output, numbers
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.parts import Samples
from yolo9000.temperature import fit_temperatures, kept_temperatures, temper

ACCURACIES = (0.8, 0.9, 0.95, 0.99)

# A predicted box stands for a true one if it overlaps it by this much, as detections are scored.
_OVERLAP = 0.5

# Boxes whose probabilities over the whole tree are sorted at a time: 512 x 9,418 doubles are 39 MB.
_CHUNK = 512

# Thresholds on Pr(node) that the paper's rule is tried with, for comparison.
_THRESHOLDS = (*(round(0.02 * k, 2) for k in range(50)), 0.99, 0.999)


@dataclass(frozen=True)
class Evidence:
    """What a model says of objects whose class is known. log_conditionals: (M, C) float32; truths: (M,) the
    network's nodes, or the nearest above where its tree has none; picture: (M,) the number of the picture;
    missed: how many objects had no box above the threshold at the right place, or were left out; left_out:
    how many are of a class that the tree has not, nor any node above it."""

    log_conditionals: Tensor
    truths: Tensor
    picture: Tensor
    missed: int
    left_out: int = 0

    def where(self, rows: Tensor) -> "Evidence":
        return Evidence(self.log_conditionals[rows], self.truths[rows], self.picture[rows], 0)


def gather(
    net: Network, stores: Sequence[Samples], settings: EvalSettings | None = None, progress: bool = False
) -> Evidence:
    """Run a detector or classifier over packed data and keep what it says of each labelled object.

    In pictures with boxes, the surest box that overlaps a true one by half; in pictures with one label, the
    surest box at all, or the picture. Boxes not above the objectness threshold are not looked at. A class
    that the tree has not is the nearest node above it. Raises TrainingError where nothing is left, and where
    the network answers with what is no number.
    """
    held = HeldOut(net, stores, settings or EvalSettings())
    logs, truths, picture, missed = [], [], [], 0
    with torch.inference_mode(), loaders_told(KILLED):
        for said in held.outputs(progress):
            chosen = []  # (row of the batch, place in its A*H*W, node)
            for row in range(len(said.places)):
                found, lost = _boxes_of(held, said, row) if held.detector else _label_of(held, said, row)
                chosen += [(row, *pair) for pair in found]
                missed += lost
            if not chosen:
                continue
            image, flat, nodes = torch.tensor(chosen, device=held.device).T
            if held.detector:
                _, _, H, W = said.objectness.shape
                at = image, flat // (H * W), flat // W % H, flat % W
                conditionals = LazyConditionals(said.lazy, *at).all(held.hierarchy)
            else:
                conditionals = held.hierarchy.log_conditionals(said.logits[image])
            logs.append(numbers(conditionals.float().cpu()))
            truths.append(nodes.cpu())
            picture.append(torch.from_numpy(said.places)[image.cpu()])
    left_out = sum(held.truth.left_out)
    if not logs:
        more = f" ({held.truth.complaint})" if left_out else ""
        raise TrainingError(f"the model finds none of the labelled objects in this data{more}")
    return Evidence(torch.cat(logs), torch.cat(truths), torch.cat(picture), missed, left_out)


def calibrate(
    hierarchy: Hierarchy, evidence: Evidence, accuracies: Sequence[float] = ACCURACIES
) -> dict[str, Any]:
    """Temperatures and lambdas from the even pictures, and what they do on the odd ones: JSON-able.

    "lambdas": accuracy as text -> lambda, those that can be had; "too_few": accuracies of which so few
    objects as there were to learn from say nothing; "temperatures": one a depth, maybe none; "levels": what
    the fits found; "test": for each accuracy the share of right answers on the other half, the mean
    information in bits of the right ones (wrong: 0), and the same for the paper's rule with that threshold
    which is right at least as often and tells most. Raises TrainingError for a half without data.
    """
    even = evidence.picture % 2 == 0
    learn, test = evidence.where(even), evidence.where(~even)
    if not len(learn.truths) or not len(test.truths):
        raise TrainingError("calibration needs objects in at least two pictures: one half learns, one tests")
    hierarchy = hierarchy.to("cpu")
    fits = fit_temperatures(hierarchy, learn.log_conditionals, learn.truths)
    temperatures = kept_temperatures(fits)
    learn_frontier, learn_right = _frontier(hierarchy, learn, temperatures)
    test_frontier, test_right = _frontier(hierarchy, test, temperatures)
    thresholds = _threshold_curve(hierarchy, test, temperatures)
    lambdas, rows = {}, []
    for accuracy in accuracies:
        lambda_ = fit_lambda(learn_frontier, learn_right, accuracy)
        row: dict[str, Any] = {"accuracy": accuracy, "lambda": lambda_}
        if lambda_ is not None:
            lambdas[f"{accuracy:g}"] = lambda_
            right = share_right(test_frontier, test_right, lambda_)
            row |= {"right": right, "bits": information(test_frontier, test_right, lambda_)}
            fair = [point for point in thresholds if point["right"] >= right]
            row["threshold"] = max(fair, key=lambda point: point["bits"], default=None)
        rows.append(row)
    return {
        "learnt_from": len(learn.truths),
        "tested_on": len(test.truths),
        "missed": evidence.missed,
        "left_out": evidence.left_out,
        "temperatures": list(temperatures),
        "levels": [asdict(fit) for fit in fits],
        "lambdas": lambdas,
        # With less than one mistake to make in all, whatever makes none is as right as was asked for.
        "too_few": [a for a in accuracies if len(learn.truths) * (1 - a) < 1 - 1e-9],
        "test": rows,
        "thresholds": thresholds,
    }


def information(frontier: Frontier, right: Tensor, lambda_: float) -> float:
    """Mean reward in bits of the right answers at this lambda, wrong ones counting 0."""
    column, _ = frontier.answers(lambda_)
    if not right.shape[1]:
        return 0.0
    column_ = column.clamp(min=0).unsqueeze(1)
    bits = frontier.reward.gather(1, column_) * right.gather(1, column_)
    return float(torch.where(column < 0, 0, bits.squeeze(1)).mean())


def format_report(result: dict[str, Any]) -> str:
    """The result of `calibrate` as lines of text."""
    lines = [
        f"{result['learnt_from']} objects to learn from, {result['tested_on']} to test on, "
        f"{result['missed']} not found"
        + (f", {result['left_out']} of them of classes that the tree has not" if result["left_out"] else ""),
        "temperatures by depth: " + (", ".join(f"{t:.2f}" for t in result["temperatures"]) or "none helps"),
        "asked for     lambda   right  bits told   paper's rule, as often right: threshold  right  bits told",
    ]
    for row in result["test"]:
        if row["lambda"] is None:
            lines.append(f"     {row['accuracy']:4.2f}  cannot be had: too many are certain and wrong")
            continue
        text = f"     {row['accuracy']:4.2f} {row['lambda']:10.4g} {row['right']:7.3f} {row['bits']:10.2f}"
        other = row["threshold"]
        if other is None:
            text += f"{'no threshold is':>53}"
        else:
            text += f"{other['threshold']:41.3g} {other['right']:6.3f} {other['bits']:10.2f}"
        lines.append(text)
    if result["too_few"]:
        some = ", ".join(f"{accuracy:g}" for accuracy in result["too_few"])
        wanted = math.ceil(1 / (1 - max(result["too_few"])) - 1e-9)
        lines.append(f"too few objects to learn {some} from (at the very least {wanted}): theirs are guesses")
    return "\n".join(lines)


def _label_of(held: HeldOut, said: Output, row: int) -> tuple[list[tuple[int, int]], int]:
    """(0, node) of a picture that has one label, and how many have none or several, for a classifier."""
    truth, place = held.truth, said.places[row]
    labels = {*truth.labels_along[place], *(truth.kinds_along[column] for column in truth.columns[place])}
    nodes = [node for node in labels if node >= 0]
    return ([(0, nodes[0])], 0) if len(nodes) == 1 and not truth.left_out[place] else ([], 1)


def _boxes_of(held: HeldOut, said: Output, row: int) -> tuple[list[tuple[int, int]], int]:
    """(place in A*H*W, node) of the boxes that stand for a picture's objects, and how many have none."""
    truth, place, threshold = held.truth, said.places[row], held.settings.threshold
    sample = truth.samples[place]
    sure = said.objectness[row].flatten()  # (A, H, W) -> (A*H*W,)
    if not sample.boxed:
        labels, left_out = sorted(set(truth.labels_along[place])), truth.left_out[place]
        best = int(sure.argmax())
        good = len(labels) == 1 and not left_out and bool(sure[best] > threshold)
        return ([(best, labels[0])], 0) if good else ([], len(labels) + left_out)
    centre, half = sample.boxes_cxcywh[:, :2], sample.boxes_cxcywh[:, 2:] / 2
    left, top, right, bottom = said.placements[row].source  # of the input, in shares of the picture
    share = np.concatenate([centre - half, centre + half], axis=1) - np.array([left, top] * 2)
    theirs = torch.from_numpy(share / np.array([right - left, bottom - top] * 2)).float().to(sure.device)
    ours = cxcywh_to_xyxy(said.boxes_cxcywh[row].reshape(-1, 4))  # (A, H, W, 4) -> (A*H*W, 4)
    usable = (iou_xyxy(theirs, ours) >= _OVERLAP) & (sure > threshold)
    found, lost = [], 0
    for k, column in enumerate(truth.columns[place].tolist()):
        if sample.crowd[k] or sample.difficult[k]:
            continue
        node = truth.kinds_along[column]
        if node < 0 or not bool(usable[k].any()):
            lost += 1
            continue
        found.append((int(sure.masked_fill(~usable[k], -1).argmax()), node))
    return found, lost


def _frontier(
    hierarchy: Hierarchy, evidence: Evidence, temperatures: Sequence[float]
) -> tuple[Frontier, Tensor]:
    parts = []
    for logs in evidence.log_conditionals.split(_CHUNK):
        softened = temper(hierarchy, logs, temperatures) if temperatures else logs
        parts.append(Frontier.of(hierarchy, hierarchy.log_probabilities(softened)))
    frontier = Frontier.join(parts)
    return frontier, is_right(hierarchy, frontier.nodes, evidence.truths)


def _threshold_curve(
    hierarchy: Hierarchy, evidence: Evidence, temperatures: Sequence[float]
) -> list[dict[str, float]]:
    """What the paper's rule does at one threshold after another."""
    reward = rewards(hierarchy)
    sums = np.zeros((len(_THRESHOLDS), 2))
    start = 0
    for logs in evidence.log_conditionals.split(_CHUNK):
        softened = temper(hierarchy, logs, temperatures) if temperatures else logs
        truths = evidence.truths[start : start + len(logs)]
        start += len(logs)
        for k, threshold in enumerate(_THRESHOLDS):
            nodes = descent.threshold(hierarchy, softened, threshold)
            right = is_right(hierarchy, nodes, truths)
            sums[k] += float(right.sum()), float((reward[nodes] * right).sum())
    return [
        {"threshold": threshold, "right": right / start, "bits": bits / start}
        for threshold, (right, bits) in zip(_THRESHOLDS, sums.tolist(), strict=True)
    ]
