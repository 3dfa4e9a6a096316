"""A tree as one page: nothing of it is markup, nothing is fetched, and size does not make it slow."""

import json
import random
import re
import time

import pytest

from tests import browser
from tests.browser import complaints, wait_for
from wordtree import TreeError, WordTree
from wordtree.layout import preorder
from wordtree.page import page, server_page, tree_columns, write_page

PETS = WordTree(
    ["n1", "n2", "n3", "n4"],
    [-1, -1, 0, 0],
    ["animal", "<script>alert(1)</script>", "dog", "</script><b>cat"],
    ["it lives", "", "it barks", "<!--data-->"],
    synonyms=[(), (), ("hound", "<i>"), ()],
    sources=[(), ("coco",), ("coco", "imagenet"), ()],
    about={"title": 'Pets <&> "more" <!--script-->'},
)


def random_tree(n: int) -> WordTree:
    rng = random.Random(0)
    parents = {f"r{i:07d}": f"r{rng.randrange(i):07d}" if i > 9 else None for i in range(n)}
    ids, above = preorder(parents)
    names = [f"thing {node}" for node in ids]
    return WordTree(ids, above, names, [f"the thing called {name}, made to be many" for name in names])


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="tree-data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_the_tree_and_nothing_that_its_names_could_become():
    text = page(PETS)
    data = data_of(text)
    assert data["names"] == list(PETS.names) and data["glosses"] == list(PETS.glosses)
    assert data["parents"] == PETS.parents.tolist() and data["fingerprint"] == PETS.fingerprint
    assert data["synonyms"] == [list(row) for row in PETS.synonyms]
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>cat" not in text and "<i>" not in text and "alert(1)</script>" not in text
    assert "<title>Pets &lt;&amp;&gt; &quot;more&quot; &lt;!--script--&gt;</title>" in text


def test_the_policy_allows_the_pages_own_script_and_style_only():
    import base64
    import hashlib

    text = page(PETS)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for tag, kind in (('<script type="module">', "script"), ("<style>", "style")):
        inside = text.partition(tag)[2].partition(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert inside and f"{kind}-src 'sha256-{digest}'" in policy
    assert "http://" not in text and "https://" not in text


def test_columns_that_a_tree_lacks_are_not_there():
    bare = WordTree(["a", "b"], [-1, 0])
    assert set(tree_columns(bare)) == {"fingerprint", "ids", "parents", "names"}
    assert tree_columns(bare, ["boxes", "nothing"])["taught"] == ["boxes", "nothing"]


def test_in_a_server_the_data_come_from_an_address():
    text = server_page('/v1/"x', "/static/")
    assert 'data-source="/v1/&quot;x"' in text and "tree-data" not in text and "<!--" not in text


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(TreeError, match="cannot be written"):
        write_page(PETS, tmp_path)
    write_page(PETS, tmp_path / "new" / "tree.html")
    assert data_of((tmp_path / "new" / "tree.html").read_text(encoding="utf-8"))["ids"] == list(PETS.ids)


@pytest.mark.parametrize("words", [["--html", "tree.html"], ["x.page", "--form", "html"], ["tree.html"]])
def test_export_writes_the_page(tmp_path, words, monkeypatch):
    from click.testing import CliRunner

    from wordtree.cli import cli

    monkeypatch.chdir(tmp_path)
    PETS.save("pets.json")
    done = CliRunner().invoke(cli, ["export", *words, "--tree", "pets.json"])
    assert done.exit_code == 0, done.output
    name = next(word for word in words if "." in word)
    assert data_of((tmp_path / name).read_text(encoding="utf-8"))["ids"] == list(PETS.ids)
    assert CliRunner().invoke(cli, ["export", "x.csv", "--html", "--form", "edges"]).exit_code == 2


@pytest.fixture(scope="module")
def driver():
    with browser.chromium() as found:
        yield found


def css(driver, selector: str) -> list:
    return driver.find_elements("css selector", selector)


def test_the_page_in_a_browser_without_any_server(driver, tmp_path):
    write_page(PETS, tmp_path / "tree.html")
    driver.get((tmp_path / "tree.html").as_uri())
    wait_for(lambda: css(driver, "#rows .row"), "the tree")
    names = [row.find_element("class name", "name").text for row in css(driver, "#rows .row")]
    assert names == ["animal", "dog", "</script><b>cat", "<script>alert(1)</script>"]
    css(driver, "#search")[0].send_keys("hound")
    wait_for(lambda: css(driver, "#count")[0].text.startswith("1 found"), "a match")
    css(driver, "#search")[0].send_keys("\ue007")
    assert css(driver, "#detail h2")[0].text == "dog"
    assert "it barks" in css(driver, "#detail")[0].text
    assert "coco, imagenet" in css(driver, "#detail")[0].text
    assert complaints(driver) == []


@pytest.mark.slow
def test_a_hundred_thousand_nodes_are_as_quick(driver, tmp_path):
    tree = random_tree(100_000)
    began = time.monotonic()
    write_page(tree, tmp_path / "tree.html")
    assert time.monotonic() - began < 20
    driver.get((tmp_path / "tree.html").as_uri())
    wait_for(lambda: css(driver, "#rows .row"), "the tree", 60)
    script = """
    const page = globalThis.treePage, times = {};
    const measure = (what, run) => {
      const began = performance.now();
      run();
      times[what] = performance.now() - began;
    };
    measure("open all", () => {
      for (let k = 0; k < page.data.ids.length; k++) page.open.add(k);
      page.shown = [];
      for (const root of page.top) { page.shown.push(root); page.collect(root, page.shown); }
      page.draw();
    });
    measure("scroll", () => { document.getElementById("rows").scrollTop = 1500000; page.draw(); });
    measure("search", () => { document.getElementById("search").value = "77"; page.search(); });
    measure("reveal", () => page.select(99999, { reveal: true }));
    return [times, page.shown.length, document.querySelectorAll(".row").length];
    """
    times, shown, drawn = driver.execute_script(script)
    assert shown == 100_000 and 5 < drawn < 120
    # Far above what is measured on an idle machine, far below what drawing every row would take.
    assert max(times.values()) < 3000, times
    last = tree.path_nodes(99_999)
    assert [b.text for b in css(driver, "#path button")] == [tree.names[k] for k in last]
    assert complaints(driver) == []
