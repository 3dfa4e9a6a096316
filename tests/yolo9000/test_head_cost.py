"""The class loss costs what its labels cost: a training step at 9,418 classes beside one at 20, in
operations, which unlike seconds are the same on every machine. Seconds and memory: scripts/bench_head.py."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from wordtree import WordTree
from yolo9000.loss import RegionLoss
from yolo9000.network import Network
from yolo9000.presets import yolo9000


def step_flops(tree: WordTree | None, lazy: bool) -> int:
    """Multiplications and additions of forward, loss and backward on one boxed and four labelled pictures."""
    torch.manual_seed(0)
    classes = 20 if tree is None else len(tree)
    # Half the trunk's width is a quarter of its work, but still half of the class rows': harder than whole.
    net = Network(yolo9000(classes=classes, image_size=224, slim=0.5), tree).train()
    loss = RegionLoss(net.anchors, **({"classes": 20} if tree is None else {"tree": tree}))
    labels = torch.randint(classes, (4,))
    boxes = {"boxes": torch.rand(7, 4) * 0.5 + 0.2, "labels": torch.randint(classes, (7,))}
    targets = [boxes, *({"image_labels": label[None]} for label in labels)]
    images = torch.rand(5, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        loss(net.lazy(images) if lazy else net(images), targets)["loss"].backward()
    return counter.get_total_flops()


def test_a_tree_of_9418_classes_costs_a_step_hardly_more_operations_than_20_classes() -> None:
    tree = WordTree.default()
    few, many, dense = step_flops(None, True), step_flops(tree, True), step_flops(tree, False)
    assert many <= 1.10 * few
    assert dense > 1.3 * few
