"""What average precision per node needs of a model on packed data: for each picture its boxes with their
scores at the nodes of the truth and above. The arithmetic is node_precision.py's; running the model
heldout.py's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolo9000.asked import Asked
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy, Restriction
from yolo9000.node_precision import NodePrecision, node_precision
from yolo9000.scoring import Boxes, suppress

if TYPE_CHECKING:
    from yolo9000.heldout import EvalSettings


class NodePairs:
    """Gathers (box, node) pairs of each picture, at each depth of the tree the best by objectness x Pr(node),
    and the truth, in the network's nodes; boxes of other nodes are left out.

    What was looked for in which picture is heldout.Truth's to say.
    """

    def __init__(
        self,
        kinds: Sequence[int],
        hierarchy: Hierarchy,
        settings: "EvalSettings",
        asked: Asked,
        temperatures: Tensor | None = None,
    ) -> None:
        """kinds: nodes that have boxes. temperatures: as node_shares takes them."""
        self.asked, self.temperatures = asked, temperatures
        self.hierarchy, self.settings = hierarchy, settings
        given = torch.tensor([k for k in kinds if k >= 0], dtype=torch.long, device=hierarchy.parents.device)
        self.nodes = hierarchy.paths(given)[0].unique()  # and all above
        self.few = hierarchy.restrict(self.nodes)
        self.depths = hierarchy.depths[self.nodes].cpu().numpy()
        self.truths: list[Boxes] = []
        self.found: list[Boxes] = []
        self.partial = 0
        self.result: NodePrecision | None = None  # of `scores`

    def shares(self, out: LazyOutput, at: tuple[Tensor, ...]) -> np.ndarray:
        """Pr(node) of the nodes looked at, (M, K), at M boxes: image, anchor, row, column."""
        return node_shares(self.few, out, at, self.temperatures).cpu().numpy()

    def add(
        self,
        place: int,
        truth: Boxes,
        boxes_xyxy: np.ndarray,
        objectness: np.ndarray,
        shares: np.ndarray,
    ) -> None:
        """One picture. truth.kind: nodes, -1 unknown; boxes_xyxy (m, 4) in the truth's unit, objectness (m,),
        shares (m, K) of the nodes looked at."""
        self.truths.append(truth.rows(truth.kind >= 0))
        self.partial += not self.asked.exhaustive[place]
        scores = objectness[:, None] * shares
        nodes = self.nodes.cpu().numpy()
        for depth in np.unique(self.depths):
            columns = np.flatnonzero(self.depths == depth)
            flat = scores[:, columns].ravel()
            count = min(self.settings.node_pairs, len(flat))
            if not count:
                continue
            best = np.argpartition(-flat, count - 1)[:count]
            best = best[np.argsort(-flat[best], kind="stable")]
            best = best[flat[best] >= self.settings.objectness]
            box, column = np.divmod(best, len(columns))
            kept = suppress(boxes_xyxy[box], column, self.settings.nms, most=len(best))
            box, kinds = box[kept], nodes[columns[column[kept]]]
            image = np.full(len(kept), place)
            none = np.zeros(len(kept), bool)
            self.found.append(Boxes(image, kinds, boxes_xyxy[box], flat[best[kept]].astype(float), none))

    def scores(self, images: int) -> dict[str, Any]:
        """JSON-able: means over all nodes with truths; "levels": over those of each depth; "leaves": over
        those with no truth below them; "partial": pictures in which not everything was looked for."""
        truth, found = (_whole(Boxes.join(parts)) for parts in (self.truths, self.found))
        result = self.result = node_precision(self.hierarchy, truth, found, images, self.asked)
        depths, parents = (t.cpu().numpy() for t in (self.hierarchy.depths, self.hierarchy.parents))
        inner = np.unique(parents[result.nodes])
        levels = [
            {"depth": int(depth), **result.means(result.nodes[depths[result.nodes] == depth])}
            for depth in np.unique(depths[result.nodes])
        ]
        leaves = result.means(np.setdiff1d(result.nodes, inner))
        return {**result.means(), "leaves": leaves, "levels": levels, "partial": self.partial}


def node_shares(
    few: Restriction, lazy: LazyOutput, at: tuple[Tensor, ...], temperatures: Tensor | None = None
) -> Tensor:
    """Pr(node) of the K nodes of `few`, (M, K), at M boxes: image, anchor, row, column. Where the anchors
    share their class rows, computed once for each cell. temperatures: (n,) of every node of the tree, by
    which its logit is divided (temperature.by_depth); None: by nothing.
    """

    def shares(*where: Tensor) -> Tensor:
        logits = lazy.logits(*where, few.columns).T  # (M, U) -> (U, M)
        if temperatures is not None:
            logits = logits.float() / temperatures[few.columns, None]
        return few.log_probabilities(logits).exp().T

    if len(lazy.weight) > 1:
        return shares(*at)
    image, _, row, column = at
    H, W = lazy.features.shape[2:]
    cells, cell = ((image * H + row) * W + column).unique(return_inverse=True)
    where = cells // (H * W), torch.zeros_like(cells), cells // W % H, cells % W
    return shares(*where)[cell]


def _whole(boxes: Boxes) -> Boxes:
    """With whole numbers where numbers of pictures and nodes are, even if there are none."""
    image, kind = boxes.image.astype(np.int64), boxes.kind.astype(np.int64)
    return Boxes(image, kind, boxes.boxes_xyxy.reshape(-1, 4), boxes.score, boxes.ignored)
