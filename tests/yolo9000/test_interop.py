"""Detections in other packages' forms and back; with the packages themselves where they are installed."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.yolo9000.small import TREE, picture, small_detector
from wordtree import WordTree
from yolo9000.detections import Detections
from yolo9000.detector import Detector
from yolo9000.errors import ImageError
from yolo9000.interop import COLUMNS


def found_in(nodes, seed=0, size=(100, 80), source=None, photo=None) -> Detections:
    """Of these nodes of the small tree, -1 is "something"; best first."""
    random, n = np.random.default_rng(seed), len(nodes)
    corners = np.sort(random.random((n, 2, 2)) * np.array(size), axis=1)
    paths = [TREE.path(node) if node >= 0 else () for node in nodes]
    return Detections(
        boxes_xyxy=corners.reshape(n, 4),
        objectness=random.random(n),
        scores=np.sort(random.random(n))[::-1],
        nodes=nodes,
        names=[TREE.names[node] if node >= 0 else "something" for node in nodes],
        paths=paths,
        image_size=size,
        probabilities=random.random(n),
        path_names=[tuple(TREE.names[TREE.index(i)] for i in path) for path in paths],
        path_probabilities=[tuple(sorted(random.random(len(path)))[::-1]) for path in paths],
        source=source,
        _picture=photo,
        conditionals=random.random(n),
    )


def same(a: Detections, b: Detections) -> bool:
    arrays = ("boxes_xyxy", "scores", "objectness", "probabilities", "conditionals", "nodes")
    others = ("names", "paths", "path_names", "path_probabilities", "image_size")
    return all(np.array_equal(getattr(a, x), getattr(b, x)) for x in arrays) and all(
        getattr(a, x) == getattr(b, x) for x in others
    )


NODES = st.lists(st.integers(-1, len(TREE) - 1), max_size=6)


@settings(max_examples=40, deadline=None)
@given(NODES)
def test_supervision_and_back(nodes):
    pytest.importorskip("supervision", reason="supervision is not installed: its container was not tried")
    found = found_in(nodes)
    theirs = found.to_supervision()
    assert len(theirs) == len(found) and np.array_equal(theirs.xyxy, found.boxes_xyxy)
    assert np.array_equal(theirs.confidence, found.scores) and theirs.class_id.tolist() == nodes
    assert same(Detections.from_supervision(theirs, found.image_size), found)


def test_what_supervision_does_with_it_survives():
    """Masks, filters, merges and suppression keep the further columns."""
    sv = pytest.importorskip(
        "supervision", reason="supervision is not installed: its container was not tried"
    )
    found = found_in([7, 4, -1, 9, 2], seed=3)
    theirs = found.to_supervision()
    assert same(
        Detections.from_supervision(theirs[theirs.confidence > 0.4], (100, 80)), found[found.scores > 0.4]
    )
    turned = Detections.from_supervision(theirs[[4, 0, 2]], (100, 80))
    assert same(turned, found[[0, 2, 4]])  # best first again
    merged = sv.Detections.merge([theirs, found_in([1], seed=9, size=(50, 60)).to_supervision()])
    assert len(Detections.from_supervision(merged, (100, 80))) == 6
    assert len(theirs.with_nms(threshold=0.5, class_agnostic=True)) <= 5
    assert len(sv.Detections.merge([found_in([]).to_supervision(), theirs])) == 5
    drawn = sv.BoxAnnotator().annotate(np.zeros((80, 100, 3), np.uint8), theirs)
    assert drawn.any()


def test_tracks_are_found_by_the_order_of_confidences():
    """As docs/coming_from.md says; with what looks like supervision's container, installed or not."""
    boxes = SimpleNamespace(
        xyxy=np.array([[k, 0, k + 9, 9] for k in range(5)], np.float32),
        confidence=np.array([0.2, 0.9, 0.2, 0.5, 0.9], np.float32),
        class_id=np.array([3, 8, 3, 3, 8]),
        tracker_id=np.array([10, 11, 12, 13, 14]),
        data={},
    )
    found = Detections.from_supervision(boxes, (100, 80), tree=TREE)
    order = np.argsort(-boxes.confidence, kind="stable")
    assert boxes.tracker_id[order].tolist() == [11, 14, 13, 10, 12]
    assert np.array_equal(found.boxes_xyxy, boxes.xyxy[order])
    assert found.nodes.tolist() == boxes.class_id[order].tolist()


def container(found: Detections) -> SimpleNamespace:
    """What `to_supervision` makes, of the same columns, where supervision is not installed."""
    made = SimpleNamespace(Detections=SimpleNamespace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "supervision", made)
        return found.to_supervision()


