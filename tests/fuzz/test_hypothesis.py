"""hypothesis edits valid files of every reader and makes some by a grammar; what it finds it makes small."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import MODULES, NAMES, find_reader
from tests.fuzz.mutate import VALUES, WORDS
from tests.fuzz.reader import outcome

# The server has a process of its own in test_readers.py; here everything runs in this one.
HERE = tuple(name for name in NAMES if name not in MODULES["requests"])
LIMITS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))

edit = st.tuples(
    st.sampled_from(("put", "cut", "over", "end")),
    st.floats(0, 1),
    st.integers(0, 40),
    st.one_of(
        st.binary(max_size=8), st.sampled_from(WORDS).map(lambda w: w.encode("utf-8", "surrogatepass"))
    ),
)


def edited(data: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    """Bytes put in, cut out, written over, or the end cut off, at a share of the length."""
    out = bytearray(data)
    for kind, share, size, new in edits:
        at = int(share * len(out))
        if kind == "put":
            out[at:at] = new
        elif kind == "cut":
            del out[at : at + size]
        elif kind == "over":
            out[at : at + len(new)] = new
        else:
            del out[at:]
    return bytes(out)


@cache
def opened(name: str):
    """(reader, check), open as long as the tests run."""
    reader = find_reader(name)
    return reader, reader.open(Path(mkdtemp(prefix=f"fuzz-{name}-"))).__enter__()


def holds(name: str, data: bytes) -> None:
    reader, check = opened(name)
    kind, detail = outcome(reader, check, data)
    assert kind in ("accepted", "refused"), f"{kind}: {detail}"


@pytest.mark.parametrize("name", HERE)
def test_edited_files(name):
    seeds = find_reader(name).seeds()

    @LIMITS
    @given(st.sampled_from(range(len(seeds))), st.lists(edit, min_size=1, max_size=4))
    def run(k, edits):
        holds(name, edited(seeds[k], edits))

    run()


odd = st.one_of(
    st.sampled_from(VALUES),
    st.integers(-3, 700),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=3),
)
number = st.one_of(st.integers(1, 3), st.integers(1, 3), odd)
box = st.one_of(st.lists(st.one_of(st.floats(0, 600), odd), min_size=3, max_size=5), odd)
entry = {"id": number, "image_id": number, "category_id": number, "bbox": box, "iscrowd": odd}
picture = {
    "id": number,
    "file_name": st.one_of(st.sampled_from(("a.jpg", "b.jpg")), odd),
    "width": odd,
    "height": odd,
}
kind = {"id": number, "name": st.one_of(st.sampled_from(("cat", "dog")), odd), "synset": odd}
coco = st.fixed_dictionaries(
    {
        "images": st.lists(st.fixed_dictionaries({}, optional=picture), max_size=4),
        "annotations": st.lists(st.fixed_dictionaries({}, optional=entry), max_size=4),
        "categories": st.lists(st.fixed_dictionaries({}, optional=kind), max_size=3),
    }
)


@LIMITS
@given(coco)
def test_coco_of_any_values(content):
    holds("coco", json.dumps(content).encode("utf-8", "surrogatepass"))


word = st.one_of(
    st.sampled_from(("n1", "n2", "n3", "n4")), st.sampled_from([w for w in WORDS if len(w) < 50])
)
parent = st.one_of(st.integers(-2, 5).map(str), word)


@LIMITS
@given(
    st.lists(st.tuples(word, st.sampled_from((" ", "\t", "  ", "\xa0")), parent), max_size=6), st.booleans()
)
def test_trees_of_any_lines(lines, ended):
    text = "\n".join(map("".join, lines)) + "\n" * ended
    holds("tree", text.encode("utf-8", "surrogatepass"))


setting = st.tuples(
    st.sampled_from(
        ("filters", "size", "stride", "pad", "padding", "layers", "from", "groups", "activation", "x")
    ),
    st.one_of(
        st.integers(-3, 9).map(str), st.sampled_from(("leaky", "linear", "-1,-2", "1e3", "0x2", "1_0", "٣"))
    ),
)
section = st.tuples(
    st.sampled_from(
        ("convolutional", "maxpool", "route", "shortcut", "reorg", "avgpool", "softmax", "net", "x")
    ),
    st.lists(setting, max_size=4),
)


@LIMITS
@given(st.lists(section, min_size=1, max_size=6))
def test_cfg_of_any_sections(sections):
    text = "[net]\nwidth=64\nheight=64\nchannels=3\n"
    for name, values in sections:
        text += f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in values)
    holds("cfg", text.encode())
