"""Batches made of whatever waits when the engine frees up: none waits when idle, all go together under load."""

from __future__ import annotations

import asyncio
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


class _Done(NamedTuple):
    score: float
    started: float
    ended: float


class Batcher:
    """Gathers photos from concurrent callers into batches for an engine that takes one batch at a time.

    Args:
        predict: uint8 [n, S, S, 3] to float32 [n]; called in a thread of its own, never twice at once.
        max_batch: Most photos in a batch.
        max_waiting: Most photos that may wait; beyond that callers are turned away.
        observe: Called after each batch with its photos and the seconds it took.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        max_batch: int = 64,
        max_waiting: int = 1_024,
        observe: Callable[[int, float], None] = lambda photos, seconds: None,
    ) -> None:
        self._predict, self._observe = predict, observe
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[_Done]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._running: asyncio.Task[None] | None = None
        self._started: float | None = None

    @property
    def busy_seconds(self) -> float:
        """For how long the engine has been at its present batch; 0 if there is none."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    async def predict(self, photos: list[np.ndarray]) -> Batched:
        """Return the probability of class 1 for each photo, in order.

        Args:
            photos: uint8 [S, S, 3] each.

        Raises:
            BusyError: If too many wait already.
        """
        if len(self._waiting) + len(photos) > self._max_waiting:
            raise BusyError(
                "The server is busy",
                received=f"{len(self._waiting):,} photos waiting",
                expected=f"at most {self._max_waiting:,}",
                fix="try again in a second",
            )
        if not photos:
            return Batched([], 0, 0)
        loop = asyncio.get_running_loop()
        asked = time.monotonic()
        futures: list[asyncio.Future[_Done]] = [loop.create_future() for _ in photos]
        self._waiting.extend(zip(photos, futures, strict=True))
        if self._running is None:
            self._running = loop.create_task(self._drain())
        done = await asyncio.gather(*futures)
        return Batched([item.score for item in done], done[0].started - asked, done[-1].ended - done[0].started)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                pixels = np.stack([photo for photo, _ in batch])
                started = self._started = time.monotonic()
                try:
                    found = (await loop.run_in_executor(self._thread, self._predict, pixels)).tolist()
                except Exception as error:
                    # All callers of this batch learn of it; the next batch is tried all the same.
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                ended = time.monotonic()
                for (_, future), score in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(_Done(score, started, ended))
                self._observe(len(batch), ended - started)
        finally:
            self._running = self._started = None

    def _next(self) -> list[tuple[np.ndarray, asyncio.Future[_Done]]]:
        batch: list[tuple[np.ndarray, asyncio.Future[_Done]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            # Nobody waits any more for what was asked by a client that has gone.
            if not item[1].done():
                batch.append(item)
        return batch
