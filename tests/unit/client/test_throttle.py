"""How many requests go at once, and when: additive increase, multiplicative decrease, pauses with jitter."""

from __future__ import annotations

import asyncio
import time

import pytest

from pawcast.client.throttle import LONGEST_PAUSE, Throttle


def test_it_grows_by_one_a_window_up_to_the_limit():
    throttle = Throttle(8)
    windows = []
    for _ in range(60):
        throttle.succeeded()
        windows.append(throttle.window)
    assert 4.9 < windows[4] < 5.2
    assert windows == sorted(windows)
    assert windows[-1] == 8
    assert Throttle(2).window == 2


def test_it_halves_once_for_all_that_failed_together():
    throttle = Throttle(8)
    began = time.monotonic()
    for _ in range(4):
        throttle.failed(began)
    assert throttle.window == 2
    for _ in range(5):
        time.sleep(0.002)
        throttle.failed(time.monotonic())
    assert throttle.window == 1


def running(throttle: Throttle, tasks: int) -> int:
    """How many of some tasks had a turn at once."""
    most = now = 0

    async def task() -> None:
        nonlocal most, now
        async with throttle.turn():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1

    async def all_tasks() -> None:
        await asyncio.gather(*(task() for _ in range(tasks)))

    asyncio.run(all_tasks())
    return most


def test_no_more_turns_than_the_window():
    assert running(Throttle(3), 10) == 3
    assert running(Throttle(64), 10) == 4
    throttle = Throttle(64)
    throttle.window = 1.9
    assert running(throttle, 10) == 1


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_nobody_comes_sooner_than_the_server_asked(chance):
    throttle = Throttle(2, lambda low, high: low + chance * (high - low))
    throttle.failed(time.monotonic(), retry_after=0.8)
    began = time.monotonic()
    running(throttle, 1)
    assert 0.8 + chance * 0.2 <= time.monotonic() - began + 0.02 < 2


def test_pauses_double_and_end():
    throttle = Throttle(2)
    pauses = []
    for _ in range(9):
        time.sleep(0.002)
        throttle.failed(time.monotonic())
        pauses.append(throttle._pause)
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE
    throttle.succeeded()
    assert throttle._pause == 0.5


def test_a_cancelled_turn_is_free_again():
    throttle = Throttle(1)

    async def cancelled() -> None:
        async def hold() -> None:
            async with throttle.turn():
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), throttle.turn():
            pass

    asyncio.run(cancelled())
