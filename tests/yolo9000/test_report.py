"""The page of an evaluation: its figures are those of the text, its names are never markup, and it opens in a
browser without fetching anything."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from data_prep import Store, StoreWriter
from tests import browser
from tests.yolo9000 import toys
from tests.yolo9000.small import small_classifier, small_detector
from tests.yolo9000.test_evaluate import Oracle, samples
from wordtree import WordTree
from yolo9000 import report
from yolo9000.cli.eval import command
from yolo9000.detector import Detector
from yolo9000.errors import TrainingError
from yolo9000.evaluate import EvalSettings, evaluate
from yolo9000.modelfile import read_info, save_model
from yolo9000.network import Network
from yolo9000.spec import Convolution, NetworkSpec, Region
from yolo9000.tables import format_table
from yolo9000.witness import Witness

QUICK = EvalSettings(workers=0, resamples=0, precision="float32", nodes=True, rule="leaf")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("toys") / "v.h5"
    return Store(toys.pack_squares(path, boxed=20, labelled=10, size=48, single=True))


def gathered(net: Network, stores: list[Store], settings=QUICK, **more) -> tuple[dict, dict, Witness]:
    witness = Witness()
    result = evaluate(net, stores, settings, witness=witness)
    data = report.gather(witness, result, {"model": "<b>m</b>"}, **more)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    return data, result, witness


def test_the_truth_has_no_mistakes(store):
    data, result, witness = gathered(Oracle(samples(store)), [store])
    assert data["figures"] == format_table(result) and not data["flat"]
    assert data["mistaken"] == 0 and data["boxed"] == 20 and data["worst"] == []
    assert data["labelled"] == {"pictures": 10, "mistaken": 0, "worst": []}
    assert data["confusions"]["pairs"] == [] and data["confusions"]["missed"] == 0
    assert data["confusions"]["distances"] == {
        "boxes": [{"distance": 0, "right": 20}],
        "pictures": [{"distance": 0, "right": 10}],
    }
    assert [row["name"] for row in data["curves"]] == ["mean of 4 classes", "whatever the class"]
    assert all(value == 1000 for row in data["curves"] for value in row["curve"])
    assert witness.outcome(0).truths == ("right",)


def test_the_wrong_name_at_the_right_place(store):
    data, _, _ = gathered(Oracle(samples(store), wrong=True), [store], worst=3)
    assert data["mistaken"] == 20 and len(data["worst"]) == 3 and data["confusions"]["missed"] == 0
    pairs = data["confusions"]["pairs"]
    other = {"red": "yellow", "yellow": "red", "green": "blue", "blue": "green"}
    assert all(other[row["truth"]] == row["answer"] and row["distance"] == 2 for row in pairs)
    assert sum(row["count"] for row in pairs if row["of"] == "boxes") == 20
    assert data["labelled"]["mistaken"] == 10 and len(data["labelled"]["worst"]) == 3
    shown = data["worst"][0]
    assert shown["image"].startswith("data:image/jpeg;base64,") and shown["size"] == [48, 48]
    assert shown["truth"][0]["what"] == shown["answers"][0]["what"] == "aside"
    assert np.allclose(shown["truth"][0]["box"], shown["answers"][0]["box"], atol=0.01)


@pytest.mark.parametrize("wrong", [False, True])
def test_areas_under_curves_are_the_figures(store, wrong):
    """Curves by our own matching of flat kinds; figures of the text by pycocotools."""
    data, result, witness = gathered(Oracle(samples(store), wrong=wrong), [store])
    boxes = result["boxes"]
    assert [row["id"] for row in data["classes"]] == list(boxes["per_class"])
    for row in data["classes"]:
        assert row["boxes"] == sum(row["became"].values())
        assert np.mean(row["curve"]) / 1000 == pytest.approx(boxes["per_class"][row["id"]], abs=6e-4)
    for row, figure in zip(data["curves"], (boxes, boxes["any_class"]), strict=True):
        assert np.mean(row["curve"]) / 1000 == pytest.approx(figure["AP50"], abs=1e-3)
        assert row["AP50"] == pytest.approx(figure["AP50"], abs=1e-4)
    means = witness.nodes.means()
    assert np.mean([row["AP50"] for row in data["nodes"]]) == pytest.approx(means["AP50"], abs=1e-4)
    for row in data["nodes"]:
        assert np.mean(row["curve"]) / 1000 == pytest.approx(row["AP50"], abs=6e-4)
    by_name = {row["name"]: row for row in data["nodes"]}
    assert data["nodes"][by_name["red"]["parent"]] is by_name["warm"]
    assert by_name["warm"]["boxes"] == by_name["red"]["boxes"] + by_name["yellow"]["boxes"]


def test_answers_are_those_of_the_detector(tmp_path):
    """Pictures of the network's size: no resizing stands between the two ways."""
    store = flat_store(tmp_path / "f.h5", list("abcdef"))
    net = small_detector("flat", seed=1)
    witness = Witness()
    settings = EvalSettings(workers=0, resamples=0, precision="float32", threshold=0.5, rule="leaf")
    evaluate(net, [store], settings, witness=witness)
    found = Detector(net, precision="float32")([store[k].image for k in range(3)], threshold=0.5, rule="leaf")
    assert min(map(len, found)) > 1
    for k, one in enumerate(found):
        assert witness.answers[k].nodes.tolist() == one.nodes.tolist()
        np.testing.assert_allclose(witness.answers[k].boxes_xyxy, one.boxes_xyxy, atol=1e-2)
        np.testing.assert_allclose(witness.answers[k].scores, one.scores, atol=1e-4)


