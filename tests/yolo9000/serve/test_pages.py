"""The pages in a real browser: what is shown is what the detector says, and names are never markup."""

from pathlib import Path

import pytest

from tests import browser
from tests.browser import asked_elsewhere, complaints, fits, wait_for
from tests.yolo9000.serve.running import Running, encode, picture
from tests.yolo9000.small import TREE, randomise, small_detector
from wordtree import WordTree
from yolo9000 import Detector
from yolo9000.serve.guard import Access

pytestmark = pytest.mark.slow  # a browser takes a second a page


@pytest.fixture(scope="module")
def driver():
    with browser.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(encode(picture(1, 300, 200)))
    return path


def css(driver, selector: str) -> list:
    return driver.find_elements("css selector", selector)


def text(driver, selector: str) -> str:
    return css(driver, selector)[0].text


def open_page(driver, server: Running, path: str = "/") -> None:
    driver.get("about:blank")
    complaints(driver)  # those of the page before
    driver.get(server.url + path)
    wait_for(lambda: "name" in text(driver, "#facts") or "node" in text(driver, "#facts"), "the names")


def show(driver, photo: Path) -> None:
    css(driver, "#file")[0].send_keys(str(photo))
    wait_for(lambda: "object" in text(driver, "#status"), "an answer")


def listed(driver) -> list[tuple[str, str]]:
    script = """const texts = (button) => [...button.children].map((part) => part.textContent);
    return [...document.querySelectorAll("#list button")].map(texts)"""
    return [tuple(entry) for entry in driver.execute_script(script)]


def slide(driver, name: str, value: int) -> None:
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
    driver.execute_script(f"{script} s.dispatchEvent(new Event('input'))", name, value)
    drawn(driver)


def drawn(driver) -> None:
    """Waits until the page has drawn what was asked of it before: in the next frame, however late it is."""
    driver.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    )


def expected(detector, photo, **options) -> list[tuple[str, str]]:
    found = detector(photo.read_bytes(), **options)
    return [(name, f"{score:.2f}") for name, score in zip(found.names, found.scores, strict=True)]


def test_a_picture_is_answered_and_chosen_from_again_without_the_network(driver, server, detector, photo):
    open_page(driver, server)
    show(driver, photo)
    found = expected(detector, photo, threshold=0.2)
    assert sorted(listed(driver)) == sorted(found) and len(found) > 2
    assert len(css(driver, "#boxes .box")) == len(found)
    given = server.detect(photo.read_bytes(), candidates=0.05).json()["pictures"][0]["candidates"]
    floor = given["floor"]  # of a network that sees something everywhere
    runs = server.metric("yolo9000_network_seconds_count")
    for depth, daring in ((0, 1000), (1000, 1000), (700, 400), (316, 0)):
        slide(driver, "depth", depth)
        slide(driver, "daring", daring)
        shown = text(driver, "#daring-value").rpartition(" ")[2]
        tree_threshold, threshold = 1 - (depth / 1000) ** 2, 0.95 - (0.95 - floor) * daring / 1000
        assert shown == f"{threshold:.2f}"
        wanted = expected(detector, photo, threshold=threshold, tree_threshold=tree_threshold)
        assert sorted(listed(driver)) == sorted(wanted)
    assert server.metric("yolo9000_network_seconds_count") == runs
    assert complaints(driver) == [] and asked_elsewhere(driver, server.url) == []


def test_names_are_searched_and_restrict_the_answer(driver, server, detector, photo):
    open_page(driver, server)
    show(driver, photo)
    entry = css(driver, "#only")[0]
    entry.send_keys("veh")
    wait_for(lambda: css(driver, "#matches li"), "matches")
    assert entry.get_attribute("aria-expanded") == "true"
    entry.send_keys("\ue007")  # Enter
    entry.send_keys("husk\ue007")
    wait_for(lambda: len(css(driver, "#chosen button")) == 2, "the second name")
    drawn(driver)
    assert [button.text.split()[0] for button in css(driver, "#chosen button")] == ["vehicle", "husky"]
    wanted = expected(detector, photo, threshold=0.2, vocabulary=["vehicle", "husky"])
    assert sorted(listed(driver)) == sorted(wanted) and wanted
    for _ in css(driver, "#chosen button"):
        css(driver, "#chosen button")[0].click()
    drawn(driver)
    assert sorted(listed(driver)) == sorted(expected(detector, photo, threshold=0.2))


