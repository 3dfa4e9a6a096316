"""What fuzzing found, each case made small: files that were misread, crashed a reader, or took too long."""

import io
import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import DataError, Store
from data_prep.classnames import read_class_names
from data_prep.coco import read_coco
from data_prep.cvat import read_cvat
from data_prep.layout import COLUMNS
from data_prep.lookup import Lookup
from data_prep.pictures import inspect
from data_prep.yolo import read_yolo
from tests.fuzz.networks import CFG
from tests.fuzz.stores import _stores
from tests.yolo9000 import small
from wordtree import TreeError, WordTree
from wordtree.darknet import read_map
from yolo9000 import Detector, cfg
from yolo9000.descent import RULES
from yolo9000.errors import ImageError, ModelError
from yolo9000.images import read_image
from yolo9000.modelfile import load_model, save_model
from yolo9000.network import Network
from yolo9000.spec import Convolution, NetworkSpec, Region, Softmax


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# Text


@pytest.mark.parametrize("line", ["\x1f7", "7\x1c", "\u2003 7", "\xa07"])
def test_a_map_takes_no_blank_that_darknet_takes_for_a_letter(tmp_path, line):
    with pytest.raises(TreeError, match=r"x\.map:2: wanted the index of a node"):
        read_map(written(tmp_path, "x.map", f"1\n{line}\n"), 10)
    assert read_map(written(tmp_path, "x.map", "1\n \t7 \n"), 10).tolist() == [1, 7]


@pytest.mark.parametrize("blank", ["\x1c", "\xa0", "\u3000", "\x85"])
def test_a_tree_does_not_split_where_darknet_does_not(tmp_path, blank):
    with pytest.raises(TreeError, match=r"x.tree:1: "):
        WordTree.load(written(tmp_path, "x.tree", f"n1{blank}-1\n"))


@pytest.mark.parametrize("text", ["1_6", "٣", "16\u2028stride=2", "16\x0cstride=2", "16\x85stride=2"])
def test_a_cfg_number_is_one_to_darknet_too(text):
    whole = CFG.decode().replace("filters=8", f"filters={text}", 1)
    with pytest.raises(ModelError, match=r"cfg:9: \[convolutional\] filters="):
        cfg.parse(whole)


def test_a_cfg_key_holds_no_odd_blank():
    with pytest.raises(ModelError, match="not known here"):
        cfg.parse(CFG.decode().replace("size=3", "size\x1c=3"))


def test_a_convolution_does_not_pad_beyond_its_windows():
    Convolution(8, 3, padding=3)
    with pytest.raises(ModelError, match="padding"):
        Convolution(8, 3, padding=4)
    with pytest.raises(ModelError, match="padding"):
        cfg.parse(CFG.decode().replace("pad=1", "padding=1000", 1))


def test_a_softmax_alone_is_no_network():
    spec = cfg.parse("[net]\nwidth=32\nheight=32\nchannels=3\n[softmax]\n")
    with pytest.raises(ModelError, match="a softmax alone"):
        Network(spec)(torch.zeros(1, 3, 32, 32))


def test_class_names_of_blanks_alone_and_numbers_without_end(tmp_path):
    with pytest.raises(DataError, match="blank class name"):
        read_class_names(written(tmp_path, "x.yaml", "names: ['  ', dog]\n"))
    with pytest.raises(DataError, match="line 2"):
        read_class_names(written(tmp_path, "y.yaml", f"names:\n  {'9' * 5000}: cat\n"))


def test_names_twice_in_a_data_yaml_are_not_half_read(tmp_path):
    path = written(tmp_path, "x.yaml", "names: [a, b]\nnc: 2\nnames: [b, a]\n")
    with pytest.raises(DataError, match="in lines 1, 3; keep one"):
        read_class_names(path)


def test_coco_with_an_endless_number(tmp_path):
    text = f'{{"images": [], "annotations": [], "categories": [], "x": {"9" * 5000}}}'
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_coco(written(tmp_path, "x.json", text))


def test_coco_keeps_a_size_that_no_float_holds(tmp_path):
    image = {"id": 1, "file_name": "a.jpg", "width": 10**30, "height": 5}
    content = {"images": [image], "annotations": [], "categories": []}
    assert read_coco(written(tmp_path, "x.json", json.dumps(content))).records[0].size == (10**30, 5)