def test_supervision_and_back_with_a_tree():
    names = ["animal", "vehicle", "thing", "dog", "cat", "dog", "bicycle", "husky", "poodle", "taxi"]
    tree = WordTree(TREE.ids, TREE.parents, names)  # two nodes are named "dog"
    for nodes in ([7, 5, -1, 3], []):
        found = found_in(nodes, seed=4)
        rows = container(found)
        assert same(Detections.from_supervision(rows, (100, 80)), found)
        assert same(Detections.from_supervision(rows, (100, 80), tree=TREE), found)
        assert same(Detections.from_supervision(rows, (100, 80), tree=tree), found)
    # Of another tree: its numbers; where its paths are others, its paths.
    longer = WordTree(["n0", *TREE.ids], [-1, *(k + 1 if k >= 0 else -1 for k in TREE.parents)])
    found = found_in([7, 5, -1, 3], seed=4)
    moved = Detections.from_supervision(container(found), (100, 80), tree=longer)
    assert moved.nodes.tolist() == [8, 6, -1, 4] and moved.paths == found.paths
    assert np.array_equal(moved.conditionals, found.conditionals)
    below = WordTree(longer.ids, [-1, *(k + 1 for k in TREE.parents)])
    moved = Detections.from_supervision(container(found), (100, 80), tree=below)
    assert moved.paths == tuple(("n0", *path) if path else () for path in found.paths)
    with pytest.raises(ValueError, match="n4"):
        Detections.from_supervision(container(found), (100, 80), tree=WordTree(["n8", "n6"], [-1, -1]))


def test_no_boxes_and_no_class():
    none = SimpleNamespace(xyxy=np.zeros((0, 4)), confidence=None, class_id=None, data={})
    for tree in (None, TREE):
        assert len(Detections.from_supervision(none, (100, 80), tree=tree)) == 0


def test_supervision_of_others():
    sv = pytest.importorskip(
        "supervision", reason="supervision is not installed: its container was not tried"
    )
    boxes = np.array([[1, 2, 30, 40], [5, 6, 7, 8]], float)
    bare = sv.Detections(xyxy=boxes, confidence=np.array([0.2, 0.9]), class_id=np.array([3, 8]))
    found = Detections.from_supervision(bare, (100, 80), tree=TREE, source="a.jpg")
    assert found.names == ("poodle", "dog") and found.source == "a.jpg" and found.scores[0] == np.float32(0.9)
    assert found.paths[0] == TREE.path(8)
    named = sv.Detections(
        xyxy=boxes, class_id=np.array([0, 1]), data={"class_name": np.array(["taxi", "n4"])}
    )
    assert Detections.from_supervision(named, (100, 80), tree=TREE).nodes.tolist() == [9, 3]
    flat = Detections.from_supervision(named, (100, 80))
    assert flat.names == ("taxi", "n4") and flat.nodes.tolist() == [0, 1] and flat.scores.tolist() == [1, 1]
    with pytest.raises(ValueError, match="unicorn"):
        wrong = sv.Detections(xyxy=boxes, data={"class_name": np.array(["taxi", "unicorn"])})
        Detections.from_supervision(wrong, (100, 80), tree=TREE)
    with pytest.raises(ValueError, match="without a class"):
        Detections.from_supervision(sv.Detections(xyxy=boxes), (100, 80))
    assert len(Detections.from_supervision(sv.Detections.empty(), (100, 80))) == 0


@settings(max_examples=30, deadline=None)
@given(NODES)
def test_torchvision_and_back(nodes):
    found = found_in(nodes)
    theirs = found.to_torchvision()
    assert {name: value.dtype for name, value in theirs.items()} == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "scores": torch.float32,
    }
    assert theirs["boxes"].shape == (len(found), 4)
    back = Detections.from_torchvision(theirs, found.image_size, tree=TREE)
    for part in ("boxes_xyxy", "scores", "nodes"):
        assert np.array_equal(getattr(back, part), getattr(found, part))
    assert (back.names, back.paths, back.path_names) == (found.names, found.paths, found.path_names)


