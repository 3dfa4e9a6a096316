"""The reader of class names: lines of text, and the names in a YAML file.

The independent parses: lines split by hand, PyYAML where it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep import DataError
from data_prep.classnames import read_class_names
from tests.fuzz.mutate import edit_bytes, edit_text
from tests.fuzz.reader import Check, MisreadError, Reader, same

NAMES = b"cat\ndog\nhusky dog\n"
YAML = b"path: x\nnames:\n  0: cat\n  1: 'dog'  # a comment\n  2: husky dog\nnc: 3\n"
YAML_LIST = b"nc: 3\nnames: [\"cat\", dog, 'husky, dog']\n"
YAML_QUOTES = b"""names: ['dog''s', "a \\"b\\"",
  '[c]', don't, 'it', "\\u00e9",]
"""
YAML_LINES = b"""names:
- 'dog''s'
- "a \\"b\\""
- don't
"""
YAML_PAIRS = b"names: {1: 'dog #1', 0: cat,\n  2: \"a, # b\"}  # three\n"


@contextmanager
def open_names(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        is_yaml = b"names:" in data
        path = folder / ("x.yaml" if is_yaml else "x.names")
        path.write_bytes(data)
        names = read_class_names(path)
        same(len(set(names)), len(names), "names that differ")
        if not is_yaml:
            lines = data.decode("utf-8-sig").rstrip().splitlines()
            same(names, [line.strip() for line in lines], "names")
            return
        try:
            import yaml
        except ImportError:
            return
        try:
            content = yaml.safe_load(data)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date of the 13th month
            return  # other parts of the file may be no YAML; the reader looks at the names alone
        wanted = content["names"]
        if isinstance(wanted, dict):
            same(set(wanted), set(range(len(wanted))), "numbers")
            wanted = [wanted[k] for k in range(len(wanted))]
        # What YAML takes for a number or a date is a name here, as it is in a .names file.
        if not isinstance(wanted, list):
            raise MisreadError(f"names {names}, where YAML has {wanted!r}")
        same(len(names), len(wanted), "number of names")
        texts = [(a, b) for a, b in zip(names, wanted, strict=True) if isinstance(b, str)]
        same([a for a, _ in texts], [b for _, b in texts], "names")

    yield check


_SAMPLES = [NAMES, YAML, YAML_LIST, YAML_QUOTES, YAML_LINES, YAML_PAIRS]
READERS = (
    Reader("class-names", (DataError,), open_names, lambda: _SAMPLES, (edit_text, edit_text, edit_bytes)),
)
