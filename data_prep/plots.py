"""Charts of `stats` and `anchors` as pictures, drawn with Pillow. Numbers in, an image out."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wordtree.files import write_whole

_WIDTH, _HEIGHT = 720, 360
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 20, 60  # room for title and labels
_INK, _LINE, _BAR = (40, 40, 40), (200, 60, 40), (70, 120, 190)
_COLOURS = (_LINE, _BAR, (40, 150, 80), (160, 90, 180), (220, 150, 30), (90, 90, 90))


def bars(title: str, names: Sequence[str], values: Sequence[float]) -> Image.Image:
    """A bar for each name; the highest value is marked on the axis."""
    image, draw, font = _canvas(title)
    top = max([*values, 0]) or 1
    _axis(draw, font, 0, top)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    for k, (name, value) in enumerate(zip(names, values, strict=True)):
        left = _LEFT + k * step
        y = _y(value, 0, top)
        draw.rectangle((left + step * 0.1, y, left + step * 0.9, _HEIGHT - _BOTTOM), fill=_BAR)
        draw.text((left + step / 2, _HEIGHT - _BOTTOM + 6), name, _INK, font, anchor="ma")
    return image


def line(title: str, names: Sequence[str], values: Sequence[float], marked: int = -1) -> Image.Image:
    """Values from 0 to 1 joined by a line; number `marked` gets a circle."""
    image, draw, font = _canvas(title)
    _axis(draw, font, 0, 1)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    points = [(_LEFT + (k + 0.5) * step, _y(value, 0, 1)) for k, value in enumerate(values)]
    if len(points) > 1:
        draw.line(points, fill=_LINE, width=2)
    for k, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        size = 6 if k == marked else 3
        draw.ellipse((x - size, y - size, x + size, y + size), fill=_LINE)
        draw.text((x, _HEIGHT - _BOTTOM + 6), name, _INK, font, anchor="ma")
    return image


def curves(
    title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> Image.Image:
    """Points (x, y) of each series in a colour of its own, those of more than one joined by a line."""
    image, draw, font = _canvas(title)
    points = [point for some in series.values() for point in some]
    left, right = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=1.0)
    top = max([y for _, y in points] + [0]) or 1
    right = right if right > left else left + 1
    _axis(draw, font, 0, top)
    draw.text((_WIDTH / 2, _HEIGHT - 22), x_label, _INK, font, anchor="ma")
    draw.text((8, _TOP - 22), y_label, _INK, font)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT), _y(y, 0, top)

    for value in np.linspace(left, right, 6):
        draw.text((place(value, 0)[0], _HEIGHT - _BOTTOM + 6), f"{value:.2f}", _INK, font, anchor="ma")
    for k, (name, some) in enumerate(series.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        drawn = [place(*point) for point in some]
        if len(drawn) > 1:
            draw.line(drawn, fill=colour, width=2)
        for x, y in drawn:
            size = 2 if len(drawn) > 20 else 4  # many points make the line itself
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        draw.text((_LEFT + 12, _HEIGHT - _BOTTOM - 18 * (len(series) - k)), name, colour, font)
    return image


def below(images: Sequence[Image.Image]) -> Image.Image:
    """Charts one below the other."""
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT * len(images)), "white")
    for k, image in enumerate(images):
        sheet.paste(image, (0, k * _HEIGHT))
    return sheet


def save(image: Image.Image, path: Path | str) -> None:
    """Write a PNG, whole or not at all; TreeError as wordtree.files says."""
    out = io.BytesIO()
    image.save(out, "PNG")
    write_whole(path, out.getvalue())


def _canvas(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw, ImageFont.ImageFont]:
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    draw.text((_WIDTH / 2, 12), title, _INK, font, anchor="ma")
    return image, draw, font


def _axis(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, low: float, high: float) -> None:
    draw.line((_LEFT, _TOP, _LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), fill=_INK)
    for value in (low, (low + high) / 2, high):
        draw.text((_LEFT - 8, _y(value, low, high)), f"{value:,.6g}", _INK, font, anchor="rm")


def _y(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)
