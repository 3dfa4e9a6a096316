"""Pictures from outside: files, bytes, PIL images, arrays and tensors into upright 8-bit RGB. Every failure
is an ImageError that names the picture. Listing folders is folders.py, resizing for a network letterbox.py.
"""

import io
import math
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data_prep import limits
from data_prep.errors import DataError
from yolo9000 import jpeg
from yolo9000.errors import ImageError

if TYPE_CHECKING:
    import torch

FORMATS, MAX_PIXELS, MAX_SIDE = limits.FORMATS, limits.MAX_PIXELS, limits.MAX_SIDE

# A transparent picture is shown on white, as web browsers do.
_BACKGROUND = (255, 255, 255)

# Pixels kept a side, over those that the network sees, where a JPEG is decoded at reduced size: averaging two
# and more of the decoder's pixels into one evens out that it scales blocks of 8 x 8, each for itself.
SPARE = 2

_ORIENTATION = 0x0112  # EXIF's tag


class _Quiet:
    """No warnings within. For any threads: those that overlap would by warnings.catch_warnings alone restore
    what others had set, and leave the program without its own filters."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__()


_quiet = _Quiet()

# PIL reads an image when it is first looked at, and two threads may look at one.
_loading = threading.Lock()


def read_image(
    picture: "str | Path | bytes | Image.Image | np.ndarray | torch.Tensor", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """One picture as a uint8 array (H, W, 3), RGB, turned upright by its EXIF orientation, transparency laid
    on white.

    A path or encoded bytes: any of FORMATS, the first frame of several, 8 or 16 bits, grey, palette, CMYK. A
    PIL image: the same. An array: uint8, or floating point in 0..1; (H, W), (H, W, 1), (H, W, 3) or (H, W,
    4), channels RGB(A). A tensor: the same values as (H, W) or channels first, (1 | 3 | 4, H, W).

    Raises ImageError for anything else: missing, empty, truncated or foreign files, more than `max_pixels`
    pixels (found from the header, before anything is decoded), no pixels at all, values out of range.
    """
    if isinstance(picture, str | Path | bytes | bytearray | memoryview):
        return _read(picture, max_pixels, None)[0]
    if isinstance(picture, Image.Image):
        with _loading:
            return _from_pil(picture, "PIL image", max_pixels)[0]
    if isinstance(picture, np.ndarray):
        return _from_array(picture, "array", max_pixels)
    # By its name: who has no tensor need not import torch.
    if type(picture).__module__.partition(".")[0] == "torch":
        return _from_tensor(picture, max_pixels)
    raise ImageError(f"a picture is a path, bytes, PIL image, array or tensor, not {type(picture).__name__}")


def read_reduced(
    picture: "str | Path | bytes | Image.Image | np.ndarray | torch.Tensor",
    network_size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] = FORMATS,
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_image`, for a network that sees no more than `network_size` = (width, height): a JPEG file or
    its bytes that is much larger is decoded at a half, a quarter or an eighth of its size, which saves most
    of the decoder's work. formats: those of FORMATS that files and bytes may be in.

    Returns the pixels (H, W, 3), still at least `SPARE` times as wide and high as the picture fitted into
    the network's input, and (width, height) of the picture itself, upright.
    """
    if isinstance(picture, str | Path | bytes | bytearray | memoryview):
        return _read(picture, max_pixels, network_size, formats)
    pixels = read_image(picture, max_pixels)
    return pixels, (pixels.shape[1], pixels.shape[0])


def alone_or_all(pictures: Any) -> Any:
    """The pictures that somebody means: a single one as a list of one, else as they are. Raises TypeError."""
    if pictures is None:
        raise TypeError("which pictures? Give a list of files, or one")
    single = isinstance(pictures, str | Path | bytes | bytearray | memoryview | Image.Image)
    return [pictures] if single or getattr(pictures, "ndim", 0) in (2, 3) else pictures


def as_it_is_now(picture: Any) -> Any:
    """A picture that stays as it is: who hands on one buffer of a camera with ever other frames in it, or
    PIL's one image of many frames, means those frames. Raises ImageError for an unreadable PIL image."""
    if isinstance(picture, Image.Image):
        return read_image(picture)
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        return picture.copy()
    return picture.clone() if type(picture).__module__.partition(".")[0] == "torch" else picture


def _read(
    picture: str | Path | bytes | bytearray | memoryview,
    max_pixels: int,
    fit: tuple[int, int] | None,
    formats: Sequence[str] = FORMATS,
) -> tuple[np.ndarray, tuple[int, int]]:
    """A file or encoded bytes; fit: see read_reduced. Returns pixels and the (width, height) of the whole."""
    if not isinstance(picture, str | Path):
        data = io.BytesIO(bytes(picture))
        return _decode(data, f"picture of {len(picture)} bytes", max_pixels, fit, formats)
    path = Path(picture)
    try:
        if path.is_dir():
            raise ImageError(f"{path}: a folder, not a picture")
        if path.exists() and not path.is_file():  # reading a pipe or device may never end
            raise ImageError(f"{path}: not an ordinary file")
        with path.open("rb") as file:
            return _decode(file, str(path), max_pixels, fit, formats)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({error})") from error


def _decode(
    file: Any, name: str, max_pixels: int, fit: tuple[int, int] | None, formats: Sequence[str]
) -> tuple[np.ndarray, tuple[int, int]]:
    start = file.read(512)
    if not start:
        raise ImageError(f"{name}: empty")
    data = None
    if start.startswith(jpeg.SIGN):
        most = 4 * max_pixels + 2**20  # more than any JPEG takes: of what is no picture no more is read
        data = start + file.read(most)
        file = file if len(data) >= most else io.BytesIO(data)
    file.seek(0)
    Image.init()
    try:
        known = [form for form in formats if form in Image.OPEN]
        # Pillow warns about large pictures and odd metadata; the limit on size is ours.
        with _quiet, Image.open(file, formats=known) as picture:
            return _from_pil(picture, name, max_pixels, fit, data)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit lies above the one here by default
        raise ImageError(
            f"{name}: far more pixels than the limit of {max_pixels:,}; scale it down"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_what_it_is(start)}") from error
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        raise ImageError(f"{name}: damaged ({str(error) or type(error).__name__})") from error


