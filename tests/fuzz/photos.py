"""Readers of pictures: yolo9000.images.read_image, and data_prep.pictures.inspect. The independent parse:
Pillow's own opening and turning, transparency laid on white by hand.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_prep import DataError
from data_prep.pictures import inspect
from tests.fuzz.mutate import edit_bytes
from tests.fuzz.reader import Check, MisreadError, Reader, same
from tests.yolo9000.small import picture
from yolo9000.errors import ImageError
from yolo9000.images import FORMATS, read_image

# Small, so that a header that promises more is refused and a case stays short.
MOST_PIXELS = 1_000_000


@cache
def pictures() -> tuple[bytes, ...]:
    """A small picture in every format and mode that this Pillow writes and the readers take."""
    base, files = picture(3, 30, 20), []
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    modes = {"PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), "TIFF": ("RGB", "L", "I;16", "F")}
    Image.init()
    for form in FORMATS:
        if form not in Image.SAVE or form == "MPO":
            continue
        for mode in modes.get(form, ("RGB",)):
            wide = mode in ("I;16", "F")
            image = Image.fromarray(np.asarray(base.convert("L")).astype("u2") * 200) if wide else base
            image = image.convert("F") if mode == "F" else image if wide else image.convert(mode)
            settings = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") and not wide else {}
            out = io.BytesIO()
            image.save(out, form, **settings)
            files.append(out.getvalue())
    for settings in ({"progressive": True}, {"subsampling": 0, "quality": 30}):
        out = io.BytesIO()
        base.convert("CMYK" if "quality" in settings else "RGB").save(out, "JPEG", **settings)
        files.append(out.getvalue())
    return tuple(files)


def plain_pixels(data: bytes) -> np.ndarray | None:
    """(H, W, 3) float64 as Pillow has it, None for samples of more than 8 bits: their white is debatable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            with suppress(Exception):  # damaged EXIF: as it is stored
                image = ImageOps.exif_transpose(image)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                return None
            rgba = np.asarray(image.convert("RGBA"), np.float64)
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB"), np.float64)
    alpha = rgba[:, :, 3:] / 255
    return rgba[:, :, :3] * alpha + 255 * (1 - alpha)


@contextmanager
def open_picture(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        pixels = read_image(data, MOST_PIXELS)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise MisreadError(f"{pixels.dtype} {pixels.shape}")
        if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
            raise MisreadError(f"{pixels.shape} exceeds the limit")
        wanted = plain_pixels(data)
        if wanted is not None:
            same(pixels.shape, wanted.shape, "shape")
            # Pillow rounds while it blends: one step and a half of 255.
            if np.abs(pixels - wanted).max() > 1.5:
                raise MisreadError(f"pixels differ by up to {np.abs(pixels - wanted).max()}")

    yield check


@contextmanager
def open_inspected(folder: Path) -> Iterator[Check]:
    def check(data: bytes) -> None:
        shape = inspect(data, decode=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                same(shape.stored, image.size, "size")
                try:
                    upright = ImageOps.exif_transpose(image).size
                except Exception:
                    upright = image.size
        same(shape.upright, upright, "upright size")

    yield check


READERS = (
    Reader("picture", (ImageError,), open_picture, pictures, (edit_bytes,)),
    Reader("inspect", (DataError,), open_inspected, pictures, (edit_bytes,)),
)