def test_only_the_places_asked_for_are_kept(store):
    witness = Witness({3, 25})
    evaluate(Oracle(samples(store)), [store], QUICK, witness=witness)
    assert sorted(witness.answers) == [3, 25] and [row.place for row in witness.named] == [25]
    assert witness.boxed() == [3]


def flat_store(path: Path, names: list[str], boxes: bool = True) -> Store:
    with StoreWriter(path, WordTree.flat(names)) as writer:
        for k in range(3):
            sample = toys.square_sample(2 * k, 64)
            keep = 1 if boxes else 0
            changes = {key: getattr(sample, key)[:keep] for key in ("boxes_cxcywh", "crowd", "difficult")}
            changes["labels"] = np.full(keep, k % len(names))
            writer.add(type(sample)(**{**vars(sample), **changes}))
    return Store(path)


EVIL = ["<script>alert(1)</script>", "</script><b>bold", "<!--data-->"]


def flat_net(classes: int, objectness: float = 3.0) -> Network:
    """Answers a box in every cell, the last class first, whatever the picture."""
    cells = Convolution(1, 8, stride=8, padding=0, activation="linear", batch_normalize=False)
    raw = Convolution(5 + classes, 1, activation="linear", batch_normalize=False)
    net = Network(NetworkSpec(64, 64, (cells, raw, Region(((3.0, 3.0),), classes)))).eval()
    with torch.no_grad():
        net.layers[1].conv.weight.zero_()
        net.layers[1].conv.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.5, objectness, *range(classes)]))
    return net


@pytest.mark.parametrize("objectness", [3.0, -30.0])
def test_a_flat_list_of_classes(tmp_path, objectness):
    store = flat_store(tmp_path / "f.h5", EVIL)
    settings = EvalSettings(workers=0, resamples=0, precision="float32", nodes=False)
    data, _, _ = gathered(flat_net(3, objectness), [store], settings)
    assert data["flat"] and {row["name"] for row in data["classes"]} == set(EVIL)
    assert [row["parent"] for row in data["nodes"]] == [-1] * 3
    if objectness < 0:  # nothing is found
        assert data["confusions"]["pairs"] == [] and data["confusions"]["missed"] == 3
        assert all(value == 0 for row in data["curves"] for value in row["curve"])


