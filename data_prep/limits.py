"""What a picture may be: formats, sizes and samples that preparing, training and detecting all take, so that
what `data-prep check` lets through is what a network can be shown. Nothing is opened here.
"""

import numpy as np

from data_prep.errors import DataError

# Formats that hold photographs. Pillow knows more, but some of those start other programs (EPS) or describe
# no pixels.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "ICO")

# 100 megapixels are 300 MB as RGB: more than any camera in wide use, less than a small machine's memory.
MAX_PIXELS = 100_000_000

# Sides beyond this are no photograph, and letterboxing reckons in numbers that are exact up to it.
MAX_SIDE = 2**16

# So far floating point samples may leave 0..1, and are cut to it: the weights by which interpolation mixes
# pixels add up to 1 to rounding only.
SLACK = 1e-3

# What white may be in samples whose type does not tell.
_WHITES = (1.0, 255.0, 65535.0)


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raises DataError, which says in a few words what is wrong (the caller knows the name), for a picture
    of no pixels or of too many."""
    if width < 1 or height < 1:
        raise DataError(f"has no pixels ({width} x {height})")
    if max(width, height) > MAX_SIDE:
        raise DataError(f"{width} x {height} pixels, of which a side has at most {MAX_SIDE:,}")
    if width * height > max_pixels:
        raise DataError(f"{width} x {height} pixels are more than the limit of {max_pixels:,}; scale it down")


def is_wide(mode: str) -> bool:
    """Whether a picture of this mode of Pillow's has grey samples of 16 or 32 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def white_of(samples: np.ndarray) -> float:
    """What white is in grey samples (H, W) of 16 or 32 bits: 1, 255 or 65535, the least that no sample
    exceeds, but for rounding (SLACK); of 16 bits 65535. Raises DataError, as check_size does, for samples
    that are no brightness."""
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:  # of either byte order
        return 65535.0
    if not np.isfinite(samples).all():
        raise DataError("holds infinite or undefined samples")
    top, slack = float(samples.max()), SLACK if samples.dtype.kind == "f" else 0.0
    whites = [white for white in _WHITES if top <= white + slack and (white > 1 or slack)]
    if not whites or float(samples.min()) < -slack:
        raise DataError(f"samples from {samples.min()} to {samples.max()} are no brightness known here")
    return whites[0]
