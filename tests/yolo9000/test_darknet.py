"""Weight files: every header version, whole and partial, byte for byte; and errors in numbers."""

import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import TreeError
from yolo9000 import cfg, darknet, presets
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.spec import Convolution, GlobalAveragePool, MaxPool, NetworkSpec, Softmax

SPEC = NetworkSpec(
    32,
    32,
    (
        Convolution(4, 3),
        MaxPool(2, 2),
        Convolution(2, 1, batch_normalize=False),
        Convolution(4, 3, groups=2),
        Convolution(5, 1, activation="linear", batch_normalize=False),
        GlobalAveragePool(),
        Softmax(),
    ),
)
# By hand from the format: (biases, [scales, mean, variance], weights) of each convolution.
COUNTS = (4 * 4 + 4 * 3 * 9, 0, 2 + 2 * 4, 4 * 4 + 4 * 1 * 9, 5 + 5 * 4, 0, 0)
VERSIONS = [(0, 1, 0), (0, 2, 0), (0, 2, 7), (1, 0, 0), (0, 999, 1), (2, 1000, 0), (1001, 0, 0)]


def file_bytes(version=(0, 2, 0), seen=123456, layers=None, seed=0) -> bytes:
    """A weight file written here, without the code under test."""
    major, minor, _ = version
    wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
    values = np.random.default_rng(seed).uniform(0.1, 1, sum(COUNTS[:layers])).astype("<f4")
    return struct.pack("<iii", *version) + struct.pack("<q" if wide else "<i", seen) + values.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.weights"


@pytest.mark.parametrize("version", VERSIONS)
def test_load_and_save_give_the_same_bytes(path, tmp_path, version):
    data = file_bytes(version)
    path.write_bytes(data)
    net = darknet.load(SPEC, path)
    assert not net.training and net.seen == 123456 and net.version == version
    assert all(p.requires_grad for p in net.parameters())
    darknet.save(net, tmp_path / "y.weights")
    assert (tmp_path / "y.weights").read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "x.weights",
        "y.weights",
    ]  # no half-written file stays


def test_values_go_where_the_format_says(path):
    path.write_bytes(file_bytes())
    values = np.frombuffer(path.read_bytes()[20:], "<f4")
    net = darknet.load(SPEC, path)
    first, bare = net.layers[0], net.layers[2]
    for k, tensor in enumerate(
        (first.norm.bias, first.norm.weight, first.norm.running_mean, first.norm.running_var)
    ):
        np.testing.assert_array_equal(tensor.detach().numpy(), values[4 * k : 4 * k + 4])
    np.testing.assert_array_equal(first.conv.weight.detach().numpy().ravel(), values[16:124])
    assert first.conv.weight[1, 2, 0, 1] == values[16 + 1 * 27 + 2 * 9 + 0 * 3 + 1]  # (out, in, row, column)
    np.testing.assert_array_equal(bare.conv.bias.detach().numpy(), values[124:126])
    np.testing.assert_array_equal(bare.conv.weight.detach().numpy().ravel(), values[126:134])


def test_another_version_and_seen_on_request(path):
    net = Network(SPEC)
    darknet.save(net, path, version=(0, 1, 0), seen=5)
    assert path.read_bytes()[:16] == struct.pack("<iiii", 0, 1, 0, 5)
    darknet.save(net, path, version=(0, 1, 0), seen=2**32 - 1)
    assert darknet.load(SPEC, path).seen == 2**32 - 1
    darknet.save(net, path, seen=2**40)
    assert darknet.load(SPEC, path).seen == 2**40
    with pytest.raises(ModelError, match="does not fit"):
        darknet.save(net, path, version=(0, 1, 0), seen=2**40)
    assert darknet.load(SPEC, path).seen == 2**40  # the failed save left the file alone
    for p, q in zip(net.state_dict().items(), darknet.load(SPEC, path).state_dict().items(), strict=True):
        assert p[0] == q[0] and torch.equal(p[1], q[1])


def test_bfloat16_and_channels_last_networks_are_saved_too(path):
    net = Network(SPEC)
    darknet.save(net, path)
    plain = path.read_bytes()
    darknet.save(net.to(memory_format=torch.channels_last), path)
    assert path.read_bytes() == plain
    darknet.save(net.bfloat16(), path)
    weight = darknet.load(SPEC, path).layers[0].conv.weight
    assert torch.equal(weight.bfloat16().float(), weight) and len(path.read_bytes()) == len(plain)


