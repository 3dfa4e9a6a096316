"""Networks over trees that are edited, and what of them must stay."""

import torch

from tests.yolo9000.small import ANCHORS, STORED, TREE, randomise, small_classifier, small_detector
from wordtree import WordTree
from yolo9000.classrows import row_nodes, row_parameters, view_rows
from yolo9000.hierarchy import Hierarchy
from yolo9000.layers import LogSumExp, Region, Route
from yolo9000.network import Network
from yolo9000.spec import NetworkSpec

FORMS = ("darknet", "rows", "shared", "stored", "sums", "classifier")


def make(form: str) -> Network:
    """Every form of a network over TREE that holds class rows."""
    if form == "classifier":
        return small_classifier(tree=True)
    if form != "sums":
        return small_detector(form)
    spec = small_detector("stored").spec
    *layers, region = spec.layers
    features = region.features
    layers += [Route((features,)), LogSumExp(3, ((0, 1), (1, 2))), Route((features, len(layers) + 1))]
    layers.append(
        Region(ANCHORS, len(TREE), boxes=region.boxes, features=features + 4, stored=STORED, shared_rows=True)
    )
    return randomise(Network(NetworkSpec(64, 64, tuple(layers)), TREE), 0)


def rows_by_id(net: Network) -> dict[str, list[torch.Tensor]]:
    """Each node's weights and biases of all sets, straight out of the parameters."""
    weight, bias = (view_rows(net.spec, p.data) for p in row_parameters(net))
    nodes = row_nodes(net.spec)
    return {net.tree.ids[n]: [weight[:, k], bias[:, k]] for k, n in enumerate(nodes)}


def log_probabilities(net: Network, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Log conditionals and log Pr of every node at every box, (M, C), and the box channels."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        if net.spec.region is None:
            logits, boxes = net.logits(images), None
        else:
            raw = net(images).unflatten(1, (len(ANCHORS), -1))  # (N, A*(5+C), H, W) -> (N, A, 5+C, H, W)
            boxes, logits = raw[:, :, :5], raw[:, :, 5:].movedim(2, -1).flatten(0, 3)
        tree = Hierarchy(net.tree)
        logs = tree.log_conditionals(logits.double())
        return logs, tree.log_probabilities(logs), boxes


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to rounding; -inf equals -inf."""
    return torch.allclose(a.exp(), b.exp(), rtol=1e-5, atol=1e-9)


def over(tree: WordTree, stored: list[int] | None = None) -> Network:
    """A detector over a tree with random rows, for some nodes or all."""
    spec = small_detector("shared").spec.to_dict()
    spec["layers"][-1] |= {"classes": len(tree), "stored": stored}
    return randomise(Network(NetworkSpec.from_dict(spec), tree), 0)
