"""Decode once: a split's shards become uint8 blocks in Ray's object store, which all workers map, not copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray

from pawcast.data import shards
from pawcast.data.manifest import Shard, Split
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store
from pawcast.vision import preprocess

# Ray wants room for its own objects beside ours.
_USABLE = 0.8


class DecodedSplit(NamedTuple):
    """A decoded split.

    Attributes:
        blocks: References to uint8 [n_i, S, S, 3], in shard order.
        rows: The n_i.
        labels: int64 [sum of n_i].
    """

    blocks: list[ray.ObjectRef]
    rows: list[int]
    labels: np.ndarray


def decode_split(
    store: Store, split: Split, size: int, progress: Callable[[int], None] = lambda photos: None
) -> DecodedSplit:
    """Decode and resize a whole split into the object store, in parallel, and verify every shard on the way.

    Args:
        store: Where the shards are.
        split: The split.
        size: Height and width in pixels.
        progress: Called with the photos that have just been done.

    Raises:
        IntegrityError: If a shard was changed; nothing of the split is returned then.
        StoreError: If the store stays out of reach.
    """
    # Every block is wanted in the object store at once, so nothing is gained by submitting them piecemeal.
    # They are the tasks' own results, not objects put by the tasks: those would be lost with their worker.
    results = [_decode_task.remote(store.uri, shard, size) for shard in split.shards]
    waiting = [labels for _, labels in results]
    try:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            with ray_session.unwrap_errors():
                progress(len(ray.get(done[0])))
    finally:
        # After a failure: nobody wants the others any more.
        for unwanted in waiting:
            ray.cancel(unwanted, force=False)
    labels = ray.get([labels for _, labels in results])
    return DecodedSplit(
        blocks=[block for block, _ in results],
        rows=[len(block_labels) for block_labels in labels],
        labels=np.concatenate([*labels, np.zeros(0, np.int64)]),
    )


def room_for(splits: Iterable[tuple[int, int]]) -> tuple[float, float]:
    """Return what decoded splits need, each (photos, height and width), and what Ray's object store has, in GiB.

    Every worker maps all photos, so every node must hold them all: the smallest node counts.
    """
    stores = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return sum(photos * size * size * 3 for photos, size in splits) / 2**30, min(stores) * _USABLE / 2**30


def decode_table(table: pa.Table, size: int, block: np.ndarray) -> None:
    """Decode a shard's photos into `block`, uint8 [n, size, size, 3]."""
    for i, data in enumerate(table["image"].combine_chunks().field("bytes")):
        block[i] = preprocess.load_image(data.as_py(), size)


@ray.remote(num_cpus=1, num_returns=2)
def _decode_task(store_uri: str, shard: Shard, size: int) -> tuple[np.ndarray, np.ndarray]:
    table = shards.read(shared_store(store_uri), shard)
    block = np.empty((table.num_rows, size, size, 3), np.uint8)
    decode_table(table, size, block)
    labels: np.ndarray = table["label"].to_numpy()
    return block, labels
