"""Verify a published dataset: read every byte again and compare it with the manifest."""

from __future__ import annotations

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Manifest
from pawcast.errors import IntegrityError
from pawcast.store import Store, records


def verify(store: Store, dataset: str, progress: Progress = silent) -> Manifest:
    """Verify the manifest, the report and every shard of one version of a dataset.

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
    rows = {shard.key: shard.rows for split in manifest.splits.values() for shard in split.shards}
    count = Counter(progress, "verifying", sum(rows.values()))
    checked = []
    for found in records.check(manifests.contents(store, manifest)):
        checked.append(found)
        count(rows.get(found.key, 0))
    damaged = sorted(found.key for found in checked if found.damage)
    if damaged:
        raise IntegrityError(
            f"{manifest.dataset}@{manifest.digest[:12]} is damaged: {len(damaged):,} of {len(checked):,} objects are "
            "missing or changed",
            received=", ".join(damaged[:3]) + (", …" if len(damaged) > 3 else ""),
            fix="run `pawcast ingest` again",
        )
    return manifest
