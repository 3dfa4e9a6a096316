"""The paper's chain of recipes: a classifier, flat or on a tree, the same at a larger input, a detector that
starts from its trunk and class rows, joint training."""

from pathlib import Path

import pytest
import torch

from data_prep import Store
from tests.yolo9000 import toys
from wordtree import WordTree
from yolo9000.config import ModelConfig, load_config
from yolo9000.errors import TrainingError
from yolo9000.modelfile import save_model
from yolo9000.network import Network
from yolo9000.presets import darknet19, yolo9000, yolov2
from yolo9000.spec import Convolution, NetworkSpec, Region
from yolo9000.start import build_network, choose_tree, copy_tree_rows, copy_trunk, load_any, own_rows
from yolo9000.train import train

TREE = toys.TREE


def classifier(tree: WordTree | None = TREE, slim: float = 0.03) -> Network:
    classes = len(tree) if tree is not None else 6
    return Network(darknet19(classes=classes, image_size=64, slim=slim), tree)


@pytest.mark.parametrize("neck", [None, 0, 8], ids=["darknet's form", "rows of its own", "and a neck"])
def test_every_anchor_says_what_the_classifier_says(neck: int | None) -> None:
    """Averaged over the cells, each anchor's class logits are the classifier's."""
    torch.manual_seed(0)
    source = classifier().eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    spec = yolo9000(TREE, image_size=64, slim=0.03)
    if neck is not None:
        spec = own_rows(spec, None, shared=False, neck=neck)
    net = Network(spec, TREE).eval()
    # All layers of the classifier before its last convolution, average and softmax.
    assert copy_trunk(source, net) == len(source.spec) - 3
    assert copy_tree_rows(source, net) == len(TREE)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        raw = net(images)
        wanted = source.logits(images)  # (N, C)
    anchors = len(net.spec.region.anchors)
    logits = raw.unflatten(1, (anchors, -1))[:, :, 5:]  # (N, A*(5+C), H, W) -> (N, A, C, H, W)
    for anchor in range(anchors):
        torch.testing.assert_close(logits[:, anchor].mean((2, 3)), wanted)


def test_rows_go_by_id_and_others_stay() -> None:
    source = classifier()
    tree = WordTree([TREE.ids[0], "other", TREE.ids[2], "unheard of"], [-1, -1, 0, 0])
    net = Network(yolo9000(tree, image_size=64, slim=0.03), tree)
    anchors = len(net.spec.region.anchors)

    def channels() -> torch.Tensor:
        weight = net.layers[-2].conv.weight.detach().clone()
        return weight.unflatten(0, (anchors, -1))  # (A*(5+C), D, 1, 1) -> (A, 5+C, D, 1, 1)

    before = channels()
    assert copy_tree_rows(source, net) == 2
    after = channels()
    for node in (0, 2):
        assert all(torch.equal(row, source.layers[-3].conv.weight[node]) for row in after[:, 5 + node])
    others = [0, 1, 2, 3, 4, 6, 8]
    assert torch.equal(after[:, others], before[:, others])


def test_a_neck_is_for_boxes_alone() -> None:
    """Its boxes begin at the prior, see the finer layer too, and move no name."""
    torch.manual_seed(0)
    net = Network(own_rows(yolo9000(TREE, image_size=64, slim=0.03), None, True, neck=8), TREE).eval()
    anchors, boxes = len(net.spec.region.anchors), net.layers[net.spec.region.boxes]
    images = torch.rand(2, 3, 64, 64)

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        raw = net(images).unflatten(1, (anchors, -1))  # (N, A*(5+C), H, W) -> (N, A, 5+C, H, W)
        return raw[:, :, :5], raw[:, :, 5:]

    with torch.no_grad():
        prior, names = found()
        torch.testing.assert_close(prior[:, :, 4].sigmoid(), torch.full_like(prior[:, :, 4], 0.01))
        boxes.conv.weight.normal_()
        before, same = found()
        assert torch.equal(names, same)
        fine = net.spec.layers[24]  # the 1x1 convolution on the layer that is passed through
        assert isinstance(fine, Convolution) and net.spec.outputs[24].stride == 16
        net.layers[24].conv.weight.neg_()
        after, same = found()
        assert torch.equal(names, same) and not torch.allclose(before, after)


def test_where_no_neck_fits_is_said(tmp_path: Path) -> None:
    for settings in ({"neck": -1, "preset": "yolo9000"}, {"neck": 8, "start": "x.safetensors"}):
        with pytest.raises(TrainingError, match=r"model\.neck is a number of channels"):
            ModelConfig(**settings)
    data = toys.pack_squares(tmp_path / "t.h5", boxed=2, labelled=2, size=48)
    with pytest.raises(TrainingError, match="Darknet's form, not for tiny9000"):
        build_network(ModelConfig(preset="tiny9000", neck=8), [Store(data)])
    for slim in ("thin", 1e308):
        with pytest.raises(TrainingError, match=r"model\.arguments of the preset yolo9000: "):
            build_network(ModelConfig(preset="yolo9000", arguments={"slim": slim}), [Store(data)])
    flat = (Convolution(3 * (5 + 2), 1, activation="linear", batch_normalize=False), Region(((1, 1),) * 3, 2))
    with pytest.raises(TrainingError, match="twice the resolution"):
        own_rows(NetworkSpec(64, 64, flat), None, True, neck=8)


