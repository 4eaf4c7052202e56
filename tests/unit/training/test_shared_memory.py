"""Sums over the ranks of a node. The ranks are threads in these tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawcast.errors import ClusterError
from pawcast.training import shared_memory
from pawcast.training.shared_memory import SharedMemory


class Group:
    """Runs a function on every rank at once."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._value: Any = None
        self._barrier = threading.Barrier(world)

    def run(self, function: Callable[[int, SharedMemory], Any]) -> list[Any]:
        def on_rank(rank: int) -> Any:
            def broadcast(value: Any) -> Any:
                if rank == 0:
                    self._value = value
                self._barrier.wait(30)
                return self._value

            return function(rank, SharedMemory(rank, self.world, broadcast))

        with ThreadPoolExecutor(self.world) as pool:
            return [future.result(60) for future in [pool.submit(on_rank, rank) for rank in range(self.world)]]


def messages(rank: int) -> list[list[np.ndarray]]:
    """A rank's arrays: larger than a piece, with fewer numbers than ranks, of integers."""
    random = np.random.default_rng(rank)
    gradients = [random.normal(size=shape).astype(np.float32) for shape in [(3, 3, 16), (1_000, 700), (), (5,)]]
    return [gradients, [random.normal(size=1)], [random.integers(-9, 9, (2, 3))], [g * 2 for g in gradients]] * 3


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_gets_the_sum_in_the_order_of_ranks(world):
    results = Group(world).run(lambda rank, memory: [memory.sum(*message) for message in messages(rank)])
    for parts, *sums in zip(zip(*map(messages, range(world)), strict=True), *results, strict=True):
        expected = [sum(arrays[1:], arrays[0]) for arrays in zip(*parts, strict=True)]
        for arrays in sums:
            for array, wanted in zip(arrays, expected, strict=True):
                assert array.dtype == wanted.dtype
                np.testing.assert_array_equal(array, wanted, strict=True)


def test_an_ended_rank_is_an_error_on_all_peers():
    def add(rank: int, memory: SharedMemory) -> str:
        memory.sum(np.ones(3))
        if rank == 1:
            for peer in memory._peers:
                peer.close()
            return "ended"
        with pytest.raises(ConnectionError, match="another rank of this node has ended"):
            memory.sum(np.ones(3))
        return "error"

    assert Group(3).run(add) == ["error", "ended", "error"]


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "_MEMORY", tmp_path)
    results = Group(2).run(lambda rank, memory: (memory.sum(np.ones(3))[0].tolist(), list(tmp_path.iterdir())))
    assert results == [([2.0, 2.0, 2.0], [])] * 2


def test_a_full_memory_is_an_error():
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(ClusterError, match="can't share memory"):
        shared_memory._allocate(full, 2**20)
