"""POST /v1/detect over real sockets: what a detector says of the same picture is what the server answers."""

import base64
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import features

from tests.browser import wait_for
from tests.yolo9000.serve.running import encode, picture, png
from tests.yolo9000.small import STORED, TREE, small_detector
from wordtree import WordTree
from yolo9000 import Detector
from yolo9000.cuts import resolve
from yolo9000.serve.browsing import Finder
from yolo9000.serve.detecting import _nodes
from yolo9000.serve.limits import Limits, RequestError


def exif_rotated() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(), "JPEG", exif=exif)


GOOD = {
    "png": png,
    "jpeg": lambda: encode(picture(), "JPEG"),
    "progressive": lambda: encode(picture(0, 300, 200), "JPEG", progressive=True),
    "cmyk": lambda: encode(picture().convert("CMYK"), "JPEG"),
    "grey": lambda: encode(picture().convert("L"), "JPEG"),
    "turned": exif_rotated,
    "gif": lambda: encode(picture().convert("P"), "GIF"),
    "webp": lambda: encode(picture().convert("RGBA"), "WEBP"),
    **({"avif": lambda: encode(picture(), "AVIF")} if features.check("avif") else {}),
    "bmp": lambda: encode(picture(), "BMP"),
    "thin": lambda: png(0, 1, 3000),
    "one pixel": lambda: png(0, 1, 1),
}
OPTIONS = [
    {},
    {"threshold": 0.05},
    {"threshold": 0.05, "rule": "leaf"},
    {"threshold": 0.05, "rule": "greedy", "nms": "agnostic", "nms_iou": 0.1},
    {"threshold": 0.05, "rule": "darknet"},
    {"threshold": 0.05, "tree_threshold": 0, "max_detections": 2},
    {"threshold": 0.05, "level": 1},
    {"threshold": 0.05, "level": ["dog", "vehicle"]},
    {"threshold": 0.05, "vocabulary": ["dog", "n1", "husky"]},
    {"threshold": 0.05, "hedge_lambda": 1.5},
    {"threshold": 0.05, "score": "conditional"},
    {"threshold": 0.0, "nms": "none"},
    {"threshold": 0.3, "vote_iou": 0.3},
]


def expected(detector: Detector, data: bytes, **options) -> dict:
    record = detector(data, **options).to_dict()
    del record["source"]
    return record


def assert_close(found: dict, wanted: dict) -> None:
    """The same but for what sums in another order differ by: a picture in a batch is added up differently."""
    assert (found["width"], found["height"]) == (wanted["width"], wanted["height"])
    assert len(found["detections"]) == len(wanted["detections"])

    def order(one: dict) -> tuple:
        return one["node"], [round(value) for value in one["box_xyxy"]], round(one["score"], 3)

    pairs = (sorted(record["detections"], key=order) for record in (found, wanted))
    for one, other in zip(*pairs, strict=True):
        assert one["path"] == other["path"]
        assert one["box_xyxy"] == pytest.approx(other["box_xyxy"], abs=0.03)
        for name in ("score", "objectness", "probability", "path_probabilities"):
            assert one[name] == pytest.approx(other[name], abs=3e-5)


@pytest.mark.parametrize("name", GOOD)
def test_every_form_of_picture_is_answered_as_by_the_detector(server, detector, name):
    data = GOOD[name]()
    answer = server.detect(data, threshold=0.05)
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "a-model",
        "tree": TREE.fingerprint,
        "pictures": [expected(detector, data, threshold=0.05)],
    }
    if name == "png":
        assert answer.json()["pictures"][0]["detections"], "a test of nothing"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_mean_what_they_mean_to_the_detector(server, detector, options):
    data = png(1)
    answer = server.detect(data, **options)
    assert answer.json()["pictures"] == [expected(detector, data, **options)]


def test_a_vocabulary_may_be_separated_by_commas_and_name_nodes_by_index(server, detector):
    data = png(1)
    given = server.detect(data, threshold=0.05, vocabulary="3, vehicle").json()
    assert given["pictures"] == [expected(detector, data, threshold=0.05, vocabulary=[3, 1])]


