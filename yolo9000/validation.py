"""Which moment of a run is the best: by a score on validation data or, without any, by the mean loss. What
the scores are is evaluate.py's, where the best is kept checkpoint.py's.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_prep.errors import DataError
from yolo9000.config import TrainConfig
from yolo9000.errors import ImageError, ModelError, TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.heldout import HeldOut, Truth
from yolo9000.network import Network
from yolo9000.optim import Average, training_mode
from yolo9000.parts import Samples
from yolo9000.sheet import sample_places
from yolo9000.witness import Witness

MOMENTS = 10  # a run is judged so often where the configuration does not say
_SCORES = ("boxes AP50", "labels top1", "labels greedy")


@dataclass(frozen=True)
class Verdict:
    """What a moment of a run came to. by: name of the score, or "loss"; value: higher is better for a score,
    lower for the loss; better: than every moment before; scores: all there are, for the log.
    """

    by: str
    value: float
    better: bool
    scores: Mapping[str, float]


def nearest_size(config: TrainConfig, net: Network) -> int:
    """Of the sides of square inputs that are trained the one nearest to the network's own longer one."""
    return min(config.sizes, key=lambda side: abs(side - max(net.own_size)))


class Judge:
    """Says every so many batches whether the run is better than ever.

    stores: validation data; none: the mean loss since the last moment decides. total: batches of the run.
    Raises TrainingError for data that this network cannot be scored on.
    """

    def __init__(self, config: TrainConfig, net: Network, stores: Sequence[Samples], total: int):
        self.stores = list(stores)
        self.every = config.validation.every or max(1, -(-total // MOMENTS))
        self.total = total
        self.settings = EvalSettings(
            size=config.validation.size or nearest_size(config, net),
            resamples=0,
            workers=config.workers,
            limit=config.validation.pictures,
            precision=config.precision,
        )
        self.sum, self.count = 0.0, 0
        self.witness: Witness | None = None  # of the last moment, what is shown of it
        pictures = sum(len(store) for store in self.stores)
        pictures = min(pictures, self.settings.limit or pictures)
        self.shown = sample_places(pictures, config.validation.sheet)
        self.best: float | None = None
        self.best_by = ""
        self.data = _fingerprint(self.stores, self.settings)
        self.forgot = False  # a best moment of before, which was judged on something else
        self.by = _SCORES  # what moments are compared by: the first of these that there is
        self.warning = ""  # what is to be said of the data's classes at the start
        if self.stores:
            held = HeldOut(net, self.stores, self.settings)  # what does not fit is said now, not after hours
            training_mode(net)
            self.by, self.warning = _judged_by(held)

    def add(self, loss: float) -> None:
        """Takes in one batch's loss."""
        self.sum += loss
        self.count += 1

    def due(self, batch: int) -> bool:
        """Whether the run is to be judged after so many batches, and was not."""
        return self.count > 0 and (batch % self.every == 0 or batch == self.total)

    def judge(self, net: Network, average: Average | None = None) -> Verdict:
        """Judges the averaged weights, if there are any; the network is left as it was.

        Raises TrainingError where the validation data cannot be scored or a picture of it cannot be read.
        """
        loss = self.sum / max(self.count, 1)
        self.sum, self.count = 0.0, 0
        by, value, scores = self._score(net, average) if self.stores else ("loss", loss, {})
        if by != self.best_by:  # other validation data than before: nothing to compare with
            self.best, self.best_by = None, by
        better = math.isfinite(value) and (
            self.best is None or (value < self.best if by == "loss" else value > self.best)
        )
        if better:
            self.best = value
        return Verdict(by, value, better, scores)

    def state_dict(self) -> dict[str, Any]:
        best = {"best": self.best, "best_by": self.best_by, "data": self.data}
        return {"sum": self.sum, "count": self.count} | best

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A best moment that was judged on other data, or at another size, is forgotten."""
        self.sum, self.count = state["sum"], state["count"]
        if state.get("data", self.data) == self.data:  # versions that did not say it judged on the same
            self.best, self.best_by = state["best"], state["best_by"]
        else:
            self.forgot = state["best"] is not None

    def _score(self, net: Network, average: Average | None) -> tuple[str, float, dict[str, float]]:
        """The score's name, its value, and all scores."""
        own = {name: value.clone() for name, value in net.state_dict().items()} if average else None
        random = torch.get_rng_state()  # loading pictures draws from it; the run's own must not be touched
        try:
            if average:
                average.copy_to(net)
            self.witness = Witness(self.shown) if self.shown else None
            found = evaluate(net, self.stores, self.settings, witness=self.witness)
        except (DataError, ImageError, ModelError) as error:
            raise TrainingError(str(error)) from error
        finally:
            if own is not None:
                net.load_state_dict(own)
            training_mode(net)
            torch.set_rng_state(random)
        scores = {
            f"{kind} {name}": float(value)
            for kind in ("boxes", "labels")
            for name, value in found.get(kind, {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for by in self.by:
            if scores.get(by, -1) >= 0:  # -1: nothing to find
                return by, scores[by], scores
        raise TrainingError(f"the validation data gives no score to go by; it gives {', '.join(scores)}")


def _judged_by(held: HeldOut) -> tuple[tuple[str, ...], str]:
    """The scores to go by, the first of them that is given, and what is to be said of the data's classes, ""
    if nothing. Raises TrainingError where no truth is left that one moment of the run could score better on
    than another."""
    truth = held.truth
    boxes = _counted(truth) if held.detector else []  # AP50, in which no node above stands for a class
    lacking = [truth.ids[k] for k in boxes if truth.kinds[k] < 0]
    complaint = f"validation data: {truth.complaint}" if truth.complaint else ""
    if lacking:
        some = ", ".join(lacking[:6]) + ", ..." * (len(lacking) > 6)
        complaint = (
            f"{len(lacking)} of the {len(boxes)} classes of the validation data are not in the "
            f"model's tree and count as 0: {some}; pack the data by the model's tree, or with --map"
        )
    if len(lacking) < len(boxes):
        return _SCORES, complaint if lacking else ""
    if any(truth.labels_along) or (not held.detector and any(node >= 0 for node in truth.kinds_along)):
        by_labels = "; the run is judged by the pictures with labels alone" if boxes else ""
        return _SCORES[1:], complaint + by_labels
    if complaint:
        raise TrainingError(f"{complaint}. As it is no moment of the run could score")
    ignored = ": all its boxes are difficult or crowds" if truth.kinds else ""
    raise TrainingError(f"the validation data has neither boxes nor labels to go by{ignored}")


def _counted(truth: Truth) -> list[int]:
    """The columns of which there is a box that is to be found: no crowd, and not difficult."""
    found: set[int] = set()
    for sample, columns in zip(truth.samples, truth.columns, strict=True):
        if sample.boxed:
            found.update(columns[~(sample.crowd | sample.difficult)].tolist())
    return sorted(found)


def _fingerprint(stores: Sequence[Samples], settings: EvalSettings) -> str:
    """Of what scores are comparable on: pictures' names and truth, in order, and the size; "" without any."""
    if not stores:
        return ""
    digest = hashlib.sha256(str(settings.size).encode())
    where = [(store, i) for store in stores for i in range(len(store))]
    for store, i in where[: settings.limit or None]:
        one, ids = store.annotation(i), store.tree.ids
        names = [
            [ids[int(k)] for k in nodes] for nodes in (one.labels, one.image_labels, one.negative_labels)
        ]
        digest.update(f"{one.source}/{one.name} {one.width} {one.height} {one.boxed} {names}".encode())
        for part in (one.boxes_cxcywh.astype("<f4"), one.crowd, one.difficult):
            digest.update(part.tobytes())
    return digest.hexdigest()
