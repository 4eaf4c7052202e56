"""A decoded split in a file of the node's own disk, for a set that Ray's object store can't hold.

All workers of a node map one file, so the system keeps in memory what there is room for and reads the rest
again: slower than the object store once memory is short, never dead. The file has no name any more once all have
mapped it, and is gone when the last of them ends, however that happens.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np

from pawcast.data import shards
from pawcast.data.blocks import decode_table
from pawcast.data.manifest import Shard, Split
from pawcast.errors import StoreError, StoreFullError
from pawcast.store import Store

_LABEL_BYTES = 8


def share(
    store: Store,
    split: Split,
    size: int,
    path: Path,
    *,
    leader: bool,
    barrier: Callable[[], None],
    threads: int,
    progress: Callable[[int], None] = lambda photos: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a split into a file, as its leader, or wait for the leader; map the file.

    Args:
        store: Where the shards are.
        split: The split, of one photo at least.
        size: Height and width in pixels.
        path: The same on all workers of one node, and no other's; a file left there is replaced.
        leader: Whether this worker decodes. One of the node's does.
        barrier: Waits until all workers have come here.
        threads: How many photos to decode at once.
        progress: Called on the leader with the photos that have just been done.

    Returns:
        uint8 [n, S, S, 3] and int64 [n], in shard order, mapped and read-only.

    Raises:
        StoreFullError: If the disk can't hold them. Nothing is left there.
        IntegrityError: If a shard was changed.
    """
    shape = (split.photos, size, size, 3)
    start = split.photos * _LABEL_BYTES
    try:
        if leader:
            _allocate(path, start + int(np.prod(shape)))
            labels = np.memmap(path, np.int64, "r+", shape=shape[:1])
            pixels = np.memmap(path, np.uint8, "r+", offset=start, shape=shape)
            _decode(store, split, size, pixels, labels, threads, progress)
        barrier()
        labels = np.memmap(path, np.int64, "r", shape=shape[:1])
        pixels = np.memmap(path, np.uint8, "r", offset=start, shape=shape)
        barrier()
    finally:
        if leader:
            path.unlink(missing_ok=True)
    return pixels, labels


def _allocate(path: Path, size: int) -> None:
    """Make a file with all its blocks, since a mapped file that turns out too large for its disk kills who writes."""
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(
                "The disk is too full for the decoded photos",
                received=f"{size / 2**30:.1f} GiB for {path.parent}",
                fix="free some space, set TMPDIR to a larger disk, or start Ray with a larger --object-store-memory",
            ) from None
        raise StoreError(f"{path.parent} can't be written", received=error.strerror, fix="set TMPDIR") from None


def _decode(
    store: Store,
    split: Split,
    size: int,
    pixels: np.ndarray,
    labels: np.ndarray,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    def fill(shard: Shard, first: int) -> int:
        table = shards.read(store, shard)
        decode_table(table, size, pixels[first : first + shard.rows])
        labels[first : first + shard.rows] = table["label"].to_numpy()
        return shard.rows

    firsts = accumulate((shard.rows for shard in split.shards), initial=0)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for rows in pool.map(fill, split.shards, firsts):
            progress(rows)
