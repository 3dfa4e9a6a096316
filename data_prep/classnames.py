"""Class names of YOLO's and Darknet's data sets: a name a line, Darknet's .data file, Ultralytics' data.yaml.

Not here: the labels themselves (yolo.py).
"""

import json
import re
from pathlib import Path

from data_prep.errors import DataError
from data_prep.textfile import read_text

# Parts of YAML, each matched in one way only, so that no text takes long.
_SINGLE = re.compile(r"'(?:[^']|'')*+'")
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ITEM = re.compile(rf"\s*+({_SINGLE.pattern}|{_DOUBLE.pattern}|[^,\[\]'\"][^,\[\]]*+|)\s*+([,\]])", re.DOTALL)
_NUMBER = "0?[0-7]|[89]|[1-9][0-9]{1,8}"  # YAML takes 010 for eight, and 08 for no number
_PAIR = re.compile(
    rf"\s*+(?:({_NUMBER})\s*+:\s++({_SINGLE.pattern}|{_DOUBLE.pattern}|[^,\[\]{{}}'\"][^,\[\]{{}}]*+))?"
    r"\s*+([,}])",
    re.DOTALL,
)
_LINE = re.compile(rf"(\s*)-\s+(.+)|\s+({_NUMBER})\s*:\s+(.+)")
# Up to a comment, which is a # at the start or after a blank, but not within quotes where a name may begin.
_NO_COMMENT = re.compile(
    rf"(?:(?:^\s*+(?:-\s++)?|[\[{{,]\s*+|:\s++)(?:{_SINGLE.pattern}|{_DOUBLE.pattern})|(?!(?:^|(?<=\s))#).)*+"
)
_KEYPOINTS = re.compile(
    r"^kpt_shape\s*:(?:[ ]*\[\s*(?P<n>\d{1,4})\s*,\s*(?P<d>[23])\s*,?\s*\]"
    r"|\s*-\s+(?P<lines>\d{1,4})\s*-\s+(?P<last>[23]))\s*$",
    re.MULTILINE,
)
# A plain name that is none to YAML: a mapping, an alias, a tag, a text of several lines, half a comment.
_NOT_PLAIN = re.compile(r"^[&*!|>%@`#{}\[\],]|^[?-](?:\s|$)|:(?:\s|$)|\s#")


def read_class_names(path: Path | str) -> list[str]:
    """Names in the order of class numbers.

    Args:
        path: a name a line (.names, .txt, or any other ending); a Darknet .data file, whose `names` is such a
            file; or a .yaml file with a list or numbered names, in any order, under `names`.

    Raises:
        DataError: cannot be read, no names, a blank or repeated name, or numbers with gaps.
    """
    path = Path(path)
    text = read_text(path)
    if path.suffix.lower() == ".data":
        names = read_data_file(path).get("names")
        if names is None:
            raise DataError(f"{path}: no line `names = <file>`")
        return read_class_names(beside(path, names))
    if path.suffix.lower() in (".yaml", ".yml"):
        numbered = _yaml_names(path, text)
    else:
        numbered = [(f"line {n}", line.strip()) for n, line in enumerate(text.rstrip().splitlines(), 1)]
    first: dict[str, str] = {}
    for where, name in numbered:
        if not name.strip():
            raise DataError(f"{path}: {where}: a blank class name; the numbers of all after it would be off")
        if name in first:
            raise DataError(f"{path}: {where}: class {name!r} was there already in {first[name]}")
        first[name] = where
    if not first:
        raise DataError(f"{path}: no class names in it")
    return list(first)


def read_keypoint_numbers(path: Path | str) -> int:
    """Numbers of the keypoints in a label line: n * d of `kpt_shape: [n, d]` in a data.yaml; 0 without it.

    Raises DataError for a `kpt_shape` of another form.
    """
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return 0
    text = "\n".join(map(_plain, read_text(path).splitlines()))
    if not re.search(r"^kpt_shape\s*:", text, re.MULTILINE):
        return 0
    if found := _KEYPOINTS.search(text):
        return int(found["n"] or found["lines"]) * int(found["d"] or found["last"])
    raise DataError(f"{path}: wanted kpt_shape: [keypoints, 2 or 3]")


