"""Open Images: boxes, labels of pictures and verified negatives, and files that are something else."""

import dataclasses

import numpy as np
import pytest

from data_prep import DataError
from data_prep.lookup import Lookup
from data_prep.openimages import read_openimages
from data_prep.record import Record, Records

PICTURES = Lookup(["a.jpg", "b.jpg", "deep/c.png"])


def test_open_images_boxes_labels_and_negatives(tmp_path):
    (tmp_path / "b.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
        'a,x,/m/1,1,0.1,0.5,0.2,"0,4",0,0,1\n'
        "a,x,/m/2,1,0.1,0.5,nan,0.4,0,0,-1\n"
        "a,x,/m/2,1,0.1,,0.2,0.4,0,0,0\n"
        ",x,/m/2,1,0.1,0.5,0.2,0.4,0,0,0\n"
    )
    (tmp_path / "l.csv").write_text(
        "ImageID,Source,LabelName,Confidence\n"
        "a,v,/m/1,1\na,v,/m/3,1\na,v,/m/4,0\nb,v,/m/4,1\nb,machine,/m/1,0.7\nb,v,/m/2,0\nb,v,/m/2,7\n"
    )
    (tmp_path / "n.csv").write_text('/m/1,Dog\n/m/2,"Cat, tame"\n')
    found = read_openimages(tmp_path / "b.csv", PICTURES, tmp_path / "l.csv", tmp_path / "n.csv")
    a, b = found.records
    assert np.allclose(a.boxes_xyxy[0], [0.1, 0.2, 0.5, 0.4])
    assert np.isnan(a.boxes_xyxy[1, 1])
    assert (a.crowd.tolist(), a.categories, a.in_shares) == ([True, False], ("/m/1", "/m/2"), True)
    assert (a.boxed, a.image_categories, a.negative_categories) == (True, ("/m/1", "/m/3"), ("/m/4",))
    assert a.not_exhaustive_categories == ("/m/3",)
    assert (b.boxed, b.image_categories, b.negative_categories) == (False, ("/m/4",), ("/m/2",))
    assert {key: c.name for key, c in found.categories.items()} == {
        "/m/1": "Dog",
        "/m/2": "Cat, tame",
        "/m/3": "/m/3",
        "/m/4": "/m/4",
    }
    assert len(found.faults) == 3
    only_labels = read_openimages(None, PICTURES, tmp_path / "l.csv")
    assert [r.boxed for r in only_labels.records] == [False, False]


@pytest.mark.parametrize("drawn", ["a", "a.jpg", "train/a", "train/a.jpg"])
@pytest.mark.parametrize("labelled", ["a", "a.jpg", "train/a", "img/a"])
def test_open_images_files_may_each_call_a_picture_otherwise(tmp_path, drawn, labelled):
    def read(drawn: str, labelled: str) -> Records:
        boxes = f"ImageID,LabelName,XMin,XMax,YMin,YMax\n{drawn},/m/1,0.1,0.5,0.2,0.4\n"
        (tmp_path / "b.csv").write_text(boxes)
        rows = f"{labelled},/m/3,1\n{labelled},/m/4,0\n"
        (tmp_path / "l.csv").write_text(f"ImageID,LabelName,Confidence\n{rows}")
        return read_openimages(tmp_path / "b.csv", PICTURES, tmp_path / "l.csv")

    (wanted,), (found,) = read("a", "a").records, read(drawn, labelled).records
    for field in dataclasses.fields(Record):
        assert np.array_equal(getattr(found, field.name), getattr(wanted, field.name)), field.name
    assert wanted.name == "a.jpg" and read(drawn, labelled).faults == ()


def test_an_open_images_id_that_is_outdone_in_one_file_takes_no_picture_in_the_other(tmp_path):
    box = "0.1,0.5,0.2,0.4"
    for first, second, faults in (("a", "b/a", []), ("x/a", "y/a", ["repeated id"])):
        rows = f"{first},/m/1,{box}\n{second},/m/2,{box}\n"
        (tmp_path / "b.csv").write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax\n{rows}")
        (tmp_path / "l.csv").write_text(f"ImageID,LabelName,Confidence\n{second},/m/3,1\n")
        found = read_openimages(tmp_path / "b.csv", PICTURES, tmp_path / "l.csv")
        (record,) = (record for record in found.records if record.name == "a.jpg")
        assert (record.categories, record.image_categories) == (("/m/1",), ())
        assert [fault.kind for fault in found.faults] == faults


@pytest.mark.parametrize(
    ("mark", "crowd"),
    [("1", 1), ("1.0", 1), ("True", 1), ("0", 0), ("0.0", 0), ("-1", 0), ("-1.0", 0), ("False", 0), ("", 0)],
)
def test_open_images_groups_however_tables_write_them(tmp_path, mark, crowd):
    path = tmp_path / "b.csv"
    path.write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/1,0.1,0.5,0.2,0.4,{mark}\n")
    assert read_openimages(path, PICTURES).records[0].crowd.tolist() == [bool(crowd)]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"{}"])
def test_csv_that_is_not_open_images(tmp_path, content):
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"b\.csv"):
        read_openimages(tmp_path / "b.csv", PICTURES)
