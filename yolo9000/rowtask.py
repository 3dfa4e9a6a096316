"""The task "rows" of training: the class rows of the data's labels learn, and nothing else in the network.

For adding a class to a trained model from a few pictures of it and none of anything else. A picture teaches
its labels' own rows at the box with the largest objectness x Pr(label); siblings' rows, ancestors, features
and boxes stand still, so that answers change only where a descent gets to the label's parent.

Cross entropy alone would go on pushing until everything below the parent is called by the new name, because
no picture says otherwise. So Pr(label | parent) is drawn to `target`, from below and from above: as much
evidence as its own pictures need, and no more. And a row learns its weights on the features themselves only.
Its bias, and its weights on log-sum-exp channels (evidence for other classes, large on every picture), would
raise it on all pictures alike; they stay as `yolo9000 edit` began them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wordtree import WordTree
from yolo9000.batches import Batch
from yolo9000.classlogits import LazyLogits
from yolo9000.classrows import row_nodes, row_parameters
from yolo9000.errors import TrainingError
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.spec import LogSumExp, NetworkSpec, Route
from yolo9000.tasks import full_precision, image_nodes


def make_task(config: Any, net: Network, tree: WordTree | None) -> "RowTask":
    """The task of a training configuration; its [loss] table holds RowTask's settings."""
    if config.optimiser.weight_decay:
        raise TrainingError("the task rows needs optimiser.weight_decay = 0: it would move every row")
    try:
        return RowTask(net, tree, **config.loss)
    except TypeError as error:
        raise TrainingError(f"[loss]: {error}") from None


class RowTask:
    """Binary cross entropy of Pr(label | parent) with `target`, in 0.5..1, at each label's best box.

    Freezes the network but for its class rows when made. Raises TrainingError for a network that is no
    detector with class rows of its own over a tree.
    """

    def __init__(self, net: Network, tree: WordTree | None, *, target: float = 0.95):
        region = net.spec.region
        if tree is None or region is None or region.features is None:
            raise TrainingError(
                "the task rows needs a detector over a tree whose region layer holds class rows"
            )
        if not isinstance(target, float) or not 0.5 <= target < 1:
            raise TrainingError(f"loss.target is a probability from 0.5 to below 1, not {target!r}")
        self.tree, self.target = tree, target
        device = net.anchors.device
        self.hierarchy = Hierarchy(tree).to(device)
        sums = sums_of_evidence(net.spec, region.features)
        self.learns = ~torch.tensor(sums, device=device)  # (D,) the features that rows learn weights on
        self.place = {node: k for k, node in enumerate(row_nodes(net.spec))}
        net.freeze(len(net.spec) - 1)

    def loss(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        images, nodes = image_nodes(batch)
        if not len(nodes):  # crops of boxed pictures may have lost all their boxes
            return {"loss": row_parameters(net)[0].sum() * 0}
        siblings = [self._siblings(node) for node in nodes.tolist()]
        with torch.no_grad():
            out = full_precision(net.lazy(batch.images))
        with torch.autocast(batch.images.device.type, enabled=False):
            with torch.no_grad():
                objectness = out.boxes.unflatten(1, (out.anchors, 5))[:, :, 4].sigmoid()  # (N, A, H, W)
                probability = self._probability(out, images, nodes).expand(-1, out.anchors, -1)  # (L, A, H*W)
                best = (objectness.flatten(2)[images] * probability).flatten(1).argmax(1)  # (L,)
                H, W = objectness.shape[2:]
                anchor, row, column = best // (H * W), best // W % H, best % W
                features = out.at(images, row, column).to(out.weight.dtype)  # (L, D)
            margin = self._margins(net, features, anchor, nodes, siblings)
            loss = F.binary_cross_entropy_with_logits(margin, torch.full_like(margin, self.target))
        return {
            "loss": loss,
            "avg_conditional": margin.detach().sigmoid().mean(),
            "avg_probability": probability.flatten(1).gather(1, best[:, None]).mean(),
            "avg_objectness": objectness[images, anchor, row, column].mean(),
        }

    def _siblings(self, node: int) -> list[int]:
        """The rows of a label's siblings."""
        name = self.tree.ids[node]
        if node not in self.place:
            raise TrainingError(
                f"the model has no class row for {name}; give it one: yolo9000 edit --row {name}"
            )
        found = self._rivals(node)
        if not found:
            above = next((k for k in reversed(self.tree.path_nodes(node)) if self._rivals(k)), None)
            taught = (
                f", or as pictures of {self.tree.ids[above]}, which can learn" if above is not None else ""
            )
            raise TrainingError(
                f"{name} is the only child of its parent that the model knows: it is the answer wherever its "
                f"parent is, and nothing is left to learn. Pack the data without its pictures{taught}; or "
                "train every row, with model.start in a configuration of the task detect (docs/training.md)"
            )
        return found

    def _rivals(self, node: int) -> list[int]:
        """The rows of its siblings, as far as they have one."""
        return [self.place[k] for k in self.tree.siblings(node) if k in self.place]

    def _probability(self, out: LazyOutput, images: Tensor, nodes: Tensor) -> Tensor:
        """Pr(label) at every box of its picture: (L, A or 1, H*W) for labels (L,) of images (L,)."""
        logits = LazyLogits(out)
        few = self.hierarchy.restrict(nodes, logits.stored, images)
        return few.log_probabilities(logits.everywhere(few.owner, few.columns)).exp()

    def _margins(
        self, net: Network, features: Tensor, anchor: Tensor, nodes: Tensor, siblings: list[list[int]]
    ) -> Tensor:
        """(L,) logit of Pr(label | parent): its own logit less the log-sum-exp of its siblings'. Only the own
        row's weights on features that are no sums of evidence have a gradient.
        """
        weight, bias = net.layers[-1].rows.weight, net.layers[-1].rows.bias.detach()
        margins = []
        for k, (a, node) in enumerate(zip(anchor.tolist(), nodes.tolist(), strict=True)):
            a, own, x = a if len(weight) > 1 else 0, self.place[node], features[k]
            row = torch.where(self.learns, weight[a, own], weight[a, own].detach())
            others = F.linear(x, weight[a, siblings[k]].detach(), bias[a, siblings[k]])
            margins.append(row @ x + bias[a, own] - others.logsumexp(0))
        return torch.stack(margins)


def sums_of_evidence(spec: NetworkSpec, layer: int) -> list[bool]:
    """For each channel that layer `layer` gives: whether it comes from a log-sum-exp layer."""
    match spec.layers[layer]:
        case Route(layers=sources):
            return [sums for source in sources for sums in sums_of_evidence(spec, source)]
        case LogSumExp(sets=sets):
            return [True] * len(sets)
    return [False] * spec.outputs[layer].channels