@pytest.mark.parametrize("points", ["0,0;1,nan;1,1", "nan,0;1,0;1,1", "0,0;1,0;1,nan"])
def test_a_corner_that_is_no_number_makes_no_box(tmp_path, points):
    text = f'<annotations><image name="a.jpg"><polygon label="x" points="{points}"/></image></annotations>'
    (record,) = read_cvat(written(tmp_path, "x.xml", text), Lookup(["a.jpg"])).records
    assert np.isnan(record.boxes_xyxy).any()
    (tmp_path / "labels").mkdir()
    written(tmp_path, "labels/a.txt", f"0 {points.replace(';', ' ').replace(',', ' ')}\n")
    (record,) = read_yolo(tmp_path / "labels", ["a.jpg"], Lookup(["a.jpg"])).records
    assert np.isnan(record.boxes_xyxy).any()


@pytest.mark.parametrize("line", ["0\uff11 0.5 0.5 0.2 0.2", "0 0.\u0665 0.5 0.2 0.2"])
def test_digits_of_other_scripts_are_no_labels(tmp_path, line):
    (tmp_path / "labels").mkdir()
    written(tmp_path, "labels/a.txt", f"{line}\n")
    found = read_yolo(tmp_path / "labels", ["a.jpg"], Lookup(["a.jpg"]))
    assert not found.records[0].categories and found.faults[0].kind == "malformed annotation"


def test_a_key_of_yaml_is_a_number_and_a_colon(tmp_path):
    with pytest.raises(DataError, match="line 2"):
        read_class_names(written(tmp_path, "x.yaml", "names:\n  0:: cat\n"))


def test_a_quoted_name_ends_on_its_line(tmp_path):
    with pytest.raises(DataError, match="line 3: a quoted name"):
        read_class_names(written(tmp_path, "x.yaml", "names:\n  0: cat\n  1: '\n'\n  2: dog\n"))


@pytest.mark.parametrize("broken", ["'hot\n  dog'", '"hot\n\n  dog"', "hot\n  dog", "dog\n  'hot'"])
def test_a_name_of_a_list_ends_on_its_line(tmp_path, broken):
    with pytest.raises(DataError, match="line 2: a name ends on its own line"):
        read_class_names(written(tmp_path, "x.yaml", f"nc: 3\nnames: [cat,\n  {broken},\n  fox]\n"))
    kept = f"nc: 3\nnames: [cat,\n  {broken.replace(chr(10), '')},\n  fox]\n"
    assert read_class_names(written(tmp_path, "y.yaml", kept))[::2] == ["cat", "fox"]


@pytest.mark.parametrize(
    "text", ["'dog''s', x", "'a''', x", '"it\'s", x', "don't, x", "'[a]', x", '"a\\"b", x', '"\\u00e9", x']
)
def test_quotes_in_names_are_read_as_yaml_reads_them(tmp_path, text):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    whole = f"names: [{text}]\nnc: 2\n"
    wanted = yaml.safe_load(whole)["names"]
    assert read_class_names(written(tmp_path, "x.yaml", whole)) == wanted
    lines = f"names:\n- {text.removesuffix(', x')}\n- x\n"
    assert read_class_names(written(tmp_path, "y.yaml", lines)) == yaml.safe_load(lines)["names"] == wanted


@pytest.mark.parametrize(
    "name", ["&a cat", "*a", "a: b", "b:", "| x", "{a", '"\\x41"', '"\\ud800"', "'a' b'", "'a", '"a']
)
def test_what_yaml_reads_otherwise_is_no_name(tmp_path, name):
    for text in (f"names: [{name}, x]\n", f"names:\n- {name}\n- x\n"):
        with pytest.raises(DataError, match=r"line [12]: "):
            read_class_names(written(tmp_path, "x.yaml", text))


@pytest.mark.parametrize("part", ["'a',", "''", '"a" ', "'", "a "])
def test_a_list_of_names_without_end_is_refused_at_once(tmp_path, part):
    """It took twice as long with every name: three minutes for 22."""
    with pytest.raises(DataError, match="line 1: wanted names"):
        read_class_names(written(tmp_path, "x.yaml", f"names: [{part * 10_000}"))


