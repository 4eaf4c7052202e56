"""Decoded photos in a file: shared, whole, and gone afterwards."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pawcast.data import scratch, shards
from pawcast.data.manifest import Split
from pawcast.errors import IntegrityError, StoreFullError
from pawcast.store import open_store
from pawcast.vision import preprocess
from tests.support.files import encode


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def split(store, picture):
    photos = [encode(np.roll(picture, i, axis=1), "PNG") for i in range(10)]
    rows = [shards.PhotoRow(f"{i}", f"{i}.png", i % 2, "", 80, 60, data) for i, data in enumerate(photos)]
    written = [shards.write(store, "d", "train", rows[i : i + 4], ["cat", "dog"]) for i in (0, 4, 8)]
    return Split(photos=10, per_class={"cat": 5, "dog": 5}, shards=written)


def test_all_workers_of_a_node_map_what_one_decodes(store, split, tmp_path):
    path, done = tmp_path / "shared", []
    barrier = threading.Barrier(3)

    def work(rank: int) -> tuple[np.ndarray, np.ndarray]:
        return scratch.share(
            store, split, 32, path, leader=rank == 1, barrier=barrier.wait, threads=2, progress=done.append
        )

    path.write_bytes(b"left by a run that was killed")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, range(3)))
    expected = [
        preprocess.load_image(data.as_py(), 32)
        for shard in split.shards
        for data in shards.read(store, shard)["image"].combine_chunks().field("bytes")
    ]
    for pixels, labels in results:
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(labels, np.arange(10) % 2)
        assert not pixels.flags.writeable
    assert sum(done) == 10
    assert not path.exists()


def test_a_full_disk_is_said_so_before_anything_is_written(store, split, tmp_path, monkeypatch):
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreFullError, match="too full for the decoded photos"):
        scratch.share(store, split, 32, tmp_path / "shared", leader=True, barrier=lambda: None, threads=1)
    assert not (tmp_path / "shared").exists()


def test_a_changed_shard_is_refused_and_nothing_is_left(store, split, tmp_path):
    store.put(split.shards[1].key, b"something else")
    with pytest.raises(IntegrityError, match=split.shards[1].key):
        scratch.share(store, split, 32, tmp_path / "shared", leader=True, barrier=lambda: None, threads=1)
    assert not (tmp_path / "shared").exists()
