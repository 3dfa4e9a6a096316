"""Scores judge what answers say: by a calibrated model's temperatures they are those of the model whose class
rows were divided by them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep import Sample, Store, StoreWriter
from tests.yolo9000 import small, toys
from tests.yolo9000.test_evaluate import Oracle, samples
from tests.yolo9000.test_propose import network
from yolo9000.detector import Detector
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.head import LazyOutput
from yolo9000.propose import best_boxes

TEMPERATURES = [3.0, 0.4]
NODES = EvalSettings(workers=0, resamples=0, precision="float32", nodes=True)


def of_nodes(depths: np.ndarray) -> torch.Tensor:
    """Each node's temperature (n,), 1 beyond the list."""
    given = [*TEMPERATURES, *[1.0] * len(depths)]
    return torch.tensor([given[depth] for depth in depths])


class Unsure(Oracle):
    """An oracle that mumbles; class rows are divided by `divisor`; of either form of rows."""

    def __init__(self, answers: list[Sample], divisor: torch.Tensor, sets: int):
        super().__init__(answers, certainty=1.0)
        self.divisor, self.sets = divisor, sets
        self.random = torch.Generator().manual_seed(4)

    @property
    def anchors(self) -> torch.Tensor:
        return super().anchors.repeat(self.sets, 1)

    def lazy(self, images: torch.Tensor) -> LazyOutput:
        out = super().lazy(images)
        features = out.features + torch.randn(out.features.shape, generator=self.random)
        weight = out.weight / self.divisor[:, None]
        if self.sets > 1:  # a second anchor that finds nothing
            boxes = torch.cat([out.boxes, torch.full_like(out.boxes, -20)], 1)
            return LazyOutput(boxes, features, weight.repeat(2, 1, 1), out.bias.repeat(2, 1), None, 6, 2)
        return dataclasses.replace(out, features=features, weight=weight)


@pytest.mark.parametrize("sets", [1, 2])
def test_precision_along_the_tree_is_of_softened_scores(sets: int, tmp_path: Path) -> None:
    store = Store(toys.pack_squares(tmp_path / "v.h5", boxed=24, labelled=6, size=48))
    found = []
    for divisor, given in (
        (of_nodes(toys.TREE.depths), {}),
        (torch.ones(6), {"temperatures": TEMPERATURES}),
        (torch.ones(6), {}),
    ):
        net = Unsure(samples(store), divisor, sets)
        net.defaults = given
        found.append(evaluate(net, [store], NODES))
    divided, softened, raw = found
    assert softened["boxes"] == divided["boxes"]
    assert softened["labels"] == divided["labels"]
    assert softened["boxes"]["nodes"]["AP"] != raw["boxes"]["nodes"]["AP"]


def test_a_classifiers_first_is_of_softened_scores(tmp_path: Path) -> None:
    """Pr(cat) is .40 and Pr(thing) .38; softened, .44 and .46."""
    net, tree = small.small_classifier(tree=True), small.TREE
    conv = net.layers[-3].conv
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([1.5, -9, 1, 0, 0.6, 0, 0, 0, 0, 0]))
    with StoreWriter(tmp_path / "x.h5", tree) as writer:
        for k, name in enumerate(("cat", "thing", "thing", "thing")):
            one = toys.square_sample(k, boxed=False)
            writer.add(dataclasses.replace(one, image_labels=np.array([tree.index(name)])))
    store = Store(tmp_path / "x.h5")
    raw = evaluate(net, [store], NODES)["labels"]
    net.defaults = {"temperatures": TEMPERATURES}
    softened = evaluate(net, [store], NODES)["labels"]
    with torch.no_grad():
        conv.bias.div_(of_nodes(tree.depths))
    net.defaults = {}
    divided = evaluate(net, [store], NODES)["labels"]
    assert softened == divided
    assert (raw["top1"], softened["top1"]) == (0.25, 0.75)


def test_boxes_are_proposed_by_softened_scores() -> None:
    images = torch.rand(16, 3, 64, 96, generator=torch.Generator().manual_seed(6))
    labels = [[2], [5, 3], [4], [3, 2]] * 4

    def proposed(divide: bool, **defaults) -> list:
        net = network()
        net.defaults = defaults
        conv, divisor = net.layers[-2].conv, of_nodes(toys.TREE.depths)
        with torch.no_grad():
            conv.bias.view(2, 11)[:, 5:].mul_(4)
            conv.weight.view(2, 11, -1)[:, 5:].mul_(40)
            if divide:
                conv.bias.view(2, 11)[:, 5:].div_(divisor)
                conv.weight.view(2, 11, -1)[:, 5:].div_(divisor[:, None])
        return best_boxes(Detector(net, precision="float32"), images, labels, 0.1)

    softened = proposed(False, temperatures=TEMPERATURES)
    torch.testing.assert_close(softened, proposed(True))
    assert not all(map(torch.equal, softened, proposed(False)))
