"""Batches made of whatever waits when the engine frees up: none waits when idle, all go together under load."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pawcast.errors import BusyError


class Batcher:
    """Gathers photos from concurrent callers into batches for an engine that takes one batch at a time.

    Args:
        predict: uint8 [n, S, S, 3] to float32 [n]; called in a thread of its own, never twice at once.
        max_batch: Most photos in a batch.
        max_waiting: Most photos that may wait; beyond that callers are turned away.
    """

    def __init__(
        self, predict: Callable[[np.ndarray], np.ndarray], max_batch: int = 64, max_waiting: int = 1_024
    ) -> None:
        self._predict = predict
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[float]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._running: asyncio.Task[None] | None = None

    async def predict(self, photos: list[np.ndarray]) -> list[float]:
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
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in photos]
        self._waiting.extend(zip(photos, futures, strict=True))
        if self._running is None:
            self._running = loop.create_task(self._drain())
        return list(await asyncio.gather(*futures))

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
                pixels = np.stack([photo for photo, _ in batch])
                try:
                    found = (await loop.run_in_executor(self._thread, self._predict, pixels)).tolist()
                except Exception as error:
                    # All callers of this batch learn of it; the next batch is tried all the same.
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), score in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(score)
        finally:
            self._running = None
