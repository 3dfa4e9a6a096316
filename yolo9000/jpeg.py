"""Ordinary JPEGs from their bytes straight into an array, by libjpeg-turbo (simplejpeg).

Pillow uses the same library and gives the same pixels, but keeps four bytes for each and copies them twice,
which takes half as long again for a photograph (docs/performance.md). What is unusual or damaged is left to
Pillow, which tells what is wrong.
"""

import numpy as np
import simplejpeg

SIGN = b"\xff\xd8"  # the first bytes of every JPEG


def decode(data: bytes, stored: tuple[int, int], wanted: tuple[int, int]) -> np.ndarray | None:
    """The pixels (H, W, 3), RGB, uint8, as they are stored, whatever EXIF says about up and down.

    data: the file. stored: (width, height) as Pillow reads them from its header. wanted: the same, or what
    Pillow's draft() makes of them: libjpeg then decodes at that half, quarter or eighth. None where anything
    is amiss, also what a decoder could pass over: a file that ends early, bytes that belong to nothing.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != stored or colours not in ("YCbCr", "Gray", "RGB"):
            return None
        least = {} if wanted == stored else {"min_width": wanted[0], "min_height": wanted[1]}
        pixels = simplejpeg.decode_jpeg(data, "RGB", **least)
    except ValueError:
        return None
    return pixels if pixels.shape[1::-1] == wanted else None
