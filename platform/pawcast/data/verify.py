"""Verify a published dataset: read every byte again and compare it with the manifest."""

from __future__ import annotations

import hashlib

import ray

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Manifest
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store


def verify(store: Store, dataset: str, progress: Progress = silent) -> Manifest:
    """Verify the manifest, the report and every shard of a dataset, by Ray tasks.

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
    objects = [(manifests.report_key(manifest.dataset, manifest.report_sha256), manifest.report_sha256, 0)]
    for split in manifest.splits.values():
        objects += [(shard.key, shard.sha256, shard.rows) for shard in split.shards]
    damaged = []
    count = Counter(progress, "verifying", sum(photos for _, _, photos in objects))
    with ray_session.connect():
        tasks = [(store.uri, key, sha256) for key, sha256, _ in objects]
        for index, whole in ray_session.run_tasks(_verify_task, tasks):
            if not whole:
                damaged.append(objects[index][0])
            count(objects[index][2])
    if damaged:
        raise IntegrityError(
            f"{manifest.dataset}@{manifest.digest[:12]} is damaged: {len(damaged):,} of {len(objects):,} objects are "
            "missing or changed",
            received=", ".join(sorted(damaged)[:3]) + (", …" if len(damaged) > 3 else ""),
            fix="delete them and run pawcast ingest again",
        )
    return manifest


@ray.remote(num_cpus=1, max_retries=0)
def _verify_task(store_uri: str, key: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(shared_store(store_uri).get(key)).hexdigest() == sha256
    except NotFoundError:
        return False
