"""Scores of a model on packed data: average precision along the tree and whatever the class, and how well
label-only pictures are named.

The arithmetic of average precision is scoring.py's; naming of label-only pictures naming.py's; boxes at every
node of the tree node_pairs.py's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wordtree import WordTree
from yolo9000 import augment
from yolo9000.batches import Samples, label_map
from yolo9000.boxes import cxcywh_to_xyxy, decode
from yolo9000.decision import Decision
from yolo9000.device import wants_bfloat16
from yolo9000.errors import TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.naming import Naming
from yolo9000.network import Network
from yolo9000.node_pairs import NodePairs
from yolo9000.options import Options, asked_rule
from yolo9000.scoring import Boxes, average_precision, suppress
from yolo9000.tasks import full_precision


@dataclass(frozen=True)
class EvalSettings:
    """size: side of the square input in pixels, 0 = the model's own. objectness: boxes below are not looked
    at. pairs: (box, node) pairs of a picture that suppression looks at, the best ones; nms: overlap above
    which of two boxes with one node the worse goes. threshold, tree_threshold, rule: of the answer for
    pictures with labels only, None = as the model's detector has them; the best box counts if its objectness
    exceeds the threshold. level, vocabulary, accuracy, hedge_lambda: what rules of those names take, as in
    Options. resamples: of the bootstrap. limit: pictures at most, 0 = all. nodes: also score boxes at every
    node above the truth, the best node_pairs pairs of a picture and depth.
    """

    size: int = 0
    batch: int = 32
    objectness: float = 0.001
    pairs: int = 600
    nms: float = 0.45
    threshold: float | None = None
    tree_threshold: float | None = None
    rule: str | None = None
    resamples: int = 200
    precision: str = "auto"
    workers: int = 1
    limit: int = 0
    nodes: bool = False
    node_pairs: int = 200
    level: int | str | Sequence[str | int] | None = None
    vocabulary: str | Sequence[str | int] | None = None
    accuracy: float | None = None
    hedge_lambda: float | None = None

    def of_model(self, net: Network) -> "EvalSettings":
        """With everything that is left open as the model's own detector has it."""
        own = dict(getattr(net, "defaults", None) or {})
        size = own.get("size") or net.spec.width
        options = Options()
        filled = {
            name: own.get(name, getattr(options, name))
            for name in ("threshold", "tree_threshold", "rule")
            if getattr(self, name) is None
        }
        if self.rule is None:  # what only one rule takes asks for that rule
            filled["rule"] = asked_rule(vars(self)) or filled["rule"]
        size = self.size or int(size if isinstance(size, int) else size[0])
        return replace(self, size=size, **filled)

    def options(self, net: Network) -> Options:
        """How an answer is chosen: as given here, else as the model's own detector does. Raises
        TrainingError."""
        known = {part.name for part in fields(Options)}
        own = {k: v for k, v in (getattr(net, "defaults", None) or {}).items() if k in known}
        names = ("threshold", "tree_threshold", "rule", "level", "vocabulary", "accuracy", "hedge_lambda")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        try:
            return Options(**{**own, **given})
        except (TypeError, ValueError) as error:
            raise TrainingError(str(error)) from error


