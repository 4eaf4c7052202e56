"""Ingest: turn sources into a published dataset by Ray tasks. No photo passes through the driver.

Two passes over the sources. The first inspects every photo and returns a few numbers for each.
From these the driver plans splits and shards. The second pass writes the shards.
"""

from __future__ import annotations

import collections
import gc
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ray

from pawcast.core import names
from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data import report, shards, sources
from pawcast.data.inspect import ImageRecord, inspect_photos, read_on_node
from pawcast.data.manifest import Manifest, Shard, Split
from pawcast.data.report import DEFAULT_LIMITS, CheckLimits, DataReport
from pawcast.data.split import split_photos
from pawcast.errors import DataError, ImageError, UsageError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store


class IngestResult(NamedTuple):
    """What ingest leaves in the store."""

    manifest: Manifest
    report: DataReport


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Pause Python's cycle collector: walking the tuples of all photos took a tenth of the run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_paused_collector()
def ingest(  # noqa: PLR0913 (every option of `pawcast ingest` is a parameter)
    store: Store,
    dataset: str,
    labelled: str,
    unlabelled: str | None = None,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    test_size: int = 1_000,
    val_fraction: float = 0.25,
    seed: int = 0,
    min_side: int = 16,
    label_column: str = "",
    group: str = "",
    split_folders: bool = False,
    limits: CheckLimits = DEFAULT_LIMITS,
    progress: Progress = silent,
) -> IngestResult:
    """Turn photos into a published dataset. Joins or starts Ray once the sources exist.

    Args:
        store, dataset, labelled, unlabelled, classes, …: As for `pawcast.ingest`.
        progress: Receives the stages `checking` and `writing`.

    Returns:
        The published manifest, to which `latest` now points, and the report.

    Raises:
        DataError: If a source has no usable photos, a check exceeds its limit, or one photo has
            two labels.
        NotFoundError, StoreError: If a source or the store isn't there.
        ConflictError: If another ingest published other photos under this name meanwhile. Both
            datasets are kept.
    """
    names.check("dataset", dataset)
    if group and split_folders:
        raise UsageError("--group and --split-folders exclude each other", fix="leave one of them out")
    paths = [_absolute(labelled)]
    listings = [sources.scan(paths[0], classes, label_column=label_column, group=group, split_folders=split_folders)]
    if unlabelled:
        paths.append(_absolute(unlabelled))
        listings.append(sources.scan(paths[1]))
    # Read before the work begins: so the later one of two concurrent ingests notices the other,
    # and an unreachable store fails before the photos are read.
    since = manifests.read_latest(store, dataset)
    with ray_session.connect():
        photos = [(path, listing.photos) for path, listing in zip(paths, listings, strict=True)]
        records, quarantine = inspect_photos(photos, min_side, progress)
        # Checked before the split, whose error "too few photos" would hide that photos are
        # unreadable.
        checks = report.quality_checks(records, quarantine, listings, split_folders)
        report.enforce_limits(checks, limits)
        splits = split_photos(
            records,
            classes,
            test_size=test_size,
            val_fraction=val_fraction,
            seed=seed,
            split_folders=split_folders,
        )
        with ThreadPoolExecutor(1, thread_name_prefix="report") as background:
            pending = background.submit(report.build_report, records, checks, splits, classes, listings)
            written = _write_shards(store, dataset, splits, classes, progress)
            data_report = pending.result()
    # If this fails, the shards stay without a manifest: no reader sees them, and the next ingest
    # of the same photos reuses them.
    report.enforce_limits(data_report.checks, limits)
    report_json = data_report.to_json()
    report_sha256 = hashlib.sha256(report_json).hexdigest()
    store.put_if_absent(manifests.report_key(dataset, report_sha256), report_json)
    manifest = Manifest(
        dataset=dataset,
        classes=list(classes),
        seed=seed,
        source_sha256=_source_digest(records),
        splits=written,
        quarantine=sorted(quarantine, key=lambda photo: photo.name),
        report_sha256=report_sha256,
    )
    manifests.publish(store, manifest, since)
    return IngestResult(manifest, data_report)


def _absolute(source: str) -> str:
    """Return a source as a path that holds in every process; an `s3://` URI as it is."""
    return source if "://" in source else str(Path(source).absolute())


def _write_shards(
    store: Store, dataset: str, splits: dict[str, list[ImageRecord]], classes: Sequence[str], progress: Progress
) -> dict[str, Split]:
    tasks = [
        (store.uri, dataset, name, tuple(records), tuple(classes))
        for name, photos in splits.items()
        for records in shards.cut(photos, lambda record: record.size)
    ]
    count = Counter(progress, "writing", sum(len(photos) for photos in splits.values()))
    written: dict[int, Shard] = {}
    for index, shard in ray_session.run_tasks(_write_task, tasks):
        written[index] = shard
        count(shard.rows)
    by_split: dict[str, Split] = {}
    for name, photos in splits.items():
        per_class = collections.Counter(classes[record.photo.label] for record in photos if record.photo.label >= 0)
        of_split = [written[index] for index, task in enumerate(tasks) if task[2] == name]
        by_split[name] = Split(photos=len(photos), per_class=per_class, shards=of_split)
    return by_split


@ray.remote(num_cpus=1, max_retries=0)
def _write_task(
    store_uri: str, dataset: str, split: str, records: Sequence[ImageRecord], classes: Sequence[str]
) -> Shard:
    rows = []
    source = records[0].source
    contents = read_on_node(source, [record.photo for record in records])
    for (_, photo, sha256, _, header, _), data in zip(records, contents, strict=True):
        if isinstance(data, ImageError) or hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(
                f"{source} changed while it was read",
                received=photo.name,
                fix="run pawcast ingest again when nothing writes to the source",
            )
        rows.append(shards.PhotoRow(photo.id, photo.name, photo.label, sha256, header.width, header.height, data))
    return shards.write(shared_store(store_uri), dataset, split, rows, classes)


def _source_digest(records: Sequence[ImageRecord]) -> str:
    """Return one sha256 over names, labels and bytes of all photos, independent of their order."""
    lines = sorted(f"{record.photo.name} {record.photo.label} {record.sha256}" for record in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
