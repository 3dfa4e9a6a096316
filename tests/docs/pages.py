"""The pages that people read, README.md and docs/**/*.md, as their parts: headings, links, code, commands.

Not here: what is asked of them (test_*.py). Enough of Markdown for these pages, no more.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^(```+)\s*(\w*)\s*(?:title=\"([^\"]*)\")?.*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_INLINE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_PROGRAM = re.compile(r"^(yolo9000|wordtree|data-prep)\s+\S")


@dataclass(frozen=True)
class Block:
    """A block of code: language ("" where none is named, "indented" by four blanks), title, line, text."""

    language: str
    title: str
    line: int
    text: str


@dataclass(frozen=True)
class Page:
    """A page. prose: its text with code blocks blanked out, lines kept; blocks: those of code."""

    path: Path
    prose: str
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures, as they are written."""
        return _LINK.findall(_INLINE.sub(" ", self.prose))

    @property
    def inline(self) -> list[str]:
        """Texts between backquotes, on one line."""
        return [" ".join(text.split()) for _, text in _INLINE.findall(self.prose)]

    @property
    def headings(self) -> list[str]:
        found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", self.prose, re.MULTILINE)
        return [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "") for text in found]


def read(path: Path) -> Page:
    prose, blocks = [], []
    lines = path.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        end = at + 1
        if fence:
            while end < len(lines) and not lines[end].startswith(fence[1]):
                end += 1
            blocks.append(Block(fence[2], fence[3] or "", at + 1, "\n".join(lines[at + 1 : end])))
            end += 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            blocks.append(Block("indented", "", at + 1, "\n".join(line[4:] for line in lines[at:end])))
        else:
            prose.append(lines[at])
            at = end
            continue
        prose += [""] * (end - at)
        at = end
    return Page(path, "\n".join(prose), tuple(blocks))


def anchors(page: Page) -> tuple[set[str], set[str]]:
    """What headings are called in links: by GitHub, and by the site (Python-Markdown's toc)."""
    hub: dict[str, int] = {}
    for text in page.headings:
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        hub[slug if slug not in hub else f"{slug}-{len(hub)}"] = 1
    site = set()
    for text in page.headings:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        site.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return set(hub), site


def commands(page: Page) -> Iterator[tuple[str, list[str]]]:
    """(where, words) of every command line of our programs, in blocks of code and between backquotes."""
    texts = [(f"{page.name}:{b.line}", b.text) for b in page.blocks if b.language in ("sh", "", "indented")]
    texts += [(f"{page.name}: `{text}`", text) for text in page.inline]
    for where, text in texts:
        for line in text.replace("\\\n", " ").split("\n"):
            for part in re.split(r"\s*(?:;|&&|\||\s#\s|\s#$)\s*", line.removeprefix("$ ").strip()):
                if _PROGRAM.match(part):
                    yield where, shlex.split(part)