def test_partial_files(path, tmp_path):
    trunk = tmp_path / "x.conv.4"
    trunk.write_bytes(file_bytes(layers=4))
    path.write_bytes(file_bytes())
    whole = darknet.load(SPEC, path)
    for partial in (True, 4):
        torch.manual_seed(0)
        net = darknet.load(SPEC, trunk, partial=partial)
        for i in range(4):
            for a, b in zip(
                net.layers[i].state_dict().values(), whole.layers[i].state_dict().values(), strict=True
            ):
                assert torch.equal(a, b)
        assert (
            net.layers[4].conv.weight.abs().sum() > 0 and not net.layers[4].conv.bias.any()
        )  # new, as Darknet starts
    darknet.save(whole, tmp_path / "again.conv.4", partial=4, seen=123456)
    assert (tmp_path / "again.conv.4").read_bytes() == trunk.read_bytes()
    with pytest.raises(ModelError, match=r"wanted 211 values for 7 layers, found 186 .*partial=4"):
        darknet.load(SPEC, trunk)
    with pytest.raises(ModelError, match="too long"):
        darknet.load(SPEC, path, partial=4)
    with pytest.raises(ModelError, match=r"not named \.conv\.NN"):
        darknet.load(SPEC, path, partial=True)
    for wrong in (0, 8, -1, 1.5):
        with pytest.raises(ModelError, match=r"first .* layers of a network of 7"):
            darknet.load(SPEC, trunk, partial=wrong)


def test_pictures_seen_are_those_of_a_whole_network(path, tmp_path):
    """Layers that begin anew have seen none, whatever the file of the others says."""
    path.write_bytes(file_bytes())
    whole = darknet.load(SPEC, path)
    for layers in (4, 7):
        part = tmp_path / f"x.conv.{layers}"
        darknet.save(whole, part, partial=layers)
        seen = 123456 if layers == 7 else 0
        assert part.read_bytes() == file_bytes(seen=seen, layers=layers)
        part.write_bytes(file_bytes(layers=layers))
        assert darknet.load(SPEC, part, partial=True).seen == seen


def test_trunk_of_a_classifier_starts_a_detector(tmp_path):
    classifier = Network(presets.darknet19(7, slim=1 / 16))
    darknet.save(classifier, tmp_path / "darknet19.conv.23", partial=23)
    detector = darknet.load(presets.yolov2(2, slim=1 / 16), tmp_path / "darknet19.conv.23", partial=True)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        detector.features(x, 22), classifier.eval().features(x, 22), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "0 bytes; too short"),
        (b"\0" * 11, "too short"),
        (file_bytes()[:15], "ends inside the header"),
        (file_bytes((0, 1, 0))[:15], "ends inside the header; wanted 16"),
        (file_bytes()[:20], "wanted 211 values for 7 layers, found 0 "),
        (file_bytes()[:-4], "wanted 211 values for 7 layers, found 210 .*too short"),
        (file_bytes()[:-1], "found 210 and 3 bytes more"),
        (file_bytes() + b"\0" * 4, "found 212 .*too long"),
        (file_bytes() + b"\0", "found 211 and 1 bytes more"),
        (file_bytes((0, 1, 0))[:12] + file_bytes()[12:], r"found 212 \(header 0.1.0, 16 bytes\)"),
        (b"<!DOCTYPE html><html>" + b" " * 999, "no Darknet weight file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "no Darknet weight file"),
        (b"PK\x03\x04" + b"\0" * 999, "no Darknet weight file"),
        (file_bytes()[:-4] + struct.pack("<f", float("nan")), "layer 4, weights: not all values are finite"),
        (file_bytes()[:20] + struct.pack("<f", float("inf")) + file_bytes()[24:], "layer 0, biases: not all"),
        (
            file_bytes()[:20] + struct.pack("<16f", *[-1.0] * 16) + file_bytes()[84:],
            "layer 0, variance: negative",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(path, data, says):
    path.write_bytes(data)
    with pytest.raises(ModelError, match=says) as caught:
        darknet.load(SPEC, path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"filters": 5},
        {"size": 5},
        {"batch_normalize": False},
    ],
)
def test_a_cfg_that_does_not_fit(path, change):
    path.write_bytes(file_bytes())
    layers = (replace(SPEC.layers[0], **change), *SPEC.layers[1:])
    if "size" in change:
        layers = (replace(layers[0], padding=2), *layers[1:])
    other = replace(SPEC, layers=layers)
    with pytest.raises(ModelError, match=f"wanted {other.values:,} values for 7 layers, found 211"):
        darknet.load(other, path)


def test_no_such_file(path, tmp_path):
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        darknet.load(SPEC, path)
    with pytest.raises(ModelError, match="cannot be read"):
        darknet.load(SPEC, tmp_path)


def test_networks_that_a_weight_file_cannot_hold(path):
    net = Network(presets.tiny9000(classes=3, neck=4))
    with pytest.raises(ModelError, match="no place for it"):
        darknet.save(net, path)
    with pytest.raises(ModelError, match="no place for it"):
        darknet.load(net.spec, path)
    assert not path.exists()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=900), st.integers(0, 900))
