"""Models in folders and on the Hub: the client is huggingface_hub's own where it is installed, the Hub a
server of this test's; what is put there goes to a stand-in."""

import http.server
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from tests.yolo9000.small import picture, small_detector
from yolo9000 import hub
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.modelcard import MADE, model_card
from yolo9000.modelfile import read_info, save_model

RECORD = {
    "name": "pets | <b>evil</b> [x](y)",
    "licence": "Apache-2.0; figures free",
    "data": [{"file": "a.h5", "samples": 12_000, "sources": ["coco"]}],
    "best": {"by": "boxes AP50", "value": 0.25, "images": 1000},
    "nodes": {"boxes": [1, 2], "labels": [2]},
    "limits": ["Photographs of one `kitchen` only."],
}


def detector(form: str = "rows", **more) -> Detector:
    net = small_detector(form)
    net.record = dict(RECORD) if form != "flat" else {}
    return Detector(net, precision="float32", **more)


def same(a: Detector, b: Detector) -> bool:
    said, wanted = (one(picture(), 0.5).to_dict() for one in (a, b))
    return bool(wanted["detections"]) and said == wanted


@pytest.mark.parametrize("form", ["rows", "shared", "darknet", "flat"])
def test_a_folder_there_and_back(form, tmp_path):
    names = [f"class {k}" for k in range(6)] if form == "flat" else None
    given = detector(form, names=names)
    folder = given.save_pretrained(tmp_path / "new" / "model", name="owner/pets")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors"]
    back = Detector.from_pretrained(folder, precision="float32")
    assert same(back, given) and back.tree.names == given.tree.names and back.net.record == given.net.record
    assert same(Detector.from_pretrained(str(folder / "model.safetensors"), precision="float32"), given)


def test_how_pictures_are_scaled_goes_along(tmp_path):
    """Else a detector from Darknet's files would answer otherwise when it comes back."""
    given = detector(resize="darknet")
    assert Detector.from_pretrained(given.save_pretrained(tmp_path)).resize == "darknet"
    assert given.net.defaults.get("resize") is None
    assert same(Detector.from_pretrained(tmp_path, precision="float32"), given)


def test_a_card_that_somebody_wrote_is_kept(tmp_path):
    given = detector()
    given.save_pretrained(tmp_path)
    first = (tmp_path / "README.md").read_text(encoding="utf-8")
    given.net.record["licence"] = "MIT"
    given.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") != first  # ours, of an older model
    (tmp_path / "README.md").write_text("mine")
    given.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_what_stands_on_the_card(tmp_path):
    save_model(detector().net, tmp_path / "m.safetensors", RECORD)
    card = model_card(tmp_path / "m.safetensors", "owner/pets")
    info = read_info(tmp_path / "m.safetensors")
    assert card.startswith('---\nlicense: "apache-2.0"\n') and MADE in card
    for said in (info.sha256, info.tree_fingerprint, "12,000", "boxes AP50", "0.25", "owner/pets"):
        assert said in card
    assert "| nodes: boxes | 2 |" in card and "Photographs of one &#96;kitchen&#96; only." in card
    assert "<b>" not in card and "[x](" not in card and "pets &#124;" in card
    bare = model_card(_saved(detector("flat"), tmp_path / "flat"))
    assert 'license: "other"' in bare and bare.count("Not said in the model's record.") == 2
    assert "| nodes:" not in bare and "Figures" not in bare
    assert all(line.count("|") == 3 for line in card.splitlines() if line.startswith("|"))
    with pytest.raises(ModelError):
        model_card(tmp_path / "none.safetensors")


def _saved(given: Detector, folder: Path) -> Path:
    return given.save_pretrained(folder) / hub.MODEL


def test_the_embedded_models_card_says_what_it_is():
    card = model_card()
    assert 'license: "mit"' in card and "9,418" in card and read_info().sha256 in card


def test_models_that_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for name, words in (
        (tmp_path / "empty", "no model.safetensors"),
        (tmp_path / "none", "no such folder"),
        ("no name", "owner/name"),
        ("../../none/here", "owner/name"),
        ("a/b/c", "owner/name"),
    ):
        with pytest.raises(ModelError, match=words):
            Detector.from_pretrained(name)
    for number in range(2):
        (tmp_path / "empty" / f"{number}.safetensors").touch()
    with pytest.raises(ModelError, match="2 model files"):
        Detector.from_pretrained(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=re.escape("pip install 'yolo9000[hub]'")):
        Detector.from_pretrained("owner/name")
    with pytest.raises(ModelError, match="owner/name"):
        detector().push_to_hub("name")


class Stand:
    """In place of huggingface_hub: what is put there lies in a folder."""

    def __init__(self, folder: Path, fails: bool = False):
        self.folder, self.fails = folder, fails

    def HfApi(self, token=None):  # noqa: N802, its name
        return self

    def create_repo(self, name, private, exist_ok):
        assert exist_ok
        if self.fails:
            raise OSError("no network\nand more")

    def file_exists(self, name, file, revision=None):
        return (self.folder / file).exists()

    def hf_hub_download(self, name, file, revision=None, token=None):
        return str(self.folder / file)

    def upload_folder(self, repo_id, folder_path, commit_message, revision, ignore_patterns):
        for path in Path(folder_path).iterdir():
            if path.name not in (ignore_patterns or ()):
                (self.folder / path.name).write_bytes(path.read_bytes())
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_put_on_the_hub_and_taken_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_hub", lambda: Stand(tmp_path))
    given = detector()
    assert given.push_to_hub("owner/pets") == "https://hub/owner/pets/commit/1"
    assert same(Detector.from_pretrained("owner/pets", precision="float32"), given)
    assert "owner/pets" in (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text("mine")
    given.push_to_hub("owner/pets")
    assert (tmp_path / "README.md").read_text() == "mine"
    monkeypatch.setattr(hub, "_hub", lambda: Stand(tmp_path, fails=True))
    with pytest.raises(ModelError, match="owner/pets: cannot be put on the Hub \\(no network\\)"):
        given.push_to_hub("owner/pets")


class _Server(http.server.BaseHTTPRequestHandler):
    """What of the Hub's address a download asks for."""

    body = b""

    def do_HEAD(self):
        if self.path != "/owner/pets/resolve/main/model.safetensors":
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return False
        self.send_response(200)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        return True

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.body)

    def log_message(self, *_):
        pass


def test_the_real_client_fetches_a_model(tmp_path):
    pytest.importorskip(
        "huggingface_hub", reason="huggingface_hub is not installed: nothing was fetched by it"
    )
    _Server.body = _saved(detector(), tmp_path / "model").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import sys\nfrom yolo9000.hub import find_model\nfrom yolo9000.errors import ModelError\n"
        "print(find_model('owner/pets'))\n"
        "try:\n    find_model('owner/none')\nexcept ModelError as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
    }
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    path, refusal = done.stdout.splitlines()
    assert Path(path).read_bytes() == _Server.body and "owner/none: no such folder" in refusal
