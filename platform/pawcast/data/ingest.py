"""Ingest: sources in, a published dataset out, by Ray tasks. No photo passes through the driver.

Two passes over the sources. The first looks at every photo and returns a few numbers for each; from those the
driver plans the splits and the shards; the second writes the shards.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import ray

from pawcast.core import names
from pawcast.data import manifest as manifests
from pawcast.data import plan, report, shards, sources
from pawcast.data.inspect import ImageRecord, inspect_photos
from pawcast.data.manifest import SPLITS, Manifest, Shard, Split
from pawcast.data.plan import PlannedShard
from pawcast.data.report import CheckLimits, DataReport
from pawcast.data.sources import Photo
from pawcast.errors import DataError, ImageError
from pawcast.runtime import ray_session
from pawcast.store import Store, shared_store

MIN_SIDE = 16

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, photos done and photos in all."""


class Ingested(NamedTuple):
    """What ingest leaves in the store."""

    manifest: Manifest
    report: DataReport


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause Python's cycle collector.

    It would walk some tuples for every photo again and again, a tenth of the whole time, and they form no cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collector()
def ingest(
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
    limits: CheckLimits = CheckLimits(),  # noqa: B008
    progress: Progress = lambda stage, done, total: None,
) -> Ingested:
    """Turn photos into a published dataset.

    Joins or starts Ray once the sources are known to be there.

    Args:
        store: Where it goes.
        dataset: Its name.
        labelled: A source (`pawcast.data.sources`) that tells each photo's class.
        unlabelled: A source of photos to predict.
        classes: Class 0 and class 1, as the names call them.
        test_size: Labelled photos kept away from training and its choices.
        val_fraction: Validation's share of the others.
        seed: Another seed gives another split.
        min_side: A photo with a shorter side, in pixels, is left out.
        limits: How much of each finding to tolerate.
        progress: Called as photos are done.

    Returns:
        The manifest, published, with `latest` moved to it; and the report.

    Raises:
        DataError: For sources without usable photos, with more findings than the limits allow, or with the
            same photo under two labels.
        NotFoundError, StoreError: If a source or the store isn't there.
        ConflictError: If another ingest published something else under this name meanwhile; both are kept.
    """
    names.check("dataset", dataset)
    wanted = [(labelled, sources.scan(labelled, classes))]
    if unlabelled:
        wanted.append((unlabelled, sources.scan(unlabelled)))
    total = sum(len(photos) for _, photos in wanted)
    # Looked at before the work, so that of two ingests at once the later one notices; and a store that can't be
    # reached is noticed before the photos are read.
    since = manifests.read_latest(store, dataset)
    with ray_session.connect():
        found, quarantine = inspect_photos(wanted, min_side, _counted(progress, "checking", total))
        # Before the splits are planned: what is missing there is best explained by what can't be read.
        checks = report.quality_checks(found, quarantine)
        report.enforce_limits(checks, limits)
        members = plan.split_photos(found, classes, test_size=test_size, val_fraction=val_fraction, seed=seed)
        planned = plan.cut_shards(members)
        with ThreadPoolExecutor(1, thread_name_prefix="report") as beside:
            composing = beside.submit(report.build_report, found, checks, members, classes)
            written = _write(store, dataset, planned, classes, _counted(progress, "writing", len(found)))
            findings = composing.result()
    # Shards without a manifest are nothing: nobody sees them, and another ingest of the same photos uses them.
    report.enforce_limits(findings.checks, limits)
    store.put_if_absent(manifests.report_key(dataset, findings.digest), findings.to_json())
    manifest = Manifest(
        dataset=dataset,
        classes=list(classes),
        seed=seed,
        source_sha256=_source_digest(found),
        splits={name: _describe(members[name], written[name], classes) for name in SPLITS},
        quarantine=sorted(quarantine, key=lambda item: item.name),
        report_sha256=findings.digest,
    )
    manifests.publish(store, manifest, since)
    return Ingested(manifest, findings)


def _counted(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Add up photos as they are done, and say so."""
    done = 0
    progress(stage, 0, total)

    def count(photos: int) -> None:
        nonlocal done
        done += photos
        progress(stage, done, total)

    return count


def _write(
    store: Store, dataset: str, planned: Sequence[PlannedShard], classes: Sequence[str], progress: Callable[[int], None]
) -> dict[str, list[Shard]]:
    written: dict[int, Shard] = {}
    # Packed one by one, while the shards before are written.
    arguments = (
        (
            store.uri,
            dataset,
            shard.split,
            shard.photos[0].source,
            ray_session.as_tuples(map(_row, shard.photos)),
            list(classes),
        )
        for shard in planned
    )
    for index, shard in ray_session.run_tasks(_write_task, arguments):
        written[index] = shard
        progress(shard.rows)
    by_split: dict[str, list[Shard]] = {name: [] for name in SPLITS}
    for index, shard in enumerate(planned):
        by_split[shard.split].append(written[index])
    return by_split


# A photo (id, name, member, label), its sha256, width and height.
_Row = tuple[str, str, str, int, str, int, int]


def _row(found: ImageRecord) -> _Row:
    return (*found.photo, found.sha256, found.header.width, found.header.height)


@ray.remote(num_cpus=1)
def _write_task(
    store_uri: str, dataset: str, split: str, source: str, planned: Sequence[_Row], classes: list[str]
) -> Shard:
    rows = []
    contents = sources.read(source, [Photo(*row[:4]) for row in planned])
    for (id_, name, _, label, sha256, width, height), data in zip(planned, contents, strict=True):
        if isinstance(data, ImageError) or hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(f"{source} changed while it was read", received=name)
        rows.append(shards.PhotoRow(id_, name, label, sha256, width, height, data))
    return shards.write(shared_store(store_uri), dataset, split, rows, classes)


def _describe(photos: Sequence[ImageRecord], written: list[Shard], classes: Sequence[str]) -> Split:
    labels = Counter(found.photo.label for found in photos)
    per_class = {name: labels[i] for i, name in enumerate(classes) if labels[i]}
    return Split(photos=labels.total(), per_class=per_class, shards=written)


def _source_digest(found: Sequence[ImageRecord]) -> str:
    """One sha256 over what was read: names, labels and bytes, whatever their order."""
    lines = sorted(f"{item.photo.name} {item.photo.label} {item.sha256}" for item in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
