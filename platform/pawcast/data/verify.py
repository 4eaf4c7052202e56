"""Verify a published dataset: read every byte again and compare it with the manifest."""

from __future__ import annotations

import collections
import hashlib

import ray

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Shard
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store


def verify(store: Store, dataset: str, progress: Progress = silent) -> Manifest:
    """Verify the manifest, the report, every shard and every photo of a dataset, by Ray tasks.

    Args:
        store: The store that holds the dataset.
        dataset: `NAME` or `NAME@DIGEST`.
        progress: Receives the stage `verifying`.

    Returns:
        The manifest, which describes the stored objects exactly.

    Raises:
        IntegrityError: If objects are missing or changed. Names them, after all were read.
        NotFoundError: If there is no such dataset.
    """
    manifest = manifests.load(store, dataset)
    all_shards = [shard for split in manifest.splits.values() for shard in split.shards]
    damaged = [] if _report_is_whole(store, manifest) else [_report_key(manifest)]
    labels: collections.Counter[int] = collections.Counter()
    count = Counter(progress, "verifying", sum(split.photos for split in manifest.splits.values()))
    with ray_session.connect():
        for index, shard_labels in ray_session.run_tasks(_verify_task, [(store.uri, shard) for shard in all_shards]):
            if shard_labels is None:
                damaged.append(all_shards[index].key)
            else:
                labels.update(shard_labels)
            count(all_shards[index].rows)
    if damaged:
        raise IntegrityError(
            f"{manifest.dataset}@{manifest.digest[:12]} is damaged: {len(damaged):,} of "
            f"{len(all_shards) + 1:,} objects are missing or changed",
            received=", ".join(sorted(damaged)[:3]) + (", …" if len(damaged) > 3 else ""),
            fix="delete them and run pawcast ingest again",
        )
    per_class = [sum(split.per_class.get(name, 0) for split in manifest.splits.values()) for name in manifest.classes]
    if [labels[i] for i in range(len(per_class))] != per_class:
        raise IntegrityError(
            f"The labels in the shards of {manifest.dataset} aren't those that its manifest counts",
            received=[labels[i] for i in range(len(per_class))],
            expected=per_class,
            fix="run pawcast ingest again",
        )
    return manifest


@ray.remote(num_cpus=1)
def _verify_task(store_uri: str, shard: Shard) -> collections.Counter[int] | None:
    """Count the labels in a shard. Returns None if anything differs from the manifest."""
    try:
        table = shards.read(shared_store(store_uri), shard)
    except (IntegrityError, NotFoundError):
        return None
    labels: collections.Counter[int] = collections.Counter()
    for row in shards.rows(table):
        if hashlib.sha256(row.data).hexdigest() != row.sha256:
            return None
        labels[row.label] += 1
    return labels if labels.total() == shard.rows else None


def _report_key(manifest: Manifest) -> str:
    return manifests.report_key(manifest.dataset, manifest.report_sha256)


def _report_is_whole(store: Store, manifest: Manifest) -> bool:
    try:
        data = store.get(_report_key(manifest))
    except NotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == manifest.report_sha256
