"""Read a published dataset again, to the last byte, and compare it with what its manifest says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import ray

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Shard
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store


def verify(store: Store, dataset: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Manifest:
    """Verify the manifest, the report, every shard and every photo of a dataset, by Ray tasks.

    Args:
        store: Where it is.
        dataset: `NAME` or `NAME@DIGEST`.
        progress: Called with photos done and photos in all.

    Returns:
        The manifest, everything being as it says.

    Raises:
        IntegrityError: Naming what differs or is missing, after all has been read.
        NotFoundError: If there is no such dataset.
    """
    manifest = manifests.load(store, dataset)
    wrong = (
        [] if _report_is_whole(store, manifest) else [manifests.report_key(manifest.dataset, manifest.report_sha256)]
    )
    everything = [shard for split in manifest.splits.values() for shard in split.shards]
    total = sum(split.photos for split in manifest.splits.values())
    labels: Counter[int] = Counter()
    done = 0
    progress(done, total)
    with ray_session.connect():
        for index, counts in ray_session.run_tasks(_verify_task, [(store.uri, shard) for shard in everything]):
            shard = everything[index]
            if counts is None:
                wrong.append(shard.key)
            else:
                labels.update(counts)
            done += shard.rows
            progress(done, total)
    if wrong:
        raise IntegrityError(
            f"{manifest.dataset}@{manifest.digest[:12]} is not whole: {len(wrong):,} of "
            f"{len(everything) + 1:,} objects are missing or changed",
            received=", ".join(sorted(wrong)[:3]) + (", …" if len(wrong) > 3 else ""),
            fix="delete them and run jobs/ingest.py again",
        )
    counted = [sum(split.per_class.get(name, 0) for split in manifest.splits.values()) for name in manifest.classes]
    if [labels[i] for i in range(len(counted))] != counted:
        raise IntegrityError(f"The labels in {manifest.dataset}'s shards aren't those that its manifest counts")
    return manifest


@ray.remote(num_cpus=1)
def _verify_task(store_uri: str, shard: Shard) -> Counter[int] | None:
    """Count a shard's labels; None if anything differs from the manifest."""
    try:
        table = shards.read(shared_store(store_uri), shard)
    except (IntegrityError, NotFoundError):
        return None
    contents = table["image"].combine_chunks().field("bytes")
    same = all(
        hashlib.sha256(data.as_buffer()).hexdigest() == expected
        for data, expected in zip(contents, table["sha256"].to_pylist(), strict=True)
    )
    return Counter(table["label"].to_pylist()) if same and table.num_rows == shard.rows else None


def _report_is_whole(store: Store, manifest: Manifest) -> bool:
    try:
        data = store.get(manifests.report_key(manifest.dataset, manifest.report_sha256))
    except NotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == manifest.report_sha256
