"""The batcher: no wait when idle, full batches under load, failures only for their own requests."""

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
    """Decode a photo, the value of all its pixels; 0 is no image, 77 fails otherwise."""
    if photo == 77:
        raise MemoryError("no room")
    if not photo:
        raise CUT
    return np.full((2, 2, 3), photo, np.uint8)


def recording(decoded: list[int]) -> Callable[[int], np.ndarray]:
    """Return a decoder that appends each photo to a list."""

    def decode(photo: int) -> np.ndarray:
        decoded.append(photo)
        return pixels(photo)

    return decode


def make_batcher(predict: Any, sizes: Sequence[int], decode: Any = pixels, **options: Any) -> Batcher:
    return Batcher(decode, predict, sizes, **options)


@pytest.fixture(autouse=True)
def no_threads_are_left() -> Iterator[None]:
    """Wait for the threads of a test's batchers to end."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("batcher"):
            thread.join(10)
            assert not thread.is_alive()


async def results_of(request: PendingRequest) -> list[float | ImageError]:
    await request.done
    return request.results


class Engine:
    """Returns each photo's first pixel; blocks in its first batch until `go` is set."""

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


def test_waiting_photos_share_a_batch_and_results_reach_their_requests():
    engine = Engine()

    async def scenario() -> list[list[float | ImageError]]:
        batcher = make_batcher(engine, (1, 2, 4, 8))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [batcher.submit([i, i + 100]) for i in range(2, 8)]
        engine.go.set()
        return [await results_of(request) for request in (first, *rest)]

    assert asyncio.run(scenario()) == [[1.0], *([float(i), float(i + 100)] for i in range(2, 8))]
    assert engine.batches == [1, 8, 4]


def test_a_failing_batch_fails_its_own_requests_only():
    async def scenario() -> list[float | ImageError]:
        batcher = make_batcher(idle_engine(), (1,))
        with pytest.raises(ValueError, match="broken"):
            await results_of(batcher.submit([99]))
        return await results_of(batcher.submit([5]))

    assert asyncio.run(scenario()) == [5.0]


def test_a_request_without_photos_is_done_at_once():
    async def scenario() -> list[float | ImageError]:
        return await results_of(make_batcher(Engine(), (1,)).submit([]))

    assert asyncio.run(scenario()) == []


def test_a_photo_that_cannot_be_decoded_gets_its_error_and_the_others_their_scores():
    engine = idle_engine()
    known = ImageError("too large")

    async def scenario() -> list[float | ImageError]:
        return await results_of(make_batcher(engine, (1, 2)).submit([7, 0, known, 3]))

    assert asyncio.run(scenario()) == [7.0, CUT, known, 3.0]
    assert engine.batches == [2]


def test_a_photo_for_which_the_model_predicts_nan_gets_an_error():
    def predict(batch: np.ndarray) -> np.ndarray:
        return np.where(batch[:, 0, 0, 0] == 5, np.nan, 0.5)

    async def scenario() -> list[float | ImageError]:
        return await results_of(make_batcher(predict, (1, 2)).submit([7, 5]))

    right, wrong = asyncio.run(scenario())
    assert right == 0.5
    assert isinstance(wrong, ImageError)
    assert "NaN" in wrong.what


def test_the_engine_is_not_called_if_no_photo_can_be_decoded():
    engine = idle_engine()

    async def scenario() -> list[float | ImageError]:
        return await results_of(make_batcher(engine, (1, 2)).submit([0, 0]))

    assert asyncio.run(scenario()) == [CUT, CUT]
    assert engine.batches == []


def test_a_failing_decoder_fails_its_own_request_only():
    async def scenario() -> list[float | ImageError]:
        batcher = make_batcher(idle_engine(), (1,))
        with pytest.raises(MemoryError, match="no room"):
            await results_of(batcher.submit([5, 77]))
        return await results_of(batcher.submit([5]))

    assert asyncio.run(scenario()) == [5.0]


def test_a_batch_has_a_size_of_the_engine_and_the_rest_goes_into_the_next():
    engine = Engine()

    async def scenario() -> None:
        batcher = make_batcher(engine, (2, 4))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        rest = [batcher.submit([i]) for i in range(2, 9)]
        engine.go.set()
        assert [await results_of(request) for request in (first, *rest)] == [[float(i)] for i in range(1, 9)]

    asyncio.run(scenario())
    assert engine.batches == [1, 4, 2, 1]


def test_a_full_batch_does_not_wait_for_photos_that_are_not_decoded_yet():
    engine = idle_engine()
    decoded_before: list[int] = []
    decoded: list[int] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        decoded_before.append(len(decoded))
        return engine(batch)

    async def scenario() -> None:
        await results_of(make_batcher(predict, (1, 2, 4), recording(decoded)).submit(range(1, 11)))

    asyncio.run(scenario())
    assert engine.batches == [4, 4, 2]
    assert decoded_before == [4, 8, 10]


def test_a_decoded_photo_does_not_wait_for_slow_ones():
    engine = idle_engine()

    def slowly(photo: int) -> np.ndarray:
        if photo > 1:
            time.sleep(0.05)
        return pixels(photo)

    async def scenario() -> None:
        await results_of(make_batcher(engine, (1, 2, 4), slowly).submit([1, 2, 3]))

    asyncio.run(scenario())
    # After the second photo, the batch has waited long enough.
    assert engine.batches == [2, 1]


def test_photos_of_a_cancelled_request_are_neither_decoded_nor_computed():
    engine = Engine()
    seen: list[int] = []
    decoded: list[int] = []

    async def scenario() -> None:
        batcher = make_batcher(engine, (1,), recording(decoded), observe=lambda photos, seconds: seen.append(photos))
        first = batcher.submit([1])
        await asyncio.to_thread(engine.started.wait, 10)
        gone, stays = batcher.submit([2] * 5), batcher.submit([3])
        gone.done.cancel()
        engine.go.set()
        assert await results_of(first) + await results_of(stays) == [1, 3]

    asyncio.run(scenario())
    assert engine.batches == seen == [1, 1]
    assert decoded == [1, 3]


