"""Who is let in, what is said with every answer, and what the server says of itself."""

import pytest

from tests.yolo9000.serve.running import png
from yolo9000.serve.guard import HEADERS, Access, is_local

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def closed(detector):
    from tests.yolo9000.serve.running import running

    with running(detector, access=Access(TOKEN)) as found:
        yield found


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff",
    ],
)
@pytest.mark.parametrize("path", ["/v1/detect", "/v1/tree", "/v1/tree/columns", "/metrics", "/nothing"])
def test_without_the_token_nothing_is_told(closed, path, given):
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    method = "POST" if path == "/v1/detect" else "GET"
    answer = closed.client.request(method, path, headers=headers)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_with_the_token_all_is_answered(closed):
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert closed.client.post("/v1/detect", content=png(), headers=headers).status_code == 200
    assert closed.client.get("/v1/tree", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/tree", "/healthz", "/readyz", "/openapi.json", "/static/page.css"])
def test_pages_and_health_need_no_token(closed, path):
    assert closed.client.get(path).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.", "[::2]"])
def test_a_name_pointed_here_from_elsewhere_is_refused(server, host):
    answer = server.client.get("/v1/tree", headers={"host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:8000"])
def test_local_names_are_taken(server, host):
    assert server.client.get("/v1/tree", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "http://["]
)
def test_pages_of_other_sites_may_not_ask(server, origin):
    answer = server.client.post("/v1/detect", content=png(), headers={"origin": origin})
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert server.client.post("/v1/detect", content=png(), headers={"origin": server.url}).status_code == 200


def test_hosts_by_where_the_server_listens():
    assert Access.for_host("127.0.0.1", None).hosts == Access().hosts
    assert Access.for_host("0.0.0.0", None).hosts is None
    assert "box.lan" in Access.for_host("0.0.0.0", None, ["Box.lan"]).hosts
    assert is_local("::1") and is_local("127.9.9.9") and is_local("localhost")
    assert not is_local("0.0.0.0") and not is_local("::") and not is_local("localhost.evil")


@pytest.mark.parametrize(
    "path", ["/", "/tree", "/v1/tree", "/nothing", "/v1/detect", "/metrics", "/static/page.css"]
)
def test_every_answer_carries_the_headers_of_security(server, path):
    answer = server.client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "server" not in answer.headers and "no-" in answer.headers["cache-control"]


def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_code(server):
    for path in ("/", "/tree"):
        text = server.client.get(path).text
        assert "http://" not in text and "https://" not in text
        assert "<style" not in text and " style=" not in text and " onclick=" not in text
        for part in text.split("<script")[1:]:
            assert " src=" in part.partition(">")[0]


def test_files_are_asked_for_again_only_if_they_changed(server):
    first = server.client.get("/static/page.css")
    again = server.client.get("/static/page.css", headers={"if-none-match": first.headers["etag"]})
    assert first.status_code == 200 and again.status_code == 304 and not again.content


def test_metrics_are_prometheus_text(server):
    server.detect(png())
    server.client.get("/no/such/route")
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds, values = {}, {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    assert set(kinds.values()) == {"counter", "gauge", "histogram"}
    for name, kind in kinds.items():
        if kind == "histogram":
            buckets = [v for key, v in values.items() if key.startswith(f"{name}_bucket")]
            assert buckets == sorted(buckets) and buckets[-1] == values[f"{name}_count"]
    assert values['yolo9000_requests_total{route="/v1/detect",status="200"}'] >= 1
    assert values['yolo9000_requests_total{route="other",status="404"}'] >= 1
    assert not any("no/such" in name for name in values)


def test_the_openapi_description_names_what_is_answered(server):
    description = server.client.get("/openapi.json").json()
    assert description["openapi"].startswith("3.")
    detect = description["paths"]["/v1/detect"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(detect["responses"])
    assert "multipart/form-data" in detect["requestBody"]["content"]
    schemas = description["components"]["schemas"]
    assert schemas["Answer"]["example"]["pictures"][0]["detections"][0]["path_names"]
    assert set(description["paths"]) == {
        "/v1/detect",
        "/v1/tree",
        "/v1/tree/path",
        "/v1/tree/children",
        "/v1/tree/search",
        "/v1/tree/lca",
        "/v1/tree/columns",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert schemas["Problem"]["required"] == ["error"]
