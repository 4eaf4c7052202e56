"""Batches made of whatever waits when the engine frees up: none waits when idle, all go together under load."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from pawcast.errors import ImageError


class Call:
    """What one caller asks for: an answer to each of so many photos, which may come one after another.

    Made, awaited and read on an event loop; `added` is set by whoever adds photos.

    Attributes:
        found: For each photo in order, the probability of class 1, or why there is none. Complete once `done` is.
        done: Its result says nothing; its exception is why the call as a whole failed.
        added: When the last photo was added, in seconds of `time.monotonic`.
        started: When the engine took the first of them.
        ended: When it was done with the last.
    """

    def __init__(self, photos: int) -> None:
        self.found: list[float | ImageError] = [0.0] * photos
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.added = self.started = self.ended = time.monotonic()
        self._left, self._begun = photos, False
        if not photos:
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Fail as a whole, unless nobody waits any more. For any thread."""
        self._tell(self._failed, error)

    def _failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _put(self, place: int, answer: float | ImageError) -> None:
        self.found[place] = answer
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def _ran(self, started: float, ended: float) -> None:
        # Batches needn't end in the order in which they began.
        self.started = min(self.started, started) if self._begun else started
        self.ended = max(self.ended, ended)
        self._begun = True

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
            self.done.get_loop().call_soon_threadsafe(function, *arguments)


class _Item(NamedTuple):
    """A photo, and which of whose it is."""

    pixels: np.ndarray
    call: Call
    place: int


class Batcher:
    """Gathers photos from concurrent callers into batches for an engine.

    Whoever decodes a photo adds it, and the engine's threads take the next batch by themselves. Neither waits for the
    event loop, which has requests to read meanwhile.

    Args:
        predict: uint8 [n, S, S, 3] to float32 [n]; called in threads of its own.
        sizes: How many photos `predict` computes at once, ascending. A batch is of one of these sizes, or smaller than
            the first: what is left over goes with those who come next.
        observe: Called after each batch with its photos and the seconds it took.
        lanes: Batches that `predict` may be at, at once.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        sizes: Sequence[int],
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
        lanes: int = 1,
    ) -> None:
        self._predict, self._sizes, self._observe, self._lanes = predict, sizes, observe, lanes
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="engine")
        self._lock = threading.Lock()
        # Guarded by the lock: photos, lanes at work or about to be, and since when each of them is at its batch.
        self._waiting: deque[_Item] = deque()
        self._awake = 0
        self._started: dict[int, float] = {}

    @property
    def busy_seconds(self) -> float:
        """For how long the engine has been at its oldest batch; 0 if there is none."""
        with self._lock:
            return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    def add(self, call: Call, photos: Iterable[tuple[int, np.ndarray | ImageError]]) -> None:
        """Add some of a call's photos, each once. For any thread.

        Args:
            call: Whose they are.
            photos: The place in the call, and uint8 [S, S, 3] or why there are no pixels.
        """
        items: list[_Item] = []
        call.added = time.monotonic()
        for place, photo in photos:
            if isinstance(photo, ImageError):
                call._tell(call._put, place, photo)
            else:
                items.append(_Item(photo, call, place))
        with self._lock:
            self._waiting.extend(items)
            woken = min(self._lanes - self._awake, len(items))
            self._awake += woken
        for _ in range(woken):
            self._threads.submit(self._drain)

    def _drain(self) -> None:
        """Predict, in a thread, until nothing waits."""
        lane = threading.get_ident()
        while batch := self._next(lane):
            started = self._started[lane]
            found: list[float] | Exception
            try:
                found = self._predict(np.stack([item.pixels for item in batch])).tolist()
            except Exception as error:  # All callers of this batch learn of it; the next one is tried all the same.
                found = error
            ended = time.monotonic()
            with self._lock:
                del self._started[lane]
            batch[0].call._tell(self._deliver, batch, found, started, ended)

    def _next(self, lane: int) -> list[_Item]:
        """Take what waits, or a share if other lanes are idle as well. Finding nothing, the lane goes to sleep."""
        with self._lock:
            idle = self._awake - len(self._started)
            share = -(-len(self._waiting) // idle)
            size = max((size for size in self._sizes if size <= share), default=self._sizes[0])
            batch: list[_Item] = []
            while self._waiting and len(batch) < size:
                item = self._waiting.popleft()
                # Nobody waits any more for what was asked by a client that has gone.
                if not item.call.done.done():
                    batch.append(item)
            if batch:
                self._started[lane] = time.monotonic()
            else:
                self._awake -= 1
            return batch

    def _deliver(self, batch: list[_Item], found: list[float] | Exception, started: float, ended: float) -> None:
        """Tell the callers, on their event loop."""
        if isinstance(found, Exception):
            for item in batch:
                item.call._failed(found)
            return
        for (_, call, place), score in zip(batch, found, strict=True):
            call._ran(started, ended)
            call._put(place, score)
        self._observe(len(batch), ended - started)
