"""Batches made of whatever waits when the engine becomes free.

On an idle engine a photo waits for nothing; under load all waiting photos go together.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pawcast.errors import ImageError
from pawcast.runtime.devices import usable_cpus

MAX_BATCH = 64
"""Photos that `predictor` and `parity` read and predict together."""
MAX_CONCURRENT_BATCHES = min(2, usable_cpus())
"""Batches computed at once, each on its share of the CPUs: one fills the gaps of the other."""
# How long a decoded photo waits for others to fill its batch. Some photos take a thousand times as
# long to decode as others.
_MAX_FILL_SECONDS = 0.02


def finite_or_error(score: float) -> float | ImageError:
    """Return a score, or an error in place of NaN, which JSON doesn't have."""
    return score if math.isfinite(score) else ImageError("the model predicts NaN for it")


class PendingRequest:
    """The photos of one caller, and their results as they arrive.

    Created, awaited and read on an event loop. Times are in seconds of `time.monotonic`.

    Attributes:
        results: For each photo in order, the probability of class 1, or why there is none. Complete
            once `done` is.
        done: Has no result; its exception is why the whole request failed. Cancel it to drop the
            photos that aren't computed yet.
        submitted_at: When the request was created.
        started_at: When the engine started on the first of the photos.
        finished_at: When the engine finished the last.
        decode_seconds: Seconds that threads spent decoding the photos, added up.
    """

    def __init__(self, photos: int) -> None:
        self.results: list[float | ImageError] = [0.0] * photos
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submitted_at = self.started_at = self.finished_at = time.monotonic()
        self.decode_seconds = 0.0
        self._missing, self._is_started = photos, False
        if not photos:
            self.done.set_result(None)

    def _set_result(self, position: int, result: float | ImageError, decode_seconds: float) -> None:
        self.results[position] = result
        self.decode_seconds += decode_seconds
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)

    def _set_exception(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _add_batch_times(self, started_at: float, finished_at: float) -> None:
        # Batches may finish in another order than they started.
        self.started_at = min(self.started_at, started_at) if self._is_started else started_at
        self.finished_at = max(self.finished_at, finished_at)
        self._is_started = True

    def _call_on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed, so nobody waits any more.
            self.done.get_loop().call_soon_threadsafe(function, *arguments)


class _Photo(NamedTuple):
    content: Any  # what `decode` takes, later the pixels
    request: PendingRequest
    position: int
    decode_seconds: float = 0.0
    decoded_at: float = 0.0


class Batcher:
    """Decodes photos of concurrent callers and gathers them into batches for an engine.

    Each thread does what comes first in this list: compute a full batch, decode a photo, compute
    the rest. So one photo takes one thread, many photos are decoded while others are computed, and
    the event loop stays free to read requests. Threads start when they are first needed, and end
    when nothing refers to the batcher any more.

    Args:
        decode: Turns a photo into uint8 [S, S, 3], or raises `ImageError`.
        predict: uint8 [n, S, S, 3] to float32 [n].
        batch_sizes: How many photos `predict` computes at once, ascending. A batch has one of these
            sizes, or fewer photos than the first; the rest goes with the photos that come next.
        observe: Called after each batch with its photos and the seconds it took.
        max_concurrent_batches: Calls of `predict` that compute at once. One more is made if its
            batch is full, and waits for the CPUs, so they don't idle between two batches.
        threads: Photos that are decoded and batches that are computed at once.
    """

    def __init__(
        self,
        decode: Callable[[Any], np.ndarray],
        predict: Callable[[np.ndarray], np.ndarray],
        batch_sizes: Sequence[int],
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
        max_concurrent_batches: int = 1,
        threads: int = 1,
    ) -> None:
        self._decode, self._predict, self._batch_sizes, self._observe = decode, predict, batch_sizes, observe
        self._max_concurrent_batches, self._threads = max_concurrent_batches, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batcher")
        # Guards everything below. Whoever hands work to a thread counts it as busy.
        self._lock = threading.Lock()
        self._queued: deque[_Photo] = deque()
        self._decoded: deque[_Photo] = deque()
        self._batch_starts: list[float] = []
        self._busy_threads = 0

    @property
    def busy_seconds(self) -> float:
        """For how long the engine has computed its oldest unfinished batch; 0 if there is none."""
        with self._lock:
            return time.monotonic() - min(self._batch_starts) if self._batch_starts else 0.0

    def submit(self, photos: Sequence[Any]) -> PendingRequest:
        """Start to predict photos. Call it on the event loop.

        Args:
            photos: What `decode` takes. An `ImageError` becomes the result of its photo.
        """
        request = PendingRequest(len(photos))
        with self._lock:
            self._queued.extend(_Photo(photo, request, position) for position, photo in enumerate(photos))
            idle = min(self._threads - self._busy_threads, len(photos))
            self._busy_threads += idle
        for _ in range(idle):
            self._pool.submit(self._work)
        return request

    def _work(self) -> None:
        while task := self._next_task():
            task()

    def _next_task(self) -> Callable[[], None] | None:
        with self._lock:
            if photos := self._next_batch():
                started_at = time.monotonic()
                self._batch_starts.append(started_at)
                return partial(self._compute, photos, started_at)
            while self._queued:
                photo = self._queued.popleft()
                # A request is done early if its client is gone.
                if not photo.request.done.done():
                    return partial(self._decode_one, photo)
            self._busy_threads -= 1
            return None

    def _next_batch(self) -> list[_Photo]:
        """Take a batch if it is full, has waited long enough, or nothing is left to fill it."""
        decoded, full = self._decoded, self._batch_sizes[-1]
        computing = len(self._batch_starts)
        free = min(self._max_concurrent_batches, self._busy_threads) - computing
        may_wait_for_cpus = len(decoded) >= full and computing == self._max_concurrent_batches
        if not decoded or (free < 1 and not may_wait_for_cpus):
            return []
        if self._queued:
            if len(decoded) < full and time.monotonic() - decoded[0].decoded_at < _MAX_FILL_SECONDS:
                return []
            share = len(decoded)
        else:
            # Shared by all batches that may compute now.
            share = -(-len(decoded) // max(free, 1))
        size = max((size for size in self._batch_sizes if size <= share), default=self._batch_sizes[0])
        batch: list[_Photo] = []
        while decoded and len(batch) < size:
            photo = decoded.popleft()
            if not photo.request.done.done():
                batch.append(photo)
        return batch

    def _decode_one(self, photo: _Photo) -> None:
        request, position = photo.request, photo.position
        started_at = time.monotonic()
        try:
            if isinstance(photo.content, ImageError):
                raise photo.content
            pixels = self._decode(photo.content)
        except ImageError as error:
            # A traceback would keep this frame, and with it the photo, in memory.
            error.__traceback__ = None
            request._call_on_loop(request._set_result, position, error, time.monotonic() - started_at)
        except Exception as error:  # Too little memory, for example: not the photo's fault.
            request._call_on_loop(request._set_exception, error)
        else:
            decoded_at = time.monotonic()
            decoded = _Photo(pixels, request, position, decoded_at - started_at, decoded_at)
            with self._lock:
                self._decoded.append(decoded)

    def _compute(self, photos: list[_Photo], started_at: float) -> None:
        scores: list[float] | Exception
        try:
            scores = self._predict(np.stack([photo.content for photo in photos])).tolist()
        except Exception as error:  # Fails all requests of this batch; the next batch is tried anyway.
            scores = error
        finished_at = time.monotonic()
        with self._lock:
            self._batch_starts.remove(started_at)
        photos[0].request._call_on_loop(self._deliver, photos, scores, started_at, finished_at)

    def _deliver(
        self, photos: list[_Photo], scores: list[float] | Exception, started_at: float, finished_at: float
    ) -> None:
        """Hand the scores to their requests, on the event loop."""
        if isinstance(scores, Exception):
            for photo in photos:
                photo.request._set_exception(scores)
            return
        for photo, score in zip(photos, scores, strict=True):
            photo.request._add_batch_times(started_at, finished_at)
            photo.request._set_result(photo.position, finite_or_error(score), photo.decode_seconds)
        self._observe(len(photos), finished_at - started_at)
