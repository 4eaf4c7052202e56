"""The micro-batcher: nobody waits when idle, all go together under load, failures reach their callers alone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from pawcast.errors import ImageError
from pawcast.inference.batcher import Batcher, PendingRequest

CUT = ImageError("cut short")


def pixels(photo: int) -> np.ndarray:
    """A decoder: a photo is the value of all its pixels; 0 can't be decoded, and 77 is a fault of ours."""
    if photo == 77:
        raise MemoryError("no room")
    if not photo:
        raise CUT
    return np.full((2, 2, 3), photo, np.uint8)


def noting(decoded: list[int]) -> Callable[[int], np.ndarray]:
    """A decoder that notes each photo that it is given."""

    def decode(photo: int) -> np.ndarray:
        decoded.append(photo)
        return pixels(photo)

    return decode


_batchers: list[Batcher] = []


def make(predict: Any, sizes: Sequence[int], decode: Any = pixels, **options: Any) -> Batcher:
    _batchers.append(Batcher(decode, predict, sizes, **options))
    return _batchers[-1]


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    """Close what the test made, and wait until its threads have ended."""
    before = set(threading.enumerate())
    yield
    while _batchers:
        _batchers.pop().close()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "batcher":
            thread.join(10)
            assert not thread.is_alive()


async def answers(call: PendingRequest) -> list[float | ImageError]:
    await call.done
    return call.results


