"""The HTML report of `check`."""

import base64
import io
import re
from html.parser import HTMLParser

from click.testing import CliRunner
from PIL import Image

from data_prep.cli import cli

TAGS = {*("html", "head", "meta", "title", "style", "body", "h1", "h2", "p"), *("table", "tr", "th", "td")}
TAGS |= {"ul", "li", "b", "i", "img"}


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


def test_page_shows_faults_and_runs_nothing(tmp_path, make, tree_file):
    evil = '<script>alert(1)<!--&".jpg'
    evil_class = "<img src=x onerror=alert(1)>"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(make.picture(400, 200))
    (tmp_path / "in" / "cut.jpg").write_bytes(make.picture(64, 64)[:900])
    nan = float("nan")
    boxes = [("a.jpg", 1, box, {}) for box in ([10, 10, -5, 5], [nan, 0, 1, 1], [100, 50, 900, 20])]
    boxes += [(evil, 2, [0, 0, 1, 1], {})]
    images = {"a.jpg": (400, 200), "cut.jpg": (64, 64), evil: (9, 9), "\udcff.jpg": (9, 9)}
    make.coco_of(tmp_path / "c.json", images, boxes, {1: "n00000003", 2: evil_class})
    command = ["check", "--coco", "c.json", "--images", "in", "--root", tmp_path, "--tree", tree_file]
    result = CliRunner().invoke(cli, [*map(str, command), "--html", str(tmp_path / "p.html")])
    assert result.exit_code == 1, result.output
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    page = Page(text)
    assert set(page.tags) <= TAGS
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert any(evil in words for words in page.words)  # escaped, it is text again
    assert "href" not in dict(page.attributes)
    for kind in ("box inverted", "box not finite", "box cut", "unreadable picture", "missing picture"):
        assert any(words.startswith(f"{kind}: ") for words in page.words), kind
    pictures = [value for name, value in page.attributes if name == "src"]
    assert len(pictures) == 3  # the three boxes of the whole picture
    for source in pictures:
        found = re.fullmatch(r"data:image/jpeg;base64,(.+)", source)
        shown = Image.open(io.BytesIO(base64.b64decode(found[1])))
        assert shown.size == (200, 100)


def test_page_is_refused_where_it_cannot_be_written(tmp_path, make, tree_file):
    (tmp_path / "in" / "n00000003").mkdir(parents=True)
    (tmp_path / "in" / "n00000003" / "a.jpg").write_bytes(make.picture())
    command = ["check", "--folders", str(tmp_path / "in"), "--tree", str(tree_file), "--html"]
    assert CliRunner().invoke(cli, [*command, str(tmp_path / "p.html")]).exit_code == 0
    assert "0 faults" in (tmp_path / "p.html").read_text()
    (tmp_path / "boxes.json").write_text("{}")
    result = CliRunner().invoke(cli, [*command, str(tmp_path / "boxes.json")])
    assert "named .html" in str(result.exception) and (tmp_path / "boxes.json").read_text() == "{}"
    result = CliRunner().invoke(cli, [*command, "/dev/null"])
    assert result.exit_code != 0
