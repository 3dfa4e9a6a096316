"""The two pages and what belongs to them: files of the packages, read once, given under fixed names.

What is on them is static/ (the detector's page) and wordtree/page.py (the tree's)."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from wordtree.page import DATA, server_page

_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
_SHARED = ("page.css", "tree_page.css", "tree_page.js")


def make_router() -> APIRouter:
    """/, /tree and /static/<name>; no request names a file, only an entry of a table."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _TYPES}
    files |= {name: (DATA / name).read_bytes() for name in _SHARED}
    index = files.pop("index.html")
    tree = server_page("/v1/tree/columns", "/static/").encode()

    @router.get("/")
    def detector_page(request: Request) -> Response:
        return _give(request, index, ".html")

    @router.get("/tree")
    def tree_page(request: Request) -> Response:
        return _give(request, tree, ".html")

    @router.get("/static/{name}")
    def static(name: str, request: Request) -> Response:
        if name not in files:
            return Response(status_code=404)
        return _give(request, files[name], Path(name).suffix)

    return router


def _give(request: Request, data: bytes, suffix: str) -> Response:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_TYPES[suffix], headers=headers)