def test_photos_of_a_request_cancelled_while_decoding_are_not_computed():
    engine = idle_engine()
    decoding, go = threading.Event(), threading.Event()

    def decode(photo: int) -> np.ndarray:
        if photo == 2:
            decoding.set()
            go.wait(10)
        return pixels(photo)

    async def scenario() -> list[float | ImageError]:
        batcher = make_batcher(engine, (1,), decode)
        gone = batcher.submit([2])
        await asyncio.to_thread(decoding.wait, 10)
        stays = batcher.submit([3])
        gone.done.cancel()
        go.set()
        return await results_of(stays)

    assert asyncio.run(scenario()) == [3]
    assert engine.batches == [1]


def test_a_request_has_its_waiting_decoding_and_computing_times():
    engine = Engine()

    async def scenario() -> None:
        batcher = make_batcher(engine, (1,))
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


def test_concurrent_batches_share_the_waiting_photos():
    decoding, computing = threading.Barrier(2), threading.Barrier(2)
    batches: list[int] = []

    def decode(photo: int) -> np.ndarray:
        # Only two threads together pass.
        decoding.wait(10)
        return pixels(photo)

    def compute(batch: np.ndarray) -> np.ndarray:
        batches.append(len(batch))
        computing.wait(10)
        return batch[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> list[float | ImageError]:
        return await results_of(
            make_batcher(compute, (1, 5, 16), decode, max_concurrent_batches=2, threads=2).submit(range(1, 11))
        )

    assert asyncio.run(scenario()) == list(range(1, 11))
    assert batches == [5, 5]


def test_beyond_the_concurrent_batches_only_one_full_batch_waits_at_the_engine():
    engine = Engine()
    decoded: list[int] = []
    computing: list[int] = []
    most: list[int] = []

    def compute(batch: np.ndarray) -> np.ndarray:
        computing.append(1)
        most.append(len(computing))
        scores = engine(batch)
        computing.pop()
        return scores

    async def scenario() -> None:
        batcher = make_batcher(compute, (1, 2, 4), recording(decoded), max_concurrent_batches=1, threads=4)
        requests = [batcher.submit([1])]
        await until(lambda: engine.batches == [1])
        requests.append(batcher.submit([2, 3, 4]))
        await until(lambda: len(decoded) == 4)
        assert engine.batches == [1]
        requests.append(batcher.submit(range(5, 16)))
        await until(lambda: len(decoded) == 15 and engine.batches == [1, 4])
        engine.go.set()
        assert [await results_of(request) for request in requests] == [[1], [2, 3, 4], list(range(5, 16))]

    asyncio.run(scenario())
    assert sorted(engine.batches) == [1, 2, 4, 4, 4]
    assert max(most) == 2


def test_the_batcher_works_after_many_requests_some_of_which_fail():
    def compute(batch: np.ndarray) -> np.ndarray:
        if (batch == 99).any():
            raise ValueError("broken")
        return batch[:, 0, 0, 0].astype(np.float32)

    async def scenario() -> None:
        batcher = make_batcher(compute, (1,), max_concurrent_batches=3, threads=3)
        values = [99 if i % 7 == 0 else i % 70 for i in range(500)]
        requests = [batcher.submit([value]) for value in values]
        outcomes = await asyncio.gather(*map(results_of, requests), return_exceptions=True)
        for value, outcome in zip(values, outcomes, strict=True):
            assert isinstance(outcome, ValueError) if value == 99 else outcome == [value or CUT]
        assert await results_of(batcher.submit([5])) == [5]
        assert batcher.busy_seconds == 0

    asyncio.run(scenario())


def test_a_lone_photo_wakes_one_thread_and_threads_are_used_again():
    async def scenario() -> None:
        before = batcher_threads()
        batcher = make_batcher(idle_engine(), (1, 2), threads=3)
        for photo in range(1, 6):
            assert await results_of(batcher.submit([photo])) == [photo]
            await until(lambda: idle_threads(batcher) == 1)
        assert batcher_threads() - before == 1
        assert await results_of(batcher.submit(range(1, 10))) == list(range(1, 10))
        await until(lambda: idle_threads(batcher) == batcher_threads() - before)
        assert batcher_threads() - before <= 3

    asyncio.run(scenario())


def test_an_unused_batcher_ends_its_threads_and_frees_its_engine():
    async def scenario() -> weakref.ref[Engine]:
        engine = idle_engine()
        batcher = make_batcher(engine, (1, 2), max_concurrent_batches=2, threads=2)
        assert await results_of(batcher.submit([1, 2])) == [1, 2]
        return weakref.ref(engine)

    before = batcher_threads()
    gone = asyncio.run(scenario())
    asyncio.run(until(lambda: batcher_threads() == before))
    gc.collect()
    assert gone() is None


def test_a_batcher_that_only_its_requests_hold_still_answers_them():
    engine = Engine()

    async def scenario() -> None:
        request = make_batcher(engine, (1, 2), threads=2).submit([1, 2, 3])
        await asyncio.to_thread(engine.started.wait, 10)
        gc.collect()
        engine.go.set()
        assert await results_of(request) == [1, 2, 3]

    asyncio.run(scenario())


def idle_threads(batcher: Batcher) -> int:
    return int(batcher._pool._idle_semaphore._value)


def batcher_threads() -> int:
    return sum(thread.name.startswith("batcher") for thread in threading.enumerate())


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.001)
