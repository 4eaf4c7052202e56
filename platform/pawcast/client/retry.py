"""Retries: a request is sent again after a failure that may pass, until the patience is over.

tenacity decides when to send again: after the server's Retry-After or after an exponential backoff
with jitter, whichever is longer.

Source: https://tenacity.readthedocs.io,
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from pawcast.errors import ServiceError

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0

_T = TypeVar("_T")


class TransientError(ServiceError):
    """A failure that may pass without anybody's help.

    Attributes:
        retry_after: Seconds that the server asks the client to wait, or 0.
    """

    retry_after = 0.0


class Retrier:
    """Calls functions until they succeed; made by `retrying`."""

    def __init__(
        self, patience: float, deadline: asyncio.Timeout, on_failure: Callable[[TransientError], None]
    ) -> None:
        self._patience, self._deadline, self._on_failure = patience, deadline, on_failure
        self.last_failure: TransientError | None = None

    async def call(self, function: Callable[..., Awaitable[_T]], *args: object) -> _T:
        """Return a function's result; call it again after each `TransientError`."""
        # One object for each call: a shared one would mix up the state of concurrent calls.
        retry = AsyncRetrying(retry=retry_if_exception_type(TransientError), wait=self._pause)
        result: _T = await retry(function, *args)
        # The deadline may have passed in the moment in which this call succeeded.
        if not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._patience)
        return result

    def _pause(self, state: RetryCallState) -> float:
        """Note a failure; return the seconds to wait before the next attempt."""
        failure: Any = state.outcome and state.outcome.exception()
        self.last_failure = failure
        self._on_failure(failure)
        backoff = wait_exponential_jitter(
            multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS, jitter=FIRST_PAUSE_SECONDS
        )
        return max(backoff(state), failure.retry_after)


@asynccontextmanager
async def retrying(
    patience: float, on_failure: Callable[[TransientError], None] = lambda error: None
) -> AsyncGenerator[Retrier, None]:
    """Yield a `Retrier`; end the block when no call has succeeded for `patience` seconds.

    Args:
        patience: Seconds from the start, or from the last success.
        on_failure: Called with each failure that is going to be retried.

    Raises:
        TransientError: When the patience is over: the last failure.
    """
    deadline = asyncio.timeout(patience)
    retrier = Retrier(patience, deadline, on_failure)
    try:
        async with deadline:
            yield retrier
    except TimeoutError:
        raise retrier.last_failure or TransientError(f"no answer within {patience:g} s") from None
