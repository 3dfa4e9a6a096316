"""XML of strangers, read safely: no document types, no entities, bounded size, depth and text.

Not here: what the elements mean (voc.py, cvat.py).
"""

from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from data_prep.errors import DataError

_DEPTH = 64  # annotation files are five deep
_PIECE = 1 << 16


def read_xml(path: Path, root: str, take: dict[str, Callable[[Element], None]], limit: int) -> None:
    """Hand over each finished element of a name in `take`, in the order of the file; the rest is dropped, so
    memory holds one of them at a time.

    Args:
        path: the file. root: name its outermost element must have. limit: bytes that a file may have.

    Raises:
        DataError: cannot be read, too large, not well-formed, another root, or it declares a document type.
            Entities can make ten lines into gigabytes or read other files, and no annotation needs one, so
            they are refused before any is expanded.
    """
    reader = _Reader(path, root, take)
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{path}: over {limit >> 20} MiB; that is no annotation file")
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                reader.parser.Parse(piece, False)
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise DataError(f"{path}: line {error.lineno}: not well-formed XML ({reason})") from error
    except (OSError, ValueError, LookupError) as error:  # the last two: an encoding that is none
        raise DataError(f"{path}: cannot be read as XML ({error})") from error


class _Reader:
    """Expat's events into elements of the names that are wanted."""

    def __init__(self, path: Path, root: str, take: dict[str, Callable[[Element], None]]):
        self.path, self._root, self._take = path, root, take
        self._depth = 0
        self._builder: TreeBuilder | None = None
        self._start = 0  # depth at which the element being built began
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._open
        self.parser.EndElementHandler = self._close
        self.parser.CharacterDataHandler = self._text

    def _refuse(self, *_) -> None:
        raise DataError(
            f"{self.path}: line {self.parser.CurrentLineNumber}: declares a document type or entity; "
            "such files are not read: take the declaration out"
        )

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._depth and tag != self._root:
            raise DataError(f"{self.path}: starts with <{tag}>, wanted <{self._root}>")
        self._depth += 1
        if self._depth > _DEPTH:
            raise DataError(f"{self.path}: line {self.parser.CurrentLineNumber}: over {_DEPTH} elements deep")
        if self._builder is None and tag in self._take:
            self._builder, self._start = TreeBuilder(), self._depth
        if self._builder is not None:
            self._builder.start(tag, attributes)

    def _text(self, text: str) -> None:
        if self._builder is not None:
            self._builder.data(text)

    def _close(self, tag: str) -> None:
        if self._builder is not None:
            self._builder.end(tag)
            if self._depth == self._start:
                element, self._builder = self._builder.close(), None
                self._take[tag](element)
        self._depth -= 1


def text_of(element: Element | None) -> str:
    """Text of an element without blanks around it; "" where there is no such element."""
    return (element.text or "").strip() if element is not None else ""
