"""GET /v1/tree/...: what a WordTree says is what the server answers."""

import gzip
import json

import pytest

from tests.yolo9000.small import TREE, small_detector
from yolo9000 import Detector
from yolo9000.serve.browsing import taught_by


@pytest.mark.parametrize("name", ["n8", "husky", "Husky", "7"])
def test_path_by_any_name(server, name):
    found = server.client.get("/v1/tree/path", params={"node": name}).json()
    assert [node["id"] for node in found["nodes"]] == list(TREE.path("n8"))
    assert [node["depth"] for node in found["nodes"]] == [0, 1, 2]
    assert found["tree"] == TREE.fingerprint and found["model"] == "a-model"


def test_children_search_and_lca(server):
    def ids(path, **query):
        answer = server.client.get(f"/v1/tree/{path}", params=query)
        assert answer.status_code == 200
        return [node["id"] for node in answer.json()["nodes"]]

    assert ids("children", node="animal") == [TREE.ids[k] for k in TREE.children("animal")]
    assert ids("children", node="husky") == []
    assert ids("search", q="c") == [TREE.ids[k] for k in TREE.search("c")]
    assert ids("search", q="c", limit=1) == [TREE.ids[TREE.search("c")[0]]]
    assert ids("search", q="no such") == []
    assert ids("lca", a="husky", b="cat") == ["n1"]
    assert ids("lca", a="husky", b="taxi") == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("path?node=huskyy", 404),
        ("path?node=10", 404),
        ("path?node=-1", 404),
        ("path?node=" + 100 * "9", 404),
        ("path?node=", 422),
        ("path", 422),
        ("path?node=" + 201 * "x", 422),
        ("children?node=%00", 404),
        ("search?q=a&limit=0", 422),
        ("search?q=a&limit=100000", 422),
        ("lca?a=dog", 422),
        ("lca?a=dog&b=%F0%9F%90%95", 404),
        ("%2e%2e/%2e%2e/etc", 404),
    ],
)
def test_questions_without_an_answer(server, path, status):
    answer = server.client.get(f"/v1/tree/{path}")
    assert answer.status_code == status
    assert answer.json()["error"].isprintable()


def test_the_tree_in_figures(server):
    found = server.client.get("/v1/tree").json()
    assert (found["nodes"], found["leaves"], found["depth"]) == (len(TREE), len(TREE.leaves), 2)
    assert [node["name"] for node in found["roots"]] == ["animal", "vehicle", "thing"]
    assert found["roots"][0]["children"] == 2 and found["roots"][0]["taught"] == "unknown"


def test_all_columns_packed_or_not_and_only_once(server):
    plain = server.client.get("/v1/tree/columns", headers={"accept-encoding": "identity"})
    packed = server.client.get("/v1/tree/columns", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    columns = plain.json()
    assert packed.json() == columns and json.loads(plain.content) == columns
    assert tuple(columns["ids"]) == TREE.ids and columns["parents"] == TREE.parents.tolist()
    again = server.client.get("/v1/tree/columns", headers={"if-none-match": plain.headers["etag"]})
    assert again.status_code == 304
    assert gzip.decompress(gzip.compress(plain.content)) == plain.content


def test_ambiguous_names_list_the_nodes(start):
    detector = Detector(
        small_detector("flat"), names=["crane", "crane", "a<b>", "dog", "cat", "x"], precision="float32"
    )
    server = start(detector)
    answer = server.client.get("/v1/tree/path", params={"node": "crane"})
    assert answer.status_code == 404 and "crane (0), crane (1)" in answer.json()["error"]
    assert server.client.get("/v1/tree/path", params={"node": "crane (1)"}).json()["nodes"][0]["index"] == 1
    assert server.client.get("/v1/tree/search", params={"q": "<b"}).json()["nodes"][0]["name"] == "a<b>"


def test_what_taught_a_node_is_the_strongest_of_the_lists():
    record = {"nodes": {"boxes": [0], "labels": [0, 1], "teacher": [1, 2, 99, "x"]}}
    assert taught_by(record, 4) == ["boxes", "labels", "teacher", "nothing"]
    assert taught_by({}, 2) == taught_by(None, 2) == taught_by({"nodes": 3}, 2) == ["unknown"] * 2