def read_data_file(path: Path) -> dict[str, str]:
    """`key = value` lines of a Darknet .data file."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            key, sign, value = line.partition("=")
            if not sign or not key.strip() or not value.strip():
                raise DataError(f"{path}: line {number}: wanted key = value, found {line[:60]!r}")
            found[key.strip()] = value.strip()
    return found


def beside(path: Path, named: str) -> Path:
    """A file that another one names. Darknet's paths are relative to where it was started, which nobody
    knows any more: leading folders are dropped until there is such a file beside `path`."""
    parts = Path(named).parts
    for start in range(len(parts)):
        candidate = path.parent.joinpath(*parts[start:])
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: it names {named!r}, which is not beside it")


def _yaml_names(path: Path, text: str) -> list[tuple[str, str]]:
    """The names of a data.yaml. Not all of YAML, only the four forms in use: `names: [a, b]`, `- a` lines,
    `names: {0: a, 1: b}`, `0: a` lines; numbers come in any order."""
    lines = text.splitlines()
    found = [k for k, line in enumerate(lines) if re.match(r"names\s*:", line)]
    if len(found) != 1:
        where = f"in lines {', '.join(str(k + 1) for k in found[:5])}; keep one" if found else "not in it"
        raise DataError(f"{path}: `names:` is {where}")
    start = found[0]
    rest = _plain(lines[start].partition(":")[2])
    if rest:
        return _flow(path, start, lines)
    listed: list[tuple[str, str]] = []
    numbered: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        content = _plain(line)
        if not content:
            continue
        item = _LINE.fullmatch(content)
        if item is None:
            if not content[0].isspace() and content[0] != "-":
                break  # the next key
            raise DataError(f"{path}: line {number}: wanted `- name` or `number: name`, found {line[:60]!r}")
        where, name = f"line {number}", _scalar(path, number, item[2] or item[4])
        if item[2]:
            listed.append((where, name))
        else:
            numbered.append((int(item[3]), where, name))
        if listed and numbered:
            raise DataError(f"{path}: {where}: names with numbers and without; keep one form")
    return listed or _in_order(path, numbered)


def _in_order(path: Path, numbered: list[tuple[int, str, str]]) -> list[tuple[str, str]]:
    """(where, name) of (class number, where, name) by their numbers; DataError for one that is missing or
    there twice."""
    ordered = sorted(numbered)
    for due, (number, where, _) in enumerate(ordered):
        if number != due:
            said = "is there already" if number < due else f"where {due} is due"
            raise DataError(f"{path}: {where}: class {number} {said}")
    return [(where, name) for _, where, name in ordered]


def _flow(path: Path, start: int, lines: list[str]) -> list[tuple[str, str]]:
    """(where, name) of `[a, b]` or `{0: a, 1: b}` that begins in line `start`."""
    text = "\n".join(_plain(line) for line in lines[start:]).partition(":")[2].strip()
    pattern = {"[": _ITEM, "{": _PAIR}.get(text[0])
    where = f"line {start + 1}"
    listed: list[tuple[str, str]] = []
    numbered: list[tuple[int, str, str]] = []
    at, end = 1, ","
    while end == ",":
        item = pattern.match(text, at) if pattern else None
        if item is None or (item[0].strip() == "," and pattern is _PAIR):
            raise DataError(
                f"{path}: {where}: wanted names: [a, b, ...], {{0: a, 1: b, ...}} or a name a line"
            )
        at, end = item.end(), item[item.lastindex]
        if pattern is _PAIR and item[1]:
            numbered.append((int(item[1]), where, _scalar(path, start + 1, item[2].strip())))
        elif pattern is _ITEM and (item[1] or end == ","):  # a comma may stand behind the last name
            listed.append((where, _scalar(path, start + 1, item[1].strip())))
    return listed or _in_order(path, numbered)


def _scalar(path: Path, number: int, text: str) -> str:
    """A name as YAML writes it within a line: plain, in single or in double quotes. Raises DataError."""
    if "\n" in text:  # YAML would fold the break into a blank or a line feed, by rules of its own
        raise DataError(f"{path}: line {number}: a name ends on its own line; found {text[:60]!r}")
    if single := _SINGLE.fullmatch(text):
        return single[0][1:-1].replace("''", "'")
    try:
        if _DOUBLE.fullmatch(text):
            found = json.loads(text)
            found.encode()  # half of a surrogate pair is no character
            return found
    except ValueError:
        raise DataError(
            f"{path}: line {number}: YAML's own escapes are not read; found {text[:60]!r}"
        ) from None
    if text[:1] in ("'", '"'):
        raise DataError(f"{path}: line {number}: a quoted name ends on its own line; found {text[:60]!r}")
    if _NOT_PLAIN.search(text):
        raise DataError(f"{path}: line {number}: quote this name, YAML reads it otherwise: {text[:60]!r}")
    return text


def _plain(line: str) -> str:
    """Without a comment."""
    return _NO_COMMENT.match(line)[0].rstrip()
