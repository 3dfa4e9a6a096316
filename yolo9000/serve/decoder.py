"""The process that turns bytes from strangers into pixels: `python -m yolo9000.serve.decoder PIXELS
[WIDTH HEIGHT]`: at most PIXELS, for a network that sees no more than WIDTH x HEIGHT.

Decoders of picture formats are large C programs that read what anybody may send. Here one can crash, hang or
fill its memory without harm: decoding.py, at the other end of the pipes, ends the process and starts another.

On stdin: 8 bytes, the length; then the picture. On stdout: the head below; then RGB pixels, or the reason in
UTF-8. The process ends with stdin.
"""

import struct
import sys
from contextlib import suppress
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

from yolo9000.errors import ImageError
from yolo9000.images import read_image, read_reduced

LENGTH = struct.Struct("<Q")
# HTTP's status; width and height of the pixels, and of the picture, of which a large JPEG comes reduced (0
# where the status is not 200); bytes that follow.
HEAD = struct.Struct("<HIIIIQ")

# Formats that cameras, telephones and browsers make, told by their first bytes; a decoder that is not here is
# never given a stranger's file.
SIGNATURES = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WEBP", 8, b"WEBP"),
    ("AVIF", 4, b"ftypavif"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("BMP", 0, b"BM"),
)
WANTED = "JPEG, PNG, WebP, AVIF, GIF or BMP"

# Pixels are held a few times over while they are turned, mixed and sent: at most RGBA twice and RGB twice.
_BYTES_A_PIXEL, _BASE = 16, 1 << 30


def form_of(data: bytes) -> str | None:
    """The format that the first bytes tell, None for any that is not allowed."""
    if data[8:12] == b"WEBP" and data[:4] != b"RIFF":
        return None
    return next((form for form, at, sign in SIGNATURES if data[at : at + len(sign)] == sign), None)


def decode(
    data: bytes, max_pixels: int, network_size: tuple[int, int] | None = None
) -> tuple[int, tuple[np.ndarray, tuple[int, int]] | str]:
    """(200, (pixels (H, W, 3) uint8, (width, height) of the picture)), or (a status of HTTP, the reason).

    Judges the size before decoding. network_size: see images.read_reduced; None: all pixels are wanted.
    """
    form = form_of(data)
    Image.init()  # a Pillow may be built without one of them
    if form not in Image.OPEN:
        return 415, f"not a picture in a format that is taken here: {WANTED}"
    try:
        with Image.open(BytesIO(data), formats=[form]) as picture:
            if picture.width * picture.height > max_pixels:
                return 413, (
                    f"{picture.width} x {picture.height} pixels are more than the limit of {max_pixels:,}; "
                    "scale it down"
                )
            if network_size is None:
                pixels = read_image(picture, max_pixels)
                return 200, (pixels, (pixels.shape[1], pixels.shape[0]))
        # A JPEG of several frames goes by a name of its own.
        forms = (form, "MPO") if form == "JPEG" else (form,)
        return 200, read_reduced(data, network_size, max_pixels, forms)
    except ImageError as error:
        return 422, str(error).removeprefix("PIL image: ").removeprefix(f"picture of {len(data)} bytes: ")
    except Image.DecompressionBombError:
        return 413, f"far more pixels than the limit of {max_pixels:,}; scale it down"
    except MemoryError:
        return 413, "decoding it takes more memory than is granted"
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        return 422, f"damaged {form} ({_words(error)})"


def serve(
    source: BinaryIO, sink: BinaryIO, max_pixels: int, network_size: tuple[int, int] | None = None
) -> None:
    """Decode one picture after another until `source` ends."""
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        data = source.read(length)
        if len(data) < length:
            return
        status, found = decode(data, max_pixels, network_size)
        if isinstance(found, str):
            payload = memoryview(found.encode("utf-8", "replace"))
            sizes = (0, 0, 0, 0)
        else:
            pixels, image_size = found
            sizes = (pixels.shape[1], pixels.shape[0], *image_size)
            payload = memoryview(np.ascontiguousarray(pixels)).cast("B")
            del pixels
        sink.write(HEAD.pack(status, *sizes, len(payload)))
        sink.write(payload)
        sink.flush()
        del data, found, payload  # nothing of a picture stays while the next is waited for


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition(" <_io.BytesIO")[0]


def _limit_memory(max_pixels: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the limit on pixels holds there too
        return
    most = _BASE + _BYTES_A_PIXEL * max_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > most:
        with suppress(ValueError, OSError):  # macOS knows the limit and refuses it
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    import os
    import signal
    import warnings

    warnings.simplefilter("ignore")  # about large pictures and odd metadata
    # Ctrl-C goes to the whole group of processes; what is being decoded shall still be answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    max_pixels, *network_size = map(int, sys.argv[1:])
    Image.MAX_IMAGE_PIXELS = None  # ours is judged first
    _limit_memory(max_pixels)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not get among the pixels
    serve(sys.stdin.buffer, sink, max_pixels, tuple(network_size) or None)


if __name__ == "__main__":
    main()
