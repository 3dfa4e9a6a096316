"""VOC's annotations, and XML of strangers."""

from pathlib import Path

import pytest

from data_prep import DataError
from data_prep.lookup import Lookup
from data_prep.voc import read_voc
from data_prep.xmlfile import read_xml

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])


def voc(tmp_path: Path, name: str, body: str) -> Path:
    folder = tmp_path / "xml"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(body)
    return folder


OBJECT = (
    "<object><name>dog</name>{more}<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
    "<ymax>2</ymax></bndbox></part><bndbox><xmax>9</xmax><ymax>8.5</ymax><xmin>3</xmin><ymin>1</ymin></bndbox>"
    "</object>"
)


@pytest.mark.parametrize(("corners", "box"), [("edges", [3, 1, 9, 8.5]), ("pixels", [2, 0, 9, 8.5])])
def test_voc_boxes_marks_and_sizes(tmp_path, corners, box):
    size = "<size><width>20</width><height>10</height></size>"
    folder = voc(tmp_path, "a.xml", f"<annotation><filename>wrong</filename>{size}{OBJECT}</annotation>")
    voc(tmp_path, "deep/c.xml", f"<annotation>{OBJECT.format(more='<difficult>1</difficult>')}</annotation>")
    voc(tmp_path, "z.xml", "<annotation><filename>b</filename><size><width>0</width></size></annotation>")
    found = read_voc(folder, PICTURES, corners)
    assert [r.name for r in found.records] == ["a.jpg", "b.jpg", "deep/c.png"]
    first, empty, hard = found.records
    assert (first.boxes_xyxy.tolist(), first.size, first.categories) == ([box], (20, 10), ("dog",))
    assert (first.difficult.tolist(), hard.difficult.tolist()) == ([False], [True])
    assert (len(empty.boxes_xyxy), empty.size, empty.boxed) == (0, None, True)
    assert found.faults == ()


def test_voc_files_that_are_broken_cost_themselves_only(tmp_path):
    folder = voc(tmp_path, "a.xml", "<annotation><object><name>x</name></object></annotation>")
    for name, body in {
        "b.xml": "<annotation><object>",
        "c.xml": "",
        "d.xml": "<notes/>",
        "e.xml": "<annotation><filename>a.jpg</filename></annotation>",
    }.items():
        voc(tmp_path, name, body)
    found = read_voc(folder, PICTURES)
    assert [r.name for r in found.records] == ["a.jpg"]
    kinds = sorted(fault.kind for fault in found.faults)
    assert kinds == ["malformed annotation"] * 4 + ["repeated id"]
    with pytest.raises(DataError, match="no such folder"):
        read_voc(tmp_path / "none", PICTURES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.xml files"):
        read_voc(tmp_path / "empty", PICTURES)


BOMB = '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (BOMB, "line 1: declares a document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
        ("<annotation>&x;</annotation>", "line 1: not well-formed"),
        ("<annotation>\n<a></b></annotation>", "line 2: not well-formed"),
        ("<annotation/><annotation/>", "not well-formed"),
        ("", "not well-formed"),
        ("<html/>", "starts with <html>, wanted <annotation>"),
        ("<annotation>" + "<a>" * 100, "over 64 elements deep"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "klingon|unknown encoding"),
    ],
)
def test_xml_of_strangers_is_refused_not_followed(tmp_path, body, says):
    (tmp_path / "a.xml").write_text(body)
    with pytest.raises(DataError, match=says) as caught:
        read_xml(tmp_path / "a.xml", "annotation", {}, 1 << 20)
    assert "a.xml" in str(caught.value)


def test_xml_has_a_limit_and_may_have_another_encoding(tmp_path):
    (tmp_path / "a.xml").write_bytes("<annotation><name>Löwe</name></annotation>".encode("utf-16"))
    found = []
    read_xml(tmp_path / "a.xml", "annotation", {"name": found.append}, 1 << 20)
    assert [element.text for element in found] == ["Löwe"]
    with pytest.raises(DataError, match="over 0 MiB"):
        read_xml(tmp_path / "a.xml", "annotation", {}, 10)
    with pytest.raises(DataError, match="cannot be read as XML"):
        read_xml(tmp_path / "none.xml", "annotation", {}, 10)


def test_voc_files_behind_links_and_in_capitals(tmp_path):
    folder = voc(tmp_path, "a.XML", "<annotation/>")
    voc(tmp_path, "../real/c.xml", "<annotation/>")
    (folder / "deep").symlink_to("../real")
    assert [r.name for r in read_voc(folder, PICTURES).records] == ["a.jpg", "deep/c.png"]


def test_voc_files_of_another_folder_find_no_picture_by_its_bare_name(tmp_path):
    said = f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>"
    folder = voc(tmp_path, "cam0/1.xml", said)
    pictures = ["cam1/1.jpg", "cam1/2.jpg"]
    # Told when it is fetched: there is no such picture.
    assert [r.name for r in read_voc(folder, Lookup(pictures)).records] == ["cam0/1.jpg"]
    (tmp_path / "rig/cam0").mkdir(parents=True)
    beside = Lookup(["1.jpg"], tmp_path / "rig/cam1")
    assert [r.name for r in read_voc(folder, beside).records] == ["cam0/1.jpg"]
    voc(tmp_path, "cam1/0.xml", said.replace("1.jpg", "2.jpg"))  # renamed, in the folder of its picture
    voc(tmp_path, "cam1/1.xml", said)
    found = read_voc(folder, Lookup(pictures))
    assert [r.name for r in found.records] == ["cam0/1.jpg", *pictures] and found.faults == ()
    # A folder of XML files without folders, for pictures that lie in some.
    assert [r.name for r in read_voc(folder / "cam0", Lookup(pictures)).records] == ["cam1/1.jpg"]


