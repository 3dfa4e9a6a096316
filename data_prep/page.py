"""The report of `check` as one HTML page with thumbnails, which needs no other file and loads nothing."""

import base64
import html
import io
from collections import defaultdict
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from data_prep.checking import CheckReport
from data_prep.errors import DataError
from data_prep.pictures import inspect, open_pictures
from data_prep.recipe import Recipe
from data_prep.record import HARMLESS, KINDS, Fault

_THUMBNAIL = 200  # pixels: a page of some hundred stays a few megabytes
_BOX = (255, 40, 40)

# Names of files are text of strangers: nothing on the page may run or be fetched, whatever they hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = (
    "body{font:15px/1.4 sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border:1px solid #bbb;text-align:left}td.n{text-align:right}"
    "ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:1em}"
    "li{width:210px;overflow-wrap:anywhere;font-size:13px}li b{display:block}"
)


def make_page(report: CheckReport, recipe: Recipe, shown: int = 24) -> str:
    """The page, UTF-8 text.

    Args:
        report: of that recipe. shown: examples of each kind of fault; the rest is counted. Pictures are read
            again, those shown only.
    """
    sources = {source.name: source for source in recipe.sources}
    opened = {}

    def thumbnail(name: str, fault: Fault) -> str:
        if not fault.picture:
            return ""
        try:
            if name not in opened:
                opened[name] = open_pictures(Path(recipe.root) / sources[name].images)
            return _thumbnail(opened[name].read(fault.picture), fault)
        except DataError:
            return "<i>no picture to show</i>"

    rows = "".join(
        f"<tr><td>{_text(name)}</td><td class=n>{count:,}</td><td class=n>{report.boxes[name]:,}</td>"
        f"<td class=n>{report.crowd[name]:,}</td></tr>"
        for name, count in report.pictures.items()
    )
    by_kind: dict[str, list[tuple[str, Fault]]] = defaultdict(list)
    for name, fault in report.faults:
        by_kind[fault.kind].append((name, fault))
    sections = []
    for kind in (kind for kind in KINDS if by_kind[kind]):
        found = by_kind[kind]
        cost = "costs nothing" if kind in HARMLESS else "costs a picture, box or label"
        items = "".join(
            f"<li>{thumbnail(name, fault)}<b>{_text(fault.picture)}</b>{_text(f'{name}: {fault.detail}')}"
            for name, fault in found[:shown]
        )
        more = f"<p>... and {len(found) - shown:,} more</p>" if len(found) > shown else ""
        sections.append(
            f"<h2>{_text(kind)}: {len(found):,}</h2><p>{_text(KINDS[kind])}; {cost}</p><ul>{items}</ul>{more}"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>data-prep check</title><style>{_STYLE}</style></head><body><h1>data-prep check</h1>"
        f"<p>{report.harmful:,} faults that cost a picture, box or label; "
        f"{len(report.faults) - report.harmful:,} that do not.</p>"
        "<table><tr><th>source</th><th>pictures</th><th>boxes</th><th>crowd</th></tr>"
        f"{rows}</table>{''.join(sections)}</body></html>\n"
    )


def _text(text: str) -> str:
    """Text of strangers for a page; half characters, which UTF-8 has no bytes for, as \\udc..."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _thumbnail(content: bytes, fault: Fault) -> str:
    """An <img> of the upright picture with the fault's box; DataError if there is nothing to show."""
    inspect(content, decode=False)  # refuses what is absurdly large before any pixel is made
    try:
        with Image.open(io.BytesIO(content)) as opened:
            upright = ImageOps.exif_transpose(opened)
            full = upright.size
            small = upright.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    except Exception as error:  # what decoders raise has no common type
        raise DataError(f"{fault.picture}: cannot be shown") from error
    if fault.box_xyxy is not None:
        _draw(small, fault.box_xyxy, full)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=75)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}">'


def _draw(small: Image.Image, box_xyxy: tuple[float, ...], full: tuple[int, int]) -> None:
    """The box as far as it lies on the thumbnail; nothing for one that is no number."""
    scale = [small.width / full[0], small.height / full[1]] * 2
    corners = []
    for value, factor, limit in zip(box_xyxy, scale, small.size * 2, strict=True):
        if value != value:  # NaN
            return
        corners.append(min(max(value * factor, -5.0), limit + 5.0))
    left, right = sorted(corners[::2])
    top, bottom = sorted(corners[1::2])
    ImageDraw.Draw(small).rectangle((left, top, right, bottom), outline=_BOX, width=2)
