"""What counts in pictures that were annotated for some classes only: against sets and loops written out, and
against LVIS's own evaluation where it is installed."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.yolo9000.trees import random_tree
from wordtree import WordTree
from yolo9000.asked import Asked, asked_for
from yolo9000.hierarchy import Hierarchy
from yolo9000.node_precision import expand_truth, node_precision
from yolo9000.scoring import Boxes, average_precision

IMAGES = 5
# 0 animal: 2 dog (4 husky, 5 poodle), 3 cat; 1 vehicle
TREE = WordTree(["animal", "vehicle", "dog", "cat", "husky", "poodle"], [-1, -1, 0, 0, 2, 2])
ANIMAL, VEHICLE, DOG, CAT, HUSKY, POODLE = range(6)


def random_boxes(random: np.random.Generator, n: int, kinds: int) -> Boxes:
    low = random.integers(0, 4, (n, 2)) * 4.0
    xyxy = np.concatenate([low, low + random.integers(1, 4, (n, 2)) * 4.0], axis=1)
    return Boxes(
        random.integers(0, IMAGES, n),
        random.integers(0, kinds, n),
        xyxy,
        random.permutation(n) / max(n, 1),  # no two alike: then there is one right order
        np.zeros(n, bool),
    )


def random_asked(random: np.random.Generator, kinds: int, most: int) -> Asked:
    pairs = []
    for _ in range(3):
        count = int(random.integers(0, most + 1))
        pairs += [random.integers(0, IMAGES, count), random.integers(0, kinds, count)]
    return Asked(random.random(IMAGES) < 0.3, *pairs)


def sets(tree: WordTree, asked: Asked, truth: Boxes, image: int, exact: bool) -> tuple[set, set]:
    """The nodes that count in a picture, and those of which nothing is wrong there, one by one."""

    def of(images: np.ndarray, nodes: np.ndarray) -> set[int]:
        return {int(node) for i, node in zip(images, nodes, strict=True) if i == image}

    def up(nodes: set[int]) -> set[int]:
        return {int(above) for node in nodes for above in tree.path_nodes(node)}

    def down(nodes: set[int]) -> set[int]:
        return {k for k in range(len(tree)) if up({k}) & nodes}

    there = of(truth.image, truth.kind) | of(asked.seen_image, asked.seen_node)
    absent = down(of(asked.absent_image, asked.absent_node) - up(there))
    counts = (there if exact else up(there)) | absent
    if asked.exhaustive[image]:
        counts = set(range(len(tree)))
    opened = of(asked.open_image, asked.open_node)
    return counts, (up(opened) | down(opened)) - absent


def loop_ap(truth: Boxes, found: Boxes, counts, unsure, iou: float) -> dict[int, float]:
    """Average precision of each kind that has boxes, one detection after the other. counts, unsure: functions
    of (picture, kind)."""
    result = {}
    for kind in sorted(set(truth.kind.tolist())):
        events = []
        for image in range(IMAGES):
            mine = np.flatnonzero((found.image == image) & (found.kind == kind))
            boxes = truth.boxes_xyxy[(truth.image == image) & (truth.kind == kind)]
            free = list(range(len(boxes)))
            if not counts(image, kind):
                assert not len(boxes), "what has boxes was looked for"
                continue
            for d in mine[np.argsort(-found.score[mine])][:100]:
                overlaps = [one_iou(found.boxes_xyxy[d], boxes[t]) for t in free]
                good = [k for k, overlap in enumerate(overlaps) if overlap >= min(iou, 1 - 1e-10)]
                if good:
                    best = max(good, key=lambda k: (overlaps[k], k))
                    free.pop(best)
                    events.append((found.score[d], True))
                elif not unsure(image, kind):
                    events.append((found.score[d], False))
        total, right, curve = int((truth.kind == kind).sum()), 0, []
        for number, (_, hit) in enumerate(sorted(events, reverse=True), 1):
            right += hit
            curve.append((right / total, right / number))
        points = [max((p for r, p in curve if r >= wanted), default=0.0) for wanted in np.linspace(0, 1, 101)]
        result[kind] = float(np.mean(points))
    return result


def one_iou(a: np.ndarray, b: np.ndarray) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0.0) * max(h, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.booleans())
def test_equals_sets_written_out(seed: int, groups: int, exact: bool) -> None:
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    asked = random_asked(random, len(tree), 6)
    truth = random_boxes(random, int(random.integers(0, 5)), len(tree))
    found = random_boxes(random, 40, len(tree))
    counts, unsure = asked_for(Hierarchy(tree), asked, truth, found, exact)
    for k, (image, node) in enumerate(zip(found.image.tolist(), found.kind.tolist(), strict=True)):
        wanted, let_off = sets(tree, asked, truth, image, exact)
        assert counts[k] == (node in wanted) and unsure[k] == (node in let_off), (image, node)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_average_precision_equals_loops(seed: int, groups: int) -> None:
    """Over classes by pycocotools, and at every node, both against loops and sets."""
    random = np.random.default_rng(seed)
    tree = random_tree(random, groups)
    hierarchy, n = Hierarchy(tree), len(tree)
    asked = random_asked(random, n, 8)
    truth, found = random_boxes(random, 12, n), random_boxes(random, 60, n)
    for exact in (True, False):
        drawn = truth if exact else expand_truth(hierarchy, truth)
        table = [sets(tree, asked, truth, image, exact) for image in range(IMAGES)]
        for iou, key in ((0.5, "AP50"), (0.75, "AP75")):
            wanted = loop_ap(
                drawn, found, lambda i, k, t=table: k in t[i][0], lambda i, k, t=table: k in t[i][1], iou
            )
            if exact:
                chosen = found.where_asked(*asked_for(hierarchy, asked, truth, found, exact=True))
                result = average_precision(truth, chosen, IMAGES, range(n))
                assert result[key] == pytest.approx(np.mean(list(wanted.values())))
                if key == "AP50":
                    ours = {k: v for k, v in result["per_class"].items() if v >= 0}
                    assert ours == pytest.approx(wanted)
            else:
                nodes = node_precision(hierarchy, truth, found, IMAGES, asked)
                values = dict(zip(nodes.nodes.tolist(), getattr(nodes, key).tolist(), strict=True))
                assert values == pytest.approx(wanted)


def ask(node: int, exact: bool = False, drawn: tuple[int, ...] = (), **lists: list[int]) -> str:
    """What becomes of a detection of `node` that matches nothing, in a picture with these boxes and lists."""
    pairs = {}
    for name, nodes in lists.items():
        pairs |= {f"{name}_image": np.zeros(len(nodes), np.int64), f"{name}_node": np.array(nodes)}
    asked = Asked(np.zeros(1, bool), **pairs)
    truth = Boxes(np.zeros(len(drawn), int), np.array(drawn, int), *[np.zeros(0)] * 3)
    found = Boxes(np.zeros(1, int), np.array([node]), *[np.zeros(0)] * 3)
    (counts,), (unsure,) = asked_for(Hierarchy(TREE), asked, truth, found, exact)
    return "wrong" if counts and not unsure else "let off"


def test_claims_go_along_the_tree() -> None:
    # No dog is there: none of any breed is; of animals that says nothing.
    assert [ask(k, absent=[DOG]) for k in (DOG, HUSKY, POODLE)] == ["wrong"] * 3
    assert [ask(k, absent=[DOG]) for k in (ANIMAL, CAT, VEHICLE)] == ["let off"] * 3
    # A husky is there (all of them have boxes): a second dog or animal would have been drawn, a poodle not.
    assert [ask(k, drawn=(HUSKY,)) for k in (HUSKY, DOG, ANIMAL)] == ["wrong"] * 3
    assert [ask(k, drawn=(HUSKY,)) for k in (POODLE, CAT)] == ["let off"] * 2
    # The same for one that is only known to be somewhere, unless it is listed as without boxes.
    assert ask(DOG, seen=[HUSKY]) == "wrong" and ask(DOG, seen=[HUSKY], open=[HUSKY]) == "let off"
    # Over classes side by side a husky's box is no dog's, and so says nothing of dogs.
    assert ask(DOG, exact=True, drawn=(HUSKY,)) == "let off"
    assert ask(HUSKY, exact=True, absent=[DOG]) == "wrong"
    # More dogs may be there than boxes, of any breed; but not of one that is verified to be absent.
    assert [ask(k, drawn=(DOG, HUSKY), open=[DOG]) for k in (ANIMAL, DOG, HUSKY)] == ["let off"] * 3
    assert ask(HUSKY, drawn=(DOG,), open=[DOG], absent=[HUSKY]) == "wrong"
    # Who drew a husky and says that no dog is there contradicts himself; of poodles that leaves nothing.
    assert ask(POODLE, drawn=(HUSKY,), absent=[DOG]) == "let off"


def test_nothing_and_everything() -> None:
    none = Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    counts, unsure = asked_for(Hierarchy(TREE), Asked.everything(2), none, none)
    assert len(counts) == len(unsure) == 0 and Asked.everything(2).is_everything
    found = random_boxes(np.random.default_rng(0), 20, len(TREE))
    counts, unsure = asked_for(Hierarchy(TREE), Asked.everything(IMAGES), none, found)
    assert counts.all() and not unsure.any()
    counts, _ = asked_for(Hierarchy(TREE), Asked(np.zeros(IMAGES, bool)), none, found)
    assert not counts.any()


@pytest.mark.parametrize("seed", range(4))
def test_equals_lvis_own_evaluation(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lvis = pytest.importorskip("lvis", reason="LVIS's own evaluation: pip install --no-deps lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # it was written for numpy before 1.24
    logging.getLogger("lvis").setLevel(logging.ERROR)
    random, kinds = np.random.default_rng(seed), 4
    truth, found = random_boxes(random, 15, kinds), random_boxes(random, 80, kinds)
    absent = [
        sorted(
            {k for k in range(kinds) if random.random() < 0.4} - set(truth.kind[truth.image == i].tolist())
        )
        for i in range(IMAGES)
    ]
    opened = [
        [k for k in np.unique(truth.kind[truth.image == i]).tolist() if random.random() < 0.5]
        for i in range(IMAGES)
    ]

    def rows(boxes: Boxes) -> list[dict]:
        size = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
        return [
            {
                "id": k + 1,
                "image_id": int(boxes.image[k]) + 1,
                "category_id": int(boxes.kind[k]) + 1,
                "bbox": [*boxes.boxes_xyxy[k, :2].tolist(), *size[k].tolist()],
                "area": float(size[k].prod()),
                "score": float(boxes.score[k]),
            }
            for k in range(len(boxes.image))
        ]

    gt = lvis.LVIS.__new__(lvis.LVIS)
    gt.logger = logging.getLogger("lvis")
    gt.dataset = {
        "images": [
            {
                "id": i + 1,
                "neg_category_ids": [k + 1 for k in absent[i]],
                "not_exhaustive_category_ids": [k + 1 for k in opened[i]],
            }
            for i in range(IMAGES)
        ],
        "categories": [{"id": k + 1, "frequency": "f"} for k in range(kinds)],
        "annotations": rows(truth),
    }
    gt._create_index()
    theirs = lvis.LVISEval(gt, lvis.LVISResults(gt, rows(found)), "bbox")
    theirs.run()
    pairs = [
        np.array([(i, k) for i, nodes in enumerate(lists) for k in nodes], np.int64).reshape(-1, 2).T
        for lists in (absent, [[] for _ in range(IMAGES)], opened)
    ]
    asked = Asked(np.zeros(IMAGES, bool), *[column for pair in pairs for column in pair])
    hierarchy = Hierarchy(WordTree.flat([str(k) for k in range(kinds)]))
    ours = node_precision(hierarchy, truth, found, IMAGES, asked).means()
    chosen = found.where_asked(*asked_for(hierarchy, asked, truth, found, exact=True))
    coco = average_precision(truth, chosen, IMAGES, range(kinds))
    for name in ("AP", "AP50", "AP75"):
        assert ours[name] == pytest.approx(theirs.results[name]) == pytest.approx(coco[name])