def test_a_voc_file_of_a_picture_s_own_name_goes_before_one_that_speaks_of_it(tmp_path):
    for order in ("0.xml", "z.xml", "0/1.xml"):
        folder = voc(tmp_path / order, order, "<annotation><filename>1.jpg</filename></annotation>")
        voc(tmp_path / order, "1.xml", f"<annotation>{OBJECT}</annotation>")
        found = read_voc(folder, Lookup(["1.jpg"]))
        assert [(r.name, r.categories) for r in found.records] == [("1.jpg", ("dog",))]
        assert [fault.kind for fault in found.faults] == ["repeated id"]


@pytest.mark.parametrize(
    "inner",
    ["Annotations", "annotations/xmls", "xmls", "xml", "labels", "annots", "annotation", "annotations_xml"],
)
def test_a_folder_of_xml_beside_that_of_the_pictures_is_found_from_above(tmp_path, inner):
    said = f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>"
    for stem in ("1", "renamed"):
        path = tmp_path / stem / inner / f"{stem}.xml"
        path.parent.mkdir(parents=True)
        path.write_text(said)
        for lookup in (Lookup(["1.jpg"]), Lookup(["images/1.jpg"])):
            (record,) = read_voc(tmp_path / stem, lookup).records
            assert record.name == lookup.find("1.jpg")


@pytest.mark.parametrize(
    ("file", "picture", "other"),
    [
        ("VOC2007/Annotations/1.xml", "VOC2007/JPEGImages/1.jpg", "VOC2012/JPEGImages/1.jpg"),
        ("train/annotations/1.xml", "train/images/1.jpg", "val/images/1.jpg"),
        ("n01/1.xml", "train/n01/1.jpg", "train/n02/1.jpg"),
        ("train/labels/1.xml", "train/images/1.jpg", "val/images/1.jpg"),
        ("train/annots/1.xml", "train/images/1.jpg", "train2/images/1.jpg"),
        ("train/annotations_xml/1.xml", "train/images/1.jpg", "val/images/1.jpg"),
        ("labels/train/1.xml", "images/train/1.jpg", "images/val/1.jpg"),
        ("train/pascal/1.xml", "train/JPEGImages/1.jpg", "val/JPEGImages/1.jpg"),
        ("Train/Annotation/1.xml", "train/images/1.jpg", "val/images/1.jpg"),
    ],
)
def test_a_bare_filename_means_a_picture_in_a_folder_that_goes_with_the_files(tmp_path, file, picture, other):
    folder = voc(tmp_path, file, f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>")
    for pictures, found in (([picture], True), ([other], False), ([picture, other], True)):
        (record,) = read_voc(folder, Lookup(pictures)).records
        assert (record.name == picture) is found and (record.name in pictures) is found


def test_a_bare_filename_that_fits_two_pictures_means_none(tmp_path):
    folder = voc(tmp_path, "n01/0.xml", f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>")
    (record,) = read_voc(folder, Lookup(["train/n01/1.jpg", "val/n01/1.jpg"])).records
    assert record.name == "n01/1.jpg"
    voc(tmp_path, "labels_train/0.xml", f"<annotation><filename>2.jpg</filename>{OBJECT}</annotation>")
    assert read_voc(folder, Lookup(["images_val/2.jpg"])).records[0].name == "labels_train/2.jpg"


def test_a_folder_of_xml_of_any_name_goes_with_images_beside_it_unless_it_is_a_split(tmp_path):
    said = f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>"
    folder = voc(tmp_path, "pascal/1.xml", said)
    assert read_voc(folder, Lookup(["images/1.jpg"])).records[0].name == "images/1.jpg"
    assert read_voc(folder, Lookup(["images/1.jpg", "2.jpg"])).records[0].name == "images/1.jpg"
    others = ["pascal/2.jpg", "val/1.jpg", "val/x/2.jpg", "imgs/1.jpg"]
    for pictures in (["cam1/1.jpg"], *(["images/1.jpg", other] for other in others)):
        assert read_voc(folder, Lookup(pictures)).records[0].name == "pascal/1.jpg"
    voc(tmp_path, "val/xml/2.xml", said.replace("1.jpg", "2.jpg"))
    found = read_voc(folder, Lookup(["images/1.jpg", "images/2.jpg"]))
    assert [record.name for record in found.records] == ["pascal/1.jpg", "val/2.jpg"]


@pytest.mark.parametrize("inner", ["labels", "boxes", "gt", "bbox", "train/labels"])
def test_a_bare_filename_means_first_a_picture_in_the_files_own_folder_whatever_its_name(tmp_path, inner):
    said = f"<annotation><filename>1.jpg</filename>{OBJECT}</annotation>"
    folder = voc(tmp_path, f"{inner}/01.xml", said)
    voc(tmp_path, "bottles/02.xml", said)
    pictures = [f"{inner}/1.jpg", "bottles/1.jpg"]
    for others in ([], ["1.jpg"], ["rgb/1.jpg"], ["images/1.jpg"]):
        found = read_voc(folder, Lookup([*pictures, *others]))
        assert [record.name for record in found.records] == sorted(pictures) and found.faults == ()