def test_a_tree_of_what_the_data_names() -> None:
    """Its nodes are those on the labels' paths, and the paths are as they were."""

    class Named:
        tree = WordTree.default()

    wnids, whole = ["n02099601", "n02123045", "n02504458"], Named.tree
    tree = choose_tree("named", [Named()], wnids)
    paths = {wnid: [whole.ids[node] for node in whole.path_nodes(wnid)] for wnid in wnids}
    assert set(tree.ids) == {node for path in paths.values() for node in path}
    assert sorted(tree.ids[leaf] for leaf in tree.leaves) == sorted(wnids)
    for wnid, path in paths.items():
        assert [tree.ids[node] for node in tree.path_nodes(wnid)] == path
    assert choose_tree("named", [Named()], whole.ids) == whole


def test_what_does_not_fit_is_said() -> None:
    net = Network(yolo9000(TREE, image_size=64, slim=0.03), TREE)
    with pytest.raises(TrainingError, match=r"classifier on a tree.*model\.trunk_rows = false$"):
        copy_tree_rows(classifier(None), net)
    with pytest.raises(TrainingError, match="take 61 channels, the detector's 31"):
        copy_tree_rows(classifier(slim=0.06), net)
    other = WordTree.flat(list("abc"))
    with pytest.raises(TrainingError, match="no node"):
        copy_tree_rows(classifier(), Network(yolo9000(other, image_size=64, slim=0.03), other))
    flat = Network(yolov2(6, image_size=64, slim=0.03))
    with pytest.raises(TrainingError, match="trunk_rows"):
        copy_tree_rows(classifier(), flat)


@pytest.mark.parametrize("shared", [False, True], ids=["darknet's form", "rows of its own"])
def test_a_list_of_classes_starts_a_detector_as_it_is_told(shared: bool, tmp_path: Path) -> None:
    """What the refusal of trunk_rows advises works, class rows by model.known where the detector has any."""
    data = Store(toys.pack_squares(tmp_path / "t.h5", boxed=2, labelled=2, size=48))
    source = classifier(None)
    save_model(source, tmp_path / "flat.safetensors")
    (tmp_path / "ids.txt").write_text(" ".join(data.tree.ids))
    settings = {"preset": "yolo9000", "arguments": {"image_size": 64, "slim": 0.03}, "shared_rows": shared}
    settings["trunk"] = str(tmp_path / "flat.safetensors")
    with pytest.raises(TrainingError, match=r"with model\.trunk_rows = false") as refused:
        build_network(ModelConfig(**settings, trunk_rows=True), [data])
    known = str(tmp_path / "ids.txt") if "model.known" in str(refused.value) else ""
    assert bool(known) == shared
    net, _, _ = build_network(ModelConfig(**settings, known=known), [data])
    assert torch.equal(net.layers[0].conv.weight, source.layers[0].conv.weight)
    if shared:
        leaf = data.tree.leaves[0]
        assert torch.equal(net.layers[-1].rows.weight[0, leaf], source.layers[-3].conv.weight[leaf].flatten())


def test_the_papers_recipes_one_after_another(tmp_path: Path) -> None:
    """As named configurations, made small by settings alone."""
    data = toys.pack_squares(tmp_path / "t.h5", boxed=16, labelled=32, size=48)
    few = ("batch=10", "workers=0", "precision=float32", "schedule.burn_in=0", "images=20", "epochs=0.0")
    slim = "model.arguments.slim=0.03"

    def run(name: str, *more: str, size: int, trunk: str = "") -> str:
        sizes = (f"input.sizes=[{size}]", f"model.arguments.image_size={size}")
        trunk_setting = (f"model.trunk={tmp_path / trunk}",) if trunk else ()
        config = load_config(name, (*few, slim, *sizes, *trunk_setting, *more))
        out = name + "".join(more).replace("/", "")
        train(config, [data], tmp_path / out, progress=False)
        return out

    for tree in ("", "flat", "named"):
        first = run("darknet19-224", f'model.tree="{tree}"', size=64)
        second = run("darknet19-448", f'model.tree="{tree}"', size=96, trunk=first)
        assert load_any(str(tmp_path / second)).classes == (4 if tree == "flat" else 6)
        boxes = run("yolov2", f'model.tree="{tree}"', size=64, trunk=second)
        assert load_any(str(tmp_path / boxes)).spec.region is not None
        if tree == "":
            joint = run("yolo9000-joint", 'model.tree=""', size=64, trunk=second)
            batch = load_config("yolo9000-joint", (*few, "model.trunk=x")).data
            assert [part.share for part in batch] == [1, 4]
            assert load_any(str(tmp_path / joint)).tree == Store(data).tree
