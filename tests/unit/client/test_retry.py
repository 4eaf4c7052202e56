"""When a failed request is sent again, and when the client gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from tenacity import AsyncRetrying, Future, RetryCallState

from pawcast.client import retry
from pawcast.client.retry import LONGEST_PAUSE_SECONDS, Retrier, TransientError, retrying
from pawcast.errors import ConflictError


def busy(retry_after: float = 0) -> TransientError:
    error = TransientError("busy")
    error.retry_after = retry_after
    return error


def pause(attempt: int, error: TransientError) -> float:
    """Seconds that the client waits after an attempt that ended with an error."""
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.outcome = Future.construct(attempt, error, has_exception=True)
    return Retrier(1, asyncio.Timeout(None), lambda error: None)._pause(state)


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """A function that raises these errors, one in each call, and then returns "done"."""
    left = list(errors)

    async def function() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return function


async def run(function: Callable[[], Awaitable[str]], patience: float, failures: list[TransientError]) -> str:
    async with retrying(patience, failures.append) as retrier:
        return await retrier.call(function)


def test_pauses_double_with_jitter_up_to_a_limit():
    first_pause = retry.FIRST_PAUSE_SECONDS
    for attempt in range(1, 5):
        expected = first_pause * 2 ** (attempt - 1)
        pauses = [pause(attempt, busy()) for _ in range(50)]
        assert all(expected <= seconds <= expected + first_pause for seconds in pauses)
        assert len(set(pauses)) > 1
    assert pause(5_000, busy()) == LONGEST_PAUSE_SECONDS


def test_retry_after_is_a_lower_bound():
    assert pause(1, busy(7)) == 7
    assert pause(1, busy(60)) == 60
    assert pause(5_000, busy(1)) == LONGEST_PAUSE_SECONDS


def test_transient_failures_are_retried_and_reported():
    failures: list[TransientError] = []
    errors = [busy(), busy(0.05)]
    started = time.monotonic()
    assert asyncio.run(run(failing(*errors), 5, failures)) == "done"
    assert failures == errors
    assert time.monotonic() - started >= 0.05


def test_other_errors_are_raised_at_once():
    failures: list[TransientError] = []
    with pytest.raises(ConflictError, match="taken"):
        asyncio.run(run(failing(ConflictError("taken")), 5, failures))
    assert failures == []


def test_patience_ends_during_a_pause_and_during_a_call():
    async def hang() -> str:
        await asyncio.sleep(60)
        return "too late"

    for function, reason in ((failing(busy(60)), "busy"), (hang, r"no answer within 0\.2 s")):
        started = time.monotonic()
        with pytest.raises(TransientError, match=reason):
            asyncio.run(run(function, 0.2, []))
        assert 0.2 <= time.monotonic() - started < 5


def test_each_answer_renews_the_patience():
    async def answers() -> int:
        async with retrying(0.3) as retrier:
            for _ in range(4):
                await asyncio.sleep(0.15)
                await retrier.call(failing())
        return 4

    assert asyncio.run(answers()) == 4


def test_a_call_may_succeed_in_the_moment_in_which_the_patience_ends():
    async def late() -> str:
        deadline = asyncio.timeout(0.01)
        with pytest.raises(TimeoutError):
            async with deadline:
                await asyncio.sleep(60)
        return await Retrier(1, deadline, lambda error: None).call(failing())

    assert asyncio.run(late()) == "done"


def test_concurrent_calls_do_not_mix_up_their_attempts(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)

    async def all_calls() -> list[str]:
        async with retrying(10) as retrier:
            functions = [failing(*(busy() for _ in range(count % 4))) for count in range(40)]
            return await asyncio.gather(*(retrier.call(function) for function in functions))

    assert asyncio.run(all_calls()) == ["done"] * 40
