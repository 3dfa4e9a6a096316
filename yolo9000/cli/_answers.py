"""Where the results of `detect` go: a table, JSON or lines of JSON on stdout, JSON in a file; each picture's
as it is done, so that none waits in memory for the last. Finding is yolo9000.detector."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, TextIO

from wordtree.console import to_json
from wordtree.files import written_whole
from yolo9000.cli import _pictures
from yolo9000.errors import ImageError
from yolo9000.signals import caught_signals

if TYPE_CHECKING:
    from yolo9000.detections import Detections

# "table" for people, "json" for a program that reads all at once, "lines" for one that reads along.
FORMS = ("table", "json", "lines")


class Answers:
    """Takes results one by one. form: one of FORMS, what stdout gets; file: what a file gets as "json".

    The two JSON forms hold the same: {"pictures": [...], "skipped": [reasons]}; lines are the elements of the
    one and {"skipped": reason} of the other.

    As a context: left by an exception, Ctrl-C for one, it ends what stdout has of a document, whose last
    entry is then "unfinished": true.
    """

    def __init__(self, form: str, file: TextIO | None = None) -> None:
        self.form, self.count = form, 0
        self._skipped: list[str] = []
        # The first piece waits for the first result: what fails before has printed nothing.
        self._documents = [_Document(file.write)] if file is not None else []
        self._printed = _Document(_pictures.put)
        if form == "json":
            self._documents.append(self._printed)

    def add(self, record: dict[str, Any], text: str) -> None:
        """A picture's result, for programs and for people."""
        with _whole():
            self.count += 1
            for document in self._documents:
                document.add(record)
            if self.form == "table":
                _pictures.say(text)
            elif self.form == "lines":
                _pictures.say(to_json(record, None))

    def skip(self, reason: str) -> None:
        """A picture that has no result; stderr tells of it elsewhere."""
        self._skipped.append(reason)
        if self.form == "lines":
            with _whole():
                _pictures.say(to_json({"skipped": reason}, None))

    def finish(self, skipped: list[str], **more: Any) -> None:
        """No more results follow; more: what else there is to say of all of them."""
        with _whole():
            for document in self._documents:
                document.finish({"skipped": skipped, **more})

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None and self._printed.open:
            with _whole(), suppress(OSError):  # who reads may have gone, which may be why
                self._printed.finish({"skipped": self._skipped, "unfinished": True})


class _Document:
    """{"pictures": [...], ...} as `to_json` would write it, piece by piece."""

    def __init__(self, write: Any) -> None:
        self._write, self._begun, self._finished = write, False, False

    @property
    def open(self) -> bool:
        """Whether its end is still to be written."""
        return self._begun and not self._finished

    def add(self, record: dict[str, Any]) -> None:
        text = indent(to_json(record), "    ")  # what is no number raises before the comma
        self._write((",\n" if self._begun else '{\n  "pictures": [\n') + text)
        self._begun = True

    def finish(self, rest: dict[str, Any]) -> None:
        self._write("\n  ]" if self._begun else '{\n  "pictures": []')
        # {"skipped": ...} without its opening brace, which this object has already.
        self._write("," + to_json(rest)[1:] + "\n")
        self._finished = True


@contextmanager
def _whole() -> Iterator[None]:
    """What is written within is written whole: Ctrl-C and SIGTERM wait for its end, and are then Ctrl-C; a
    second Ctrl-C does not wait."""
    with caught_signals() as caught:
        yield
    if caught:
        raise KeyboardInterrupt


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