def test_torchvision_of_others():
    theirs = {
        "boxes": [[0, 0, 5, 5], [1, 1, 9, 9]],
        "labels": np.array([1, 0]),
        "scores": torch.tensor([0.1, 0.7]),
    }
    found = Detections.from_torchvision(theirs, (10, 10), names=["cat", "dog"])
    assert found.names == ("cat", "dog") and found.paths == (("cat",), ("dog",))
    for names, titles in ((["cat", "dog"], ("something", "dog")), (None, ("something", "1"))):
        found = Detections.from_torchvision({**theirs, "labels": [1, -1]}, (10, 10), names=names)
        assert found.names == titles and found.nodes.tolist() == [-1, 1] and found.paths[0] == ()
    short = {"boxes": torch.tensor(theirs["boxes"]).bfloat16(), "scores": theirs["scores"].bfloat16()}
    found = Detections.from_torchvision({**theirs, **short}, (10, 10))
    assert found.boxes_xyxy.tolist() == [[1, 1, 9, 9], [0, 0, 5, 5]]
    assert np.allclose(found.scores, [0.7, 0.1], atol=1e-2)
    truth = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert len(Detections.from_torchvision(truth, (10, 10))) == 0
    for wrong, more, words in (
        ({"boxes": [[0, 0, 5, 5]]}, {}, "labels"),
        ([], {}, "dict"),
        (theirs, {"names": ["cat"]}, "label 1 of 1"),
        ({**theirs, "labels": [-2, 0]}, {"names": ["cat"]}, "label -2 of 1"),
        ({**theirs, "labels": [99, 0]}, {"tree": TREE}, "99"),
        ({**theirs, "boxes": [[0, 0, 5, np.nan], [1, 1, 9, 9]]}, {}, "no box"),
        ({**theirs, "scores": [0.5]}, {}, "objectness is"),
    ):
        with pytest.raises(ValueError, match=words):
            Detections.from_torchvision(wrong, (10, 10), **more)


@pytest.mark.parametrize("nodes", [[], [7], [7, -1, 2]])
def test_pandas(nodes):
    pytest.importorskip("pandas", reason="pandas is not installed: no table was made")
    found = found_in(nodes, source="a.jpg")
    table = found.to_pandas()
    assert list(table.columns) == list(COLUMNS) and len(table) == len(found)
    assert np.allclose(table[["left", "top", "right", "bottom"]].to_numpy(), found.boxes_xyxy)
    assert table["name"].tolist() == list(found.names) and table["node"].tolist() == nodes
    assert table["path"].tolist() == [" > ".join(path) for path in found.paths]
    assert table["score"].dtype == float and table["node"].dtype == np.int64
    assert set(table["source"]) <= {"a.jpg"}


@pytest.mark.parametrize(("package", "call"), [("supervision", "to_supervision"), ("pandas", "to_pandas")])
def test_a_package_that_is_missing_is_named(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'yolo9000[{package}]'")):
        getattr(found_in([1]), call)()


def test_plot_and_crop(tmp_path):
    photo = picture(3, 100, 80)
    photo.save(tmp_path / "photo.png")
    found = Detector(small_detector("rows"), precision="float32")(tmp_path / "photo.png", threshold=0.5)
    assert len(found) > 1 and found.plot().size == photo.size
    assert (np.asarray(found.plot()) == np.asarray(found.draw())).all()
    assert (np.asarray(found.plot(scores=False)) != np.asarray(found.plot())).any()
    parts = found.crop()
    assert len(parts) == len(found)
    pixels = np.asarray(photo)
    for part, (left, top, right, bottom) in zip(parts, found.boxes_xyxy.tolist(), strict=True):
        rows = slice(int(np.floor(top)), int(np.ceil(bottom)))
        columns = slice(int(np.floor(left)), int(np.ceil(right)))
        assert (np.asarray(part) == pixels[rows, columns]).all()
    assert all(a.width >= b.width for a, b in zip(found.crop(0.2), parts, strict=True))
    (tmp_path / "photo.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        found.crop()


def test_crops_at_the_border():
    photo = np.zeros((80, 100, 3), np.uint8)
    boxes = [[-50, -50, -10, -10], [0, 0, 0, 0], [100, 80, 100, 80], [99.9, 10, 300, 10.2]]
    part = {"boxes_xyxy": boxes, "objectness": [1] * 4, "scores": [1] * 4, "nodes": [2] * 4}
    rows = {"names": ["thing"] * 4, "paths": [("n3",)] * 4, "path_names": [("thing",)] * 4}
    more = {"path_probabilities": [(1.0,)] * 4, "probabilities": [1] * 4, "image_size": (100, 80)}
    found = Detections(**part, **rows, **more, _picture=photo)
    assert [one.size for one in found.crop()] == [(1, 1), (1, 1), (1, 1), (1, 1)]
    assert found.crop(1e6)[3].size == (100, 80)
    for margin in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="margin"):
            found.crop(margin)
    assert found[[]].crop() == []


def test_in_a_notebook():
    photo = np.asarray(Image.new("RGB", (1000, 700)))
    found = found_in([7, -1], size=(1000, 700), photo=photo)
    shown = found._repr_html_()
    assert "husky" in shown and "something" in shown and shown.count("<img") == 1
    evil = Detections(**{**vars_of(found), "names": ["<script>alert(1)</script>", "</td>\udc80"]})
    shown = evil._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    shown.encode()
    bare = found_in([3] * 60, size=(1000, 700), source="gone.jpg")._repr_html_()
    assert "<img" not in bare and "gone.jpg" in bare and "10 more" in bare
    assert "<table" not in found_in([])._repr_html_()


def vars_of(found: Detections) -> dict:
    return dict(vars(found))
