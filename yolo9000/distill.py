"""What a flat classifier knows, carried into a tree: the task "distill" of training.

An inner node's probability is the sum over the classes below it, so every picture, labelled or not, teaches
every node on the classes' paths. The teacher judges the very features that the student's class rows are
applied to (the trunk's, averaged over windows), so nothing runs twice: its last layer on one side, the
student's class layers on the other. For networks whose class features are the frozen trunk's, averaged, plus
a learnt difference: presets.tiny9000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wordtree import TreeError, WordTree
from yolo9000.config import within
from yolo9000.errors import ModelError, TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy, soft_tree_cross_entropy, tree_cross_entropy
from yolo9000.network import Network
from yolo9000.settings import keywords
from yolo9000.spec import Add, AveragePool, Convolution, Gate, GlobalAveragePool, LogSumExp, RoiAverage

if TYPE_CHECKING:
    from yolo9000.batches import Batch

# So many times more costs a gate wrong on what the teacher judges: a tenth of the pictures then weighs half.
_RARE = 9.0


def class_labels(name: str) -> list[str]:
    """WordNet ids in the order of a classifier's classes: a table of wordtree.class_map, or a file of ids."""
    path = Path(name)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
        from wordtree import class_map

        return [wnid for _, wnid in class_map(name)]
    except (OSError, UnicodeDecodeError, TreeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"labels {name}: neither a readable file of ids nor a table of wordtree: {error}"
        ) from None


def known_below(
    tree: WordTree, known: Sequence[int], stored: Sequence[int] | None = None
) -> dict[int, list[int]]:
    """For every inner node at or above one of `known`, ascending: the positions in `known` at or below it.

    stored: leave out nodes that are not among these.
    """
    kept = None if stored is None else set(stored)
    below: dict[int, list[int]] = {}
    for k, node in enumerate(known):
        while node >= 0:
            if tree.child_group[node] >= 0 and (kept is None or node in kept):
                below.setdefault(int(node), []).append(k)
            node = int(tree.parents[node])
    return dict(sorted(below.items()))


def last_rows(classifier: Network) -> tuple[Tensor, Tensor]:
    """The last convolution of a classifier as a matrix (classes, D) and its biases (classes,)."""
    spec = classifier.spec
    if spec.softmax is None or len(spec) < 3 or not isinstance(spec.layers[-2], GlobalAveragePool):
        raise ModelError(
            "a teacher is a classifier that ends in convolution, global average pool and softmax"
        )
    conv = classifier.layers[-3].conv
    if conv.kernel_size != (1, 1) or conv.bias is None:
        raise ModelError("the teacher's last convolution must be 1x1, without batch norm")
    return conv.weight.detach().flatten(1), conv.bias.detach()  # (C, D, 1, 1) -> (C, D)


def copy_class_rows(
    classifier: Network, known: Sequence[int], net: Network, tree: WordTree, keep: bool = False
) -> int:
    """Makes the tree say what the flat classifier says: class rows of all nodes at or above its classes.

    known: the node of each of its classes. keep: the rows of other nodes stay, instead of starting with no
    evidence at all. Among leaf siblings the flat rows are the tree's: they are copied.
    An inner node's row picks the log of the sum of exponentials below it, where the network has such channels
    (presets.tiny9000). The classifier's D channels must be the first D that the class rows are applied to.
    Returns the number of rows set. Raises ModelError where the two do not fit.
    """
    weight, bias = last_rows(classifier)
    rows = getattr(net.layers[-1], "rows", None)
    if len(known) != len(weight):
        raise ModelError(f"the classifier has {len(weight)} classes, {len(known)} nodes are given for them")
    if rows is None or rows.weight.shape[-1] < weight.shape[1]:
        raise ModelError("class rows are copied to a region layer that owns rows over the trunk's channels")
    repeated = {node for node, count in Counter(known).items() if count > 1}
    if repeated:
        raise ModelError(f"the node {tree.ids[min(repeated)]} stands for 2 or more of the classes")
    stored = net.spec.region.nodes
    place = {node: k for k, node in enumerate(stored)}
    sums = [i for i, layer in enumerate(net.spec) if isinstance(layer, LogSumExp)]
    inner = known_below(tree, known, stored) if sums else {}
    if any(net.spec.layers[i].sets != tuple(map(tuple, inner.values())) for i in sums):
        raise ModelError("the network's sums of evidence were made for other known classes")
    with torch.no_grad():
        mine = [place[node] for node in {*known, *inner} if node in place] if keep else slice(None)
        rows.weight[:, mine] = 0
        rows.bias[:, mine] = 0
        for k, node in enumerate(known):
            if node in place and node not in inner:
                rows.weight[:, place[node], : weight.shape[1]] = weight[k]
                rows.bias[:, place[node]] = bias[k]
        for i in sums:
            net.layers[i].weight.zero_()
            net.layers[i].weight[:, : weight.shape[1]] = weight
            net.layers[i].bias.copy_(bias)
        for channel, node in enumerate(inner):
            rows.weight[:, place[node], net.spec.outputs[net.feature_layer].channels + channel] = 1
    return len({node for node in known if node in place} | set(inner))


