"""Mutations: a valid file and a random generator in, a damaged or odd file out. Pure functions of both.

Not here: what a mutated file is for (readers of the other files) and who runs them (harness.py).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

# Words that readers of numbers, names and paths have stumbled over, here or elsewhere.
WORDS = (
    *("", "0", "-0", "1", "-1", "+1", "2", "255", "65536", "2147483647", "2147483648", "4294967296"),
    *("9223372036854775808", "-9223372036854775809", "9" * 30, "9" * 5000, "1e308", "1e309", "-1e309"),
    *("1e-320", "nan", "-nan", "inf", "-inf", "Infinity", "NaN", "null", "true", "None", "0x10", "1_0", "01"),
    *("1.0", "1.5", ".5", "5.", "1,5", "1e", "٣", "½", "\uff11", " 1", "1 ", "\t", "\0", "\x0b", "\x0c"),
    *("\x1c", "\x85", "\u2028", "\ufeff", "\u202e", "é", "\U0001f415", "\ud800", "\r", "\r\n", "\n", "\n\n"),
    *('"', "'", '""', "\\", "/", "..", "../../etc/passwd", "file:///etc/passwd", "%s%n", "#", ";", "="),
    *("<!DOCTYPE x>", "&amp;", "&lt;", "&x;", "<![CDATA[", "]]>", "<!--", "</object>", "a" * 10_000),
    *("[", "]", "[" * 2000),
)  # fmt: skip

# Values for places in JSON.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, -0.0, 2**31, 2**63, 10**30, 10**400, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), "", "0", "1", "nan", "a", "\0", "\ud800", "é", "../x"),
    "x" * 5000,
    *([], [[]], [None], [0], [1, 2, 3, 4], ["a"], {}, {"a": 1}, {"": None}, [[[[[[]]]]]]),
)  # fmt: skip

_TOKEN = re.compile(r"[^\s,:;=<>\"'\[\]{}]+")


def edit_bytes(random: Random, data: bytes) -> bytes:
    """One to four edits anywhere: bits, bytes, whole numbers, pieces cut, doubled, moved, an end cut off."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(out) + 1)
        end = min(len(out), at + random.choice((1, 2, 4, 8, 16, 64, 500)))
        kind = random.randrange(9)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = random.choice((0, 1, 0x20, 0x7F, 0x80, 0xFE, 0xFF, random.randrange(256)))
        elif kind == 2:
            size, form = random.choice(((2, "H"), (4, "I"), (8, "Q")))
            value = random.choice((0, 1, 2, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 64) - 1))
            word = struct.pack(random.choice("<>") + form, value % (1 << 8 * size))
            out[at : at + size] = word
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = random.randbytes(end - at)
        elif kind == 5:
            out[at:at] = out[at:end]
        elif kind == 6:
            piece = out[at:end]
            del out[at:end]
            to = random.randrange(len(out) + 1)
            out[to:to] = piece
        elif kind == 7:
            del out[at:]
        else:
            out[at:end] = bytes([random.choice((0, 0xFF))]) * (end - at)
    return bytes(out)


def edit_text(random: Random, data: bytes) -> bytes:
    """One to three edits of lines and words."""
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(random.choice((1, 1, 2, 3))):
        text = random.choice((_lines, _words, _words, _insert))(random, text)
    return text.encode("utf-8", "surrogatepass" if "\ud800" in text else "surrogateescape")


def _lines(random: Random, text: str) -> str:
    lines = text.split("\n")
    a, b = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.randrange(6)
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(b, lines[a])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    elif kind == 3:
        lines.insert(a, random.choice(WORDS))
    elif kind == 4:
        lines[a] += random.choice((" ", "\r", "\t", "\x0c", " 1", ",1", random.choice(WORDS)))
    else:
        lines = lines[:a]
    return "\n".join(lines)


def _words(random: Random, text: str) -> str:
    found = list(_TOKEN.finditer(text))
    if not found:
        return random.choice(WORDS)
    token = random.choice(found)
    other = random.choice(WORDS) if random.random() < 0.6 else random.choice(found)[0]
    return text[: token.start()] + other + text[token.end() :]


def _insert(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    return text[:at] + random.choice(WORDS) + text[at:]


def edit_json(random: Random, data: bytes) -> bytes:
    """One or two edits of the values of a JSON file; it stays JSON (with NaN and Infinity, as Python's)."""
    value = json.loads(data)
    for _ in range(random.choice((1, 1, 2))):
        value = edit_value(random, value)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def edit_value(random: Random, value: Any) -> Any:
    """A copy of a JSON value with one place changed, taken away, doubled, or exchanged for another's."""
    places: list[tuple[Any, Any]] = []
    copy = json.loads(json.dumps(value))
    waiting = [copy]
    while waiting:
        here = waiting.pop()
        inside = list(here.items()) if isinstance(here, dict) else list(enumerate(here))
        for key, below in inside:
            places.append((here, key))
            if isinstance(below, dict | list):
                waiting.append(below)
    if not places:
        return random.choice(VALUES)
    here, key = random.choice(places)
    kind = random.randrange(6)
    if kind <= 1:
        here[key] = random.choice(VALUES)
    elif kind == 2:
        del here[key]
    elif kind == 3:
        there, other = random.choice(places)
        here[key] = json.loads(json.dumps(there[other])) if _has(there, other) else None
    elif kind == 4 and isinstance(here, list):
        here.insert(key, here[key])
    elif isinstance(here[key], int | float) and not isinstance(here[key], bool):
        old = here[key] if -1e300 < here[key] < 1e300 else 0  # Python cannot add 0.5 to 10**400, or print it
        here[key] = random.choice((-old, old + 1, old * 1000, old + 0.5, str(old)))
    else:
        here[key] = [here[key]]
    return copy


def _has(there: Any, key: Any) -> bool:
    return key in there if isinstance(there, dict) else key < len(there)


def mutate(random: Random, seeds: Sequence[bytes], mutations: Sequence[Mutation]) -> bytes:
    """One of the seeds, mutated one way; now and then joined with a piece of another."""
    data = random.choice(seeds)
    if random.random() < 0.03:
        other = random.choice(seeds)
        return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]
    return random.choice(mutations)(random, data)
