"""A contender of `serve.py`: Ray Serve by hand, as somebody who knows it well would write it.

    python -m tests.benchmarks.plain_ray serve STORE PORT FOLDER    until standard input ends

One deployment behind HAProxy: a plain ASGI application that decodes photos in two threads and
batches the photos that wait when the network is free, on all CPUs. It has no limits, checks or
metrics, and no float32 fallback. It runs in Pawcast's environment, with the network's file in
PAWCAST_BENCH_NETWORK, whose layers have the precision to compute in.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

MAX_BATCH, DECODERS = 64, 2
REQUESTS = 512

Predict = Callable[[np.ndarray], list[float]]


def compiled(path: str) -> tuple[Predict, int]:
    """Return the warm network, uint8 [n, S, S, 3] to n probabilities; and S."""
    os.environ.update(TF_ENABLE_ONEDNN_OPTS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    import keras
    import tensorflow as tf

    network = keras.saving.load_model(path, compile=False)
    shape = network.input_shape[1:]

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8)])
    def run(pixels: tf.Tensor) -> tf.Tensor:
        return network(tf.cast(pixels, network.layers[1].compute_dtype) * (1 / 255), training=False)[:, 0]

    for count in (1, MAX_BATCH):
        run(np.zeros((count, *shape), np.uint8))
    return lambda pixels: run(pixels).numpy().tolist(), shape[0]  # type: ignore[no-any-return]


class Batches:
    """Batches the photos that wait when the last batch is done."""

    def __init__(self, predict: Predict) -> None:
        self._predict, self._thread = predict, ThreadPoolExecutor(1)
        self._waiting: list[tuple[np.ndarray, asyncio.Future[float]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def score(self, pixels: np.ndarray) -> float:
        asked: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, asked))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await asked

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            pixels = np.stack([item for item, _ in batch])
            scores = await loop.run_in_executor(self._thread, self._predict, pixels)
            for (_, asked), score in zip(batch, scores, strict=True):
                asked.set_result(score)
        self._draining = None


class Api:
    """The ASGI application: /one takes a photo as the body, /many photos as a form."""

    def __init__(self, predict: Predict, size: int) -> None:
        self._batches, self._size = Batches(predict), size
        self._decoders = ThreadPoolExecutor(DECODERS)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        from starlette.requests import Request

        if scope["type"] != "http":
            return
        scores: float | list[float]
        request = Request(scope, receive)
        if scope["path"] == "/one":
            scores = await self._score(await request.body())
        else:
            async with request.form() as form:
                photos = [await photo.read() for photo in form.getlist("photos")]
            scores = await asyncio.gather(*map(self._score, photos))
        body = json.dumps(scores).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _score(self, photo: bytes) -> float:
        loop = asyncio.get_running_loop()
        return await self._batches.score(await loop.run_in_executor(self._decoders, self._decoded, photo))

    def _decoded(self, photo: bytes) -> np.ndarray:
        import cv2
        import simplejpeg

        return cv2.resize(simplejpeg.decode_jpeg(photo), (self._size, self._size))


class Plain:
    """A replica."""

    def __init__(self, path: str) -> None:
        self._api = Api(*compiled(path))

    def __serve_build_asgi_app__(self) -> Api:
        return self._api


def run(store_uri: str, port: str) -> None:
    from pawcast_infra.local.private_ray import private_ray

    with private_ray(store_uri, cpus=1):
        from ray import serve

        serve.start(http_options={"host": "127.0.0.1", "port": int(port)}, proxy_location="HeadOnly")
        deployment = serve.deployment(
            serve.ingress()(Plain), max_ongoing_requests=REQUESTS, logging_config={"enable_access_log": False}
        )
        serve.run(deployment.bind(os.environ["PAWCAST_BENCH_NETWORK"]))
        sys.stdin.read()


if __name__ == "__main__":
    # As `ours_serve` is called: serve STORE PORT FOLDER.
    run(*sys.argv[2:4])
