"""Batches made of whatever waits when the engine frees up: none waits when idle, all go together under load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pawcast.errors import BusyError


class Batched(NamedTuple):
    """What a caller gets.

    Attributes:
        scores: The probability of class 1 for each photo, in order.
        waited: Seconds until the engine took the first of them.
        ran: Seconds from then until the last was done, batches of others in between included.
    """

    scores: list[float]
    waited: float
    ran: float


class _Call:
    """What one caller waits for."""

    def __init__(self, photos: int) -> None:
        self.scores = [0.0] * photos
        self.left = photos
        self.started = self.ended = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Item(NamedTuple):
    """A photo, and which of whose it is."""

    pixels: np.ndarray
    call: _Call
    place: int


class Batcher:
    """Gathers photos from concurrent callers into batches for an engine.

    The engine's threads take the next batch by themselves: they don't wait for the event loop, which has requests to
    read meanwhile.

    Args:
        predict: uint8 [n, S, S, 3] to float32 [n]; called in threads of its own.
        max_batch: Most photos in a batch.
        max_waiting: Most photos that may wait; beyond that callers are turned away.
        observe: Called after each batch with its photos and the seconds it took.
        lanes: Batches that `predict` may be at, at once.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        max_batch: int = 64,
        max_waiting: int = 1_024,
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
        lanes: int = 1,
    ) -> None:
        self._predict, self._observe = predict, observe
        self._max_batch, self._max_waiting, self._lanes = max_batch, max_waiting, lanes
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

    async def predict(self, photos: list[np.ndarray]) -> Batched:
        """Return the probability of class 1 for each photo, in order.

        Args:
            photos: uint8 [S, S, 3] each.

        Raises:
            BusyError: If too many wait already.
        """
        if not photos:
            return Batched([], 0, 0)
        asked = time.monotonic()
        call = _Call(len(photos))
        with self._lock:
            if len(self._waiting) + len(photos) > self._max_waiting:
                raise BusyError(
                    "The server is busy",
                    received=f"{len(self._waiting):,} photos waiting",
                    expected=f"at most {self._max_waiting:,}",
                    fix="try again in a second",
                )
            self._waiting.extend(_Item(pixels, call, place) for place, pixels in enumerate(photos))
            woken = min(self._lanes - self._awake, len(photos))
            self._awake += woken
        for _ in range(woken):
            self._threads.submit(self._drain)
        await call.done
        return Batched(call.scores, call.started - asked, call.ended - call.started)

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
            try:
                batch[0].call.done.get_loop().call_soon_threadsafe(self._deliver, batch, found, started, ended)
            except RuntimeError:  # The loop was closed: nobody waits any more.
                continue

    def _next(self, lane: int) -> list[_Item]:
        """Take what waits, or a share if other lanes are idle as well. Finding nothing, the lane goes to sleep."""
        with self._lock:
            idle = self._awake - len(self._started)
            share = min(-(-len(self._waiting) // idle), self._max_batch)
            batch: list[_Item] = []
            while self._waiting and len(batch) < share:
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
                if not item.call.done.done():
                    item.call.done.set_exception(found)
            return
        for (_, call, place), score in zip(batch, found, strict=True):
            call.scores[place] = score
            # Batches needn't end in the order in which they began.
            call.started = min(call.started or started, started)
            call.ended = max(call.ended, ended)
            call.left -= 1
            if not call.left and not call.done.done():
                call.done.set_result(None)
        self._observe(len(batch), ended - started)