def test_pointing_at_a_box_shows_its_path(driver, server, detector, photo):
    from selenium.webdriver import ActionChains

    open_page(driver, server)
    show(driver, photo)
    slide(driver, "depth", 1000)
    best = max(detector(photo.read_bytes(), threshold=0.2, tree_threshold=0), key=lambda one: one.score)
    entry = css(driver, "#list button")[0]
    ActionChains(driver).move_to_element(entry).perform()
    steps = wait_for(lambda: css(driver, "#steps li"), "a path")
    names = [step.find_element("tag name", "span").text for step in steps]
    assert names == list(best.path_names)
    first = driver.execute_script("return document.querySelector('#steps .fill').style.width")
    assert float(first.rstrip("%")) == pytest.approx(100 * best.path_probabilities[0], abs=0.01)
    assert len(css(driver, ".box.active")) >= 1


def test_by_keyboard_alone(driver, server, photo):
    open_page(driver, server)
    show(driver, photo)
    seen = set()
    driver.execute_script("document.activeElement.blur()")
    from selenium.webdriver import ActionChains

    for _ in range(12 + 2 * len(listed(driver))):
        ActionChains(driver).send_keys("\ue004").perform()  # Tab
        where = "const a = document.activeElement; return a.id || (a.closest('[id]') || a).id"
        active = driver.execute_script(where)
        seen.add(active)
        outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or not active
    assert {"choose", "camera", "depth", "daring", "only", "boxes", "list"} <= seen


def test_dropped_and_pasted_pictures(driver, server, detector, photo):
    script = """
    const [kind, numbers] = arguments, bytes = new Uint8Array(numbers);
    const file = new File([bytes], "a.png", { type: "image/png" }), data = new DataTransfer();
    data.items.add(file);
    const event = kind === "drop"
      ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
    """
    for kind in ("drop", "paste"):
        open_page(driver, server)
        driver.execute_script(script, kind, list(photo.read_bytes()))
        wait_for(lambda: "object" in text(driver, "#status"), f"an answer after {kind}")
        assert sorted(listed(driver)) == sorted(expected(detector, photo, threshold=0.2))


def test_the_camera_takes_a_picture(driver, server):
    open_page(driver, server)
    css(driver, "#camera")[0].click()
    wait_for(
        lambda: driver.execute_script("return document.getElementById('video').videoWidth"), "the camera"
    )
    css(driver, "#take")[0].click()
    wait_for(lambda: "object" in text(driver, "#status"), "an answer")
    assert css(driver, "#live.hidden")


def test_a_file_that_is_no_picture_is_told_in_one_line(driver, server, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"hello")
    open_page(driver, server)
    css(driver, "#file")[0].send_keys(str(bad))
    wait_for(lambda: "not a picture" in text(driver, "#status"), "the reason")
    assert "bad" in css(driver, "#status")[0].get_attribute("class")


HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "</script><script>window.hacked=1</script>",
    '" onmouseover="window.hacked=1',
    "{{7*7}}${7*7}",
    "&lt;b&gt;",
    "<!--data--><!--script-->",
    "\u202egnp.exe",
    "x" * 300,
    "<svg/onload=window.hacked=1>",
    "javascript:window.hacked=1",
]


@pytest.fixture(scope="module")
def hostile():
    from tests.yolo9000.serve.running import running
    from tests.yolo9000.small import detector_spec
    from yolo9000.network import Network

    tree = WordTree(HOSTILE_IDS, TREE.parents, HOSTILE, HOSTILE, synonyms=[[name] for name in HOSTILE])
    net = randomise(Network(detector_spec("darknet"), tree), 0)
    with running(Detector(net, precision="float32")) as found:
        yield found