def evaluate(
    net: Network,
    stores: Sequence[Samples],
    settings: EvalSettings | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """All scores that the data allows, as JSON-able data: "boxes" where pictures have boxes, "labels" where
    they have labels only.

    groups: name -> ids of nodes; AP50 and the rest are then given for each too. "boxes": AP, AP50, AP75,
    AR100 over the nodes present in the truth, score = objectness x Pr(node) for each (box, node) pair, and
    "any_class": the same with all boxes one class, score = objectness; "nodes", if the settings ask for it:
    the same at every node of the truths' paths, see NodePairs. "labels": see `Naming`. Raises TrainingError
    where nothing can be scored.
    """
    settings = (settings or EvalSettings()).of_model(net)
    if net.spec.region is None and net.spec.softmax is None:
        raise TrainingError("this network is neither a detector nor a classifier; there is nothing to score")
    size = settings.size
    if size % max(1, net.stride):
        raise TrainingError(f"size {size} is not a multiple of the network's stride, {net.stride}")
    tree = net.tree or WordTree.flat([str(k) for k in range(net.classes)])
    device = next(net.parameters()).device
    net = net.eval().to(memory_format=torch.channels_last)
    hierarchy = Hierarchy(tree).to(device)
    pictures = _Pictures(stores, size, settings)
    truth = _Truth(stores, pictures.where, net, tree)
    detector = net.spec.region is not None
    boxes = _Pairs(truth, hierarchy, settings) if detector and truth.kinds else None
    try:
        decision = Decision(tree, hierarchy, settings.options(net))
    except ValueError as error:  # nodes that the tree has not
        raise TrainingError(str(error)) from error
    naming = Naming(decision, settings, detector)
    half = wants_bfloat16(settings.precision, device)
    bar = tqdm(total=len(pictures.where), unit="img", disable=not progress)
    with bar, torch.inference_mode():
        for images, placements, places in _batches(pictures, settings, device):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                out = net.lazy(images) if detector else net.logits(images)
            if detector:
                out = full_precision(out)
                found, objectness = decode(out.boxes, net.anchors)
                if boxes is not None:
                    boxes.add(out, found, objectness, placements, places, pictures)
                naming.add_boxes(out, objectness, truth, places)
            else:
                naming.add_logits(out.float(), truth, places)
            bar.update(len(places))
    result: dict[str, Any] = {"pictures": len(pictures.where), "size": size, "bfloat16": half}
    if boxes is not None:
        result["boxes"] = boxes.scores(len(pictures.where), groups or {}, tree)
    labels = naming.scores()
    if labels:
        result["labels"] = labels
    if len(result) == 3:
        raise TrainingError("the data has neither boxes nor labels that this model could be scored on")
    return result


class _Pictures(Dataset):
    """Letterboxed pictures in batches, in order; picklable."""

    def __init__(self, stores: Sequence[Samples], size: int, settings: EvalSettings):
        where = [(s, i) for s, store in enumerate(stores) for i in range(len(store))]
        self.stores, self.size, self.batch = list(stores), size, settings.batch
        self.where = np.array(where[: settings.limit or None], np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return -(-len(self.where) // self.batch)

    def __getitem__(self, number: int) -> tuple[Tensor, list[augment.Placement], np.ndarray]:
        places = np.arange(number * self.batch, min((number + 1) * self.batch, len(self.where)))
        canvas = np.full((len(places), self.size, self.size, 3), augment.GREY, np.uint8)
        placements = []
        for row, place in enumerate(places):
            store, index = self.where[place]
            image = augment.open_image(self.stores[store][int(index)].image)
            placements.append(augment.letterbox(*image.size, (0, 0, self.size, self.size)))
            augment.draw(image, placements[-1], canvas[row])
        return torch.from_numpy(canvas), placements, places

    def pixels(self, place: int) -> tuple[int, int]:
        store, index = self.where[place]
        return int(self.stores[store].widths[index]), int(self.stores[store].heights[index])


class _Truth:
    """What is true of each picture, in the network's nodes. `kinds`: the nodes that truth has boxes of, as
    columns; `unknown`: ids of nodes that the network's tree has not; they count as classes of which nothing
    is found.
    """

    def __init__(self, stores: Sequence[Samples], where: np.ndarray, net: Network, tree: WordTree):
        if net.tree is None and any(len(store.tree) != net.classes for store in stores):
            raise TrainingError(
                f"the network has {net.classes} classes and no tree; the data's labels are of another list"
            )
        self.maps = [None if net.tree is None else label_map(store.tree.ids, tree.ids) for store in stores]
        self.samples = [self._sample(stores, *map(int, pair)) for pair in where]
        ids = {}
        for sample, (store, _) in zip(self.samples, where, strict=True):
            for node in sample.labels:
                wnid = stores[store].tree.ids[int(node)]
                ids.setdefault(wnid, self._node(int(store), int(node)))
        self.ids = tuple(sorted(ids))
        self.kinds = tuple(ids[i] for i in self.ids)  # node of the network for each column, -1 = unknown
        column = {wnid: k for k, wnid in enumerate(self.ids)}
        self.columns, self.labels = [], []
        for sample, (store, _) in zip(self.samples, where, strict=True):
            names = stores[store].tree.ids
            self.columns.append(np.array([column[names[int(n)]] for n in sample.labels], np.int64))
            # For pictures without boxes: the network's nodes, where it has them.
            nodes = [] if sample.boxed else [self._node(int(store), int(n)) for n in sample.image_labels]
            self.labels.append([n for n in nodes if n >= 0])
        # Nodes verified not to be there.
        self.absent = [
            [self._node(int(store), int(n)) for n in sample.negative_labels]
            for sample, (store, _) in zip(self.samples, where, strict=True)
        ]

    @staticmethod
    def _sample(stores: Sequence[Samples], store: int, index: int) -> Any:
        of = stores[store]
        return of.annotation(index) if hasattr(of, "annotation") else of[index]

    def _node(self, store: int, node: int) -> int:
        mapping = self.maps[store]
        return node if mapping is None else int(mapping[node])


class _Pairs:
    """Gathers (box, node) pairs: per picture the best by objectness x Pr(node) over the nodes present in the
    truth.
    """

    def __init__(self, truth: _Truth, hierarchy: Hierarchy, settings: EvalSettings):
        self.truth, self.settings = truth, settings
        self.nodes = NodePairs(truth.kinds, hierarchy, settings) if settings.nodes else None
        device = hierarchy.parents.device
        self.known = [k for k, node in enumerate(truth.kinds) if node >= 0]
        nodes = torch.tensor([truth.kinds[k] for k in self.known], dtype=torch.long, device=device)
        # Only the sibling groups on the paths of these nodes are computed.
        self.few = hierarchy.restrict(nodes)
        self.truths: list[Boxes] = []
        self.found: list[Boxes] = []
        self.blind: list[Boxes] = []

    def add(
        self,
        out: LazyOutput,
        boxes_cxcywh: Tensor,
        objectness: Tensor,
        placements: list[augment.Placement],
        places: np.ndarray,
        pictures: _Pictures,
    ) -> None:
        image, anchor, row, column = (objectness >= self.settings.objectness).nonzero(as_tuple=True)
        logits = out.logits(image, anchor, row, column, self.few.columns)  # (M, U)
        probability = self.few.log_probabilities(logits.T).exp().T  # (M, known kinds)
        score = objectness[image, anchor, row, column]
        pairs = (score[:, None] * probability).cpu().numpy()
        boxes = cxcywh_to_xyxy(boxes_cxcywh[image, anchor, row, column]).cpu().numpy()
        shares = self.nodes.shares(out, (image, anchor, row, column)) if self.nodes else None
        image, score = image.cpu().numpy(), score.cpu().numpy()
        bounds = np.searchsorted(image, np.arange(len(places) + 1))
        for k, place in enumerate(places):
            sample = self.truth.samples[place]
            if sample.boxed:
                mine, size = slice(bounds[k], bounds[k + 1]), pictures.pixels(place)
                self._add_truth(sample, place, size)
                found = _unletterboxed(boxes[mine], placements[k], size)
                self._add_found(found, score[mine], pairs[mine], place)
                if self.nodes:
                    said = (found, score[mine], shares[mine])
                    self.nodes.add(place, self._in_nodes(self.truths[-1]), self.truth.absent[place], *said)

    def _in_nodes(self, truth: Boxes) -> Boxes:
        """With the network's nodes in place of columns."""
        return replace(truth, kind=np.array(self.truth.kinds, np.int64)[truth.kind])

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
        flat = pairs.ravel()
        count = min(self.settings.pairs, len(flat))
        best = np.argpartition(-flat, count - 1)[:count] if count else np.zeros(0, int)
        best = best[np.argsort(-flat[best], kind="stable")]
        box, column = np.divmod(best, max(1, pairs.shape[1]))
        kept = suppress(boxes[box], column, self.settings.nms)
        kinds = np.asarray(self.known, np.int64)[column[kept]]
        self.found.append(_detections(place, kinds, boxes[box[kept]], flat[best[kept]]))

    def scores(self, images: int, groups: Mapping[str, Sequence[str]], tree: WordTree) -> dict[str, Any]:
        truth, ids = Boxes.join(self.truths), self.truth.ids
        position = {wnid: k for k, wnid in enumerate(ids)}
        columns = {name: [position[i] for i in members if i in position] for name, members in groups.items()}
        settings = self.settings
        result = average_precision(
            truth, Boxes.join(self.found), images, range(len(ids)), columns, settings.resamples
        )
        result["per_class"] = {ids[k]: value for k, value in result["per_class"].items()}
        result["classes"] = len(ids)
        result["unknown"] = [ids[k] for k, node in enumerate(self.truth.kinds) if node < 0]
        result["truths"] = len(truth.image)
        one = Boxes(truth.image, np.zeros_like(truth.kind), truth.boxes_xyxy, truth.score, truth.ignored)
        blind = average_precision(one, Boxes.join(self.blind), images, [0], None, settings.resamples)
        blind.pop("per_class")
        result["any_class"] = blind
        if self.nodes:
            result["nodes"] = self.nodes.scores(images)
        return result


def format_table(result: dict[str, Any]) -> str:
    """The scores as lines of text."""
    lines = [f"{result['pictures']} pictures at {result['size']} px"]
    keys = ("AP", "AP50", "AP75", "AR100")
    if "boxes" in result:
        boxes = result["boxes"]
        rows = [(f"all {boxes['classes']} classes", boxes)]
        rows += [(f"{name} ({entry['classes']})", entry) for name, entry in boxes.get("groups", {}).items()]
        rows += [("whatever the class", boxes["any_class"])]
        width = max(len(name) for name, _ in rows)
        lines.append(f"{'':{width}}  " + "".join(f"{key:>8}" for key in keys) + "   95% of AP50")
        for name, entry in rows:
            interval = entry.get("AP50_interval")
            shown = f"   {interval[0]:.3f}..{interval[1]:.3f}" if interval else ""
            lines.append(f"{name:{width}}  " + "".join(f"{entry[key]:8.3f}" for key in keys) + shown)
        if "nodes" in boxes:
            lines += _node_lines(boxes["nodes"])
        if boxes["unknown"]:
            lines.append(f"{len(boxes['unknown'])} classes are not in the model's tree and count as 0")
    if "labels" in result:
        labels = result["labels"]
        titles = {
            "greedy": "descent to the bottom passes through the truth",
            "answer": "answer is the truth or above it",
            "answer_depth": "mean depth of those answers",
            "boxed": "a box above the threshold",
            "top1": "top-1",
            "top5": "top-5",
        }
        lines.append(f"{labels['pictures']} labelled pictures")
        for key, title in titles.items():
            if key in labels:
                interval = labels.get(f"{key}_interval")
                shown = f"   {interval[0]:.3f}..{interval[1]:.3f}" if interval else ""
                value = "       -" if labels[key] is None else f"{labels[key]:8.3f}"
                lines.append(f"  {title:48}{value}{shown}")
        lines += _answer_lines(labels["hierarchy"])
    return "\n".join(lines)


def _node_lines(nodes: dict[str, Any]) -> list[str]:
    rows = [(f"every node above the truth too ({nodes['nodes']})", nodes)]
    rows += [(f"the lowest of these ({nodes['leaves']['nodes']})", nodes["leaves"])]
    rows += [(f"depth {level['depth']} ({level['nodes']})", level) for level in nodes["levels"]]
    width = max(len(name) for name, _ in rows)
    keys = ("AP", "AP50", "AP75", "AR100")
    lines = ["along the tree, nothing counted that was not looked for:"]
    for name, entry in rows:
        values = ("       -" if entry[key] is None else f"{entry[key]:8.3f}" for key in keys)
        lines.append(f"  {name:{width}}" + "".join(values))
    return lines


def _answer_lines(scores: dict[str, Any]) -> list[str]:
    titles = {
        "precision": "hierarchical precision",
        "recall": "hierarchical recall",
        "F": "hierarchical F",
        "information": "bits told by right answers",
        "lca_depth": "depth of the lowest common ancestor",
        "lca_height": "its height",
    }
    lines = [f"  along the tree, {scores['answers']} answers:"]
    lines += [f"    {title:46}{scores[k]:8.3f}" for k, title in titles.items() if scores[k] is not None]
    for level in scores["levels"]:
        title = f"right at depth {level['depth']}, of {level['truths']} truths as deep"
        lines.append(f"    {title:46}{level['right']:8.3f}")
    return lines


def _batches(
    pictures: _Pictures, settings: EvalSettings, device: torch.device
) -> Iterator[tuple[Tensor, list[augment.Placement], np.ndarray]]:
    loader = DataLoader(
        pictures,
        batch_size=None,
        num_workers=settings.workers,
        worker_init_fn=_one_thread,
        collate_fn=_same,
    )
    for images, placements, places in loader:
        yield images.to(device).permute(0, 3, 1, 2).float().div_(255.0), placements, np.asarray(places)


def _same(item: Any) -> Any:
    return item


def _one_thread(number: int) -> None:
    torch.set_num_threads(1)


def _unletterboxed(boxes_xyxy: np.ndarray, placement: augment.Placement, size: tuple[int, int]) -> np.ndarray:
    """Boxes in 0..1 of the input -> pixels of the picture, cut to it."""
    left, top, right, bottom = placement.source
    shares = boxes_xyxy * np.array([right - left, bottom - top] * 2) + np.array([left, top] * 2)
    return np.clip(shares, 0, 1) * np.array([*size, *size])


def _detections(place: int, kinds: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Boxes:
    count = len(kinds)
    return Boxes(np.full(count, place), kinds, boxes, scores.astype(float), np.zeros(count, bool))