class Teacher(nn.Module):
    """A classifier's last layer and the sums of its classes over a tree's stored nodes."""

    def __init__(self, classifier: Network, labels: Sequence[str], tree: WordTree, stored: Sequence[int]):
        """stored: the nodes, K of them, that probabilities are given for; closed under parents."""
        super().__init__()
        weight, bias = last_rows(classifier)
        if len(labels) != len(weight):
            raise TrainingError(f"the teacher has {len(weight)} classes, its list of labels {len(labels)}")
        place = {node: k for k, node in enumerate(stored)}
        sums = torch.zeros(len(weight), len(place))
        for k, label in enumerate(labels):
            try:
                node = tree.index(label)
            except TreeError:
                continue  # a class outside the tree has no opinion to give
            while node >= 0:
                if node in place:
                    sums[k, place[node]] = 1
                node = int(tree.parents[node])
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.register_buffer("bias", bias.clone(), persistent=False)
        self.register_buffer("sums", sums, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """features (M, D) -> Pr(node) (M, K)."""
        return F.linear(features, self.weight, self.bias).softmax(-1) @ self.sums


def make_task(config: Any, net: Network, tree: WordTree | None) -> DistillTask:
    """The task of a training configuration; its [distill] table holds DistillTask's settings."""
    if tree is None or net.spec.region is None:
        raise TrainingError("the task distill needs a detector over a tree")
    settings = dict(config.distill)
    try:
        names, labels = settings.pop("classifier"), settings.pop("labels")
    except KeyError as error:
        raise TrainingError(
            f"distill.{error.args[0]} is missing; a teacher is 'x.cfg x.weights' and its labels"
        ) from None
    from yolo9000.start import load_any

    for key, value in (("classifier", names), ("labels", labels)):
        if not isinstance(value, str):
            raise TrainingError(f"distill.{key} is text, not {value!r}")
    parts = settings.pop("parts", None)
    if parts is not None:
        parts = _positions(parts, [part.name for part in config.data])
    settings = keywords(DistillTask, settings, "distill")
    _check(settings, config.loss)
    settings |= {"parts": parts, "loss": config.loss}
    return DistillTask(net, tree, load_any(names), class_labels(labels), **settings)


def _check(settings: dict[str, Any], loss: dict[str, Any]) -> None:
    """Raises TrainingError for values of [distill] that nothing can be taught with, and for settings that
    with or without boxes do nothing."""
    for key, value in settings.items():
        if key.endswith("_weight"):
            within(f"distill.{key}", value, 0, 1e9)
    for count in (settings.get("per_picture", 1), *settings.get("windows", ())):
        if count < 1:
            raise TrainingError(f"distill.per_picture and windows are whole numbers from 1; one is {count}")
    idle = [key for key in ("windows", "label_weight") if key in settings] if settings.get("boxes") else []
    if idle:
        raise TrainingError(f"distill.{idle[0]} does nothing with distill.boxes = true; leave it out")
    if loss and not settings.get("boxes"):
        raise TrainingError(
            f"loss.{next(iter(loss))} is RegionLoss's, which the task distill has only with "
            "distill.boxes = true"
        )


def _positions(wanted: Any, names: Sequence[str]) -> list[int]:
    """The positions of data parts given by their names."""
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not (isinstance(wanted, list | tuple) and wanted and all(isinstance(name, str) for name in wanted)):
        raise TrainingError(f"distill.parts is a list of one or more names of data parts, not {wanted!r}")
    missing = [name for name in wanted if name not in names]
    if missing:
        known = ", ".join(name for name in names if name) or "none has a name"
        raise TrainingError(f"distill.parts: no data part is called {missing[0]!r}; there are: {known}")
    return [names.index(name) for name in wanted]


class DistillTask:
    """Tree cross entropy with the teacher's opinion of windows of the picture, and with known labels.

    windows: sides, in cells, of the windows whose averages are judged, beside the whole picture; per_picture:
    how many of each. label_weight: of the cross entropy with the labels of whole pictures. (With `boxes` that
    many cells are judged as they are, and labels are RegionLoss's.) parts: positions
    of the parts of the data that the teacher judges, None = all. trust: it is believed on a labelled picture
    as far as it believes the label itself (it may not know such pictures). Of nodes that it has no class for
    it has no opinion: conditionals are compared among the siblings that it knows.
    boxes: train the detector by RegionLoss (settings `loss`) in the same step, with the teacher's part
    weighted by teacher_weight and judged on the final features, learnt difference included. gate_weight: of
    two experts (yolo9000.twin) the new one is to be heard on pictures that the teacher does not judge, the
    old one on those of `parts`; the weight of the gate's cross entropy with that.
    """

    def __init__(
        self,
        net: Network,
        tree: WordTree,
        classifier: Network,
        labels: Sequence[str],
        *,
        loss: dict[str, Any] | None = None,
        windows: Sequence[int] = (5, 7, 9),
        per_picture: int = 4,
        label_weight: float = 1.0,
        teacher_weight: float = 1.0,
        trust: bool = True,
        boxes: bool = False,
        parts: Sequence[int] | None = None,
        gate_weight: float = 0.0,
    ):
        self.windows, self.per_picture, self.trust = tuple(windows), per_picture, trust
        self.label_weight, self.teacher_weight = label_weight, teacher_weight
        self.averaged, added = class_branch(net)
        self.joined = net.feature_layer
        more = self.joined != added
        gated = isinstance(net.spec.layers[added], Gate)
        if (more and added not in net.spec.inputs(self.joined)[:1]) or ((more or gated) and not boxes):
            raise TrainingError(
                "the task distill needs class rows on an average plus a difference; with more channels after "
                "these, or two experts, only together with boxes"
            )
        self.gate, self.gate_weight = net.spec.inputs(added)[-1], gate_weight
        if gate_weight and (not gated or parts is None):
            raise TrainingError("distill.gate_weight needs a network with a twin, and distill.parts")
        if not net.spec.region.shared_rows:
            raise TrainingError("the task distill needs class rows that all anchors share")
        stored = net.spec.region.nodes
        device = net.anchors.device
        self.teacher = Teacher(classifier, labels, tree, stored).to(device)
        self.hierarchy = Hierarchy(stored_tree(tree, stored)).to(device)
        self.taught = self.teacher.sums.any(0).nonzero()[:, 0]  # (K',) the rows that the teacher knows
        known = [stored[k] for k in self.taught.tolist()]
        self.taught_hierarchy = Hierarchy(stored_tree(tree, known)).to(device)
        self.parts = None if parts is None else torch.tensor(sorted(parts))
        place = torch.full((len(tree),), -1, dtype=torch.int64)
        place[list(stored)] = torch.arange(len(stored))
        self.place = place.to(device)  # (C,) the row of each node, -1 without one
        self.region = None
        if boxes:
            from yolo9000.tasks import DetectTask

            self.region = DetectTask(net, tree, loss or {}).region_loss

    def loss(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        region = net.spec.region
        if self.region is None:
            with torch.no_grad():
                trunk = net.outputs(batch.images, (net.spec.inputs(self.averaged)[0],))
            maps = next(iter(trunk.values())).float()
            given = self._windows(maps)  # (N, P, D): the whole picture first
            blank = given.new_zeros(1, 5 * len(region.anchors), 1, given.shape[0] * given.shape[1])
            line = given.flatten(0, 1).T[None, :, None]  # (N, P, D) -> (1, D, 1, N*P)
            return self._judge(batch, given, self._logits(net.lazy_from(blank, line), given.shape[:2]), {})
        found = net.outputs(batch.images, (region.boxes, self.joined, self.averaged, self.gate))
        out = net.lazy_from(found[region.boxes].float(), found[self.joined].float())
        with torch.autocast(batch.images.device.type, enabled=False):
            parts = self.region(out, batch.targets, images_seen=batch.seen)
            if self.gate_weight:
                gate = found[self.gate].float()  # (N, 1)
                judged = torch.isin(batch.parts, self.parts).to(gate)[:, None]
                wanted, weight = 1 - judged, 1 + (_RARE - 1) * judged
                parts["gate"] = F.binary_cross_entropy_with_logits(gate, wanted, weight)
                parts["loss"] = parts["loss"] + self.gate_weight * parts["gate"]
            seen, joined = found[self.averaged].float().flatten(2), out.features.flatten(2)
            cells = torch.randint(seen.shape[2], (len(seen), 1, self.per_picture), device=seen.device)
            seen, joined = (
                t.gather(2, cells.expand(-1, t.shape[1], -1)).transpose(1, 2) for t in (seen, joined)
            )
            line = joined.flatten(0, 1).T[None, :, None]  # (N, P, D) -> (1, D, 1, N*P)
            return self._judge(
                batch, seen, self._logits(net.lazy_from(out.boxes, line), seen.shape[:2]), parts
            )

    def _logits(self, line: LazyOutput, shape: tuple[int, int]) -> Tensor:
        """All stored rows' logits of a one-picture, one-row output: (1, D, 1, N*P) -> (N, P, K)."""
        features = line.expanded().features[0, :, 0].T  # (N*P, D)
        return F.linear(features, line.weight[0], line.bias[0]).unflatten(0, shape)

    def _windows(self, maps: Tensor) -> Tensor:
        """maps (N, D, H, W) -> (N, P, D): the picture's average, then random windows' averages."""
        found = [maps.mean((2, 3))[:, None]]
        for size in self.windows:
            if size < min(maps.shape[2:]):
                pooled = F.avg_pool2d(maps, size, 1).flatten(2)
                cells = torch.randint(pooled.shape[2], (len(maps), 1, self.per_picture), device=maps.device)
                found.append(pooled.gather(2, cells.expand(-1, maps.shape[1], -1)).transpose(1, 2))
        return torch.cat(found, 1)

    def _judge(
        self, batch: Batch, seen: Tensor, logits: Tensor, parts: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The student's logits (N, P, K) against the teacher's opinion of the same windows, (N, P, D)."""
        from yolo9000.tasks import image_nodes

        rows, nodes = image_nodes(batch)
        nodes = self.place[nodes]
        rows, nodes = rows[nodes >= 0], nodes[nodes >= 0]
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            opinion = self.teacher(seen)  # (N, P, K)
            each = self._divergence(logits[..., self.taught], opinion[..., self.taught]).mean(1)
            if self.parts is not None:
                each = each * torch.isin(batch.parts, self.parts).to(each)
            if self.trust and len(rows):
                belief = opinion.amax(1)[rows, nodes]  # a label counts as believed if any window shows it
                each = each * torch.ones_like(each).scatter_reduce(0, rows, belief, "amin")
            taught = each.mean()
            parts = dict(parts, teacher=taught)
            total = parts.get("loss", 0) + self.teacher_weight * taught
            if self.region is None and self.label_weight and len(rows):
                known = tree_cross_entropy(self.hierarchy, logits[rows, 0], nodes)
                count = torch.bincount(rows, minlength=len(logits)).clamp(min=1)  # labels of each picture
                parts["labels"] = (known / count[rows]).sum() / len(logits)
                total = total + self.label_weight * parts["labels"]
            parts["loss"] = total
        return parts

    def _divergence(self, logits: Tensor, opinion: Tensor) -> Tensor:
        """Of the teacher's conditionals from the student's, among the nodes that the teacher knows, each
        group weighted with Pr(parent); 0 where both agree. (N, P, K') twice -> (N, P).
        """
        tree = self.taught_hierarchy
        least = -(opinion * tree.log_conditionals(opinion.clamp_min(1e-30).log())).sum(-1)
        return soft_tree_cross_entropy(tree, logits, opinion) - least


def class_branch(net: Network) -> tuple[int, int]:
    """The layers (averaged, joined): the average pool of class features that the trunk has, and the addition
    after it; or, where that is one of two experts (yolo9000.twin), the gate between them.
    """
    for i, layer in enumerate(net.spec):
        if isinstance(layer, AveragePool | RoiAverage):
            for j in range(i + 1, len(net.spec)):
                if isinstance(net.spec.layers[j], Add) and i in net.spec.inputs(j):
                    gates = [
                        k for k, gate in enumerate(net.spec) if isinstance(gate, Gate) and gate.first == j
                    ]
                    return i, next(iter(gates), j)
    raise TrainingError("the task distill needs class features that are an average plus a difference")


def difference_branch(net: Network) -> int:
    """The convolution that class features add to the average that the trunk has. Raises ModelError for
    another kind of network."""
    for i, layer in enumerate(net.spec):
        if isinstance(layer, Add):
            first, second = net.spec.inputs(i)
            for averaged, branch in ((first, second), (second, first)):
                windows = isinstance(net.spec.layers[averaged], AveragePool | RoiAverage)
                if windows and isinstance(net.spec.layers[branch], Convolution):
                    return branch
    raise ModelError("only a detector of the preset tiny9000 has class features with a learnt difference")


def stored_tree(tree: WordTree, stored: Sequence[int]) -> WordTree:
    """The tree of the stored nodes alone, in their order; they must be closed under parents."""
    stored = np.asarray(list(stored))
    place = np.full(len(tree) + 1, -1)  # one more: the parent of roots, -1, stays -1
    place[stored] = np.arange(len(stored))
    parents = place[tree.parents[stored]]
    if ((tree.parents[stored] >= 0) & (parents < 0)).any():
        raise TrainingError("the stored nodes do not include all their ancestors")
    return WordTree([tree.ids[k] for k in stored], parents)
