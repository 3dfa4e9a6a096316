"""Laying pictures out on the network's input, and colouring them. Holds no reading of files and no batches.

Everything that moves pixels is one thing: a `Placement` stretches a rectangle of the source onto a rectangle
(view) of the canvas, mirrored or not, and turns it. Letterboxing, Darknet's jitter, crops and mosaics only
choose placements, so pictures and boxes cannot come apart: `draw` moves the pixels, `carry` the boxes. What
lies outside the source is grey.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from yolo9000.config import AugmentConfig
from yolo9000.images import read_image

GREY = 127  # Darknet letterboxes on 0.5
Rect = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Placement:
    """`source` (in shares of the picture, may reach outside 0..1) is stretched onto `view` (whole pixels of
    the canvas), then mirrored, then turned about the view's centre by `angle` (degrees, counter-clockwise as
    one sees it; what lay outside the view comes into its corners).
    """

    source: Rect
    view: tuple[int, int, int, int]
    flip: bool = False
    angle: float = 0.0


def letterbox(width: int, height: int, view: tuple[int, int, int, int], flip: bool = False) -> Placement:
    """The whole picture, as large as fits, centred in the view."""
    return _fitted(width, height, view, 1.0, 1.0, 0.5, 0.5, flip)


def centred(
    width: int,
    height: int,
    view: tuple[int, int, int, int],
    config: AugmentConfig,
    random: np.random.Generator,
) -> Placement:
    """The letterboxed picture, mirrored at random."""
    return letterbox(width, height, view, bool(random.random() < config.flip))


def crop(
    width: int,
    height: int,
    view: tuple[int, int, int, int],
    config: AugmentConfig,
    random: np.random.Generator,
) -> Placement:
    """Darknet's jitter on a letterbox: random size, aspect and place; a picture larger than the view is cut,
    a smaller one has grey around it.
    """
    u = random.random(5)
    scale = _log_between(*config.scale, u[0])
    aspect = _log_between(1 / (1 + config.aspect), 1 + config.aspect, u[1])
    return _fitted(width, height, view, scale, aspect, u[2], u[3], bool(u[4] < config.flip))


def resized_crop(
    width: int,
    height: int,
    view: tuple[int, int, int, int],
    config: AugmentConfig,
    random: np.random.Generator,
) -> Placement:
    """A rectangle of a random share of the picture's area, cut where a side would be longer than the
    picture's, stretched onto the view and turned a little (as classifiers are trained).
    """
    u = random.random(5)
    area = config.scale[0] + (config.scale[1] - config.scale[0]) * u[0]
    aspect = math.sqrt(_log_between(1 / (1 + config.aspect), 1 + config.aspect, u[1]))
    # The rectangle is square in pixels of the view before `aspect`, so objects keep their shape but for it.
    view_aspect = (view[2] - view[0]) / (view[3] - view[1])
    side = math.sqrt(area * width * height)
    share_w = min(1.0, side * math.sqrt(view_aspect) * aspect / width)
    share_h = min(1.0, side / math.sqrt(view_aspect) / aspect / height)
    left, top = u[2] * (1 - share_w), u[3] * (1 - share_h)
    angle = config.rotation * (2 * random.random() - 1) if config.rotation else 0.0
    return Placement((left, top, left + share_w, top + share_h), view, bool(u[4] < config.flip), angle)


def mosaic_views(
    size: tuple[int, int], tiles: int, random: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """tiles x tiles rectangles that cover a canvas of (width, height), their borders moved by up to a quarter
    of a tile.
    """
    cuts = []
    for length in size:
        even = np.arange(tiles + 1) * (length / tiles)
        even[1:-1] += (random.random(tiles - 1) - 0.5) * (0.5 * length / tiles)
        cuts.append(np.round(even).astype(int).tolist())
    columns, rows = cuts
    return [(columns[i], rows[j], columns[i + 1], rows[j + 1]) for j in range(tiles) for i in range(tiles)]


def open_image(data: bytes) -> Image.Image:
    """A picture from its encoded bytes, upright; an ordinary JPEG is not decoded yet, `draw` does that at the
    size it needs.

    Raises ImageError or OSError (Pillow's errors are of that kind) for what is no picture."""
    if data[:2] == b"\xff\xd8":
        image = Image.open(io.BytesIO(data))
        # Orientation is in EXIF, or in XMP, which most pictures have for other things.
        turned = "exif" in image.info or b"tiff:Orientation" in image.info.get("xmp", b"")
        if image.format == "JPEG" and image.mode in ("RGB", "L") and not turned:
            return image
    return Image.fromarray(read_image(data))


def draw(image: Image.Image, placement: Placement, canvas: np.ndarray) -> None:
    """Puts the picture where the placement says, on a uint8 canvas (height, width, 3) that is grey already.

    The picture may be undecoded: a JPEG that is shrunk is then decoded at a smaller size. Bilinear with
    antialiasing.
    """
    left, top, right, bottom = placement.source
    x0, y0, x1, y1 = placement.view
    wanted_w, wanted_h = x1 - x0, y1 - y0
    if wanted_w <= 0 or wanted_h <= 0:
        return
    if placement.angle:
        canvas[y0:y1, x0:x1] = _turned(image, placement)
        return
    if image.format == "JPEG":
        # draft() takes the size for the whole picture, and decodes at no less than that.
        image.draft("RGB", (math.ceil(wanted_w / (right - left)), math.ceil(wanted_h / (bottom - top))))
    if image.mode != "RGB":
        image = image.convert("RGB")
    # The part of the picture that is seen, and the whole pixels of the view it fills.
    seen = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    per_x, per_y = wanted_w / (right - left), wanted_h / (bottom - top)  # pixels of the view per share
    a, b = round((seen[0] - left) * per_x), round((seen[2] - left) * per_x)
    c, d = round((seen[1] - top) * per_y), round((seen[3] - top) * per_y)
    if b <= a or d <= c:
        return
    w, h = image.size
    box = (seen[0] * w, seen[1] * h, seen[2] * w, seen[3] * h)
    pixels = np.asarray(image.resize((b - a, d - c), Image.Resampling.BILINEAR, box=box))
    if placement.flip:
        pixels = pixels[:, ::-1]
        a, b = wanted_w - b, wanted_w - a
    canvas[y0 + c : y0 + d, x0 + a : x0 + b] = pixels


def _turned(image: Image.Image, placement: Placement) -> np.ndarray:
    """The view's pixels (height, width, 3), where they are turned: drawn upright with as much around them as
    comes into the corners, turned, and cut out.
    """
    left, top, right, bottom = placement.source
    x0, y0, x1, y1 = placement.view
    w, h = x1 - x0, y1 - y0
    cos, sin = _cos_sin(placement.angle)
    cos, sin = abs(cos), abs(sin)
    # Half of what the view's turned rectangle is wider and higher, and a pixel to interpolate with.
    dx, dy = (
        max(0, math.ceil((side - own) / 2)) + 1
        for side, own in ((w * cos + h * sin, w), (w * sin + h * cos, h))
    )
    per_x, per_y = (right - left) / w, (bottom - top) / h
    source = left - dx * per_x, top - dy * per_y, right + dx * per_x, bottom + dy * per_y
    larger = np.full((h + 2 * dy, w + 2 * dx, 3), GREY, np.uint8)
    draw(image, Placement(source, (0, 0, w + 2 * dx, h + 2 * dy), placement.flip), larger)
    turned = Image.fromarray(larger).rotate(placement.angle, Image.Resampling.BILINEAR)
    return np.asarray(turned)[dy : dy + h, dx : dx + w]


def _cos_sin(angle: float) -> tuple[float, float]:
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))


