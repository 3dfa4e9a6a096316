"""Detections as a notebook shows them: the picture with its boxes, and a table, as HTML. Nothing of it runs
or is fetched, and names are texts."""

import base64
import html
import io
from typing import TYPE_CHECKING

from yolo9000.errors import ImageError

if TYPE_CHECKING:
    from yolo9000.detections import Detections

_SIDE = 640  # pixels of the shown picture's longer side: a notebook's width, some 80 KB
_MOST = 50  # rows shown; the rest is counted


def as_html(found: "Detections") -> str:
    """HTML of one picture's detections, without the picture where it is not at hand any more."""
    width, height = found.image_size
    heading = f"{len(found)} object{'s' * (len(found) != 1)}, {width} x {height}"
    if found.source:
        heading = f"{found.source}: {heading}"
    rows = [
        f"<tr><td>{_text(one.name)}</td><td>{one.score:.2f}</td>"
        f"<td>{' '.join(str(round(value)) for value in one.box_xyxy)}</td>"
        f"<td>{_text(' > '.join(one.path_names))}</td></tr>"
        for one in found[:_MOST]
    ]
    more = f"<p>... and {len(found) - _MOST:,} more</p>" if len(found) > _MOST else ""
    head = "<tr><th>name</th><th>score</th><th>box</th><th>path</th></tr>"
    table = f"<table>{head}{''.join(rows)}</table>{more}" if rows else ""
    return f"<div><p>{_text(heading)}</p>{_shown(found)}{table}</div>"


def _shown(found: "Detections") -> str:
    try:
        picture = found.plot()
    except ImageError:
        return ""
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    encoded = base64.b64encode(out.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{encoded}">'


def _text(text: str) -> str:
    """Half characters, which UTF-8 has no bytes for, as \\udc..."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
