"""Serve a classifier over HTTP: one encoded image in, JSON out.

    pip install fastapi uvicorn
    uvicorn --app-dir examples serve:app --workers 2 --limit-concurrency 64
    curl --data-binary @cell.png http://127.0.0.1:8000/predict

CELLSCAN_MODEL is the file of the classifier, or its address on the Hugging Face hub; by default it is the bundled one.
CELLSCAN_MAX_BYTES is the size limit of an upload. Research use only, not a medical device.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import FastAPI, HTTPException, Request

import cellscan

MAX_BYTES = int(os.environ.get("CELLSCAN_MAX_BYTES", "10000000"))
MAX_WAITING = 32  # Requests that wait for their turn, in each worker; more get the answer 503.


@asynccontextmanager
async def load(app: FastAPI) -> AsyncIterator[None]:
    """Load the classifier in each worker, and compile its program before the first request."""
    model = os.environ.get("CELLSCAN_MODEL")
    app.state.clf = cellscan.Classifier.load(model) if model else cellscan.Classifier.pretrained()
    app.state.clf.predict(np.zeros((64, 64, 3), np.uint8), progress=False)
    app.state.turn = anyio.CapacityLimiter(1)  # One prediction at a time already uses all cores of the worker.
    yield


app = FastAPI(title="cellscan: research use only, not a medical device", lifespan=load)


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """Classify the image in the body of the request: a PNG, JPEG, TIFF or another format that the library reads."""
    clf, turn = request.app.state.clf, request.app.state.turn
    data, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)  # The rest of a large upload is read and not stored: the client waits for it to be read.
        data += chunk if size <= MAX_BYTES else b""
    if size > MAX_BYTES:
        raise HTTPException(413, f"the upload has {size:,} bytes; expected at most {MAX_BYTES:,}")
    if turn.statistics().tasks_waiting >= MAX_WAITING:
        raise HTTPException(503, "too many requests wait; try again later", {"Retry-After": "1"})
    try:
        preds = await anyio.to_thread.run_sync(lambda: clf.predict(bytes(data), progress=False), limiter=turn)
    except (cellscan.ImageError, cellscan.MissingExtraError) as error:
        raise HTTPException(422, str(error)) from error
    return {**asdict(preds[0]), "model": clf.fingerprint}
