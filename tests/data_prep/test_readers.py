"""Readers: all forms of one data set agree; CVAT and LVIS, good and bad. VOC's, YOLO's and Open Images' are
test_voc.py's, test_yolo.py's and test_openimages.py's."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import DataError
from data_prep.coco import read_coco
from data_prep.cvat import read_cvat
from data_prep.fiftyone import read_fiftyone
from data_prep.judging import to_pixels
from data_prep.labelstudio import read_labelstudio
from data_prep.lookup import Lookup
from data_prep.openimages import read_openimages
from data_prep.packing import pack
from data_prep.recipe import Recipe, Source
from data_prep.record import Records
from data_prep.selection import select
from data_prep.store import Store

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])


# One set of boxes in every form


def _forms() -> dict[str, Source]:
    gts = "voc100/gts"

    def source(kind: str, annotations: str, **more) -> Source:
        return Source("voc100", kind, "voc100/images", f"{gts}/{annotations}", map="voc", **more)

    names = f"{gts}/yolo_format/obj.data"
    return {
        "coco v1": source("coco", "coco_format_v1/instances_default.json"),
        "coco v2": source("coco", "coco_format_v2/instances_v2.json"),
        "voc": source("voc", "pascalvoc_format"),
        "imagenet": source("voc", "imagenet_format"),
        "openimages": source("openimages", "openimages_format/all_bounding_boxes.csv"),
        "cvat": source("cvat", "cvat_format/annotations.xml"),
        "yolo": source("yolo", "yolo_format/obj_train_data", class_names=names),
        "darknet": source(
            "darknet",
            "yolo_format/train.txt",
            class_names=names,
            labels=f"{gts}/yolo_format/obj_train_data",
        ),
    }


@pytest.mark.reference
def test_all_forms_of_voc100_give_the_same_samples_box_for_box(tmp_path, shared):
    wanted = None
    for form, source in _forms().items():
        report = pack(Recipe((source,), root=shared / "data"), tmp_path / "o.h5", decode=False)
        assert (report.pictures.total(), report.boxes.total(), report.faults) == (100, 273, []), form
        found = {}
        for one in Store(tmp_path / "o.h5"):
            order = np.lexsort((*one.boxes_cxcywh.T, one.labels))  # forms list a picture's boxes in any order
            rows = (one.labels[order].tolist(), one.boxes_cxcywh[order].tobytes(), one.crowd.any())
            found[one.name] = (one.image, one.width, one.height, one.boxed, *rows)
            # The VOC originals alone say which objects are difficult; the other forms were made without.
            original = (
                shared / "data/voc100/gts/pascalvoc_format" / f"{Path(one.name).stem}.xml"
            ).read_text()
            marked = original.count("<difficult>1</difficult>") if form == "voc" else 0
            assert one.difficult.sum() == marked
        wanted = wanted or found
        assert found == wanted, form


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
    data=st.data(),
    decimals=st.integers(6, 12),
)
def test_whole_pixels_written_as_shares_come_back_exactly(size, data, decimals):
    xs = sorted(data.draw(st.tuples(*[st.integers(0, size[0])] * 2)))
    ys = sorted(data.draw(st.tuples(*[st.integers(0, size[1])] * 2)))
    box = np.asarray([xs[0], ys[0], xs[1], ys[1]], float)
    written = [
        float(f"{share:.{decimals}f}")
        for share in (
            (box[0] + box[2]) / 2 / size[0],
            (box[1] + box[3]) / 2 / size[1],
            (box[2] - box[0]) / size[0],
            (box[3] - box[1]) / size[1],
        )
    ]
    x, y, w, h = written
    shares = np.asarray([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
    # 1e-9: binary rounding of the sums
    assert np.abs(to_pixels(shares, size) - box).max() <= 1e-9 * max(size)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4), st.integers(1, 5000), st.integers(1, 5000))
def test_no_edge_moves_further_than_its_rounding(shares, width, height):
    box = np.asarray([shares])
    exact = box * [width, height, width, height]
    moved = np.abs(to_pixels(box, (width, height)) - exact)
    assert (moved <= 0.75e-6 * np.asarray([width, height, width, height])).all()


# Names


def test_pictures_are_found_by_what_annotations_call_them():
    find = PICTURES.find
    assert (
        find("a.jpg") == find("a") == find("./a.JPG") == find("data/obj/a.jpg") == find("x\\a.jpg") == "a.jpg"
    )
    assert find("c") == find("c.jpg") == find("/home/me/deep/c.png") == "deep/c.png"
    assert find("other/c.png") is None  # another folder is another picture
    assert find("") is None
    assert find("z.jpg", "b.jpg") == "b.jpg"
    assert Lookup(["x/1.jpg", "y/1.jpg"]).find("1") is None  # which of the two?
    assert Lookup(["images/1.jpg", "masks/1.png"]).find("1.jpg") == "images/1.jpg"


@pytest.mark.parametrize("ours", ["NFC", "NFD"])
@pytest.mark.parametrize("theirs", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_written(ours, theirs):
    on_disk, called = unicodedata.normalize(ours, "é/ü 1.jpg"), unicodedata.normalize(theirs, "é/ü 1.jpg")
    find = Lookup(["1.jpg", "ü 1.jpg", on_disk]).find
    assert find(called) == find(called[:-4]) == find(f"/home/{called}") == on_disk
    assert find(quote(called)) == on_disk
    for listed in (called, called.rpartition("/")[2]):
        assert select([on_disk], only=frozenset({listed})) == {on_disk}
    both = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    assert list(map(Lookup(both).find, both)) == both  # two pictures, as they are
    assert [select(both, only=frozenset({name})) for name in both] == [{name} for name in both]


def test_what_only_looks_like_an_address_is_a_name():
    assert Lookup(["a%20b.jpg", "a b.jpg"]).find("a%20b.jpg") == "a%20b.jpg"
    assert Lookup(["a b.jpg"]).find("a%20b.jpg") == "a b.jpg"
    assert Lookup(["a b.jpg"]).find("a%2520b.jpg") is None  # once
    pictures = Lookup(["a b.jpg"]).among([("a%20b.jpg",), ("a b.jpg",)])
    assert (pictures.find("a%20b.jpg"), pictures.find("a b.jpg")) == (None, "a b.jpg")


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_splits_that_number_alike_the_one_whose_pictures_they_are_is_meant(tmp_path, order):
    entries = [("train/images/1.jpg",), ("valid/images/1.jpg",)][::order]
    pictures = Lookup(["1.jpg"], tmp_path / "train" / "images").among(entries)
    assert pictures.find("train/images/1.jpg") == "1.jpg" and pictures.find("valid/images/1.jpg") is None


def test_a_name_that_leads_to_a_folder_beside_is_not_found(tmp_path):
    for folder in ("rig/cam0/rgb", "rig/cam1/rgb"):
        (tmp_path / folder).mkdir(parents=True)
    find = Lookup(["1.jpg"], tmp_path / "rig" / "cam1" / "rgb").find
    assert (
        find("cam1/rgb/1.jpg") == find("/data/rgb/1.jpg") == find("old/1.jpg") == find("../1.jpg") == "1.jpg"
    )
    assert find("cam0/rgb/1.jpg") is None
    assert find("x" * 300 + "/1.jpg") == "1.jpg"  # no system has such a folder
    (tmp_path / "a.tar").touch()
    assert Lookup(["1.jpg"], tmp_path / "b.tar").find("b/1.jpg") == "1.jpg"
    assert Lookup(["1.jpg"], tmp_path / "b.tar").find("a/1.jpg") is None


def _entries(kind: str, path: Path, entries: list[tuple[str, str]]) -> Callable[[Lookup], Records]:
    """A file of that kind with one box a picture, (what it calls the picture, class), and its reader."""
    if kind == "cvat":
        box = '<box label="{}" xtl="1" ytl="2" xbr="5" ybr="4"/>'
        images = "".join(f'<image name="{name}">{box.format(label)}</image>' for name, label in entries)
        path.write_text(f"<annotations>{images}</annotations>")
        return lambda pictures: read_cvat(path, pictures)
    if kind == "coco":
        content = {
            "images": [{"id": k, "file_name": name} for k, (name, _) in enumerate(entries)],
            "categories": [{"id": label, "name": label} for _, label in entries],
            "annotations": [
                {"image_id": k, "category_id": label, "bbox": [1, 2, 4, 2]}
                for k, (_, label) in enumerate(entries)
            ],
        }
    elif kind == "openimages":
        rows = "".join(f"{name},{label},0.1,0.5,0.2,0.4\n" for name, label in entries)
        path.write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax\n{rows}")
        return lambda pictures: read_openimages(path, pictures)
    elif kind == "fiftyone":
        row = {"bounding_box": [0.1, 0.1, 0.2, 0.2]}
        found = [{"_cls": "Detections", "detections": [row | {"label": label}]} for _, label in entries]
        samples = zip(entries, found, strict=True)
        content = {"samples": [{"filepath": name, "ground_truth": truth} for (name, _), truth in samples]}
    else:
        value = {"x": 1, "y": 2, "width": 4, "height": 2}
        content = [
            {
                "data": {"image": name},
                "annotations": [{"result": [{"value": value | {"rectanglelabels": [label]}}]}],
            }
            for name, label in entries
        ]
    path.write_text(json.dumps(content))
    reader = {"coco": read_coco, "fiftyone": read_fiftyone, "labelstudio": read_labelstudio}[kind]
    return lambda pictures: reader(path, pictures)


@pytest.mark.parametrize("kind", ["coco", "fiftyone", "labelstudio", "cvat", "openimages"])
@pytest.mark.parametrize(
    ("loose", "exact"),
    [
        ("b/1.jpg", "1.jpg"),
        ("1.png", "1.jpg"),
        ("other/1.jpg", "/home/me/cam1/1.jpg"),
        ("b/1.jpg", "cam1/1.jpg"),
        ("9.png", "deep/9.jpg"),
    ],
)
def test_an_entry_without_its_picture_does_not_take_that_of_another(tmp_path, kind, loose, exact):
    pictures = Lookup(["1.jpg", "deep/9.jpg"], tmp_path / "cam1")
    alone = _entries(kind, tmp_path / "1", [(exact, "cat")])(pictures)
    assert alone.records[0].name in ("1.jpg", "deep/9.jpg") and alone.faults == ()
    for entries in ([(loose, "dog"), (exact, "cat")], [(exact, "cat"), (loose, "dog")]):
        both = _entries(kind, tmp_path / "2", entries)(pictures)
        taken = {record.name: record.categories for record in both.records}
        assert taken == {alone.records[0].name: ("cat",), loose: ("dog",)}
        assert both.faults == ()  # when it is fetched, the picture turns out to be missing
    # Where none comes closer, the first is taken.
    assert _entries(kind, tmp_path / "3", [(loose, "dog")])(pictures).records[0].name == alone.records[0].name


@pytest.mark.parametrize("kind", ["coco", "fiftyone", "labelstudio", "cvat", "openimages"])
def test_of_entries_equally_close_to_a_picture_the_first_has_it(tmp_path, kind):
    found = _entries(kind, tmp_path / "1", [("x/1.jpg", "dog"), ("y/1.jpg", "cat")])(Lookup(["1.jpg"]))
    assert [(record.name, record.categories) for record in found.records] == [("1.jpg", ("dog",))]
    assert [(fault.kind, fault.picture) for fault in found.faults] == [("repeated id", "1.jpg")]


def test_boxes_of_a_coco_image_that_is_there_twice_are_no_orphans(tmp_path):
    found = _entries("coco", tmp_path / "1", [("1.jpg", "dog"), ("1.jpg", "cat")])(Lookup(["1.jpg"]))
    assert [record.categories for record in found.records] == [("dog",)]
    assert [fault.kind for fault in found.faults] == ["repeated id"]


# CVAT


def test_cvat_shapes(tmp_path):
    (tmp_path / "a.xml").write_text(
        """<annotations><meta><task><labels><label><name>dog</name></label>
          <label><name>nose</name><type>points</type><parent>dog</parent></label></labels></task></meta>
        <image id="1" name="x/a.jpg" width="20" height="10">
          <box label="dog" xtl="1" ytl="2" xbr="5" ybr="4"><attribute name="difficult">true</attribute></box>
          <box label="cat" xtl="1" ytl="2" xbr="5" ybr="4" rotation="90"/>
          <polygon label="dog" points="1,2;7,3;4,9"/>
          <tag label="sunny"/><points label="dog" points="1,1"/><box label="dog" xtl="1"/>
        </image><image id="2" name="b.jpg"/><image id="3" name="b.jpg"/></annotations>"""
    )
    found = read_cvat(tmp_path / "a.xml", PICTURES)
    first, second = found.records
    assert np.allclose(first.boxes_xyxy, [[1, 2, 5, 4], [2, 1, 4, 5], [1, 2, 7, 9]])
    assert (first.name, first.size, first.image_categories) == ("a.jpg", (20, 10), ("sunny",))
    assert first.difficult.tolist() == [True, False, False]
    assert (second.size, len(second.boxes_xyxy)) == (None, 0)
    assert list(found.categories) == ["dog", "cat", "sunny"]
    assert [fault.kind for fault in found.faults] == ["malformed annotation"] * 2 + ["repeated id"]
    (tmp_path / "v.xml").write_text("<annotations><track id='1'/></annotations>")
    with pytest.raises(DataError, match="export the task again"):
        read_cvat(tmp_path / "v.xml", PICTURES)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=3))
def test_cvat_tells_labelled_pictures_from_boxed_ones_one_by_one(tmp_path_factory, pictures):
    path = tmp_path_factory.mktemp("f") / "a.xml"
    shapes = ["", '<box label="dog" xtl="1" ytl="2" xbr="5" ybr="4"/>', '<points label="dog" points="1,1"/>']
    said = [('<tag label="sunny"/>' if tagged else "") + shapes[drawn] for tagged, drawn in pictures]
    images = "".join(f'<image id="{k}" name="{k}.jpg">{inner}</image>' for k, inner in enumerate(said))
    path.write_text(f"<annotations>{images}</annotations>")
    only_tags = any(tagged for tagged, _ in pictures) and not any(drawn for _, drawn in pictures)
    for record, (tagged, drawn) in zip(read_cvat(path, Lookup([])).records, pictures, strict=True):
        assert record.image_categories == ("sunny",) * tagged and len(record.categories) == (drawn == 1)
        assert record.boxed == (drawn > 0 or not (tagged or only_tags))


@settings(max_examples=30, deadline=None)
@given(st.floats(-360, 360), st.floats(1, 50), st.floats(1, 50))
def test_cvat_ellipses_and_masks_are_boxed_as_polygons_are(tmp_path_factory, turn, rx, ry):
    path = tmp_path_factory.mktemp("f") / "a.xml"
    around = np.exp(2j * np.pi * np.arange(4096) / 4096)
    points = 60 + 70j + (rx * around.real + 1j * ry * around.imag) * np.exp(1j * np.radians(turn))
    path.write_text(
        f"""<annotations><image id="1" name="a.jpg">
        <ellipse label="dog" cx="60" cy="70" rx="{rx}" ry="{ry}" rotation="{turn}"/>
        <polygon label="dog" points="{";".join(f"{z.real},{z.imag}" for z in points)}"/>
        <mask label="dog" rle="1, 2, 3" left="2" top="3" width="3" height="2"/>
        <mask label="dog" rle="1"/><ellipse label="dog" cx="1" cy="1" rx="2"/></image></annotations>"""
    )
    found = read_cvat(path, PICTURES)
    ellipse, polygon, mask = found.records[0].boxes_xyxy
    np.testing.assert_allclose(ellipse, polygon, atol=1e-4)
    assert mask.tolist() == [2, 3, 5, 5] and len(found.faults) == 2


# LVIS


def test_lvis_lists_reach_the_samples(tmp_path, make, tree_file):
    (tmp_path / "0.jpg").write_bytes(make.picture(20, 10))
    make.coco_of(
        tmp_path / "c.json",
        {"0.jpg": (20, 10)},
        [("0.jpg", 1, [0, 0, 5, 5], {})],
        {1: "n00000003", 2: "n00000004", 3: "n00000005"},
    )
    content = json.loads((tmp_path / "c.json").read_text())
    content["images"][0] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [1, 3]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "c.json").records[0].negative_categories == (2,)
    pack(Recipe((Source("x", "coco", ".", "c.json"),), str(tree_file), root=tmp_path), tmp_path / "o.h5")
    (one,) = Store(tmp_path / "o.h5")
    lists = (one.labels, one.negative_labels, one.not_exhaustive_labels)
    assert [values.tolist() for values in lists] == [[2], [3], [2, 4]]