def test_a_data_set_among_other_nodes_is_what_it_is_alone():
    tree = WordTree.default()
    for words in (["coco, voc,n12587803"], ["COCO", "voc", "n12587803"]):
        nodes = _nodes(Finder(tree), "vocabulary", words)
        assert nodes == resolve(tree, ["coco", "voc", "n12587803"])
    assert _nodes(Finder(tree), "level", ["coco"]) == "coco"


def test_a_name_with_a_comma_is_listed_in_quotes():
    tree = WordTree(["Ursus arctos, L.", "dog", "L."], [-1, -1, -1])
    for words in (['"Ursus arctos, L.", dog'], ['"Ursus arctos, L."', "dog"]):
        assert _nodes(Finder(tree), "vocabulary", words) == (0, 1)
    assert _nodes(Finder(tree), "vocabulary", ["dog\n1\r\nL."]) == (1, 1, 2)  # a list that was pasted
    for strange in ('"', "dog\0", ","):
        with pytest.raises(RequestError):
            _nodes(Finder(tree), "vocabulary", [strange])


def test_a_client_hears_of_nodes_that_are_never_answered_every_time(server):
    assert 4 not in STORED and 9 not in STORED and 2 in STORED
    for _ in range(2):
        answer = server.detect(png(), threshold=0.0, vocabulary="cat,taxi,2").json()
        assert answer["warnings"] == ["the model never learnt, and never answers with, cat (n5), taxi (n10)"]
        assert {one["node"] for one in answer["pictures"][0]["detections"]} <= {-1, 2}
    for options in ({}, {"vocabulary": "2"}, {"level": "0"}):
        assert "warnings" not in server.detect(png(), **options).json()


def test_all_nodes_that_are_none_are_told(server):
    answer = server.detect(png(), vocabulary="dgo,cat,huksy,99")
    assert answer.status_code == 404
    assert all(bad in answer.json()["error"] for bad in ("dgo", "huksy", "99"))


def test_a_vocabulary_may_be_long(server, detector):
    nodes = [*TREE.ids] * 40
    assert len(",".join(nodes)) > 1000
    found = server.detect(png(), threshold=0.05, vocabulary=",".join(nodes)).json()
    wanted = expected(detector, png(), threshold=0.05, vocabulary=nodes)
    assert_close(found["pictures"][0], wanted)


def test_a_form_with_several_pictures_is_answered_in_order(server, detector):
    pictures = [png(k, 60 + 10 * k, 50) for k in range(5)]
    files = [("pictures", (f"../../{k}.png", data, "image/png")) for k, data in enumerate(pictures)]
    answer = server.client.post("/v1/detect", files=files, params={"threshold": 0.05})
    found = answer.json()["pictures"]
    assert len(found) == 5
    for one, data in zip(found, pictures, strict=True):
        assert_close(one, expected(detector, data, threshold=0.05))


def test_a_detector_with_several_sizes_of_input_answers_in_order(start):
    rect = Detector(small_detector("stored"), precision="float32", rect=True)
    server = start(rect, Limits(batch=8))
    pictures = [png(k, *shape) for k, shape in enumerate([(90, 60), (60, 90), (90, 61), (64, 64), (300, 20)])]
    files = [("pictures", (f"{k}.png", data, "image/png")) for k, data in enumerate(pictures)]
    found = server.client.post("/v1/detect", files=files, params={"threshold": 0.05}).json()["pictures"]
    for one, data in zip(found, pictures, strict=True):
        assert_close(one, expected(rect, data, threshold=0.05))
    given = server.detect(pictures[0], threshold=0.05, candidates=0.05).json()["pictures"][0]["candidates"]
    square = Detector(rect.net, precision="float32")
    assert given["boxes_xyxy"] and found[0] != expected(square, pictures[0], threshold=0.05)


