"""Ingest: sources in, a published dataset out, by Ray tasks. No photo passes through the driver.

Two passes over the sources. The first looks at every photo and returns a few numbers for each; from those the
driver plans the splits and the shards; the second writes the shards.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ray

from pawcast import cluster, names, sources
from pawcast.dataset import manifest as manifests
from pawcast.dataset import plan, report, shards
from pawcast.dataset.manifest import SPLITS, Manifest, Shard, Split
from pawcast.dataset.plan import PlannedShard
from pawcast.dataset.report import Limits, Report
from pawcast.dataset.survey import Found, survey
from pawcast.errors import DataError, ImageError
from pawcast.store import Store, open_store

MIN_SIDE = 16

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, photos done and photos in all."""


class Ingested(NamedTuple):
    """What ingest leaves in the store."""

    manifest: Manifest
    report: Report


def ingest(
    store: Store,
    dataset: str,
    labelled: str,
    unlabelled: str | None = None,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    holdout: int = 1_000,
    val_fraction: float = 0.25,
    seed: int = 0,
    min_side: int = MIN_SIDE,
    limits: Limits = Limits(),  # noqa: B008
    progress: Progress = lambda stage, done, total: None,
) -> Ingested:
    """Turn photos into a published dataset.

    Joins or starts Ray once the sources are known to be there.

    Args:
        store: Where it goes.
        dataset: Its name.
        labelled: A zip or folder with photos named, or foldered, by class.
        unlabelled: A zip or folder with photos to predict.
        classes: Class 0 and class 1, as the names call them.
        holdout: Labelled photos kept away from training and its choices.
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
    since = manifests.latest(store, dataset)
    with cluster.session():
        found, quarantine = survey(wanted, min_side, _counted(progress, "checking", total))
        # Before the splits are planned: what is missing there is best explained by what can't be read.
        report.enforce(report.quality(found, quarantine), limits)
        members = plan.split_photos(found, classes, holdout=holdout, val_fraction=val_fraction, seed=seed)
        findings = report.compose(found, quarantine, members, classes)
        report.enforce(findings.checks, limits)
        planned = plan.cut(members)
        written = _write(store, dataset, planned, classes, _counted(progress, "writing", len(found)))
    store.put_new(manifests.report_key(dataset, findings.digest), findings.to_json())
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
    arguments = [(store.uri, dataset, shard, list(classes)) for shard in planned]
    for index, shard in cluster.run_tasks(_write_task, arguments):
        written[index] = shard
        progress(shard.rows)
    by_split: dict[str, list[Shard]] = {name: [] for name in SPLITS}
    for index, shard in enumerate(planned):
        by_split[shard.split].append(written[index])
    return by_split


@ray.remote(num_cpus=1)
def _write_task(store_uri: str, dataset: str, planned: PlannedShard, classes: list[str]) -> Shard:
    source = planned.photos[0].source
    rows = []
    contents = sources.read(source, [found.photo for found in planned.photos])
    for found, data in zip(planned.photos, contents, strict=True):
        if isinstance(data, ImageError) or hashlib.sha256(data).hexdigest() != found.sha256:
            raise DataError(f"{source} changed while it was read", received=found.photo.name)
        photo, header = found.photo, found.header
        rows.append(shards.Row(photo.id, photo.name, photo.label, found.sha256, header.width, header.height, data))
    return shards.write(open_store(store_uri), dataset, planned.split, rows, classes)


def _describe(photos: Sequence[Found], written: list[Shard], classes: Sequence[str]) -> Split:
    labels = Counter(found.photo.label for found in photos)
    per_class = {name: labels[i] for i, name in enumerate(classes) if labels[i]}
    return Split(photos=labels.total(), per_class=per_class, shards=written)


def _source_digest(found: Sequence[Found]) -> str:
    """One sha256 over what was read: names, labels and bytes, whatever their order."""
    lines = sorted(f"{item.photo.name} {item.photo.label} {item.sha256}" for item in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
