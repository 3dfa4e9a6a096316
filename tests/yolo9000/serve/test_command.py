"""`yolo9000 serve` as typed: what it says, how it starts, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.browser import wait_for
from tests.yolo9000.serve.running import png
from tests.yolo9000.small import small_detector
from yolo9000 import Detector
from yolo9000.cli.serve import TOKEN_VARIABLE, read_token
from yolo9000.errors import ModelError
from yolo9000.modelfile import read_info, save_model
from yolo9000.serve import server
from yolo9000.serve.answers import fingerprint
from yolo9000.serve.limits import Limits, RequestError, one_line


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(small_detector("stored"), path, defaults={"threshold": 0.3})
    return path


def command(*words) -> list[str]:
    return [sys.executable, "-m", "yolo9000", "serve", *map(str, words)]


@pytest.fixture
def started(model):
    """A server as a process of its own: (process, url)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command("--model", model, "--port", 0, "--decoders", 1, "--precision", "float32", "--rect"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line, process.stderr.read()
    yield process, next(word for word in line.split() if word.startswith("http://"))
    process.kill()
    process.communicate()


def post(url: str, data: bytes) -> dict:
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/detect", data), timeout=60) as answer:
        return json.load(answer)


def metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        return answer.read().decode()


def lets_in(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=30).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_as_the_command_line_and_ends_when_what_was_begun_is_answered(started, model, number):
    process, url = started
    wanted = Detector.load(model, precision="float32", rect=True)(png()).to_dict()["detections"]
    answer = post(url, png())
    assert answer["model"] == read_info(model).sha256
    assert answer["pictures"][0]["detections"] == wanted and wanted

    import http.client

    host, port = url.removeprefix("http://").split(":")
    link = http.client.HTTPConnection(host, int(port), timeout=30)
    body = png()
    link.putrequest("POST", "/v1/detect")
    link.putheader("Content-Length", str(len(body)))
    link.endheaders()
    link.send(body[:50])  # begun, not finished
    wait_for(lambda: re.search(r"^yolo9000_body_bytes 50\b", metrics(url), re.MULTILINE), "the begun body")
    process.send_signal(number)
    wait_for(lambda: not lets_in(host, int(port)), "the end of new connections")
    link.send(body[50:])
    found = link.getresponse()
    assert found.status == 200
    assert json.loads(found.read())["pictures"][0]["detections"] == wanted
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in err


def test_a_port_that_is_taken_is_told_before_a_model_is_read(tmp_path):
    taken = server.bind("127.0.0.1", 0)
    done = subprocess.run(
        command("--port", taken.getsockname()[1], "--model", tmp_path / "no.safetensors"),
        capture_output=True,
        text=True,
    )
    taken.close()
    assert done.returncode == 1
    assert done.stderr.startswith("error: 127.0.0.1:") and "in use" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_the_packages_it_says_what_to_install(tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command("--port", 0), capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "yolo9000[serve]" in done.stderr and "Traceback" not in done.stderr


def test_the_token_is_not_taken_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-the-environment")
    assert read_token(None) == "from-the-environment"
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    assert read_token(path) == "from-a-file"
    for bad in ("", "\n", "two words", "käse", "x" * 1001, "a\nb"):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(ModelError, match="token"):
            read_token(path)
    path.write_bytes(b"\xff\xfe")
    for bad in (path, tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match="no token can be read"):
            read_token(bad)


def test_impossible_limits_are_refused():
    for bad in ({"queue": 0}, {"body_seconds": float("nan")}, {"queue": 3}, {"held_bytes": 5}, {"batch": -1}):
        with pytest.raises(ValueError):
            Limits(**bad)


def test_an_address_that_is_none_is_one_line():
    for host, port in (("no such host", 1), ("127.0.0.1", 99999), ("192.0.2.1", 0)):
        with pytest.raises(ModelError, match="cannot listen"):
            server.bind(host, port)


def test_reasons_are_one_line_whatever_they_quote():
    assert one_line("a\n b\r\n\x1b[31m c") == "a b [31m c"
    assert len(one_line("x" * 5000)) == 300
    assert RequestError(400, "a\nb").reason == "a b"


def test_decoders_end_with_the_server(started):
    process, _ = started

    def children() -> list[int]:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        found = Path(f"/proc/{process.pid}/task").glob("*/children")
        return [int(pid) for part in found for pid in part.read_text().split()] if text.exists() else []

    below = children()
    if not below:
        pytest.skip("this system does not tell the children of a process")
    process.kill()  # without a chance to say goodbye
    process.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def test_a_network_that_is_no_model_file_is_called_by_its_weights():
    one, same, other = (small_detector("darknet", seed) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert len(fingerprint(one)) == 64
