"""How many requests go at once: slowly more while the server keeps up, half as many when it doesn't, as TCP does.

    an answer in time                      the window grows by 1/window: by one when all of a window have come
    429, 503, a timeout, a lost connection the window is halved, once for all requests that were on their way together;
                                           everybody waits, each a little differently: as long as `Retry-After`
                                           says at least, else twice as long as the last time

Source: Chiu and Jain, Analysis of the increase and decrease algorithms for congestion avoidance, 1989;
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
_START = 4


class Throttle:
    """Lets requests go, at most a window of them at once.

    Args:
        most: The window's limit.
        jitter: A random number between two.

    Attributes:
        window: Requests at once, from 1 to `most`; a fraction counts towards the next.
    """

    def __init__(self, most: int, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self.window = float(min(_START, most))
        self._most, self._jitter = most, jitter
        self._running = 0
        self._changed = asyncio.Condition()
        self._pause = FIRST_PAUSE
        self._spread = 0.0
        self._resume = self._slowed = -1.0

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[float, None]:
        """Wait for a turn, and hold it; yield when it began, which `failed` asks for."""
        async with self._changed:
            while self._running >= int(self.window):
                await self._changed.wait()
            self._running += 1
        try:
            while (left := self._resume - time.monotonic()) > 0:
                await asyncio.sleep(left + self._jitter(0, self._spread))
            yield time.monotonic()
        finally:
            self._running -= 1
            async with self._changed:
                self._changed.notify_all()

    def succeeded(self) -> None:
        """Note that a request was answered in time."""
        self.window = min(self.window + 1 / self.window, float(self._most))
        self._pause = FIRST_PAUSE

    def failed(self, began: float, retry_after: float | None = None) -> None:
        """Note that a request failed in passing.

        Args:
            began: When its turn began.
            retry_after: Seconds that the server asks to wait, if it does.
        """
        now = time.monotonic()
        if began > self._slowed:
            self.window = max(self.window / 2, 1.0)
            self._slowed = now
            # Never sooner than asked; without being asked, half of the pause is fixed and half is chance.
            self._spread = max(retry_after / 4, 0.1) if retry_after else self._pause / 2
            self._resume = max(self._resume, now + self._pause / 2)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if retry_after:
            self._resume = max(self._resume, now + retry_after)