class Engine:
    """Answers with each photo's first pixel; holds its first batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        self.started.set()
        self.go.wait(10)
        if (batch == 99).any():
            raise ValueError("broken")
        return batch[:, 0, 0, 0].astype(np.float32)


def idle_engine() -> Engine:
    engine = Engine()
    engine.go.set()
    return engine


def test_what_waits_goes_together_and_answers_go_to_their_askers():
    engine = Engine()

    async def scenario() -> list[list[float | ImageError]]:
        batcher = make(engine, (1, 2, 4, 8))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [batcher.submit([i, i + 100]) for i in range(2, 8)]
        engine.go.set()
        return [await answers(call) for call in (first, *rest)]

    assert asyncio.run(scenario()) == [[1.0], *([float(i), float(i + 100)] for i in range(2, 8))]
    assert engine.batches == [1, 8, 4]


def test_a_failing_batch_fails_its_callers_and_no_others():
    async def scenario() -> list[float | ImageError]:
        batcher = make(idle_engine(), (1,))
        with pytest.raises(ValueError, match="broken"):
            await answers(batcher.submit([99]))
        return await answers(batcher.submit([5]))

    assert asyncio.run(scenario()) == [5.0]


def test_nothing_to_do_is_no_work():
    async def scenario() -> list[float | ImageError]:
        return await answers(make(Engine(), (1,)).submit([]))

    assert asyncio.run(scenario()) == []


def test_a_photo_that_cannot_be_decoded_is_answered_by_the_reason_and_its_neighbours_as_ever():
    engine = idle_engine()
    known = ImageError("too large")

    async def scenario() -> list[float | ImageError]:
        return await answers(make(engine, (1, 2)).submit([7, 0, known, 3]))

    assert asyncio.run(scenario()) == [7.0, CUT, known, 3.0]
    assert engine.batches == [2]


def test_photos_none_of_which_can_be_decoded_need_no_engine():
    engine = idle_engine()

    async def scenario() -> list[float | ImageError]:
        return await answers(make(engine, (1, 2)).submit([0, 0]))

    assert asyncio.run(scenario()) == [CUT, CUT]
    assert engine.batches == []


def test_a_decoder_that_breaks_fails_its_caller_and_no_others():
    async def scenario() -> list[float | ImageError]:
        batcher = make(idle_engine(), (1,))
        with pytest.raises(MemoryError, match="no room"):
            await answers(batcher.submit([5, 77]))
        return await answers(batcher.submit([5]))

    assert asyncio.run(scenario()) == [5.0]


def test_a_batch_is_as_large_as_the_engine_takes_at_once_and_the_rest_goes_with_the_next():
    engine = Engine()

    async def scenario() -> None:
        batcher = make(engine, (2, 4))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [batcher.submit([i]) for i in range(2, 9)]
        engine.go.set()
        assert [await answers(call) for call in (first, *rest)] == [[float(i)] for i in range(1, 9)]

    asyncio.run(scenario())
    assert engine.batches == [1, 4, 2, 1]


def test_a_full_batch_does_not_wait_for_photos_that_are_still_to_be_decoded():
    engine = idle_engine()
    decoded_before: list[int] = []
    decoded: list[int] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        decoded_before.append(len(decoded))
        return engine(batch)

    async def scenario() -> None:
        await answers(make(predict, (1, 2, 4), noting(decoded)).submit(range(1, 11)))

    asyncio.run(scenario())
    assert engine.batches == [4, 4, 2]
    assert decoded_before == [4, 8, 10]


def test_a_decoded_photo_does_not_wait_for_others_that_take_long():
    engine = idle_engine()

    def slowly(photo: int) -> np.ndarray:
        if photo > 1:
            time.sleep(0.05)
        return pixels(photo)

    async def scenario() -> None:
        await answers(make(engine, (1, 2, 4), slowly).submit([1, 2, 3]))

    asyncio.run(scenario())
    # With the first after it, the batch has waited long enough.
    assert engine.batches == [2, 1]


def test_what_nobody_waits_for_any_more_is_neither_decoded_nor_computed():
    engine = Engine()
    seen: list[int] = []
    decoded: list[int] = []

    async def scenario() -> None:
        batcher = make(engine, (1,), noting(decoded), observe=lambda photos, seconds: seen.append(photos))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        gone, stays = batcher.submit([2] * 5), batcher.submit([3])
        gone.done.cancel()
        engine.go.set()
        assert await answers(first) + await answers(stays) == [1, 3]

    asyncio.run(scenario())
    assert engine.batches == seen == [1, 1]
    assert decoded == [1, 3]


def test_what_was_decoded_for_a_client_that_has_gone_since_is_not_computed():
    engine = idle_engine()
    decoding, go = threading.Event(), threading.Event()

    def decode(photo: int) -> np.ndarray:
        if photo == 2:
            decoding.set()
            go.wait(10)
        return pixels(photo)

    async def scenario() -> list[float | ImageError]:
        batcher = make(engine, (1,), decode)
        gone = batcher.submit([2])
        await asyncio.to_thread(decoding.wait, 10)
        stays = batcher.submit([3])
        gone.done.cancel()
        go.set()
        return await answers(stays)

    assert asyncio.run(scenario()) == [3]
    assert engine.batches == [1]


def test_a_caller_learns_how_long_it_waited_and_ran():
    engine = Engine()

    async def scenario() -> None:
        batcher = make(engine, (1,))
        one = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        two = batcher.submit([2])
        await asyncio.sleep(0.05)
        assert batcher.busy_seconds >= 0.04
        engine.go.set()
        await asyncio.gather(one.done, two.done)
        assert batcher.busy_seconds == 0
        assert one.finished_at - one.started_at >= 0.04
        assert two.started_at - two.submitted_at >= 0.04
        assert one.started_at - one.submitted_at < one.finished_at - one.started_at
        assert 0 < one.decode_seconds <= one.started_at - one.submitted_at

    asyncio.run(scenario())


def test_lanes_share_what_waits_and_work_at_once():
    decoding, computing = threading.Barrier(2), threading.Barrier(2)
    batches: list[int] = []

    def decode(photo: int) -> np.ndarray:
        # Passed only by two at once.
        decoding.wait(10)
        return pixels(photo)

    def compute(batch: np.ndarray) -> np.ndarray:
        batches.append(len(batch))
        computing.wait(10)
        return batch[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> list[float | ImageError]:
        return await answers(
            make(compute, (1, 5, 16), decode, max_concurrent_batches=2, threads=2).submit(range(1, 11))
        )

    assert asyncio.run(scenario()) == list(range(1, 11))
    assert batches == [5, 5]


def test_beyond_the_lanes_one_full_batch_waits_in_line_and_no_other():
    engine = Engine()
    decoded: list[int] = []
    computing: list[int] = []
    most: list[int] = []

    def compute(batch: np.ndarray) -> np.ndarray:
        computing.append(1)
        most.append(len(computing))
        found = engine(batch)
        computing.pop()
        return found

    async def scenario() -> None:
        batcher = make(compute, (1, 2, 4), noting(decoded), max_concurrent_batches=1, threads=4)
        calls = [batcher.submit([1])]
        await until(lambda: engine.batches == [1])
        calls.append(batcher.submit([2, 3, 4]))
        await until(lambda: len(decoded) == 4)
        assert engine.batches == [1]
        calls.append(batcher.submit(range(5, 16)))
        await until(lambda: len(decoded) == 15 and engine.batches == [1, 4])
        engine.go.set()
        assert [await answers(call) for call in calls] == [[1], [2, 3, 4], list(range(5, 16))]

    asyncio.run(scenario())
    assert sorted(engine.batches) == [1, 2, 4, 4, 4]
    assert max(most) == 2


def test_lanes_stay_usable_after_many_calls_at_once_some_of_which_fail():
    def compute(batch: np.ndarray) -> np.ndarray:
        if (batch == 99).any():
            raise ValueError("broken")
        return batch[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> None:
        batcher = make(compute, (1,), max_concurrent_batches=3, threads=3)
        values = [99 if i % 7 == 0 else i % 70 for i in range(500)]
        calls = [batcher.submit([value]) for value in values]
        found = await asyncio.gather(*map(answers, calls), return_exceptions=True)
        for value, answer in zip(values, found, strict=True):
            assert isinstance(answer, ValueError) if value == 99 else answer == [value or CUT]
        assert await answers(batcher.submit([5])) == [5]
        assert batcher.busy_seconds == 0

    asyncio.run(scenario())


def test_a_lone_photo_wakes_one_thread_and_threads_are_used_again():
    threads: list[str] = []

    def decode(photo: int) -> np.ndarray:
        threads.append(threading.current_thread().name)
        return pixels(photo)

    async def scenario() -> None:
        before = batcher_threads()
        batcher = make(idle_engine(), (1, 2), decode, threads=3)
        for photo in range(1, 6):
            assert await answers(batcher.submit([photo])) == [photo]
            await until(lambda: batcher._waiting_threads == 1)
        assert batcher_threads() - before == 1
        assert await answers(batcher.submit(range(1, 10))) == list(range(1, 10))
        await until(lambda: batcher._waiting_threads == 3)
        assert batcher_threads() - before == 3

    asyncio.run(scenario())


def test_a_closed_batcher_answers_what_was_submitted_before_and_after():
    engine = Engine()

    async def scenario() -> None:
        batcher = make(engine, (1, 2), threads=2)
        before = batcher.submit([1, 2, 3])
        await asyncio.to_thread(engine.started.wait, 10)
        batcher.close()
        after = batcher.submit([4])
        engine.go.set()
        assert await answers(before) == [1, 2, 3]
        assert await answers(after) == [4]
        await until(lambda: batcher._busy_threads == 0)
        assert await answers(batcher.submit([5])) == [5]

    asyncio.run(scenario())


def test_a_closed_batcher_ends_its_threads_and_lets_its_engine_go():
    async def scenario() -> weakref.ref[Engine]:
        engine = idle_engine()
        batcher = make(engine, (1, 2), max_concurrent_batches=2, threads=2)
        assert await answers(batcher.submit([1, 2])) == [1, 2]
        batcher.close()
        _batchers.clear()
        return weakref.ref(engine)

    before = batcher_threads()
    gone = asyncio.run(scenario())
    asyncio.run(until(lambda: batcher_threads() == before))
    gc.collect()
    assert gone() is None


def batcher_threads() -> int:
    return sum(thread.name == "batcher" for thread in threading.enumerate())


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.001)