@pytest.mark.parametrize("data", [b"\xef", b"\xef\xbb"])
def test_half_a_byte_order_mark_is_no_empty_file(tmp_path, data):
    (tmp_path / "x.names").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as text"):
        read_class_names(tmp_path / "x.names")
    (tmp_path / "y.names").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_class_names(tmp_path / "y.names") == ["cat", "dog"]


# Pictures


def broken_png() -> bytes:
    """A PNG without EXIF whose pixels end in a wrong checksum: Pillow looks for EXIF behind the pixels."""
    out = io.BytesIO()
    small.picture(1, 30, 20).save(out, "PNG")
    data = bytearray(out.getvalue())
    at = data.index(b"IDAT") + 40
    data[at : at + 60] = bytes(60)
    with Image.open(io.BytesIO(data)) as image, pytest.raises((OSError, SyntaxError)):
        image.load()
    return bytes(data)


def test_a_broken_png_is_no_picture():
    with pytest.raises(DataError, match="cannot be decoded"):
        inspect(broken_png(), decode=True)
    with pytest.raises(ImageError, match="damaged"):
        read_image(broken_png())


# Stores


def store_with(folder: Path, **columns) -> Path:
    """A store whose columns were changed and whose checksums fit nevertheless."""
    path = written(folder, "x.h5", _stores()[0])
    with h5py.File(path, "r+") as file:
        for name, change in columns.items():
            values = change(file[f"index/{name}"][()])
            del file[f"index/{name}"]
            file.create_dataset(f"index/{name}", data=values)
        sums = {name: zlib.crc32(file[f"index/{name}"][()].tobytes()) for name in COLUMNS}
        file.attrs["index_crc32"] = json.dumps(sums | {"tree": zlib.crc32(file["tree"][()].tobytes())})
    return path


def put(at: int, value: float):
    def change(values: np.ndarray) -> np.ndarray:
        values[at] = value
        return values

    return change


def test_the_changed_store_is_sound_where_nothing_is_changed(tmp_path):
    assert len(Store(store_with(tmp_path))) == 4


@pytest.mark.parametrize(
    "columns",
    [
        {"box_starts": put(1, 9)},
        {"box_starts": put(0, 1)},
        {"image_label_starts": put(2, -1)},
        {"image_starts": put(1, 0)},
        {"name_starts": lambda v: v[::-1].copy()},
        {"width": put(0, 0)},
        {"height": lambda v: v[:-1]},
        {"height": lambda v: v.reshape(-1, 1)},
        {"source": put(0, 7)},
        {"source": put(0, -1)},
        {"labels": put(0, -1)},
        {"labels": lambda v: v.reshape(-1, 1)},
        {"crowd": lambda v: v.reshape(1, -1)},
        {"boxes_cxcywh": put(0, np.nan)},
        {"boxes_cxcywh": put(0, 2)},
        {"boxes_cxcywh": lambda v: v.reshape(-1)},
        {"boxed": put(0, 0)},
        {"image_crc32": lambda v: v[:0]},
    ],
)
def test_an_index_that_does_not_fit_itself(tmp_path, columns):
    with pytest.raises(DataError, match="does not fit the images or itself"):
        Store(store_with(tmp_path, **columns))


@pytest.mark.parametrize("name", ["labels", "image_labels", "negative_labels", "not_exhaustive_labels"])
def test_labels_beyond_the_tree(tmp_path, name):
    store = Store(store_with(tmp_path, **{name: put(0, 8)}))
    with pytest.raises(DataError, match=f"{name} beyond the 8 nodes"):
        _ = store.tree
    with pytest.raises(DataError, match=f"{name} beyond the 8 nodes"):
        store.require_tree(Store(store_with(tmp_path)).tree)


@pytest.mark.parametrize(
    "name, value", [("tree_fingerprint", np.zeros(3)), ("sources", "[1]"), ("about", "[]")]
)
def test_attributes_of_other_types(tmp_path, name, value):
    path = written(tmp_path, "x.h5", _stores()[0])
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(DataError, match="not of its type"):
        Store(path)