HOSTILE_IDS = [f"<b>{k}" for k in range(len(HOSTILE))]


def test_names_are_never_markup(driver, hostile, photo):
    open_page(driver, hostile)
    show(driver, photo)
    slide(driver, "depth", 1000)
    names = {name for name, _ in listed(driver)}
    assert names and names <= set(HOSTILE)
    css(driver, "#list button")[0].click()
    css(driver, "#only")[0].send_keys("<\ue007")
    wait_for(lambda: css(driver, "#chosen button"), "a chosen name")
    open_page(driver, hostile, "/tree")
    css(driver, "#search")[0].send_keys("<")
    wait_for(lambda: css(driver, "#rows .row"), "rows")
    css(driver, "#rows .row")[0].click()
    assert text(driver, "#detail h2") in HOSTILE
    assert driver.execute_script("return window.hacked") is None
    assert driver.execute_script("return document.querySelectorAll('main img, main svg, main b').length") == 0
    assert complaints(driver) == []
    driver.get("about:blank")


@pytest.mark.parametrize("path", ["/", "/tree"])
def test_on_a_telephone_and_in_the_dark(driver, server, photo, path):
    grounds = []
    try:
        for scheme in ("light", "dark"):
            browser.colours(driver, scheme)
            for width in (320, 390, 1280):
                browser.resize(driver, width, 800, width < 1000)
                open_page(driver, server, path)
                if path == "/":
                    show(driver, photo)
                assert fits(driver), f"{path} at {width}"
            colour = "return getComputedStyle(document.body)"
            grounds.append(driver.execute_script(f"{colour}.backgroundColor"))
            assert driver.execute_script(f"{colour}.color") != grounds[-1]
        assert grounds[0] != grounds[1]
    finally:
        browser.colours(driver, "light")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_tree_by_keyboard(driver, server):
    open_page(driver, server, "/tree#n4")
    assert text(driver, "#detail h2") == "dog"
    rows = css(driver, "#rows")[0]
    rows.send_keys("\ue014\ue015")  # right: open; down
    assert text(driver, "#detail h2") == "husky"
    rows.send_keys("\ue012")  # left: to the parent
    assert text(driver, "#detail h2") == "dog"
    rows.send_keys("/")
    search = driver.execute_script("return document.activeElement.id")
    assert search == "search"
    css(driver, "#search")[0].send_keys("tax\ue015")
    assert text(driver, "#detail h2") == "taxi"
    path = [button.text for button in css(driver, "#path button")]
    assert path == ["vehicle", "car", "taxi"]
    assert driver.execute_script("return location.hash") == "#n10"
    assert rows.get_attribute("aria-activedescendant") == "node-9"
    css(driver, "#path button")[0].click()
    assert text(driver, "#detail h2") == "vehicle"
    assert complaints(driver) == [] and asked_elsewhere(driver, server.url) == []


def test_the_tree_says_what_the_model_saw(driver, start):
    net = small_detector("darknet")
    net.record = {"nodes": {"boxes": [3], "labels": [4]}}
    server = start(Detector(net, precision="float32"))
    for node, words in (("n4", "boxes"), ("n5", "labels"), ("n1", "nothing")):
        open_page(driver, server, f"/tree#{node}")
        assert text(driver, "#taught").startswith(words)


def test_a_token_is_asked_for(driver, start, detector, photo):
    server = start(detector, access=Access("sesame"))
    driver.get(server.url)
    wait_for(lambda: css(driver, "#token-form:not(.hidden)"), "the form")
    css(driver, "#token")[0].send_keys("sesame\ue007")
    wait_for(lambda: "name" in text(driver, "#facts"), "the names")
    show(driver, photo)
    assert listed(driver)
    driver.get(f"{server.url}/tree")
    wait_for(lambda: "nodes" in text(driver, "#facts"), "the tree")