def test_pictures_without_any_box(tmp_path, store):
    """Beside pictures with labels: backgrounds alone cannot be scored, and that is said."""
    background = flat_store(tmp_path / "b.h5", list("abc"), boxes=False)
    with pytest.raises(TrainingError, match="neither boxes nor labels"):
        evaluate(flat_net(3), [background], QUICK, witness=Witness())
    labels = toys.pack_squares(tmp_path / "labels.h5", boxed=0, labelled=3)
    net = Oracle(samples(Store(labels)))
    data, _, _ = gathered(net, [Store(labels)])
    assert data["curves"] == data["classes"] == data["nodes"] == [] and data["boxed"] == 0
    assert "<main>" in report.page(data)


def test_a_classifier(store):
    net = small_classifier()
    net.names = None
    data, _, _ = gathered(net, [store])
    assert data["labelled"]["pictures"] == 30 and data["classes"] == [] and data["boxed"] == 0
    assert {"red", "green"} <= set(report.display_names(_witness_of(net, store)))


def _witness_of(net: Network, store: Store) -> Witness:
    witness = Witness()
    evaluate(net, [store], QUICK, witness=witness)
    return witness


def test_names_are_never_markup(tmp_path):
    data, _, _ = gathered(flat_net(3), [flat_store(tmp_path / "f.h5", EVIL)], title="<i>t</i><!--script-->")
    data["worst"][0]["name"] = "half a character \udc80 <b>"
    report.write_report(tmp_path / "r.html", data)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>" not in text and "<i>" not in text and "alert(1)</script>" not in text
    assert "<title>&lt;i&gt;t&lt;/i&gt;&lt;!--script--&gt;</title>" in text
    inside = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(inside) == data
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_the_fingerprint_is_that_of_what_is_shown_not_of_the_file(tmp_path, store):
    def fingerprint(stores, **settings):
        witness = Witness(())
        limits = EvalSettings(workers=0, resamples=0, precision="float32", **settings)
        evaluate(Oracle([s for one in stores for s in samples(one)]), stores, limits, witness=witness)
        return report.data_fingerprint(witness)

    first = fingerprint([store])
    with StoreWriter(tmp_path / "a.h5", toys.TREE) as a, StoreWriter(tmp_path / "b.h5", toys.TREE) as b:
        for k in range(len(store)):
            (a if k < 7 else b).add(store[k])
    assert fingerprint([Store(tmp_path / "a.h5"), Store(tmp_path / "b.h5")]) == first
    assert fingerprint([store], limit=29) != first
    with StoreWriter(tmp_path / "c.h5", toys.TREE) as writer:
        for k in range(len(store)):
            sample = store[k]
            labels = sample.labels ^ 1 if k == 3 else sample.labels
            writer.add(type(sample)(**{**vars(sample), "labels": labels}))
    assert fingerprint([Store(tmp_path / "c.h5")]) != first


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    flat_store(folder / "f.h5", EVIL)
    net = flat_net(3)
    save_model(net, folder / "m.safetensors", names=["one", "two", "three"])
    return folder


