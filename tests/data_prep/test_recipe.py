"""Recipes: strict keys, named faults, and those of the data at hand."""

import json
from pathlib import Path

import pytest

from data_prep import DataError
from data_prep.packing import pack
from data_prep.recipe import Recipe
from data_prep.store import Store
from wordtree import WordTree


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[source",
        "source = 5",
        "source = []",
        "[[source]]",
        '[[source]]\nname = "a"\nkind = "x"\nimages = "i"',
        '[[source]]\nname = "a"\nkind = "coco"\nimages = "i"',
        '[[source]]\nname = "a"\nkind = "folders"\nimages = "i"\nannotations = "x"',
        '[[source]]\nname = "a"\nkind = "folders"\nimages = 5',
        '[[source]]\nname = "a"\nkind = "folders"\nimages = "i"\nholdout_every = "4"',
        '[[source]]\nname = "a"\nkind = "folders"\nimages = "i"\nholdout_every = true',
        '[[source]]\nname = "a"\nkind = "folders"\nimages = "i"\nextra = 1',
        'extra = 1\n[[source]]\nname = "a"\nkind = "folders"\nimages = "i"',
        'names = "n"\n[[source]]\nname = "a"\nkind = "folders"\nimages = "i"',
        'root = 3\n[[source]]\nname = "a"\nkind = "folders"\nimages = "i"',
        '[[source]]\nname = "a"\nkind = "unlabelled"\nimages = "i"\n' * 2,
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(DataError, match=r"r\.toml"):
        Recipe.load(tmp_path / "r.toml")


def test_recipes_in_json_and_their_root(tmp_path):
    content = {
        "root": "data",
        "source": [{"name": "a", "kind": "folders", "images": "i", "drop_unmapped": True}],
    }
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert Recipe.load(tmp_path / "r.json").root == tmp_path / "data"
    (tmp_path / "r.json").write_text("\ufeff" + json.dumps(content))  # as Windows' editors begin a file
    assert Recipe.load(tmp_path / "r.json").root == tmp_path / "data"
    assert Recipe.load(tmp_path / "r.json", "elsewhere").root.name == "elsewhere"
    with pytest.raises(DataError, match="no such"):
        Recipe.load(tmp_path / "none.toml")


RECIPES = Path(__file__).resolve().parents[2] / "scripts" / "recipes"


@pytest.mark.reference
@pytest.mark.parametrize(
    ("recipe", "pictures", "boxes", "labels"),
    [
        ("coco128_train", 96, 713, 0),
        ("coco128_val", 32, 216, 0),
        ("voc100", 100, 273, 0),
        ("imagenet_det_sample", 600, 0, 600),
    ],
)
def test_recipes_of_the_data_at_hand(tmp_path, shared, recipe, pictures, boxes, labels):
    report = pack(Recipe.load(RECIPES / f"{recipe}.toml", shared / "data"), tmp_path / "o.h5", decode=False)
    assert (report.pictures.total(), report.boxes.total(), report.image_labels.total()) == (
        pictures,
        boxes,
        labels,
    )
    assert report.faults == []
    Store(tmp_path / "o.h5").require_tree(WordTree.default())


@pytest.mark.reference
def test_coco128s_parts_never_meet(tmp_path, shared):
    names = []
    for part in ("train", "val"):
        pack(Recipe.load(RECIPES / f"coco128_{part}.toml", shared / "data"), tmp_path / "o.h5", decode=False)
        names.append({one.name for one in Store(tmp_path / "o.h5")})
    everything = sorted(path.name for path in (shared / "data" / "coco128" / "images").iterdir())
    assert names[1] == set(everything[::4])
    assert names[0] == set(everything) - names[1]
