"""Boxes and labels on a picture, legible on any ground, with Pillow alone: its built-in font, or one of the
system's for letters that it lacks. And writing pictures whole."""

import colorsys
import hashlib
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wordtree.files import written_whole
from yolo9000.errors import ImageError
from yolo9000.images import read_image

if TYPE_CHECKING:
    from yolo9000.detections import Detections
    from yolo9000.keywords import Picture

Box = tuple[float, float, float, float]

# Label height as a share of the picture's shorter side, and the limits between which text is legible and not
# in the way.
_TEXT_SHARE, _TEXT_LEAST, _TEXT_MOST = 0.03, 11, 40

# Fonts with letters beyond ASCII, which is about all that Pillow's own has, by the names under which Pillow
# finds them wherever a system keeps its fonts.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "arial.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
)

# Pixels of the longer side at most, of formats that have less room than a picture may take: of a JPEG,
# libjpeg's JPEG_MAX_DIMENSION.
LONGEST_JPEG = 65_500
_LONGEST = {"JPEG": LONGEST_JPEG, "WEBP": 16_383, "GIF": 65_535, "TGA": 65_535}

# Formats that scale every picture to icons of a few fixed sizes.
_ICONS = ("ICO", "ICNS")

# JPEG quality of annotated pictures: text stays sharp.
_JPEG_QUALITY = 92


