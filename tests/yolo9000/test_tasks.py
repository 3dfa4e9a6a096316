"""The task classify, against its formula picture by picture, verified negatives included."""

import math

import pytest
import torch

from tests.yolo9000.small import randomise, small_classifier, small_detector
from wordtree import WordTree
from yolo9000.batches import Batch
from yolo9000.errors import ModelError, TrainingError
from yolo9000.hierarchy import Hierarchy
from yolo9000.network import Network
from yolo9000.presets import darknet19
from yolo9000.spec import NetworkSpec, Softmax
from yolo9000.tasks import ClassifyTask, DetectTask

# 0 animal (2 dog (4 husky, 5 poodle), 3 cat), 1 thing
TREE = WordTree(["animal", "thing", "dog", "cat", "husky", "poodle"], [-1, -1, 0, 0, 2, 2])
ANIMAL, THING, DOG, CAT, HUSKY, POODLE = range(6)


class Fixed(Network):
    """A classifier that says the same logits (N, n) of any pictures."""

    def __init__(self, tree: WordTree, logits: torch.Tensor):
        super().__init__(darknet19(classes=len(tree), image_size=32, slim=0.03), tree)
        self.said = torch.nn.Parameter(logits)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.said


def task_of(tree: WordTree, *targets: dict, seed: int = 0) -> tuple[ClassifyTask, Network, Batch]:
    generator = torch.Generator().manual_seed(seed)
    net = Fixed(tree, torch.randn(len(targets), len(tree), generator=generator))
    types = {"boxes": torch.float32}
    tensors = [{k: torch.tensor(v, dtype=types.get(k, torch.long)) for k, v in t.items()} for t in targets]
    empty = torch.zeros(len(targets), 3, 32, 32)
    batch = Batch(0, empty, tensors, ["p"] * len(targets), torch.zeros(len(targets), dtype=torch.long))
    return ClassifyTask(net, tree), net, batch


def probability(tree: WordTree, logits: torch.Tensor, node: int) -> float:
    """Pr(node), group by group."""
    total = 1.0
    for step in tree.path_nodes(node):
        group = [k for k in range(len(tree)) if tree.parents[k] == tree.parents[step]]
        total *= float(logits[step].exp() / sum(logits[k].exp() for k in group))
    return total


def test_boxes_whose_names_nobody_vouches_for_name_no_picture() -> None:
    boxes = {"boxes": [[0.5, 0.5, 0.2, 0.2]] * 2, "labels": [CAT, HUSKY]}
    task, net, batch = task_of(TREE, boxes | {"named": [0, 0]}, boxes | {"named": [1, 0]}, boxes)
    for target in batch.targets[:2]:
        target["named"] = target["named"].bool()
    loss = task.loss(net, batch)["loss"]
    said = net.said.detach()
    cat, both = (math.log(probability(TREE, said[k], CAT)) for k in (1, 2))
    both = (both + math.log(probability(TREE, said[2], HUSKY))) / 2
    assert loss.item() == pytest.approx(-(cat + both) / 3, rel=1e-5)
    loss.backward()
    assert not net.said.grad[0].any() and net.said.grad[1:].any()


