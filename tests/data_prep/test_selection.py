"""Which pictures are taken: the parts of a hold-out never meet and always make the whole."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import DataError
from data_prep.selection import read_list, select

NAMES = st.lists(st.text("abc/", min_size=1, max_size=6), unique=True, max_size=20)


@settings(max_examples=80, deadline=None)
@given(names=NAMES, every=st.integers(1, 6), first=st.integers(0, 5))
def test_rest_and_kept_are_the_whole_and_never_meet(names, every, first):
    first %= every
    rest, kept = (
        select(names, holdout_every=every, holdout_first=first, holdout_part=part)
        for part in ("rest", "kept")
    )
    assert rest | kept == set(names)
    assert not rest & kept
    assert kept == {name for k, name in enumerate(sorted(names)) if k % every == first}


def test_the_lists_do_not_move_the_hold_out():
    names = [f"{k}.jpg" for k in range(8)]
    kept = select(names, holdout_every=4, holdout_part="kept")
    assert kept == {"0.jpg", "4.jpg"}
    assert select(names, leave_out=frozenset({"1.jpg"}), holdout_every=4, holdout_part="kept") == kept
    assert select(names, only=frozenset({"3.jpg", "4.jpg"}), holdout_every=4) == {"3.jpg"}


def test_lists_name_pictures_in_full_or_by_their_last_part():
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert select(names, only=frozenset({"b/1.jpg"})) == {"b/1.jpg"}
    assert select(names, only=frozenset({"1.jpg"})) == {"a/1.jpg", "b/1.jpg"}
    assert select(names, leave_out=frozenset({"2.jpg", "a/1.jpg"})) == {"b/1.jpg"}
    with pytest.raises(DataError, match=r"3\.jpg"):
        select(names, only=frozenset({"3.jpg"}))


@pytest.mark.parametrize(
    "options",
    [
        {"holdout_every": -1},
        {"holdout_every": 4, "holdout_first": 4},
        {"holdout_first": 1},
        {"holdout_part": "x"},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(DataError):
        select(["a"], **options)


def test_lists_are_read_from_text_and_json(tmp_path):
    (tmp_path / "l.txt").write_text("a.jpg\n\n  b.jpg \n")
    (tmp_path / "l.json").write_text(json.dumps(["a.jpg", "b.jpg"]))
    (tmp_path / "k.json").write_text(json.dumps({"part": ["a.jpg", "b.jpg"], "other": 5}))
    for reference in ("l.txt", "l.json", "k.json:part"):
        assert read_list(reference, tmp_path) == {"a.jpg", "b.jpg"}
    for wrong in ("none.txt", "k.json", "k.json:other", "k.json:none", "l.txt:part", "l.json:part"):
        with pytest.raises(DataError):
            read_list(wrong, tmp_path)
