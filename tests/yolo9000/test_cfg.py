"""Darknet's cfg text: read as Darknet reads it, written so that it reads back, refused with file and line."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000 import cfg, presets
from yolo9000.errors import ModelError
from yolo9000.spec import (
    Add,
    Convolution,
    Dropout,
    GlobalAveragePool,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    Route,
    Softmax,
)

NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"
REGION = "[region]\nanchors=1,2,3,4.5\nnum=2\nclasses=2\nsoftmax=1\n"
CONV14 = "[convolutional]\nfilters=14\nsize=1\nactivation=linear\n"

EVERYTHING = (
    NetworkSpec(
        96,
        64,
        (
            Convolution(8, 3, groups=1, batch_normalize=False, activation="relu"),
            Convolution(8, 3, 2, padding=0, groups=2, activation="silu"),
            Convolution(8, 3, dilation=3, activation="logistic"),
            Dropout(0.25),
            MaxPool(3, 1),
            MaxPool(3, 2, 0),
            Route((5,)),
            Reorg(2),
            Route((7, 7, 7)),
            Convolution(14, 1, activation="linear", batch_normalize=False),
            Add(9, "leaky"),
            Region(
                ((0.77871, 1.14074), (1e-7, 9.0)), 2, "a.tree", "b.map", bias_match=False, thresh=0.123456789
            ),
        ),
    ),
    NetworkSpec(16, 16, (Convolution(4, 1), GlobalAveragePool(), Softmax("x.tree", 2, 0.5)), channels=1),
    presets.darknet19(),
    presets.yolov2(),
    presets.tiny_yolov2(),
    presets.yolo9000(classes=9418),
)


@pytest.mark.parametrize("spec", EVERYTHING)
def test_written_text_reads_back(spec):
    assert cfg.parse(cfg.format(spec), bn=spec.bn) == spec


def test_what_a_cfg_cannot_say_is_not_written():
    for spec in (presets.tiny9000(classes=3), presets.yolov2(reorg="space_to_depth")):
        with pytest.raises(ModelError, match="cfg has no"):
            cfg.format(spec)
    for layer in (Region(((1, 1),), 2, "my.tree", "my map"), Softmax("my\ntree")):
        with pytest.raises(ModelError, match=r"layer 1: 'my.+' has blanks"):
            cfg.format(NetworkSpec(16, 16, (Convolution(7, 1), layer)))


def test_darknets_habits():
    """Blanks, comments, short names, CRLF, defaults; the first of two in [net] counts; no [cost]."""
    lines = [
        "# comment",
        "[network]",
        " width = 6 4",
        "height=32",
        "channels=3",
        "batch=1",
        "; other",
        "batch=64",
        "",
    ]
    lines += [
        "[conv]",
        " filters = 4",
        "[max]",
        "stride=2",
        "[convolutional]",
        "pad=1",
        "size=3",
        "filters=4",
    ]
    lines += ["activation=leaky", "batch_normalize=1", "[avg]", "[soft]", "[cost]", "type=masked", ""]
    text = "\r\n".join(lines)
    expected = (
        Convolution(4, 1, padding=0, activation="logistic", batch_normalize=False),
        MaxPool(2, 2),
        Convolution(4, 3),
        GlobalAveragePool(),
        Softmax(),
    )
    assert cfg.parse(text) == NetworkSpec(64, 32, expected)


def test_a_byte_order_mark_does_not_hurt(tmp_path):
    (tmp_path / "x.cfg").write_bytes(b"\xef\xbb\xbf" + (NET + CONV14).encode())
    assert len(cfg.read(tmp_path / "x.cfg")) == 1


def test_references_count_from_the_layer_that_makes_them():
    text = (
        NET
        + CONV14 * 3
        + "[route]\nlayers=-1,-3,0\n[convolutional]\nfilters=42\n[shortcut]\nfrom=-2\nactivation=linear\n"
    )
    spec = cfg.parse(text)
    assert spec.layers[3] == Route((2, 0, 0)) and spec.layers[5] == Add(3)


def test_region_settings_and_darknets_defaults():
    region = cfg.parse(NET + CONV14 + REGION).region
    expected = Region(((1, 2), (3, 4.5)), 2, bias_match=False, rescore=False, object_scale=1, thresh=0.5)
    assert region == replace(expected, absolute=False, random=False)
    text = REGION + "rescore=1\nthresh=.6\ntree=data/9k.tree\nmap = data/coco9k.map\n"
    region = cfg.parse(NET + CONV14 + text).region
    assert (region.rescore, region.thresh, region.tree, region.map) == (
        True,
        0.6,
        "data/9k.tree",
        "data/coco9k.map",
    )


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "must begin with .net"),
        ("hello", "1: wanted key=value"),
        ("width=3\n[net]", "1: width stands before any"),
        ("[net\nwidth=3", "1: a section is written .name."),
        (NET, "no layers"),
        (NET + "[cost]\n", "no layers"),
        ("[net]\nwidth=64\nheight=32\n" + CONV14, "x.cfg:1: .net. channels is missing"),
        (NET.replace("64", "sixty") + CONV14, "x.cfg:2: .net. width=sixty is not a whole number"),
        (NET.replace("64", "-64") + CONV14, "width must be a whole number from 1"),
        (NET + "[lstm]\n", "x.cfg:5: .lstm. this kind of layer is not supported"),
        (
            NET + "[convolutional]\nfilters=4\nxnor=1\n",
            "x.cfg:7: .convolutional. the setting 'xnor' is not known",
        ),
        (NET + "[convolutional]\nfilters=4\nfilters=5\n", "filters is set twice"),
        (NET + "[convolutional]\nfilters=0\n", "x.cfg:5: .convolutional. convolution: filters"),
        (NET + "[convolutional]\nfilters=4.5\n", "x.cfg:6: .*filters=4.5 is not a whole number"),
        (NET + "[convolutional]\nfilters=\n", "x.cfg:6: wanted key=value"),
        (NET + "[convolutional]\nactivation=elu\n", "x.cfg:6: .*activation 'elu' is not supported"),
        (NET + CONV14 + "[route]\nlayers=-2\n", "x.cfg:10: .*means layer -1"),
        (NET + CONV14 + "[route]\nlayers=1\n", "x.cfg:10: .*only 0 to 0"),
        (NET + CONV14 + "[route]\nlayers=a\n", "x.cfg:10: .*not a list of numbers"),
        (NET + CONV14 + "[route]\n", "no layers to take"),
        (NET + CONV14 + "[shortcut]\n", "from is missing"),
        (NET + CONV14 + "[reorg]\nstride=2\nreverse=1\n", "reverse=1 is not supported"),
        (NET + CONV14 + "[softmax]\nspatial=1\n", "spatial=1"),
        (
            NET + CONV14 + REGION.replace("num=2", "num=3"),
            "x.cfg:10: .*num=3 anchors need 6 numbers, found 4",
        ),
        (NET + CONV14 + REGION.replace("1,2", "0,2"), "positive"),
        (NET + CONV14 + REGION.replace("1,2", "nan,2"), "positive"),
        (NET + CONV14 + REGION.replace("softmax=1", "softmax=0"), "softmax=0, a sigmoid"),
        (NET + CONV14 + REGION + "coords=5\n", "only coords=4"),
        (NET + CONV14 + REGION + "thresh=inf\n", "not a finite number"),
        (
            NET + CONV14 + REGION.replace("classes=2", "classes=3"),
            r"need 16 filters.*it has 14 \(line 9, \[region\]\)",
        ),
        (NET + REGION, "layer 0"),
        (NET + CONV14 + "\0=1\n", "zero byte"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(text, says):
    with pytest.raises(ModelError, match=says) as caught:
        cfg.parse(text, "x.cfg")
    assert str(caught.value).startswith("x.cfg")


@pytest.mark.parametrize(
    "data, says", [(b"\xff\xfe\x00", "not text"), (b"#" * (2**22 + 1), "too long for a cfg")]
)
def test_files_that_are_no_cfg(tmp_path, data, says):
    path = tmp_path / "x.cfg"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=says):
        cfg.read(path)
    with pytest.raises(ModelError, match="cannot be read"):
        cfg.read(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        cfg.read(tmp_path / "missing.cfg")


WORDS = [
    "[net]",
    "[convolutional]",
    "[region]",
    "[route]",
    "[maxpool]",
    "width=32",
    "height=32",
    "channels=3",
    "filters=4",
]
WORDS += [
    "size=3",
    "stride=2",
    "layers=-1",
    "anchors=1,1",
    "num=1",
    "softmax=1",
    "classes=1",
    "=",
    "size=99999999999999",
    "][",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=14))
def test_any_text_is_a_network_or_a_model_error(lines):
    try:
        spec = cfg.parse("\n".join(lines))
    except ModelError:
        return
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
