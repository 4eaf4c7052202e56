"""Batches made of whatever waits when the engine frees up: none waits when idle, all go together under load."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from pawcast.errors import ImageError

# A decoded photo waits no longer for others to fill its batch: some take a thousand times as long to decode.
_FILLING_SECONDS = 0.02


class PendingRequest:
    """What one caller asks for: an answer to each of so many photos.

    Made, awaited and read on an event loop. Times are in seconds of `time.monotonic`.

    Attributes:
        found: For each photo in order, the probability of class 1, or why there is none. Complete once `done` is.
        done: Its result says nothing; its exception is why the call as a whole failed.
        asked: When it was made.
        started: When the engine took the first of the photos.
        ended: When it was done with the last.
        decoding: Seconds that threads spent decoding the photos, added up.
    """

    def __init__(self, photos: int) -> None:
        self.results: list[float | ImageError] = [0.0] * photos
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submitted_at = self.started_at = self.finished_at = time.monotonic()
        self.decode_seconds = 0.0
        self._left, self._begun = photos, False
        if not photos:
            self.done.set_result(None)

    def _failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _put(self, place: int, answer: float | ImageError, decoding: float) -> None:
        self.results[place] = answer
        self.decode_seconds += decoding
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def _ran(self, started: float, ended: float) -> None:
        # Batches needn't end in the order in which they began.
        self.started_at = min(self.started_at, started) if self._begun else started
        self.finished_at = max(self.finished_at, ended)
        self._begun = True

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
            self.done.get_loop().call_soon_threadsafe(function, *arguments)


class _Item(NamedTuple):
    """A photo, and which of whose it is."""

    photo: Any
    call: PendingRequest
    place: int


class _Decoded(NamedTuple):
    """Its pixels, how many seconds they took, and since when they are there."""

    pixels: np.ndarray
    call: PendingRequest
    place: int
    seconds: float
    since: float


class Batcher:
    """Decodes photos of concurrent callers and gathers them into batches for an engine.

    Each of its threads does what is due: the next batch, or else the next photo, or else what is left over. So one
    photo needs one of them, many are decoded while others are computed, and all of it goes on beside the event loop,
    which has requests to read meanwhile.

    Args:
        decode: A photo to uint8 [S, S, 3], or raises `ImageError`.
        predict: uint8 [n, S, S, 3] to float32 [n].
        sizes: How many photos `predict` computes at once, ascending. A batch is of one of these sizes, or smaller than
            the first: what is left over goes with those who come next.
        observe: Called after each batch with its photos and the seconds it took.
        lanes: Batches that `predict` may be at, at once. One more is begun if it is full, and waits in line: so no lane
            idles between two.
        threads: Batches and photos that are worked at, at once.
    """

    def __init__(
        self,
        decode: Callable[[Any], np.ndarray],
        predict: Callable[[np.ndarray], np.ndarray],
        sizes: Sequence[int],
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
        max_concurrent_batches: int = 1,
        threads: int = 1,
    ) -> None:
        self._decode, self._predict, self._sizes, self._observe = decode, predict, sizes, observe
        self._max_concurrent_batches = max_concurrent_batches
        self._lock = threading.Lock()
        # Guarded by the lock: photos as they came and decoded, threads that sleep, how many don't, and since when which
        # of those is at a batch. Each thread has a queue of its own: of several that wait at one, all would wake up.
        self._waiting: deque[_Item] = deque()
        self._decoded: deque[_Decoded] = deque()
        self._asleep = [ThreadPoolExecutor(1, thread_name_prefix="engine") for _ in range(threads)]
        self._awake = 0
        self._started: dict[ThreadPoolExecutor, float] = {}

    @property
    def busy_seconds(self) -> float:
        """For how long the engine has been at its oldest batch; 0 if there is none."""
        with self._lock:
            return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    def submit(self, photos: Sequence[Any]) -> PendingRequest:
        """Begin to answer for photos, on the event loop; one that is an `ImageError` is its own answer."""
        call = PendingRequest(len(photos))
        items: list[_Item] = []
        for place, photo in enumerate(photos):
            if isinstance(photo, ImageError):
                call._put(place, photo, 0.0)
            else:
                items.append(_Item(photo, call, place))
        with self._lock:
            self._waiting.extend(items)
            # The last to fall asleep first: its memory is still in the CPU's caches.
            woken = [self._asleep.pop() for _ in range(min(len(self._asleep), len(items)))]
            self._awake += len(woken)
        for thread in woken:
            thread.submit(self._work, thread)
        return call

    def close(self) -> None:
        """End the threads. Call it when no request is pending."""
        with self._lock:
            for thread in self._asleep:
                thread.shutdown(wait=False)

    def _work(self, thread: ThreadPoolExecutor) -> None:
        """Decode and predict, in a thread, until nothing is left to do."""
        while work := self._next(thread):
            if isinstance(work, _Item):
                self._decode_one(work)
            else:
                self._predict_all(work, thread)

    def _next(self, thread: ThreadPoolExecutor) -> list[_Decoded] | _Item | None:
        """Take what is due. Finding nothing, the thread goes to sleep."""
        with self._lock:
            if batch := self._batch():
                self._started[thread] = time.monotonic()
                return batch
            while self._waiting:
                item = self._waiting.popleft()
                # Nobody waits any more for what was asked by a client that has gone.
                if not item.call.done.done():
                    return item
            self._awake -= 1
            self._asleep.append(thread)
            return None

    def _batch(self) -> list[_Decoded]:
        """Take a batch if it is full, or if nothing is left that would fill it; then lanes share it."""
        decoded, size = self._decoded, self._sizes[-1]
        free = min(self._max_concurrent_batches, self._awake) - len(self._started)
        in_line = len(decoded) >= size and len(self._started) == self._max_concurrent_batches
        if not decoded or (free < 1 and not in_line):
            return []
        if self._waiting:
            if len(decoded) < size and time.monotonic() - decoded[0].since < _FILLING_SECONDS:
                return []
            share = len(decoded)
        else:
            share = -(-len(decoded) // max(free, 1))
        size = max((size for size in self._sizes if size <= share), default=self._sizes[0])
        batch: list[_Decoded] = []
        while decoded and len(batch) < size:
            item = decoded.popleft()
            if not item.call.done.done():
                batch.append(item)
        return batch

    def _decode_one(self, item: _Item) -> None:
        photo, call, place = item
        started = time.monotonic()
        try:
            pixels = self._decode(photo)
        except ImageError as error:
            call._tell(call._put, place, error, time.monotonic() - started)
        except Exception as error:  # Such as too little memory: not this photo's fault.
            call._tell(call._failed, error)
        else:
            since = time.monotonic()
            with self._lock:
                self._decoded.append(_Decoded(pixels, call, place, since - started, since))

    def _predict_all(self, batch: list[_Decoded], thread: ThreadPoolExecutor) -> None:
        found: list[float] | Exception
        try:
            found = self._predict(np.stack([item.pixels for item in batch])).tolist()
        except Exception as error:  # All callers of this batch learn of it; the next one is tried all the same.
            found = error
        ended = time.monotonic()
        with self._lock:
            started = self._started.pop(thread)
        batch[0].call._tell(self._deliver, batch, found, started, ended)

    def _deliver(self, batch: list[_Decoded], found: list[float] | Exception, started: float, ended: float) -> None:
        """Tell the callers, on their event loop."""
        if isinstance(found, Exception):
            for item in batch:
                item.call._failed(found)
            return
        for item, score in zip(batch, found, strict=True):
            item.call._ran(started, ended)
            item.call._put(item.place, score, item.seconds)
        self._observe(len(batch), ended - started)
