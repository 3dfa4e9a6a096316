"""Where the results of `detect` go: a table, JSON or lines of JSON on stdout, JSON in a file; each picture's
as it is done, so that none waits in memory for the last. Finding is yolo9000.detector."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, TextIO

import click

from wordtree.console import to_json
from wordtree.files import written_whole
from yolo9000.cli import _pictures
from yolo9000.errors import ImageError

if TYPE_CHECKING:
    from yolo9000.detections import Detections

# "table" for people, "json" for a program that reads all at once, "lines" for one that reads along.
FORMS = ("table", "json", "lines")


class Answers:
    """Takes results one by one. form: one of FORMS, what stdout gets; file: what a file gets as "json".

    The two JSON forms hold the same: {"pictures": [...], "skipped": [reasons]}; lines are the elements of the
    one and {"skipped": reason} of the other.
    """

    def __init__(self, form: str, file: TextIO | None = None) -> None:
        self.form, self.count = form, 0
        # The first piece waits for the first result: what fails before has printed nothing.
        self._documents = [_Document(file.write)] if file is not None else []
        if form == "json":
            self._documents.append(_Document(lambda text: click.echo(text, nl=False)))

    def add(self, record: dict[str, Any], text: str) -> None:
        """A picture's result, for programs and for people."""
        self.count += 1
        for document in self._documents:
            document.add(record)
        if self.form == "table":
            _pictures.say(text)
        elif self.form == "lines":
            _pictures.say(to_json(record, None))

    def skip(self, reason: str) -> None:
        """A picture that has no result; stderr tells of it elsewhere."""
        if self.form == "lines":
            _pictures.say(to_json({"skipped": reason}, None))

    def finish(self, skipped: list[str], **more: Any) -> None:
        """No more results follow; more: what else there is to say of all of them."""
        for document in self._documents:
            document.finish({"skipped": skipped, **more})


class _Document:
    """{"pictures": [...], ...} as `to_json` would write it, piece by piece."""

    def __init__(self, write: Any) -> None:
        self._write, self._begun = write, False

    def add(self, record: dict[str, Any]) -> None:
        self._write(",\n" if self._begun else '{\n  "pictures": [\n')
        self._begun = True
        self._write(indent(to_json(record), "    "))

    def finish(self, rest: dict[str, Any]) -> None:
        self._write("\n  ]" if self._begun else '{\n  "pictures": []')
        # {"skipped": ...} without its opening brace, which this object has already.
        self._write("," + to_json(rest)[1:] + "\n")


@contextmanager
def json_file(path: Path | None) -> Iterator[TextIO | None]:
    """A text file that is written whole or not at all; None for none."""
    if path is None:
        yield None
        return
    with written_whole(path, ImageError) as part, part.open("w", encoding="utf-8") as file:
        yield file


def table(found: "Detections", title: str | None = None) -> str:
    """One picture's results as text: a heading, then a line an object."""
    width, height = found.image_size
    count = f"{len(found)} object{'s' * (len(found) != 1)}"
    title = title or _pictures.printable(found.source or "picture")
    lines = [f"{title}  {width} x {height}  {count}"]
    if len(found):
        widest = max(len(one.name) for one in found)
        lines.append(f"  {'name':<{widest}}  score  objectness  {'box':<23}  path")
        for one in found:
            box = " ".join(f"{round(value):5d}" for value in one.box_xyxy)
            path = " > ".join(one.path_names)
            lines.append(
                f"  {one.name:<{widest}}  {one.score:5.2f}  {one.objectness:10.2f}  {box:<23}  {path}"
            )
    return "\n".join(lines)
