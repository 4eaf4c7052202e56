"""The micro-batcher: nobody waits when idle, all go together under load, failures reach their callers alone."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from pawcast.errors import ImageError
from pawcast.inference.batcher import Batcher, Call


def photo(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


async def predict(batcher: Batcher, photos: list[np.ndarray]) -> list[float]:
    call = Call(len(photos))
    batcher.add(call, enumerate(photos))
    await call.done
    return [item for item in call.found if not isinstance(item, ImageError)]


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
        batcher = Batcher(engine, (1, 2, 4, 8))
        first = asyncio.create_task(predict(batcher, [photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [asyncio.create_task(predict(batcher, [photo(i), photo(i + 100)])) for i in range(2, 8)]
        await asyncio.sleep(0)
        engine.go.set()
        return await asyncio.gather(first, *rest)

    answers = asyncio.run(scenario())
    assert answers == [[1.0], *([float(i), float(i + 100)] for i in range(2, 8))]
    assert engine.batches == [1, 8, 4]


def test_a_failing_batch_fails_its_callers_and_no_others():
    engine = Engine()
    engine.go.set()

    async def scenario() -> float:
        batcher = Batcher(engine, (1,))
        with pytest.raises(ValueError, match="broken"):
            await predict(batcher, [photo(99)])
        return (await predict(batcher, [photo(5)]))[0]

    assert asyncio.run(scenario()) == 5


def test_nothing_to_do_is_no_work():
    assert asyncio.run(predict(Batcher(Engine(), (1,)), [])) == []


def test_photos_may_come_one_after_another_from_threads_and_some_not_at_all():
    engine = Engine()
    engine.go.set()

    cut = ImageError("cut short")

    async def scenario() -> list[float | ImageError]:
        batcher, call = Batcher(engine, (1, 2)), Call(4)
        await asyncio.to_thread(batcher.add, call, [(2, photo(2)), (1, cut)])
        assert not call.done.done()
        await asyncio.to_thread(batcher.add, call, [(0, photo(7)), (3, photo(3))])
        await call.done
        return call.found

    assert asyncio.run(scenario()) == [7.0, cut, 2.0, 3.0]


def test_a_batch_is_as_large_as_the_engine_takes_at_once_and_the_rest_goes_with_the_next():
    engine = Engine()

    async def scenario() -> None:
        batcher = Batcher(engine, (2, 4))
        first = asyncio.create_task(predict(batcher, [photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [asyncio.create_task(predict(batcher, [photo(i)])) for i in range(2, 9)]
        await asyncio.sleep(0)
        engine.go.set()
        assert await asyncio.gather(first, *rest) == [[float(i)] for i in range(1, 9)]

    asyncio.run(scenario())
    assert engine.batches == [1, 4, 2, 1]


def test_a_caller_whose_photos_cannot_be_added_learns_why():
    async def scenario() -> None:
        call = Call(2)
        await asyncio.to_thread(call.fail, MemoryError("no room"))
        with pytest.raises(MemoryError, match="no room"):
            await call.done

    asyncio.run(scenario())


def test_what_nobody_waits_for_any_more_is_not_computed():
    engine = Engine()
    seen: list[int] = []

    async def scenario() -> None:
        batcher = Batcher(engine, (1,), observe=lambda photos, seconds: seen.append(photos))
        first = asyncio.create_task(predict(batcher, [photo(1)]))
        await asyncio.to_thread(engine.started.wait, 10)
        gone = asyncio.create_task(predict(batcher, [photo(2)] * 5))
        stays = asyncio.create_task(predict(batcher, [photo(3)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        engine.go.set()
        assert await first + await stays == [1, 3]

    asyncio.run(scenario())
    assert engine.batches == seen == [1, 1]


def test_a_caller_learns_how_long_it_waited_and_ran():
    engine = Engine()

    async def scenario() -> None:
        batcher = Batcher(engine, (1,))
        one, two = Call(1), Call(1)
        batcher.add(one, [(0, photo(1))])
        await asyncio.to_thread(engine.started.wait, 10)
        batcher.add(two, [(0, photo(2))])
        await asyncio.sleep(0.05)
        assert batcher.busy_seconds >= 0.04
        engine.go.set()
        await asyncio.gather(one.done, two.done)
        assert batcher.busy_seconds == 0
        assert one.ended - one.started >= 0.04
        assert two.started - two.added >= 0.04
        assert one.started - one.added < one.ended - one.started

    asyncio.run(scenario())


def test_lanes_share_what_waits_and_work_at_once():
    both = threading.Barrier(2)
    batches: list[int] = []

    def compute(pixels: np.ndarray) -> np.ndarray:
        batches.append(len(pixels))
        # Passed only by two at once.
        both.wait(10)
        return pixels[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> list[float]:
        return await predict(Batcher(compute, (1, 5), lanes=2), [photo(i) for i in range(10)])

    assert asyncio.run(scenario()) == list(range(10))
    assert batches == [5, 5]


def test_lanes_stay_usable_after_many_calls_at_once_some_of_which_fail():
    def compute(pixels: np.ndarray) -> np.ndarray:
        if (pixels == 99).any():
            raise ValueError("broken")
        return pixels[:, 0, 0, 0].astype(np.float32)

    async def ask(batcher: Batcher, value: int) -> float:
        return (await predict(batcher, [photo(value)]))[0]

    async def scenario() -> None:
        batcher = Batcher(compute, (1,), lanes=3)
        values = [99 if i % 7 == 0 else i % 90 for i in range(500)]
        found = await asyncio.gather(*(ask(batcher, value) for value in values), return_exceptions=True)
        for value, answer in zip(values, found, strict=True):
            assert isinstance(answer, ValueError) if value == 99 else answer == value
        assert await ask(batcher, 5) == 5
        assert batcher.busy_seconds == 0

    asyncio.run(scenario())
