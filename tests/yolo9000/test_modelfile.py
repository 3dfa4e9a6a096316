"""Model files: what goes in comes out, and whatever is wrong with a file is one clear ModelError."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.yolo9000.small import FORMS, TREE, small_classifier, small_detector
from wordtree import WordTree
from yolo9000 import modelfile
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.modelfile import load_model, read_info, save_model

RECORD = {"data": ["a", "b"], "figures": {"AP50": 0.4}, "nodes": {"boxes": [3, 4]}, "licence": "MIT"}


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back(form, tmp_path):
    net = small_detector(form)
    net.seen, net.version, net.class_map = 123456, (0, 1, 0), torch.tensor([2, 0])
    names = list("abcdef") if form == "flat" else None
    digest = save_model(net, tmp_path / "x.safetensors", RECORD, names=names, defaults={"threshold": 0.3})
    again = load_model(tmp_path / "x.safetensors")
    assert same_weights(net, again) and not again.training
    assert again.spec == net.spec and again.tree == net.tree
    assert (again.seen, again.version) == (123456, (0, 1, 0))
    assert again.class_map.tolist() == [2, 0]
    assert again.names == (None if names is None else tuple(names))
    assert again.record == RECORD and again.defaults == {"threshold": 0.3}
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(net(images), again(images))
    # names and defaults travel along
    assert save_model(again, tmp_path / "y.safetensors") == digest  # its record goes along
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_classifiers_too(tmp_path):
    for tree in (False, True):
        net = small_classifier(tree)
        save_model(net, tmp_path / "x.safetensors")
        assert same_weights(net, load_model(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mapped_weights_are_the_files(form, dtype, tmp_path):
    path = tmp_path / "m.safetensors"
    net = small_detector(form)
    net.names = tuple("abcdef") if form == "flat" else None
    save_model(net, path, {"x": 1}, dtype=dtype)
    mapped, plain = load_model(path, mapped=True), load_model(path)
    assert same_weights(mapped, plain) and not mapped.training
    assert mapped.record == plain.record == {"x": 1} and mapped.names == plain.names
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for precision in ("float32", "bfloat16"):
        one, other = (Detector(one, precision=precision).run(x).dense() for one in (mapped, plain))
        assert torch.equal(one, other)
    # What learns changes the memory of this process and not the file; and the file may be replaced.
    before = path.read_bytes()
    with torch.no_grad():
        for parameter in mapped.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before and same_weights(load_model(path, mapped=True), plain)
    save_model(mapped, path)
    assert same_weights(load_model(path), mapped)
    path.unlink()
    assert not same_weights(mapped, plain)


def test_a_mapped_file_is_checked_first_and_must_not_change_meanwhile(tmp_path, monkeypatch):
    path, other = tmp_path / "m.safetensors", tmp_path / "other.safetensors"
    save_model(small_detector("rows"), path)
    save_model(small_classifier(), other)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(ModelError, match="damaged"):
        load_model(path, mapped=True)
    check = modelfile._check_state
    for content in (other.read_bytes(), whole[:-1], b"", None):
        path.write_bytes(whole)

        def swap(*given, content=content):
            check(*given)
            path.unlink()
            if content is not None:
                path.write_bytes(content)

        monkeypatch.setattr(modelfile, "_check_state", swap)
        with pytest.raises(ModelError, match="changed while"):
            load_model(path, mapped=True)


def test_float16_is_half_the_size_and_keeps_small_vectors(tmp_path):
    net = small_detector("rows")
    with torch.no_grad():
        net.layers[0].conv.weight[0, 0, 0, 0] = 1e6  # does not fit float16: that tensor stays as it is
    save_model(net, tmp_path / "x.safetensors", dtype="float16")
    again = load_model(tmp_path / "x.safetensors")
    state = again.state_dict()
    for name, value in net.state_dict().items():
        assert state[name].dtype == value.dtype
        kept = value.ndim < 2 or name == "layers.0.conv.weight"
        assert torch.equal(state[name], value if kept else value.half().float())
    info = read_info(tmp_path / "x.safetensors")
    assert {kind for kind, _ in info.tensors.values()} >= {"F16", "F32"}


def test_the_default_tree_is_named_by_its_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr(WordTree, "default", classmethod(lambda cls: TREE))
    net = small_detector("stored")
    save_model(net, tmp_path / "x.safetensors")
    save_model(net, tmp_path / "y.safetensors", embed_tree=True)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert json.loads(file.metadata()[modelfile.KEY].split("\n", 2)[2])["tree"] == {
            "fingerprint": TREE.fingerprint
        }
    assert load_model(tmp_path / "x.safetensors").tree is TREE
    other = WordTree(TREE.ids, TREE.parents, TREE.names[::-1])
    assert load_model(tmp_path / "y.safetensors").tree == TREE
    other = WordTree(["x", *TREE.ids[1:]], TREE.parents, TREE.names)  # another version of the package
    monkeypatch.setattr(WordTree, "default", classmethod(lambda cls: other))
    with pytest.raises(ModelError, match="not in the file"):
        load_model(tmp_path / "x.safetensors")
    assert read_info(tmp_path / "x.safetensors").tree_fingerprint == TREE.fingerprint
    assert load_model(tmp_path / "y.safetensors").tree == TREE


def rewrite(path, change) -> None:
    """Change the description or tensors of a model file and sign it again, so that only the change is
    wrong."""
    with safe_open(path, "pt") as file:
        version, _, text = file.metadata()[modelfile.KEY].split("\n", 2)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = json.loads(text)
    change(model, tensors)
    text = json.dumps(model)
    save_file(tensors, path, {modelfile.KEY: f"{version}\n{modelfile._digest(text, tensors)}\n{text}"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: m.pop("network"), "cannot be read"),
        (lambda m, t: m.update(network=[]), "network"),
        (lambda m, t: m["network"].update(width=-1), "width"),
        (lambda m, t: m["network"]["layers"][0].update(filters=10**12), "filters"),
        (lambda m, t: m["network"]["layers"][0].update(filters=1 << 20), "layers.0"),
        (lambda m, t: m["network"]["layers"][0].update(kind="magic"), "magic"),
        (lambda m, t: m["tree"].update(parents=[0] * 10), "parent"),
        (lambda m, t: m.update(tree={"fingerprint": "0" * 64}), "not in the file"),
        (lambda m, t: m.update(tree=TREE.flat(["a", "b"]).to_dict()), "2 nodes"),
        (lambda m, t: m.update(names=["a"]), "1 names"),
        (lambda m, t: m.update(class_map=[99]), "class map"),
        (lambda m, t: m.update(class_map="x"), "cannot be read"),
        (lambda m, t: m.update(seen=-1), "impossible"),
        (lambda m, t: m.update(version=[1]), "impossible"),
        (lambda m, t: m.update(record=3), "cannot be read"),
        (lambda m, t: t.pop("layers.0.conv.weight"), "is missing"),
        (lambda m, t: t.update(extra=torch.zeros(1)), "extra has no place"),
        (lambda m, t: t.update({"layers.0.conv.weight": torch.zeros(1, 2)}), r"\(1, 2\)"),
        (lambda m, t: t["layers.0.conv.weight"].fill_(torch.nan), "not finite"),
        (lambda m, t: m.update(names=list("abcdefghij")), "a tree carries its own names"),
        (lambda m, t: m.update(names="abcdefghij"), "cannot be read"),
        (lambda m, t: m.update(class_map=[0.5]), "cannot be read"),
        (lambda m, t: t["layers.0.norm.running_var"].neg_(), "negative variances"),
        (
            lambda m, t: t.update({"layers.0.conv.weight": torch.ones(8, 3, 3, 3, dtype=torch.int64)}),
            "int64, the network wants torch.float32",
        ),
    ],
)
def test_parts_that_do_not_fit(change, message, tmp_path):
    path = tmp_path / "x.safetensors"
    save_model(small_detector(), path, RECORD)
    rewrite(path, change)
    with pytest.raises(ModelError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off"),
        (b"\0" * 8, "cut off"),
        (b"\xff" * 100, "cut off"),
        (struct.pack("<Q", 10**9) + b"{}" * 50, "cut off"),
        (struct.pack("<Q", 2) + b"{}", "not a model of this program"),
        (struct.pack("<Q", 4) + b"oops", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"PK\x03\x04" + b"\0" * 100, "pickled"),
    ],
)
def test_other_files(content, message, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_a_newer_version(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, path, {modelfile.KEY: "2\n\n{}"})
    with pytest.raises(ModelError, match="version 2"):
        load_model(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ModelError, match="no such model file"):
        load_model(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"a folder without model\.safetensors"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / ("n" * 300))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_any_damage_is_noticed(seed, cut):
    from tempfile import TemporaryDirectory

    random = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        path = modelfile.Path(folder) / "x.safetensors"
        save_model(small_detector(), path, RECORD)
        data = bytearray(path.read_bytes())
        if cut:
            data = data[: random.integers(len(data))]
        else:
            place = random.integers(len(data))
            data[place] ^= 1 << random.integers(8)
        path.write_bytes(bytes(data))
        with pytest.raises(ModelError):
            load_model(path)


def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "x.safetensors"
    net = small_detector()
    with pytest.raises(ModelError, match="JSON"):
        save_model(net, path, {"x": object()})
    with pytest.raises(ModelError, match="JSON"):
        save_model(net, path, {"x": float("nan")})
    with pytest.raises(ModelError, match="float8"):
        save_model(net, path, dtype="float8")
    with pytest.raises(ModelError, match="names"):
        save_model(net, path, names=["a"])
    with torch.no_grad():
        net.layers[0].conv.weight[0] = torch.inf
    with pytest.raises(ModelError, match="finite"):
        save_model(net, path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        save_model(small_detector(), tmp_path / "file" / "x.safetensors")


def test_an_older_file_survives_a_failed_save(tmp_path):
    path = tmp_path / "x.safetensors"
    save_model(small_detector(), path)
    before = path.read_bytes()
    net = small_detector(seed=1)
    with torch.no_grad():
        net.layers[0].conv.weight[0] = torch.nan
    with pytest.raises(ModelError):
        save_model(net, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