def test_the_command_writes_the_page(files, tmp_path):
    words = [str(files / "m.safetensors"), "--data", str(files / "f.h5"), "--workers=0", "--resamples=0"]
    done = CliRunner().invoke(command, [*words, "--html", str(tmp_path / "new" / "r.html"), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    text = (tmp_path / "new" / "r.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["figures"] == format_table(result) and data["title"] == "m.safetensors on f.h5"
    facts = dict(data["facts"])
    assert facts["weights"].startswith(read_info(files / "m.safetensors").sha256)
    assert str(files) not in text
    # The same without a page.
    plain = CliRunner().invoke(command, [*words, "--json"])
    assert json.loads(plain.stdout) == result
    again = CliRunner().invoke(command, [*words, "--html", str(tmp_path)])
    assert isinstance(again.exception, TrainingError) and "cannot be written" in str(again.exception)
    packed = (files / "f.h5").read_bytes()
    again = CliRunner().invoke(command, [*words, "--html", str(files / "f.h5")])
    assert isinstance(again.exception, TrainingError) and "named .html" in str(again.exception)
    assert (files / "f.h5").read_bytes() == packed


@pytest.fixture(scope="module")
def driver():
    with browser.chromium() as found:
        yield found


@pytest.mark.parametrize("kind", ["tree", "flat", "labels"])
def test_the_page_in_a_browser(driver, store, tmp_path, kind):
    if kind == "tree":
        data, _, _ = gathered(Oracle(samples(store), wrong=True), [store])
    elif kind == "flat":
        data, _, _ = gathered(flat_net(3), [flat_store(tmp_path / "f.h5", EVIL)])
    else:
        labels = Store(toys.pack_squares(tmp_path / "l.h5", boxed=0, labelled=3))
        data, _, _ = gathered(Oracle(samples(labels), wrong=True), [labels])
    report.write_report(tmp_path / "r.html", data)
    browser.resize(driver, 1280, 900)
    driver.get((tmp_path / "r.html").as_uri())
    assert browser.complaints(driver) == []

    def css(selector: str) -> list:
        return driver.find_elements("css selector", selector)

    assert css("pre")[0].text == data["figures"]
    assert len(css("figure")) == len(data["worst"]) + len(data["labelled"]["worst"])
    if kind == "labels":
        assert len(css(".empty")) == 2 and not css("polyline")
    else:
        assert len(css("polyline")) == 2
        css(".choose .list button")[0].click()
        assert len(css("polyline")) == 3
        css(".choose input")[0].send_keys("blue" if kind == "tree" else "alert")
        assert len(css(".choose .list button")) == 1
        names = [e.text for e in css("#rows .name")]
        if kind == "tree":
            assert set(names) == {"warm", "cold", "red", "yellow", "green", "blue"}
        else:
            assert set(names) == set(EVIL)
        driver.execute_script("arguments[0].click()", css("#rows .node button")[0])
        assert len(css("polyline")) == 4
    for width, mobile, scheme in ((1200, False, "light"), (390, True, "dark")):
        browser.resize(driver, width, 900, mobile)
        browser.colours(driver, scheme)
        assert browser.fits(driver)
    assert browser.complaints(driver) == []
    assert browser.asked_elsewhere(driver, "file:") == []


@pytest.mark.slow
def test_every_node_of_the_default_tree_is_as_quick(driver, store, tmp_path):
    """9,418 nodes with curves: rows are made when their part of the tree is opened."""
    data, _, _ = gathered(Oracle(samples(store), wrong=True), [store])
    tree = WordTree.default()
    curve = list(range(1000, -1, -10))
    node = {"boxes": 5, "AP": 0.1, "AP50": 0.5, "AP75": 0.1, "curve": curve}
    data["nodes"] = [
        {"id": i, "name": name, "parent": int(parent), **node}
        for i, name, parent in zip(tree.ids, tree.names, tree.parents, strict=True)
    ]
    shared = {"known": True, "boxes": 5, "AP50": 0.5, "curve": curve, "became": {"right": 5}}
    data["classes"] = [{"id": tree.ids[k], "name": tree.names[k], **shared} for k in tree.leaves]
    report.write_report(tmp_path / "r.html", data)
    assert (tmp_path / "r.html").stat().st_size < 10e6
    driver.get((tmp_path / "r.html").as_uri())
    script = """
    const times = {}, page = globalThis.report;
    const measure = (what, run) => {
      const began = performance.now();
      run();
      times[what] = performance.now() - began;
    };
    times.loaded = performance.timing.loadEventEnd - performance.timing.navigationStart;
    measure("order", () => page.tree.redraw());
    measure("open", () => document.querySelectorAll("#rows details").forEach((one) => { one.open = true; }));
    measure("find", () => { page.curves.filter.value = "dog"; page.curves.offer(); });
    return [times, document.querySelectorAll(".node").length];
    """
    times, drawn = driver.execute_script(script)
    assert max(times.values()) < 5000, (
        times
    )  # far above an idle machine's, far below drawing every row at once
    assert drawn < 2000
    assert browser.complaints(driver) == []
