"""Decode a split once: its shards become uint8 blocks in Ray's object store, which workers map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import ray

from pawcast.data import shards
from pawcast.data.manifest import Shard, Split
from pawcast.errors import StoreFullError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store
from pawcast.vision import preprocess

# Ray needs room for its own objects beside the blocks.
_USABLE_SHARE = 0.8


class DecodedSplit(NamedTuple):
    """A decoded split.

    Attributes:
        blocks: References to uint8 [n_i, S, S, 3], in shard order.
        labels: int64 [sum of n_i].
    """

    blocks: list[ray.ObjectRef]
    labels: np.ndarray


def decode_split(
    store: Store, split: Split, size: int, count: Callable[[int], None] = lambda photos: None
) -> DecodedSplit:
    """Decode and resize a whole split in parallel, and verify the sha256 of every shard.

    Args:
        store: Where the shards are.
        split: The split.
        size: Height and width in pixels.
        count: Called with the number of photos that have just been decoded, shard by shard.

    Raises:
        IntegrityError: If a shard was changed; nothing of the split is returned then.
        StoreError: If the store stays out of reach.
        StoreFullError: If neither Ray's object store nor the disk of a node can hold the photos.
    """
    # All at once: every block has to stay in the object store anyway. Blocks are task results: an
    # object that a task puts itself is lost with the task's process.
    results = [_decode_task.remote(store.uri, shard, size) for shard in split.shards]
    labels = [np.zeros(0, np.int64)]
    try:
        for _, reference in results:
            with ray_session.unwrap_errors():
                labels.append(ray.get(reference))
            count(len(labels[-1]))
    except ray.exceptions.OutOfDiskError:
        raise StoreFullError(
            "The decoded photos fit neither into Ray's object store nor onto the disk of a node",
            fix="free some space, start Ray with --object-spilling-directory on a larger disk, "
            "or with a larger --object-store-memory",
        ) from None
    return DecodedSplit([block for block, _ in results], np.concatenate(labels))


def memory_need(splits: Iterable[tuple[int, int]]) -> tuple[float, float]:
    """Return the memory that decoded splits take, and what Ray's object store has, both in GiB.

    Every worker maps all photos, so every node holds all of them: the smallest node counts.

    Args:
        splits: Photos, and their height and width in pixels.
    """
    stores = [node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"]]
    needed = sum(photos * size * size * 3 for photos, size in splits)
    return needed / 2**30, min(stores) * _USABLE_SHARE / 2**30


@ray.remote(num_cpus=1, num_returns=2)
def _decode_task(store_uri: str, shard: Shard, size: int) -> tuple[np.ndarray, np.ndarray]:
    table = shards.read(shared_store(store_uri), shard)
    block = np.empty((table.num_rows, size, size, 3), np.uint8)
    for i, data in enumerate(table["image"].combine_chunks().field("bytes")):
        block[i] = preprocess.load_image(data.as_py(), size)
    return block, table["label"].to_numpy()
