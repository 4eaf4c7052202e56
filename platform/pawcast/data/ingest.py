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
from typing import NamedTuple

import ray

from pawcast.core import names
from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data import report, shards, sources
from pawcast.data.inspect import ImageRecord, inspect_photos
from pawcast.data.manifest import SPLITS, Manifest, Shard, Split
from pawcast.data.report import DEFAULT_LIMITS, CheckLimits, DataReport
from pawcast.data.sources import Photo
from pawcast.data.split import split_photos
from pawcast.errors import DataError, ImageError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store, warn_if_conditions_are_ignored

MIN_SIDE = 16


class IngestResult(NamedTuple):
    """What ingest leaves in the store."""

    manifest: Manifest
    report: DataReport


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Pause Python's cycle collector.

    It would walk the tuples of all photos again and again, which took a tenth of the whole run.
    They form no cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
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
    min_side: int = MIN_SIDE,
    limits: CheckLimits = DEFAULT_LIMITS,
    progress: Progress = silent,
) -> IngestResult:
    """Turn photos into a published dataset.

    Joins or starts Ray once the sources are known to exist.

    Args:
        store: Where the dataset goes.
        dataset: Its name.
        labelled: A source (`pawcast.data.sources`) that tells each photo's class.
        unlabelled: A source of photos without labels.
        classes: Class 0 and class 1, as the source names them.
        test_size: Labelled photos in `test`, which neither training nor model selection sees.
        val_fraction: Share of the other labelled photos in `val`, in [0, 1).
        seed: Another seed gives another split.
        min_side: A photo with a shorter side, in pixels, is left out.
        limits: The share of photos that each check may concern.
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
    listings = [(labelled, sources.scan(labelled, classes))]
    if unlabelled:
        listings.append((unlabelled, sources.scan(unlabelled)))
    # Read before the work begins: so the later one of two concurrent ingests notices the other,
    # and an unreachable store fails before the photos are read.
    since = manifests.read_latest(store, dataset)
    warn_if_conditions_are_ignored(store)
    with ray_session.connect():
        records, quarantine = inspect_photos(listings, min_side, progress)
        # Checked before the split, whose error "too few photos" would hide that photos are
        # unreadable.
        checks = report.quality_checks(records, quarantine)
        report.enforce_limits(checks, limits)
        splits = split_photos(records, classes, test_size=test_size, val_fraction=val_fraction, seed=seed)
        with ThreadPoolExecutor(1, thread_name_prefix="report") as background:
            pending = background.submit(report.build_report, records, checks, splits, classes)
            written = _write_shards(store, dataset, splits, classes, progress)
            data_report = pending.result()
    # If this fails, the shards stay without a manifest: no reader sees them, and the next ingest
    # of the same photos reuses them.
    report.enforce_limits(data_report.checks, limits)
    report_sha256 = manifests.write_report(store, dataset, data_report.to_json())
    manifest = Manifest(
        dataset=dataset,
        classes=list(classes),
        seed=seed,
        source_sha256=_source_digest(records),
        splits={name: _to_split(splits[name], written[name], classes) for name in SPLITS},
        quarantine=sorted(quarantine, key=lambda photo: photo.name),
        report_sha256=report_sha256,
    )
    manifests.publish(store, manifest, since)
    return IngestResult(manifest, data_report)


def _write_shards(
    store: Store, dataset: str, splits: dict[str, list[ImageRecord]], classes: Sequence[str], progress: Progress
) -> dict[str, list[Shard]]:
    planned = [
        (name, records) for name, photos in splits.items() for records in shards.cut(photos, lambda record: record.size)
    ]
    # A generator: arguments are packed while earlier shards are written.
    arguments = (
        (store.uri, dataset, name, records[0].source, ray_session.as_tuples(map(_to_tuple, records)), list(classes))
        for name, records in planned
    )
    count = Counter(progress, "writing", sum(len(photos) for photos in splits.values()))
    written: dict[int, Shard] = {}
    for index, shard in ray_session.run_tasks(_write_task, arguments):
        written[index] = shard
        count(shard.rows)
    by_split: dict[str, list[Shard]] = {name: [] for name in SPLITS}
    for index, (name, _) in enumerate(planned):
        by_split[name].append(written[index])
    return by_split


# The fields of a `Photo`, then sha256, width and height.
_PhotoTuple = tuple[str, str, str, int, str, int, int]


def _to_tuple(record: ImageRecord) -> _PhotoTuple:
    return (*record.photo, record.sha256, record.header.width, record.header.height)


@ray.remote(num_cpus=1)
def _write_task(
    store_uri: str, dataset: str, split: str, source: str, photos: Sequence[_PhotoTuple], classes: list[str]
) -> Shard:
    rows = []
    contents = sources.read(source, [Photo(*fields[:4]) for fields in photos])
    for (id_, name, _, label, sha256, width, height), data in zip(photos, contents, strict=True):
        if isinstance(data, ImageError) or hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(
                f"{source} changed while it was read",
                received=name,
                fix="run pawcast ingest again when nothing writes to the source",
            )
        rows.append(shards.PhotoRow(id_, name, label, sha256, width, height, data))
    return shards.write(shared_store(store_uri), dataset, split, rows, classes)


def _to_split(records: Sequence[ImageRecord], written: list[Shard], classes: Sequence[str]) -> Split:
    labels = collections.Counter(record.photo.label for record in records)
    per_class = {name: labels[i] for i, name in enumerate(classes) if labels[i]}
    return Split(photos=len(records), per_class=per_class, shards=written)


def _source_digest(records: Sequence[ImageRecord]) -> str:
    """Return one sha256 over names, labels and bytes of all photos, independent of their order."""
    lines = sorted(f"{record.photo.name} {record.photo.label} {record.sha256}" for record in records)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