def draw(picture: "Picture", detections: "Detections", scores: bool = True) -> Image.Image:
    """A copy of the picture with each object's box and a label "name score" on it, the best on top; without
    `scores` the name alone.

    picture: whatever a detector takes (images.read_image), of the size the detections speak of,
    turned upright as there. Nodes with the same parent share a hue family, the same node has the same colour
    on every picture. Raises ImageError if it cannot be read or the sizes differ.
    """
    canvas = _as_detected(picture, detections)
    shorter = min(canvas.size)
    size = int(min(max(shorter * _TEXT_SHARE, _TEXT_LEAST), _TEXT_MOST))
    line = max(1, size // 6)
    pen = ImageDraw.Draw(canvas)
    items = list(detections)
    for one in reversed(items):
        colour = colour_of(one.path)
        _frame(pen, one.box_xyxy, canvas.size, colour, line)
    taken: list[Box] = []
    for one in items:  # the best label gets the best place
        name, font = legible(one.name, one.path[-1] if one.path else "", size)
        text = f"{name} {one.score:.2f}" if scores else f"{name} "
        _label(pen, text, one.box_xyxy, canvas.size, font, colour_of(one.path), taken, size // 4)
    return canvas


def crops(picture: "Picture", detections: "Detections", margin: float = 0.0) -> list[Image.Image]:
    """The parts of a picture inside each box; picture: as of `draw`, margin: see Detections.crop. Raises
    ImageError, ValueError."""
    if not (np.isfinite(margin) and margin > -0.5):
        raise ValueError(f"the margin is a share of the box's sides, more than -0.5, not {margin}")
    whole = _as_detected(picture, detections)
    parts = []
    for left, top, right, bottom in detections.boxes_xyxy.astype(float).tolist():
        across, down = margin * (right - left), margin * (bottom - top)
        columns = _pixels(left - across, right + across, whole.width)
        rows = _pixels(top - down, bottom + down, whole.height)
        parts.append(whole.crop((columns[0], rows[0], columns[1], rows[1])))
    return parts


def _as_detected(picture: "Picture", detections: "Detections") -> Image.Image:
    """A picture as the detector saw it, RGB, shared with nobody. Raises ImageError if it cannot be read or is
    of another size than the detections'."""
    canvas = Image.fromarray(read_image(picture))
    if canvas.size != detections.image_size:
        raise ImageError(
            f"the picture is {canvas.size}, the detections are of one of {detections.image_size} pixels"
        )
    return canvas


def _pixels(start: float, end: float, size: int) -> tuple[int, int]:
    """The whole pixels between two places, inside 0..size, at least one."""
    first = min(max(int(np.floor(start)), 0), size - 1)
    return first, min(max(int(np.ceil(end)), first + 1), size)


def colour_of(path: tuple[str, ...]) -> tuple[int, int, int]:
    """An RGB colour for a node: the hue by its parent's id, shifted a little by its own, so that relatives
    look alike."""
    path = path or ("",)  # "something" has no path
    family = hashlib.sha256(path[max(len(path) - 2, 0)].encode()).digest()
    own = hashlib.sha256(path[-1].encode()).digest()
    hue = family[0] / 256 + (own[0] / 256 - 0.5) * 0.12
    lightness = 0.52 + (own[1] / 256 - 0.5) * 0.16
    red, green, blue = colorsys.hls_to_rgb(hue % 1.0, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache(4096)
def legible(text: str, otherwise: str, size: int) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """A text and a font of this size in pixels that has its letters.

    Where no font has them the text is written without accents, or `otherwise` in its place if that is ASCII,
    or with question marks.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    own = ImageFont.load_default(size)
    if text.isascii():
        return text, own
    for name in _FONTS:
        font = _font(name)
        if font is not None and _has(font, text):
            return text, font.font_variant(size=size)
    parts = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in parts if not unicodedata.combining(letter))
    if not plain.isascii() and otherwise.isascii() and otherwise:
        return otherwise, own
    return "".join(letter if letter.isascii() else "?" for letter in plain), own


@cache
def _font(name: str) -> ImageFont.FreeTypeFont | None:
    """One of the system's fonts; None where it has none of this name."""
    try:
        return ImageFont.truetype(name, _TEXT_MOST)
    except (OSError, ImportError):  # Pillow was built without FreeType
        return None


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether a font has all letters of a text, none of which it draws as what is in no font."""
    missing = bytes(font.getmask("\uffff"))
    return all(letter == " " or bytes(font.getmask(letter)) != missing for letter in text)


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a picture in the format of the path's suffix, making the folder; an older file is replaced whole
    or not at all.

    Raises ImageError for a suffix that names no format, or one of icons, for a picture that is too large for
    the format, and for what the file system refuses.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ImageError(f"{path}: the suffix {path.suffix!r} names no picture format; use .jpg or .png")
    if kind in _ICONS:
        raise ImageError(f"{path}: {kind} scales pictures to icons of fixed sizes; use .jpg or .png")
    most = _LONGEST.get(kind, max(picture.size))
    if max(picture.size) > most:
        raise ImageError(
            f"{path}: {picture.width} x {picture.height} pixels, and no {kind} has more than {most:,} a side;"
            " write a .png"
        )
    options = {"quality": _JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {}
    with written_whole(path, ImageError) as part:
        picture.save(part, format=kind, **options)
    return path


def _frame(
    pen: ImageDraw.ImageDraw, box: Box, size: tuple[int, int], colour: tuple[int, int, int], line: int
) -> None:
    left, top = (int(np.floor(v)) for v in box[:2])
    right, bottom = (int(np.ceil(v)) - 1 for v in box[2:])  # the last pixel inside
    left, right = (min(max(v, 0), size[0] - 1) for v in (left, max(left, right)))
    top, bottom = (min(max(v, 0), size[1] - 1) for v in (top, max(top, bottom)))
    line = min(line, max(1, min(right - left, bottom - top) // 3))
    # A thin dark rim, to be seen on a ground of the same colour.
    if line > 1 and min(right - left, bottom - top) > 4 * line:
        pen.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=line + 1)
    pen.rectangle((left, top, right, bottom), outline=colour, width=line)


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: Box,
    size: tuple[int, int],
    font: "ImageFont.FreeTypeFont | ImageFont.ImageFont",
    colour: tuple[int, int, int],
    taken: list[Box],
    margin: int,
) -> None:
    text = _fitting(pen, text, font, size[0] - 2 * margin)
    if not text:
        return
    x0, _, x1, _ = pen.textbbox((0, 0), text, font=font)
    ascent = pen.textbbox((0, 0), "Ag", font=font)  # one height for all labels
    width, height = x1 - x0 + 2 * margin, ascent[3] - ascent[1] + 2 * margin
    left = min(max(box[0], 0), max(size[0] - width, 0))
    # Above the box, then inside at its top, below it, inside at its bottom; else wherever it hides least.
    tops = [box[1] - height, box[1], box[3], box[3] - height] + [box[1] + k * height for k in (1, 2, 3, 4)]
    places = [(left, top, left + width, top + height) for top in tops if 0 <= top <= size[1] - height]
    places = places or [(left, 0, left + width, height)]
    # The first of equally good ones.
    place = min(places, key=lambda p: sum(_common(p, other) for other in taken))
    taken.append(place)
    pen.rectangle(place, fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if bright > 140 else (255, 255, 255)
    pen.text((place[0] + margin - x0, place[1] + margin - ascent[1]), text, fill=ink, font=font)


def _fitting(
    pen: ImageDraw.ImageDraw, text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: float
) -> str:
    """The text, shortened in its middle until it is no wider; empty if not even three letters fit."""
    if pen.textlength(text, font=font) <= width:
        return text
    name, _, score = text.rpartition(" ")
    for shown in range(len(name) - 1, 2, -1):
        shorter = f"{name[:shown]}… {score}"
        if pen.textlength(shorter, font=font) <= width:
            return shorter
    return ""


def _common(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