def test_a_column_that_only_says_it_is_long(tmp_path):
    path = written(tmp_path, "x.h5", _stores()[0])
    with h5py.File(path, "r+") as file:
        del file["index/labels"]
        file.create_dataset("index/labels", (1 << 40,), "<i4", chunks=(1 << 20,))
    with pytest.raises(DataError, match="larger than the file"):
        Store(path)


# Models


def model_with(folder: Path, **changes) -> Path:
    """A model file whose description was changed and whose SHA-256 fits nevertheless."""
    from tests.fuzz.networks import KEY, join_model, model_tensors, plain_digest, split_model

    path = folder / "x.safetensors"
    save_model(small.small_detector("flat"), path, names=list("abcdef"))
    header, body = split_model(path.read_bytes())
    version, _, text = header["__metadata__"][KEY].split("\n", 2)
    text = json.dumps(json.loads(text) | changes)
    header["__metadata__"][KEY] = f"{version}\n{plain_digest(text, model_tensors(header, body))}\n{text}"
    path.write_bytes(join_model(header, body))
    return path


def test_the_changed_model_loads_where_nothing_is_changed(tmp_path):
    assert load_model(model_with(tmp_path, record={"a": 1})).record == {"a": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ["a", "b", 3, "d", "e", "f"]},
        {"seen": float("inf")},
        {"seen": "0"},
        {"version": [0, 2.5, 0]},
        {"record": [{"a": 1, "b": 2}]},
        {"defaults": [["size", 64]]},
    ],
)
def test_descriptions_are_not_bent_into_shape(tmp_path, changes):
    with pytest.raises(ModelError, match="its description cannot be read"):
        load_model(model_with(tmp_path, **changes))


def test_weights_that_overflow_are_the_models_fault():
    net = small.small_detector("shared")
    with torch.no_grad():
        net.layers[-1].rows.weight.fill_(3e38)
    detector = Detector(net, precision="float32")
    asked = [{"rule": rule} for rule in RULES]
    asked += [{"level": 1}, {"level": ["animal", "thing"]}, {"vocabulary": ["animal"]}, {"hedge_lambda": 1.0}]
    for options in asked:
        with pytest.raises(ModelError, match="what is no number"):
            detector(small.picture(), threshold=0, **options)


def test_boxes_and_features_of_other_grids():
    boxes = Convolution(10, 1, padding=1, activation="linear", batch_normalize=False)
    region = Region(((1.0, 1.0), (2.0, 2.0)), 10, boxes=5, features=4)
    spec = NetworkSpec(64, 64, (*small.trunk(), boxes, region))
    net = small.randomise(Network(spec, small.TREE), 0)
    with pytest.raises(ModelError, match="different sizes"):
        net.lazy(torch.zeros(1, 3, 64, 64))


def test_a_softmax_over_a_grid_is_no_classifier():
    layers = (Convolution(4, 3, 2, activation="relu", batch_normalize=False), Softmax())
    net = small.randomise(Network(NetworkSpec(32, 32, layers)), 0)
    with pytest.raises(ModelError, match="16 values for 4 classes: it stands over a grid"):
        net(torch.zeros(1, 3, 4, 4))
    assert net(torch.zeros(1, 3, 2, 2)).shape == (1, 4)


@pytest.mark.parametrize("name", ["", "\0"])
def test_names_that_nothing_can_be_called(tmp_path, name):
    net = load_model(model_with(tmp_path, names=["a", "b", name, "d", "e", "f"]))
    with pytest.raises(ModelError, match="the classes cannot be called so: node 2"):
        Detector(net, precision="float32")


def test_a_window_larger_than_its_grid_is_told_in_words():
    layers = [*small.trunk(), Convolution(8, 3, dilation=64, padding=1)]
    layers += [
        Convolution(14, 1, activation="linear", batch_normalize=False),
        Region(((1.0, 1.0), (2.0, 2.0)), 2),
    ]
    detector = Detector(small.randomise(Network(NetworkSpec(64, 64, tuple(layers))), 0), precision="float32")
    with pytest.raises(ModelError, match="wanted at least 127 a side"):
        detector(small.picture())