def _what_it_is(start: bytes) -> str:
    """A guess, for the message, at a file that is no picture."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page, not a picture (a download that went wrong?)"
    if text.startswith((b"<?xml", b"<svg")):
        return "XML or SVG, not a photograph"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture itself (git lfs pull)"
    if text.startswith(b"%pdf"):
        return "a PDF document, not a picture"
    return "not a picture in a format known here"


def _from_pil(
    picture: Image.Image,
    name: str,
    max_pixels: int,
    fit: tuple[int, int] | None = None,
    data: bytes | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """fit: see read_reduced. data: the file, where it may be a JPEG. Returns pixels and the (width, height)
    of the whole, upright."""
    _check_size(picture.width, picture.height, name, max_pixels)
    try:
        if picture.format not in ("JPEG", "MPO"):
            # Before the orientation: to find a PNG's, Pillow decodes it, and what went wrong once in decoding
            # it does not tell again. Only JPEGs can be reduced while they are decoded.
            picture.load()
        orientation = _orientation(picture)
        stored = picture.size
        width, height = stored if orientation < 5 else stored[::-1]  # from 5 on it lies on a side
        if fit is not None:
            scale = SPARE * min(fit[0] / width, fit[1] / height)
            # By the largest power of two up to 8 that keeps so many; formats but JPEG take no notice.
            picture.draft(picture.mode, tuple(math.ceil(side * scale) for side in stored))
        pixels = None
        if data is not None and picture.mode in ("RGB", "L"):
            pixels = jpeg.decode(data, stored, picture.size)
        if pixels is None:
            picture.load()
            pixels = _pixels(picture, name)
        return _upright(_without_rest(pixels, stored), orientation), (width, height)
    except ImageError:
        raise
    except Exception as error:  # see _decode
        raise ImageError(f"{name}: damaged ({str(error) or type(error).__name__})") from error


def _without_rest(pixels: np.ndarray, stored: tuple[int, int]) -> np.ndarray:
    """A reduced picture (H, W, 3) without a last column or row of which less than half was in the whole,
    (width, height) `stored`: it would stretch what is seen."""
    # By the longer side: one of few pixels is rounded up by too much to tell.
    power = round(max(stored) / max(pixels.shape[:2]))
    width, height = (max(1, round(side / power)) for side in stored)
    return pixels[:height, :width]


def _pixels(picture: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of any mode."""
    if limits.is_wide(picture.mode):
        return _from_wide(np.asarray(picture), name)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (*_BACKGROUND, 255))
        picture = Image.alpha_composite(ground, picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _orientation(picture: Image.Image) -> int:
    """EXIF's 1 to 8; 1, upright, where it says nothing sensible."""
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Damaged EXIF data says nothing about which way is up; viewers then show the picture as stored.
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) as stored, to what EXIF's orientation says: 2 is mirrored, 3 upside down, 6 on its left."""
    whole = np.ascontiguousarray(pixels).view("V3")[..., 0]  # (H, W): pixels move whole, twice as fast
    if orientation >= 5:
        whole = whole.T
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    whole = np.ascontiguousarray(whole[::rows, ::columns])
    return whole.view(np.uint8).reshape(*whole.shape, 3)  # (H, W) -> (H, W, 3)


def _from_wide(samples: np.ndarray, name: str) -> np.ndarray:
    """Grey samples of 16 or 32 bits (H, W) to (H, W, 3)."""
    try:
        white = limits.white_of(samples)
    except DataError as error:
        raise ImageError(f"{name}: {error}") from None
    grey = np.round(np.clip(samples * (255.0 / white), 0, 255)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _from_tensor(tensor: "torch.Tensor", max_pixels: int) -> np.ndarray:
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3, 4)):
        hint = "; permute(2, 0, 1) puts channels first" if len(shape) == 3 and shape[2] in (1, 3, 4) else ""
        hint = "; give a batch as a list of pictures" if len(shape) == 4 else hint
        raise ImageError(f"a tensor picture is (3, H, W), not {shape}{hint}")
    array = tensor.detach().cpu()
    array = (array.float() if array.is_floating_point() else array).numpy()
    return _from_array(array if array.ndim == 2 else array.transpose(1, 2, 0), "tensor", max_pixels)


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; channels come last in arrays" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        hint = "; give a batch as a list of pictures" if array.ndim == 4 else hint
        raise ImageError(f"an array picture is (H, W, 3), not {array.shape}{hint}")
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    if array.dtype.kind == "f":
        # NaN anywhere is both the least and the greatest, and then neither holds.
        if not (array.min() >= -limits.SLACK and array.max() <= 1 + limits.SLACK):
            raise ImageError(f"{name}: floating point pictures hold values from 0 to 1 (0 to 255 as uint8)")
        array = np.round(np.clip(array, 0, 1).astype(np.float32) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"{name}: uint8, or floating point from 0 to 1, is wanted, not {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint32)
        mixed = array[:, :, :3] * alpha + np.array(_BACKGROUND, np.uint32) * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)
    # A copy: the caller may go on to change theirs.
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)))


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    try:
        limits.check_size(width, height, max_pixels)
    except DataError as error:
        raise ImageError(f"{name}: {error}") from None
