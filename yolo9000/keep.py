"""Which of the finished detections are kept: those below nodes of the tree, those with a least score. Names,
paths and scores stay as they are; what may be answered at all is decision.py's."""

import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from yolo9000.cuts import Cut, resolve, warn_of_rowless
from yolo9000.pipeline import Outcome, outcomes

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.detections import Detections
    from yolo9000.detector import Detector
    from yolo9000.keywords import Picture
    from yolo9000.options import Options


@dataclass(frozen=True)
class Keep:
    """`keep(found)`: the detections that are one of the nodes with these ids, or lie below one, and score at
    least so much (0..1). below: None keeps those of any node."""

    below: frozenset[str] | None = None
    least: float = 0.0

    @classmethod
    def of(
        cls, tree: "WordTree", below: Iterable[str | Iterable[str | int]] | None, least: float | None = None
    ) -> "Keep":
        """below: lists of nodes as cuts.resolve takes them; None or none at all: any node. Raises ValueError
        for nodes that the tree has not."""
        nodes = [node for listed in below or () for node in resolve(tree, listed)]
        return cls(frozenset(tree.ids[node] for node in nodes) if nodes else None, least or 0.0)

    def __bool__(self) -> bool:
        """Whether anything may be left out."""
        return self.below is not None or self.least > 0

    def __call__(self, found: "Detections") -> "Detections":
        rows = found.scores >= self.least
        if self.below is not None:
            rows &= np.array([not self.below.isdisjoint(path) for path in found.paths], bool)
        return found[rows]

    def check(self, detector: "Detector") -> None:
        """Warns of nodes below which the detector can never answer anything."""
        if self.below is not None:
            nodes = Cut.of(detector.hierarchy, map(detector.tree.index, self.below))
            warn_of_rowless(detector.net, detector.tree, nodes, set())

    def facts(self) -> dict[str, Any]:
        """What it leaves out, JSON-able; empty if nothing."""
        below = {} if self.below is None else {"below": sorted(self.below)}
        return below | ({"least": self.least} if self.least > 0 else {})


def kept_outcomes(
    detector: "Detector", pictures: "Iterable[Picture]", options: "Options", keep: Keep, **settings: Any
) -> Generator[Outcome, None, None]:
    """As pipeline.outcomes, of each picture what is kept: the best `max_detections` of those, so that what is
    left out takes no place. settings: as there."""
    most = options.max_detections
    if keep:
        options = replace(options, max_detections=sys.maxsize)
    with closing(outcomes(detector, pictures, options, **settings)) as each:
        for outcome in each:
            if outcome.found is not None and keep:
                outcome = replace(outcome, found=keep(outcome.found)[:most])
            yield outcome
