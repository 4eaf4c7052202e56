"""The micro-batcher: nobody waits when idle, all go together under load, failures reach their callers alone."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from pawcast.errors import BusyError
from pawcast.inference.batcher import Batcher


def photo(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


class Engine:
    """Answers with each photo's first pixel; holds its first batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        self.started.set()
        self.go.wait(10)
        if (pixels == 99).any():
            raise ValueError("broken")
        return pixels[:, 0, 0, 0].astype(np.float32)


def test_what_waits_goes_together_and_answers_go_to_their_askers():
    engine = Engine()

    async def scenario() -> list[list[float]]:
        batcher = Batcher(engine, max_batch=8)
        first = asyncio.create_task(batcher.predict([photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [asyncio.create_task(batcher.predict([photo(i), photo(i + 100)])) for i in range(2, 8)]
        await asyncio.sleep(0)
        engine.go.set()
        return [found.scores for found in await asyncio.gather(first, *rest)]

    answers = asyncio.run(scenario())
    assert answers == [[1.0], *([float(i), float(i + 100)] for i in range(2, 8))]
    assert engine.batches == [1, 8, 4]


def test_a_failing_batch_fails_its_callers_and_no_others():
    engine = Engine()
    engine.go.set()

    async def scenario() -> float:
        batcher = Batcher(engine)
        with pytest.raises(ValueError, match="broken"):
            await batcher.predict([photo(99)])
        return (await batcher.predict([photo(5)])).scores[0]

    assert asyncio.run(scenario()) == 5


def test_too_many_are_turned_away_and_the_accepted_answered():
    engine = Engine()

    async def scenario() -> list[float]:
        batcher = Batcher(engine, max_batch=2, max_waiting=4)
        first = asyncio.create_task(batcher.predict([photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        accepted = asyncio.create_task(batcher.predict([photo(i) for i in range(4)]))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="4 photos waiting"):
            await batcher.predict([photo(9)])
        engine.go.set()
        await first
        return (await accepted).scores

    assert asyncio.run(scenario()) == [0, 1, 2, 3]


def test_nothing_to_do_is_no_work():
    assert asyncio.run(Batcher(Engine()).predict([])).scores == []


def test_what_nobody_waits_for_any_more_is_not_computed():
    engine = Engine()
    seen: list[int] = []

    async def scenario() -> None:
        batcher = Batcher(engine, observe=lambda photos, seconds: seen.append(photos))
        first = asyncio.create_task(batcher.predict([photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        gone = asyncio.create_task(batcher.predict([photo(2)] * 5))
        stays = asyncio.create_task(batcher.predict([photo(3)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        engine.go.set()
        assert (await first).scores + (await stays).scores == [1, 3]

    asyncio.run(scenario())
    assert engine.batches == seen == [1, 1]


def test_a_caller_learns_how_long_it_waited_and_ran():
    engine = Engine()

    async def scenario() -> None:
        batcher = Batcher(engine)
        first = asyncio.create_task(batcher.predict([photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        second = asyncio.create_task(batcher.predict([photo(2)]))
        await asyncio.sleep(0.05)
        assert batcher.busy_seconds >= 0.04
        engine.go.set()
        one, two = await first, await second
        await asyncio.sleep(0)
        assert batcher.busy_seconds == 0
        assert one.ran >= 0.04
        assert two.waited >= 0.04
        assert one.waited < one.ran

    asyncio.run(scenario())


def test_lanes_share_what_waits_and_work_at_once():
    both = threading.Barrier(2)
    batches: list[int] = []

    def predict(pixels: np.ndarray) -> np.ndarray:
        batches.append(len(pixels))
        # Passed only by two at once.
        both.wait(10)
        return pixels[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> list[float]:
        return (await Batcher(predict, lanes=2).predict([photo(i) for i in range(10)])).scores

    assert asyncio.run(scenario()) == list(range(10))
    assert batches == [5, 5]


def test_lanes_stay_usable_after_many_calls_at_once_some_of_which_fail():
    def predict(pixels: np.ndarray) -> np.ndarray:
        if (pixels == 99).any():
            raise ValueError("broken")
        return pixels[:, 0, 0, 0].astype(np.float32)

    async def ask(batcher: Batcher, value: int) -> float:
        return (await batcher.predict([photo(value)])).scores[0]

    async def scenario() -> None:
        batcher = Batcher(predict, max_batch=1, lanes=3)
        values = [99 if i % 7 == 0 else i % 90 for i in range(500)]
        found = await asyncio.gather(*(ask(batcher, value) for value in values), return_exceptions=True)
        for value, answer in zip(values, found, strict=True):
            assert isinstance(answer, ValueError) if value == 99 else answer == value
        assert await ask(batcher, 5) == 5
        assert batcher.busy_seconds == 0

    asyncio.run(scenario())