def test_requests_that_arrive_together_share_the_network_and_are_not_mixed_up(start):
    slow = Detector(small_detector("stored"), precision="float32")
    sizes, run = [], slow.run

    def counted(images):
        sizes.append(len(images))
        time.sleep(0.05)
        return run(images)

    slow.run = counted
    server = start(slow, Limits(batch=4))
    options = [{"threshold": 0.05}, {"threshold": 0.1, "rule": "greedy"}, {"threshold": 0.05, "level": 1}]
    data = [png(k, 40 + k, 64) for k in range(24)]
    sizes.clear()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda k: server.detect(data[k], **options[k % 3]).json(), range(24)))
    assert sum(sizes) == 24 and max(sizes) <= 4 and len(sizes) < 20
    slow.run = run
    for k, answer in enumerate(answers):
        assert_close(answer["pictures"][0], expected(slow, data[k], **options[k % 3]))


@pytest.mark.parametrize(
    ("form", "vote_iou"), [("darknet", 1), ("stored", 1), ("flat", 1), ("stored", 0.3), ("flat", 0.3)]
)
def test_candidates_hold_every_box_and_its_conditionals(start, form, vote_iou):
    detector = Detector(small_detector(form), precision="float32")
    server = start(detector, Limits(candidates=1000))
    found = server.detect(png(2, 90, 60), candidates=0.05, threshold=0.3, vote_iou=vote_iou).json()
    found = found["pictures"][0]
    given = found["candidates"]
    options = {"rule": "greedy", "nms": "none", "clip": False, "vote_iou": vote_iou}
    greedy = detector(png(2, 90, 60), threshold=0.05, **options)
    order = sorted(range(len(greedy)), key=lambda k: greedy.boxes_xyxy[k].tolist())
    mine = sorted(range(len(greedy)), key=lambda k: given["boxes_xyxy"][k])
    assert given["floor"] == 0.05 and len(given["objectness"]) == len(greedy) > 3
    np.testing.assert_allclose(np.array(given["objectness"])[mine], greedy.objectness[order], rtol=1e-6)
    np.testing.assert_allclose(
        np.array(given["boxes_xyxy"])[mine], greedy.boxes_xyxy[order], rtol=1e-6, atol=1e-3
    )
    logs = np.frombuffer(base64.b64decode(given["log_conditionals"]), "<f4")
    logs = logs.reshape(-1, len(detector.tree))  # (M*C,) -> (M, C)
    for row, k in zip(mine, order, strict=True):
        path = detector.tree.path_nodes(int(greedy.nodes[k]))
        np.testing.assert_allclose(
            np.exp(np.cumsum(logs[row, list(path)])), greedy.path_probabilities[k], rtol=1e-5
        )
    wanted = expected(detector, png(2, 90, 60), threshold=0.3, vote_iou=vote_iou)
    assert found["detections"] == wanted["detections"]


def test_too_many_candidates_raise_the_floor(start, detector):
    server = start(detector, Limits(candidates=40))
    best = np.sort(detector(png(2), threshold=0.0, nms="none", clip=False, max_detections=1000).objectness)[
        ::-1
    ]
    given = server.detect(png(2), candidates=0, threshold=1).json()["pictures"][0]["candidates"]
    assert len(best) > 100
    assert given["floor"] == pytest.approx(float(best[40]), rel=1e-6)
    wanted = best[best > best[40]]
    assert 5 < len(wanted) <= 40
    np.testing.assert_allclose(sorted(given["objectness"], reverse=True), wanted, rtol=1e-6)


def test_what_passes_the_threshold_is_among_the_candidates(start, detector):
    server = start(detector, Limits(candidates=30))
    objectness = detector(png(2), threshold=0.0, nms="none", clip=False, max_detections=1000).objectness
    for threshold, most in ((0.5, 120), (0.0, 120), (1.0, 30)):
        given = server.detect(png(2), candidates=0, threshold=threshold).json()["pictures"][0]["candidates"]
        passing = int((objectness > np.float32(threshold)).sum())
        wanted = min(max(passing, 30), most)
        assert len(given["objectness"]) <= wanted
        if passing < most:
            assert given["floor"] <= threshold or passing == 0
            assert len(given["objectness"]) >= passing


