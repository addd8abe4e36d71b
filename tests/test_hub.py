"""Models on the Hugging Face hub, against a local server that answers as the hub does; nothing is uploaded."""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from helpers import TinyNet, tiny_cells

import cellscan
from cellscan import hub
from cellscan.card import Card
from cellscan.cli import main
from cellscan.publishing import make_readme

pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")

TOKEN = "hf_good"


class StandIn(BaseHTTPRequestHandler):
    """The parts of the hub's HTTP interface that huggingface_hub uses to load and to commit small files."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, Any]]  # name -> private, and the files of each revision

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, data: Any = None, **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps({} if data is None else data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: str, status: int = 404) -> None:
        self.answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def may_enter(self, name: str) -> bool:
        known = self.repositories.get(name)
        return known is not None and (not known["private"] or self.headers.get("Authorization") == f"Bearer {TOKEN}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/([\w.-]+)/(.+)", self.path):
            name, revision, file = found.groups()
            if name == "lab/gated":
                return self.refuse("GatedRepo", 403)
            if not self.may_enter(name):
                return self.refuse("RepoNotFound", 401)
            files = self.repositories[name]["revisions"].get(revision)
            if files is None:
                return self.refuse("RevisionNotFound")
            if file not in files:
                return self.refuse("EntryNotFound")
            data = files[file]
            commit = self.repositories[name]["commit"]
            return self.answer(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=commit)
        if found := re.match(r"/api/models/([\w-]+/[\w-]+)", self.path):
            if not self.may_enter(found[1]):
                return self.refuse("RepoNotFound", 401)
            files = self.repositories[found[1]]["revisions"]["main"]
            if "/tree/" in self.path:
                return self.answer(200, [{"type": "file", "path": f, "size": 1, "oid": "0" * 40} for f in files])
            siblings = [{"rfilename": file} for file in files]
            return self.answer(
                200, {"id": found[1], "sha": self.repositories[found[1]]["commit"], "siblings": siblings}
            )
        return self.answer(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'lab')}/{asked['name']}"
            url = f"http://{self.headers['Host']}/{name}"
            if name in self.repositories:
                return self.answer(409, {"error": "exists", "url": url})
            private = asked.get("private", asked.get("visibility") == "private")  # by the version of huggingface_hub
            self.repositories[name] = {"private": private, "commit": "0" * 40, "revisions": {"main": {}}}
            return self.answer(200, {"url": url, "name": name, "id": name})
        found = re.match(r"/api/models/([\w-]+/[\w-]+)/(branch|preupload|commit)/([\w.-]+)", self.path)
        assert found, self.path
        repository, revision = self.repositories[found[1]], found[3]
        if found[2] == "branch":
            repository["revisions"].setdefault(revision, dict(repository["revisions"]["main"]))
            return self.answer(200)
        if found[2] == "preupload":
            modes = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": modes})
        files = dict(repository["revisions"][revision])
        for entry in map(json.loads, body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        repository["commit"] = commit = hashlib.sha1(body).hexdigest()
        repository["revisions"] |= {revision: files, commit: files}
        url = f"http://{self.headers['Host']}/{found[1]}/commit/{commit}"
        return self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Start the stand-in, import huggingface_hub anew with its address, and return the repositories."""
    repositories: dict[str, Any] = {}
    handler = type("Handler", (StandIn,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http, pytest.MonkeyPatch.context() as patch:
        http.daemon_threads = True
        for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
            patch.delitem(sys.modules, name)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{http.server_port}")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        Thread(target=http.serve_forever, daemon=True).start()
        yield repositories
        http.shutdown()
        for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def clf() -> cellscan.Classifier:
    return cellscan.Classifier(image_size=16, seed=3)


def test_what_is_pushed_is_what_is_loaded(server, clf, capfd) -> None:
    cells = tiny_cells(24)
    report = clf.evaluate(cells, progress=False)
    address = clf.push_to_hub("lab/first", report=report, licence="Apache-2.0", token=TOKEN)
    assert re.fullmatch(r"hf://lab/first@[0-9a-f]{40}", address)
    assert server["lab/first"]["private"] is True
    for text in (address, "hf://lab/first"):
        again = cellscan.Classifier.load(text, token=TOKEN)
        assert np.array_equal(again.predict_proba(cells), clf.predict_proba(cells))
    readme = server["lab/first"]["revisions"]["main"]["README.md"].decode()
    assert f"{report.accuracy:.4f}" in readme
    assert 'license: "apache-2.0"' in readme
    server["lab/private"] = {"private": True, "commit": "1" * 40, "revisions": {"main": {}}}
    with pytest.raises(cellscan.ModelFileError, match="private.*token="):
        cellscan.Classifier.load("hf://lab/private")
    with pytest.raises(cellscan.ModelFileError, match="no permission to write here; pass token="):
        clf.push_to_hub("lab/first", token="hf_bad")
    assert capfd.readouterr().out == ""


def test_branches_and_several_files(server, clf) -> None:
    other = cellscan.Classifier(image_size=16, seed=4)
    assert clf.push_to_hub("hf://lab/several/one.safetensors", private=False, token=TOKEN).endswith("/one.safetensors")
    other.push_to_hub("lab/several@next/two.safetensors", token=TOKEN)
    assert sorted(server["lab/several"]["revisions"]["main"]) == ["README.md", "one.safetensors"]
    assert cellscan.Classifier.load("hf://lab/several/one.safetensors").fingerprint == clf.fingerprint
    assert cellscan.Classifier.load("hf://lab/several@next/two.safetensors").fingerprint == other.fingerprint
    with pytest.raises(cellscan.ModelFileError, match="load one of hf://lab/several/one.safetensors"):
        cellscan.Classifier.load("hf://lab/several")
    with pytest.raises(cellscan.ModelFileError, match="no revision v9"):
        cellscan.Classifier.load("hf://lab/several@v9")
    with pytest.raises(cellscan.ModelFileError, match="no such repository"):
        cellscan.Classifier.load("hf://lab/nothing")
    with pytest.raises(cellscan.ModelFileError, match="the owner must grant you access"):
        cellscan.Classifier.load("hf://lab/gated")


def test_a_detector_and_the_command_line(server, capsys) -> None:
    det = cellscan.Detector.pretrained()
    det.push_to_hub("lab/cells", private=False, token=TOKEN)
    again = cellscan.Detector.load("hf://lab/cells")
    assert again.card.detection == det.card.detection
    with pytest.raises(cellscan.ModelFileError, match=r"hf://lab/cells: contains a detector.*Detector\.load"):
        cellscan.Classifier.load("hf://lab/cells")
    assert main(["info", "hf://lab/cells"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "retinanet_small"


def test_a_damaged_file_says_what_to_delete(server, clf) -> None:
    clf.push_to_hub("lab/damaged", private=False, token=TOKEN)
    files = server["lab/damaged"]["revisions"]["main"]
    data = bytearray(files["model.safetensors"])
    data[-3] ^= 1
    files["model.safetensors"] = bytes(data)
    with pytest.raises(cellscan.ModelFileError, match=r"the file is damaged.*delete (\S+);") as caught:
        cellscan.Classifier.load("hf://lab/damaged")
    found = re.search(r"delete (\S+);", str(caught.value))
    assert found
    Path(found[1]).unlink()
    data[-3] ^= 1
    files["model.safetensors"] = bytes(data)
    assert cellscan.Classifier.load("hf://lab/damaged").fingerprint == clf.fingerprint


def test_without_a_connection_the_cached_file_is_used(server, clf, monkeypatch) -> None:
    clf.push_to_hub("lab/offline", private=False, token=TOKEN)
    cellscan.Classifier.load("hf://lab/offline")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert cellscan.Classifier.load("hf://lab/offline").fingerprint == clf.fingerprint
    with pytest.raises(cellscan.ModelFileError, match="cannot be reached, and the file is not in the cache"):
        cellscan.Classifier.load("hf://lab/offline/other.safetensors")
    with pytest.raises(cellscan.ModelFileError, match="the upload failed"):
        clf.push_to_hub("lab/offline", token=TOKEN)


def test_nothing_is_sent_before_the_arguments_are_right(clf, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for bad in ("name", "hf://a/b/c.bin", "a/b@", "a b/c", "../a/b", "", None, 3):
        with pytest.raises(cellscan.ArgumentError, match=r'expected "hf://owner/name"'):
            clf.push_to_hub(bad)
    with pytest.raises(cellscan.ArgumentError, match=r'expected "hf://owner/name"'):
        cellscan.Classifier.load("hf://owner")
    with pytest.raises(cellscan.ArgumentError, match="private"):
        clf.push_to_hub("a/b", private="yes")  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match="token is a int"):
        clf.push_to_hub("a/b", token=3)  # type: ignore[arg-type]
    for call in (lambda: clf.push_to_hub("a/b"), lambda: cellscan.Classifier.load("hf://a/b")):
        with pytest.raises(cellscan.MissingExtraError, match=r"pip install 'cellscan\[hub\]'"):
            call()


def read_metadata(card: Card) -> tuple[dict[str, Any], str]:
    """Return the metadata of the README of a card, as huggingface_hub reads them, and the text."""
    from huggingface_hub import ModelCard

    text = make_readme(card, hub.Address("lab/name", None, hub.FILE))
    return ModelCard(text).data.to_dict(), text


def test_the_readme_of_the_bundled_models() -> None:
    data, text = read_metadata(cellscan.Classifier.pretrained().card)
    assert data["library_name"] == "cellscan"
    assert data["pipeline_tag"] == "image-classification"
    assert data["license"] == "other"
    assert data["license_name"].startswith("Apache-2.0, fine-tuned")
    assert "Research use only. Not a medical device." in text
    assert "22238" in text
    assert 'cellscan.Classifier.load("hf://lab/name")' in text
    card = cellscan.Detector.pretrained().card
    data, text = read_metadata(card)
    assert data["pipeline_tag"] == "object-detection"
    assert data["metrics"] == ["ap", "ap50", "ap75", "ar", "count_error"]
    assert data["license"] == "other"
    assert data["license_name"].startswith("MIT; trained on images of the NIH set")
    assert f"| ap50 | {card.metrics['report']['ap50']:.4f} |" in text


def test_no_text_of_a_card_breaks_the_readme() -> None:
    from flax import nnx

    evil = 'a: "b"\n---\n| c'
    clf = cellscan.Classifier(TinyNet(rngs=nnx.Rngs(0)), image_size=16, class_names=(evil, "d"))
    data, text = read_metadata(clf.card)
    assert data["pipeline_tag"] == "image-classification"
    assert "license" not in data
    assert "model=...)" in text
    row = next(line for line in text.splitlines() if line.startswith("| classes"))
    assert row.count("|") - row.count("\\|") == 3
