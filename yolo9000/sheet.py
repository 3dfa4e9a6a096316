"""A sheet of held-out pictures, each beside itself: on the left what is true, on the right what the model
answers. Drawing boxes on one picture is draw.py's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from yolo9000.detections import SOMETHING, Detections
from yolo9000.draw import draw, legible, save_picture
from yolo9000.errors import ImageError, TrainingError
from yolo9000.report import display_names

if TYPE_CHECKING:
    from yolo9000.witness import Witness

FOLDER = "sheets"  # of a run: one sheet for each time that it is judged
_SIDE = 240  # pixels of a picture's longer side: labels can be read, and a sheet of 12 stays below 400 KB
_ACROSS = 3  # pictures with their answers beside each other
_GAP, _LINE = 6, 18  # pixels between pictures, and for a line of words
_GROUND, _INK = (24, 26, 30), (230, 231, 233)


def sheet_name(batch: int) -> str:
    """Where in the folder of a run the sheet of a moment lies."""
    return f"{FOLDER}/detections-{batch:08d}.jpg"


def sample_places(pictures: int, shown: int) -> tuple[int, ...]:
    """Positions of the pictures shown: at equal distances, the same each time."""
    return tuple(np.unique(np.linspace(0, max(0, pictures - 1), min(shown, pictures)).astype(int)).tolist())


def draw_sheet(witness: "Witness", title: str = "") -> Image.Image | None:
    """The pictures that the witness kept answers of; None where there are none. Raises TrainingError."""
    named = {row.place: row for row in witness.named}
    places = sorted(set(witness.answers) | set(named))
    if not places:
        return None
    tiles = []
    for place in places:
        words = [witness.name(place).rpartition("/")[2], ""]
        if place in named:
            row, names = named[place], display_names(witness)
            answer = (
                SOMETHING if row.answer == -1 else names[row.answer] if row.answer is not None else "none"
            )
            words = [f"there: {names[row.truth]}", f"answer: {answer}"]
        picture = witness.thumbnail(place, _SIDE)
        sides = [draw(picture, found, scores) for found, scores in _both(witness, place, picture.size)]
        tiles.append(_tile(sides, words))
    rows = [tiles[k : k + _ACROSS] for k in range(0, len(tiles), _ACROSS)]
    heights = [max(tile.height for tile in row) + _GAP for row in rows]
    width = min(_ACROSS, len(tiles)) * (tiles[0].width + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _LINE + 2 * _GAP), _GROUND)
    head = "left: what is true, right: what is answered"
    _write(sheet, (_GAP, _GAP), f"{title}; {head}" if title else head, width - 2 * _GAP)
    top = _LINE + 2 * _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_GAP + column * (tile.width + _GAP), top))
        top += height
    return sheet


def write_sheet(witness: "Witness", path: Path, title: str = "") -> bool:
    """Draws and writes the sheet, whole or not at all; False where there is nothing to show. Raises
    TrainingError."""
    sheet = draw_sheet(witness, title)
    if sheet is None:
        return False
    try:
        save_picture(sheet, path)
    except ImageError as error:
        raise TrainingError(str(error)) from error
    return True


def _both(witness: "Witness", place: int, size: tuple[int, int]) -> Iterator[tuple[Detections, bool]]:
    """Truth and answers of a picture, in pixels of one of this (width, height), and whether scores are to be
    written at them."""
    tree, names = witness.held.tree, display_names(witness)
    scale = np.array(size * 2) / np.array(witness.held.pictures.pixels(place) * 2)
    boxes, nodes, _ = witness.truth_of(place)
    columns = [witness.held.truth.ids[column] for column in witness.held.truth.columns[place].tolist()]
    said = witness.answers.get(place)
    parts = [(boxes, nodes, np.ones(len(nodes)), columns)]
    if said is None:  # a classifier
        parts.append((np.zeros((0, 4)), nodes[:0], np.zeros(0), []))
    else:
        parts.append((said.boxes_xyxy, said.nodes, said.scores, [SOMETHING] * len(said.nodes)))
    for number, (boxes_xyxy, of, scores, otherwise) in enumerate(parts):
        paths = [tree.path(node) if node >= 0 else () for node in of.tolist()]
        found = Detections(
            boxes_xyxy=boxes_xyxy * scale,
            objectness=scores,
            scores=scores,
            nodes=of,
            names=[names[k] if k >= 0 else other for k, other in zip(of.tolist(), otherwise, strict=True)],
            paths=paths,
            image_size=size,
            probabilities=np.ones(len(of)),
            path_names=paths,
            path_probabilities=[(1.0,) * len(path) for path in paths],
        )
        yield found, bool(number)


def _tile(sides: Sequence[Image.Image], words: Sequence[str]) -> Image.Image:
    """Two pictures beside each other in squares, words below each."""
    tile = Image.new("RGB", (2 * _SIDE, max(side.height for side in sides) + _LINE), _GROUND)
    for k, (side, text) in enumerate(zip(sides, words, strict=True)):
        tile.paste(side, (k * _SIDE + (_SIDE - side.width) // 2, 0))
        _write(tile, (k * _SIDE + 2, tile.height - _LINE), text, _SIDE - 4)
    return tile


def _write(image: Image.Image, at: tuple[int, int], text: str, width: int) -> None:
    """A line of words, cut where there is no room for more."""
    pen = ImageDraw.Draw(image)
    text, font = legible(text, "", 12)
    while text and pen.textlength(text, font=font) > width:
        text = text[:-1]
    pen.text(at, text, fill=_INK, font=font)