def test_nothing_above_the_floor_is_an_empty_answer(server):
    given = server.detect(png(2), candidates=1, threshold=1).json()["pictures"][0]
    assert given["detections"] == [] and given["candidates"]["objectness"] == []
    assert given["candidates"]["boxes_xyxy"] == [] and given["candidates"]["log_conditionals"] == ""


def test_a_full_queue_says_when_to_come_again_and_recovers(start):
    held = Detector(small_detector("stored"), precision="float32")
    server = start(held, Limits(queue=2, pictures=2, batch=1))
    let_go, run = threading.Event(), held.run

    def waiting(images):
        let_go.wait(30)
        return run(images)

    held.run = waiting
    try:
        with ThreadPoolExecutor(2) as pool:
            first = [pool.submit(server.detect, png(k)) for k in range(2)]
            until = time.monotonic() + 20
            while server.metric("yolo9000_queue_pictures ") < 2 and time.monotonic() < until:
                time.sleep(0.01)
            refused, not_ready = server.detect(png()), server.client.get("/readyz")
            alive = server.client.get("/healthz")
            let_go.set()
            assert [future.result().status_code for future in first] == [200, 200]
    finally:
        let_go.set()
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    assert "\n" not in refused.json()["error"]
    assert not_ready.status_code == 503 and alive.status_code == 200
    assert server.detect(png()).status_code == 200
    assert server.client.get("/readyz").status_code == 200


def test_who_hangs_up_costs_no_network_and_no_line_of_the_log(start, caplog):
    held = Detector(small_detector("stored"), precision="float32")
    server = start(held, Limits(batch=1), lanes=1)
    entered, let_go, run, runs = threading.Event(), threading.Event(), held.run, []

    def waiting(images):
        runs.append(len(images))
        entered.set()
        let_go.wait(30)
        return run(images)

    held.run = waiting
    body = png()
    head = f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.detect, png(1))
            assert entered.wait(20)
            gone = [server.connect() for _ in range(3)]
            for one in gone:
                one.sendall(head + body)
            until = time.monotonic() + 20
            while server.metric("yolo9000_queue_pictures ") < 4 and time.monotonic() < until:
                time.sleep(0.01)
            for one in gone:
                one.close()
            while server.metric("yolo9000_queue_pictures ") > 1 and time.monotonic() < until:
                time.sleep(0.01)
            let_go.set()
            assert first.result().status_code == 200
    finally:
        let_go.set()
    assert server.detect(png()).status_code == 200
    assert len(runs) == 2
    assert server.metric("yolo9000_body_bytes ") == 0
    gc.collect()  # asyncio complains where a future is let go that nobody asked
    assert not caplog.records


@pytest.mark.parametrize("resize", ["smooth", "darknet"])
def test_a_large_jpeg_is_reduced_as_the_detector_does(start, resize):
    """As Darknet does it, all pixels count."""
    detector = Detector(small_detector("stored"), precision="float32", resize=resize)
    data = encode(picture(0, 1203, 801), "JPEG")
    answer = start(detector).detect(data, threshold=0.05)
    assert answer.json()["pictures"] == [expected(detector, data, threshold=0.05)]
    assert answer.json()["pictures"][0]["detections"]


def test_a_fault_of_the_network_fails_its_request_only(start, caplog):
    broken = Detector(small_detector("stored"), precision="float32")
    server = start(broken)
    run = broken.run
    broken.run = lambda images: 1 / 0
    answer = server.detect(png())
    broken.run = run
    assert answer.status_code == 500 and "\n" not in answer.json()["error"]
    assert "division" not in answer.text
    # The log is written after the answer.
    wait_for(
        lambda: any("division" in str(record.exc_info) for record in caplog.records), "a line in the log"
    )
    assert server.detect(png()).status_code == 200


@pytest.mark.slow
def test_the_largest_picture_that_is_taken(server, detector):
    data = encode(picture(0, 7000, 7000), "JPEG", quality=60)
    assert_close(
        server.detect(data, threshold=0.3).json()["pictures"][0], expected(detector, data, threshold=0.3)
    )
    assert server.detect(encode(picture(0, 7100, 7100), "JPEG", quality=60)).status_code == 413
