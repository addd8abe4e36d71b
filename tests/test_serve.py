"""The example that serves a classifier over HTTP."""

import importlib.util
import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, random_image
from PIL import Image

import cellscan

pytest.importorskip("fastapi", reason="pip install fastapi")
pytest.importorskip("httpx2", reason="pip install httpx2")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import the example with a small model and a small limit."""
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    cellscan.Classifier(image_size=16, seed=0).save(path)
    spec = importlib.util.spec_from_file_location("serve", REPOSITORY / "examples" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLSCAN_MODEL", str(path))
        patch.setenv("CELLSCAN_MAX_BYTES", "100000")
        patch.setitem(sys.modules, "serve", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def client(serve) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    with TestClient(serve.app) as client:
        yield client


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_answer_is_that_of_predict(client, serve, kind) -> None:
    data = encode(random_image(), kind)
    answer = client.post("/predict", content=data)
    assert answer.status_code == 200
    expected = serve.app.state.clf.predict(data)[0]
    assert answer.json()["probabilities"] == pytest.approx(expected.probabilities)
    assert answer.json()["label_name"] == expected.label_name
    assert answer.json()["model"] == serve.app.state.clf.fingerprint


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", encode(random_image())[:200], b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"<svg/>", b"\0" * 100_000],
    ids=["empty", "text", "cut", "header", "svg", "zeros"],
)
def test_malformed_uploads_get_the_message_of_the_library(client, data) -> None:
    answer = client.post("/predict", content=data)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("image 0: ")


def test_a_decompression_bomb_is_refused(client) -> None:
    file = io.BytesIO()
    Image.new("1", (30_000, 3_000)).save(file, "PNG", optimize=True)
    assert len(file.getvalue()) < 100_000
    answer = client.post("/predict", content=file.getvalue())
    assert answer.status_code == 422
    assert "pixels" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_oversized_uploads_are_refused(client, chunked) -> None:
    data = b"\0" * 100_001
    answer = client.post("/predict", content=iter([data[:60_000], data[60_000:]]) if chunked else data)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "the upload has 100,001 bytes; expected at most 100,000"


def test_more_waiting_requests_than_allowed_are_refused(client, serve, monkeypatch) -> None:
    monkeypatch.setattr(serve, "MAX_WAITING", 0)
    answer = client.post("/predict", content=encode(random_image()))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


def test_the_page_lists_every_status() -> None:
    text = (REPOSITORY / "docs" / "serving.md").read_text()
    for status in ("200", "413", "422", "503"):
        assert f"| {status} |" in text