def carry(
    boxes_cxcywh: np.ndarray, placement: Placement, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4), in 0..1 of the picture, where `draw` puts them on a canvas of (width, height).

    Returns boxes_xyxy (n, 4) in pixels of the canvas, clipped to the view, and the share of each box's area
    still visible (0 where none is). Of what is turned it is the upright box about the turned one.
    """
    left, top, right, bottom = placement.source
    x0, y0, x1, y1 = placement.view
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    corner = np.array([left, top], np.float32)
    per = np.array([(x1 - x0) / (right - left), (y1 - y0) / (bottom - top)], np.float32)
    low, high = (centre - half - corner) * per, (centre + half - corner) * per
    if placement.flip:
        low[:, 0], high[:, 0] = (x1 - x0) - high[:, 0], (x1 - x0) - low[:, 0]
    if placement.angle:
        cos, sin = _cos_sin(placement.angle)
        middle = np.array([x1 - x0, y1 - y0], np.float32) / 2
        turn = np.array([[cos, -sin], [sin, cos]], np.float32)  # (x, y) @ turn, y pointing down
        half = (high - low) / 2 @ np.abs(turn)
        centre = ((low + high) / 2 - middle) @ turn + middle
        low, high = centre - half, centre + half
    whole = np.prod(high - low, axis=1)
    limit = np.array([x1 - x0, y1 - y0], np.float32)
    # Nothing is seen of what lies outside the picture either, but boxes are checked to lie inside it when
    # packed.
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    visible = np.prod(high - low, axis=1) / np.maximum(whole, 1e-12)
    offset = np.array([x0, y0], np.float32)
    return np.concatenate([low + offset, high + offset], axis=1), visible


def in_picture(boxes_xyxy: np.ndarray, placement: Placement) -> np.ndarray:
    """Boxes (n, 4) in 0..1 of the view -> in 0..1 of the picture, cut to it, where nothing is mirrored."""
    left, top, right, bottom = placement.source
    shares = boxes_xyxy * np.array([right - left, bottom - top] * 2) + np.array([left, top] * 2)
    return np.clip(shares, 0, 1)


def colour(images: np.ndarray, config: AugmentConfig, draws: np.ndarray) -> np.ndarray:
    """Random hue, saturation and exposure in HSV of a uint8 batch (N, H, W, 3); a new uint8 batch.

    draws: (N, 3) in 0..1, the chance of each picture; 0.5 leaves it as it is.
    """
    if not len(images) or (config.hue == 0 and config.saturation == 1 and config.exposure == 1):
        return images
    either_way = 2 * draws.T - 1  # (3, N) in -1..1
    saturation, exposure = config.saturation ** either_way[1], config.exposure ** either_way[2]
    return distort(images, either_way[0] * config.hue, saturation, exposure)


def distort(images: np.ndarray, hue: np.ndarray, saturation: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """HSV of a uint8 batch (N, H, W, 3): hue shifted by `hue` (share of the circle, |hue| <= 0.5), saturation
    and value multiplied, each (N,).

    Equal to going to HSV and back, without going there: saturation and value act on the distance to the
    largest channel, and only the hue is computed.
    """
    import torch  # here, so that placements alone do not need it

    pixels = torch.from_numpy(np.ascontiguousarray(images))
    red, green, blue = (pixels[..., k].float() for k in range(3))  # (N, H, W) each
    top = torch.maximum(torch.maximum(red, green), blue)
    chroma = top - torch.minimum(torch.minimum(red, green), blue)

    def each(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32).view(-1, 1, 1)

    inverse = chroma.clamp(min=1.0).reciprocal_()
    value = (top * each(exposure)).clamp_(max=255.0)
    # HSV's saturation is chroma / top; the new chroma is the new saturation times the new value.
    spread = chroma.div_(top.clamp(min=1.0)).mul_(each(saturation)).clamp_(max=1.0).mul_(value)
    out = torch.empty(pixels.shape, dtype=torch.uint8)
    if np.any(hue):
        # Hue in sixths of the circle, 0 = red; where two channels are largest the choices agree.
        sixth = ((red - green) * inverse).add_(4.0)
        sixth = torch.where(green == top, ((blue - red) * inverse).add_(2.0), sixth)
        sixth = torch.where(red == top, (green - blue).mul_(inverse), sixth)
        sixth += each(hue) * 6.0  # -4..8
        # Channel = value - spread * clamp(d - 1, 0, 1), d the distance from the hue to the channel's own on
        # a circle of six.
        for channel, own in enumerate((0.0, 2.0, 4.0)):
            away = (sixth - own).abs_()  # 0..8, the way round is |6 - away|
            away = torch.minimum(away, (6.0 - away).abs_()).sub_(1.0).clamp_(0.0, 1.0)
            out[..., channel] = torch.addcmul(value, spread, away, value=-1.0).round_()
    else:
        spread *= inverse
        for channel, plane in enumerate((red, green, blue)):
            out[..., channel] = torch.addcmul(value, spread, top - plane, value=-1.0).round_()
    return out.numpy()


def _fitted(
    width: int,
    height: int,
    view: tuple[int, int, int, int],
    scale: float,
    aspect: float,
    u: float,
    v: float,
    flip: bool,
) -> Placement:
    """The picture at `scale` times the size that fits the view, its place along the free room given by u and
    v in 0..1.
    """
    view_w, view_h = view[2] - view[0], view[3] - view[1]
    fit = min(view_w / width, view_h / height) * scale
    left, share_w = _span(width * fit * math.sqrt(aspect), view_w, u)
    top, share_h = _span(height * fit / math.sqrt(aspect), view_h, v)
    return Placement((left, top, left + share_w, top + share_h), view, flip)


def _span(drawn: float, view: int, u: float) -> tuple[float, float]:
    """Start and length, in shares of the picture, of a view of that many pixels on a picture `drawn` pixels
    long.

    The picture's edges are put on whole pixels, so that `draw` and `carry` agree exactly."""
    start = round(u * (view - drawn))
    length = max(1, round(u * (view - drawn) + drawn) - start)
    if length <= view:
        start = min(max(start, 0), view - length)
    return -start / length, view / length


def _log_between(low: float, high: float, u: float) -> float:
    return low * (high / low) ** u