def test_any_bytes_are_weights_or_a_model_error(tmp_path_factory, junk, cut):
    path = tmp_path_factory.getbasetemp() / "junk.weights"
    for data in (junk, file_bytes()[:cut] + junk):
        path.write_bytes(data)
        try:
            net = darknet.load(SPEC, path)
        except ModelError:
            continue
        assert len(data) >= 16 + 4 * SPEC.values and all(
            t.isfinite().all() for t in net.state_dict().values()
        )


def cfg_with_tree(folder, nodes=3, name="data/t.tree", mapping=None) -> str:
    text = cfg.format(presets.yolo9000(classes=nodes, anchors=((1, 1),), slim=1 / 64))
    text += f"tree={name}\n" + ("map=data/t.map\n" if mapping is not None else "")
    (folder / "cfg").mkdir()
    (folder / "data").mkdir()
    (folder / "cfg" / "t.cfg").write_text(text)
    (folder / "data" / "t.tree").write_text("n1 -1\nn2 -1\nn3 0\n")
    if mapping is not None:
        (folder / "data" / "t.map").write_text(mapping)
    return folder / "cfg" / "t.cfg"


def test_tree_and_map_are_found_beside_the_cfg_or_below_data_root(tmp_path):
    path = cfg_with_tree(tmp_path, mapping="2\n0\n")
    for root in (None, tmp_path, str(tmp_path)):
        net = darknet.load(path, data_root=root)
        assert net.tree.ids == ("n1", "n2", "n3") and net.class_map.tolist() == [2, 0] and not net.training
    with pytest.raises(ModelError, match=r"tree=data/t\.tree is missing .*data_root"):
        darknet.load(path, data_root=tmp_path / "cfg")
    (tmp_path / "data" / "t.names").write_text("thing\nmatter\ndog\n")
    assert darknet.load(path).tree.names == ("thing", "matter", "dog")


@pytest.mark.parametrize(
    "mapping, says", [("0\n3\n", ":2: .*3"), ("-1\n", ":1: "), ("x\n", ":1: "), ("", "empty")]
)
def test_a_map_outside_the_tree_is_refused(tmp_path, mapping, says):
    path = cfg_with_tree(tmp_path, mapping=mapping)
    with pytest.raises((ModelError, TreeError), match=rf"t\.map.*{says}"):
        darknet.load(path)


def test_a_tree_of_another_size_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"t\.tree: a tree of 3 nodes; the cfg has 4 classes"):
        darknet.load(cfg_with_tree(tmp_path, nodes=4))


def test_a_tree_that_is_missing_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"tree=data/u\.tree is missing"):
        darknet.load(cfg_with_tree(tmp_path, name="data/u.tree"))


FULL_SIZE = """
import hashlib, resource, sys
from pathlib import Path
import numpy as np, torch
from yolo9000 import cfg, darknet, presets

folder = Path(sys.argv[1])
path = folder / "full.weights"
spec = presets.yolo9000(classes=9418, bn="darknet-cpu")
(folder / "full.cfg").write_text(cfg.format(spec))
rng = np.random.default_rng(0)
with path.open("wb") as stream:
    stream.write(np.array([0, 2, 0], "<i4").tobytes() + np.array([1], "<i8").tobytes())
    count = 0
    for i, layer in enumerate(spec):
        values = spec.values_of(i)
        for block in range(0, values, 2**22):
            # positive, to do as variances too; small, so that nothing overflows on its way through 19 layers
            part = rng.random(min(2**22, values - block), dtype=np.float32) * 0.05
            stream.write(part.astype("<f4").tobytes())
        count += values
net = darknet.load(folder / "full.cfg", path)
with torch.no_grad():
    raw = net(torch.rand(1, 3, 544, 544))
assert raw.shape == (1, 28269, 17, 17) and bool(raw.isfinite().all())
del raw
darknet.save(net, folder / "again.weights")
files = [(folder / name).open("rb") for name in ("full.weights", "again.weights")]
first, second = (hashlib.file_digest(file, "sha256").digest() for file in files)
status = Path("/proc/self/status")
if status.exists():  # unlike ru_maxrss it starts anew with the program, and not with what tests before held
    peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, path.stat().st_size, first == second, peak)
"""


@pytest.mark.slow
def test_a_file_as_large_as_the_published_one_fits_in_memory(tmp_path):
    """48,807,501 random values written, loaded, run at 544 px and saved, in 1.5 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_SIZE, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, size, same, peak = done.stdout.split()
    assert (int(count), int(size), same) == (48_807_501, 195_230_024, "True")
    kilobytes = int(peak) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 1.5 * 2**20, f"{kilobytes / 2**20:.2f} GiB"
