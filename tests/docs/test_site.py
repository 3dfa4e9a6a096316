"""The site builds without a warning, holds every page, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.docs.pages import ROOT

MISSING = [name for name in ("mkdocs", "material", "mkdocstrings_handlers") if find_spec(name) is None]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if MISSING:
        pytest.skip(f"not installed (extra `docs`): {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--strict", "--quiet", "--config-file", ROOT / "mkdocs.yml", "--site-dir", folder]
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, f"mkdocs build --strict: {run.stderr or run.stdout}"
    return folder


def test_every_page_is_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / name).is_file(), name


def test_reference_is_made_from_docstrings(site):
    text = (site / "reference" / "wordtree.html").read_text(encoding="utf-8")
    assert "lowest node on both paths" in text  # of WordTree.lca
    text = (site / "reference" / "yolo9000.html").read_text(encoding="utf-8")
    assert "Objects on one picture, or on each of a list" in text  # of Detector.__call__


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"([^\"]+)\"", text)
        assert loaded and not [url for url in loaded if re.match(r"(?:https?:)?//", url)], page