@pytest.mark.parametrize("tree", [TREE, WordTree.flat(list("abcdef"))])
def test_equals_the_formula(tree: WordTree) -> None:
    targets = (
        {"image_labels": [HUSKY, CAT], "negative_labels": [POODLE, THING]},
        {"image_labels": [], "negative_labels": [DOG]},  # nothing but what is not there
        {"image_labels": [THING]},
        {"boxes": [[0.5, 0.5, 0.2, 0.2]], "labels": [CAT], "negative_labels": [HUSKY]},
        {"image_labels": []},
    )
    task, net, batch = task_of(tree, *targets)
    losses = task.loss(net, batch)
    wanted = {"positive": 0.0, "negative": 0.0}
    for row, target in enumerate(targets):
        labels, absent = target.get("labels", target.get("image_labels")), target.get("negative_labels", [])
        pr = [probability(tree, net.said[row].detach(), k) for k in range(len(tree))]
        wanted["positive"] -= sum(math.log(pr[k]) for k in labels) / max(1, len(labels))
        wanted["negative"] -= sum(math.log(1 - pr[k]) for k in absent) / max(1, len(absent))
    assert losses["negative"].item() == pytest.approx(wanted["negative"] / 5, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(sum(wanted.values()) / 5, rel=1e-4)


@pytest.mark.parametrize("tree", [TREE, None])
def test_answers_training_and_scores_have_the_same_temperature(tree: WordTree | None) -> None:
    layers = small_classifier().spec.layers[:-1]
    spec = NetworkSpec(64, 64, (*layers, Softmax(temperature=3.0)))
    net = randomise(Network(spec, tree), 0)
    batch = Batch(
        0, torch.rand(1, 3, 64, 64), [{"image_labels": torch.tensor([HUSKY])}], ["p"], torch.zeros(1)
    )
    answer = net(batch.images)[0]
    wanted = answer[[ANIMAL, DOG, HUSKY]].prod() if tree else answer[HUSKY]
    loss = ClassifyTask(net, tree).loss(net, batch)["loss"]
    torch.testing.assert_close(loss, -wanted.log())
    scored = Hierarchy(tree or WordTree.flat(list("abcdef"))).log_conditionals(net.logits(batch.images))
    torch.testing.assert_close(scored[0].exp(), answer)  # as evaluate's Naming has it


def test_groups_of_a_softmax_are_not_learnt() -> None:
    spec = NetworkSpec(64, 64, (*small_classifier().spec.layers[:-1], Softmax(groups=2)))
    with pytest.raises(ModelError, match="2 equal groups: set groups=1"):
        ClassifyTask(Network(spec), None)
    ClassifyTask(Network(spec, TREE), TREE)  # whose sibling groups take their place


def test_verified_negatives_are_pushed_down_and_nothing_else_of_a_picture_without_labels() -> None:
    task, net, batch = task_of(TREE, {"image_labels": [], "negative_labels": [DOG]}, {"image_labels": [CAT]})
    task.loss(net, batch)["loss"].backward()
    before, grad = net.said.detach(), net.said.grad
    after = before - 0.1 * grad
    assert probability(TREE, after[0], DOG) < probability(TREE, before[0], DOG)
    assert not grad[0, [HUSKY, POODLE]].any(), "which breed it is not, nobody said"
    assert probability(TREE, after[1], CAT) > probability(TREE, before[1], CAT)


def test_of_boxes_without_names_verified_negatives_still_count() -> None:
    """As of a picture that has no label at all."""
    boxed = {"boxes": [[0.5, 0.5, 0.2, 0.2]], "labels": [CAT], "named": [0], "shown_labels": [CAT]}
    losses = []
    for target in (boxed, {"image_labels": []}):
        task, net, batch = task_of(TREE, target | {"negative_labels": [DOG]})
        if "named" in target:
            batch.targets[0]["named"] = batch.targets[0]["named"].bool()
        losses.append(task.loss(net, batch)["loss"])
    assert losses[0] == losses[1] > 0


def test_a_contradicted_negative_says_nothing() -> None:
    plain = {"image_labels": [HUSKY]}
    for negative, counts in ((ANIMAL, False), (DOG, False), (HUSKY, False), (POODLE, True), (CAT, True)):
        losses = [
            task.loss(net, batch)["loss"].item()
            for task, net, batch in (
                task_of(TREE, plain),
                task_of(TREE, plain | {"negative_labels": [negative]}),
            )
        ]
        assert (losses[1] > losses[0]) == counts


def test_certain_of_what_is_not_there_is_still_finite() -> None:
    task, net, batch = task_of(TREE, {"image_labels": [], "negative_labels": [CAT]})
    with torch.no_grad():
        net.said[0, [ANIMAL, CAT]] = 1e4
    losses = task.loss(net, batch)
    losses["loss"].backward()
    assert losses["loss"].isfinite() and net.said.grad.isfinite().all()


@pytest.mark.parametrize("tree", [TREE, WordTree.flat(list("abcdef"))])
def test_a_batch_without_labels_teaches_nothing(tree: WordTree) -> None:
    """As where no box is left of those that the crops had."""
    task, net, batch = task_of(tree, {"image_labels": []}, {"boxes": [], "labels": []})
    losses = task.loss(net, batch)
    losses["loss"].backward()
    assert losses["loss"] == 0 and torch.equal(net.said.grad, torch.zeros_like(net.said))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"thresh": ".5"}, "loss.thresh is a number such as 0.5, not '.5', which is text to TOML"),
        ({"rescore": "False"}, "loss.rescore is true or false, not 'False', which is text to TOML"),
        ({"noobject_scale": True}, "loss.noobject_scale is a number such as 0.5, not True"),
        ({"object_scale": [1]}, r"loss.object_scale is a number such as 0.5, not \[1\]"),
        ({"early_images": 0.5}, "loss.early_images is a whole number, not 0.5"),
        ({"label_box": 1}, "loss.label_box is text, not 1"),
        ({"class_loss": "sigmoid"}, "loss.class_loss: detectors read their classes by a softmax"),
        ({"class_scale": -1}, "loss.class_scale lies from 0 to"),
        ({"label_iou": 5}, "loss.label_iou lies from 0 to 1; it is 5"),
        ({"thresh": 1.5}, "loss.thresh lies from 0 to 1; it is 1.5"),
        ({"map": [0, 1]}, "unknown key loss.map"),
    ],
)
def test_settings_of_the_loss_are_checked(setting: dict, words: str) -> None:
    net = small_detector()
    with pytest.raises(TrainingError, match=words):
        DetectTask(net, net.tree, setting)


def test_settings_reach_the_loss() -> None:
    net = small_detector()
    loss = DetectTask(net, net.tree, {"rescore": False, "object_scale": 3}).region_loss
    assert loss.rescore is False and loss.object_scale == 3.0
