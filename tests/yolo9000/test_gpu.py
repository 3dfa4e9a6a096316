"""What a GPU computes is what the processor computes; skipped where there is none."""

import numpy as np
import pytest
import torch

from tests.yolo9000.small import FORMS, small_detector
from tests.yolo9000.test_decision import CHOICES
from tests.yolo9000.trees import random_conditionals, random_tree
from yolo9000.decision import Decision
from yolo9000.detector import Detector
from yolo9000.options import Options

GPU = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
RULES = {
    **{rule: {"rule": rule} for rule in ("threshold", "darknet", "leaf", "greedy")},
    "level": {"rule": "level", "level": 1},
    "vocabulary": {"rule": "vocabulary", "vocabulary": ["k1", "k5", "k9"]},
    "hedge": {"rule": "hedge", "hedge_lambda": 2.0},
    "softened": {"rule": "threshold", "temperatures": [3.0, 0.5]},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_rule_answers_the_same(rule, missing):
    random = np.random.default_rng(3)
    for boxes in (0, 1, 200):
        tree = random_tree(random, 40)
        hierarchy, conditionals = random_conditionals(random, tree, boxes, missing)
        options = Options(**RULES[rule])
        here = Decision(tree, hierarchy, options)(conditionals)
        there = Decision(tree, hierarchy.to(GPU), options)(conditionals.to(GPU))
        assert torch.equal(here.nodes, there.nodes.cpu())
        path = there.log_path.cpu()
        torch.testing.assert_close(here.log_path, path, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "flat"])
@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "softened"])
def test_detections_are_the_same(form, choice):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    options = {"threshold": 0.3, **CHOICES[choice]}
    here, there = (
        Detector(small_detector(form), precision="float32", device=device)(image, **options)
        for device in ("cpu", GPU)
    )
    assert len(here) and here.nodes.tolist() == there.nodes.tolist()
    np.testing.assert_allclose(here.boxes_xyxy, there.boxes_xyxy, atol=0.05)
    np.testing.assert_allclose(here.scores, there.scores, atol=1e-3)
