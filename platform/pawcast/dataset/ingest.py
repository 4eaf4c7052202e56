"""Ingest: sources in, a published dataset out, by Ray tasks. No photo passes through the driver.

Two passes over the sources. The first looks at every photo and returns a few numbers for each; from those the
driver plans the splits and the shards; the second writes the shards.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ray

from pawcast import cluster, images, names, sources
from pawcast.dataset import manifest as manifests
from pawcast.dataset import shards
from pawcast.dataset.manifest import SPLITS, Manifest, Quarantined, Shard, Split
from pawcast.dataset.split import assign, rank
from pawcast.errors import DataError, ImageError
from pawcast.sources import Photo
from pawcast.store import Store, open_store

_SURVEY_PHOTOS = 500

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, photos done and photos in all."""


class Found(NamedTuple):
    """A photo that passed the survey."""

    photo: Photo
    sha256: str
    width: int
    height: int
    bytes: int


class _Plan(NamedTuple):
    split: str
    source: str
    photos: list[Found]


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
    quarantine_limit: float = 0.01,
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
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
        quarantine_limit: The share of unusable photos above which the run stops.
        progress: Called as photos are done.

    Returns:
        The manifest, published, with `latest` moved to it.

    Raises:
        DataError: For sources without usable photos, with too many unusable ones, or with the same photo
            under two labels.
        NotFoundError, StoreError: If a source or the store isn't there.
        ConflictError: If another ingest published something else under this name meanwhile; both are kept.
    """
    names.check("dataset", dataset)
    with_labels = sources.scan(labelled, classes)
    without = sources.scan(unlabelled) if unlabelled else []
    # Looked at before the work, so that of two ingests at once the later one notices; and a store that can't be
    # reached is noticed before the photos are read.
    since = manifests.latest(store, dataset)
    with cluster.session():
        found, quarantine = _survey(
            [(labelled, photo) for photo in with_labels] + [(unlabelled or "", photo) for photo in without],
            progress,
        )
        _limit(quarantine, len(with_labels) + len(without), quarantine_limit)
        train, test = found[labelled], found.get(unlabelled or "", [])
        plans = _plan(labelled, train, unlabelled or "", test, holdout, val_fraction, seed)
        written = _write(store, dataset, plans, classes, progress)
    result = Manifest(
        dataset=dataset,
        classes=list(classes),
        seed=seed,
        source_sha256=_source_digest([*train, *test]),
        splits={name: _describe([p for p in plans if p.split == name], written[name], classes) for name in SPLITS},
        quarantine=sorted(quarantine, key=lambda q: q.name),
    )
    manifests.publish(store, result, since)
    return result


def _survey(
    photos: Sequence[tuple[str, Photo]], progress: Progress
) -> tuple[dict[str, list[Found]], list[Quarantined]]:
    """Read, hash and decode every photo; keep what is needed to plan, in the order given."""
    chunks = []
    for source in dict.fromkeys(source for source, _ in photos):
        own = [photo for place, photo in photos if place == source]
        chunks += [(source, own[i : i + _SURVEY_PHOTOS]) for i in range(0, len(own), _SURVEY_PHOTOS)]
    results: dict[int, list[Found | Quarantined]] = {}
    done = 0
    progress("checking", 0, len(photos))
    for index, result in cluster.run_tasks(_survey_task, chunks):
        results[index] = result
        done += len(result)
        progress("checking", done, len(photos))
    found: dict[str, list[Found]] = defaultdict(list)
    quarantine = []
    for index, (source, _) in enumerate(chunks):
        for item in results[index]:
            if isinstance(item, Quarantined):
                quarantine.append(item)
            else:
                found[source].append(item)
    return found, quarantine


@ray.remote(num_cpus=1)
def _survey_task(source: str, photos: list[Photo]) -> list[Found | Quarantined]:
    results: list[Found | Quarantined] = []
    for photo, data in zip(photos, sources.read(source, photos), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            height, width = images.decode(data).shape[:2]
            results.append(Found(photo, hashlib.sha256(data).hexdigest(), width, height, len(data)))
        except ImageError as error:
            results.append(Quarantined(name=photo.name, reason=error.what))
    return results


def _limit(quarantine: Sequence[Quarantined], photos: int, limit: float) -> None:
    if len(quarantine) > limit * photos:
        reasons = Counter(item.reason for item in quarantine).most_common(3)
        raise DataError(
            f"{len(quarantine):,} of {photos:,} photos are unusable",
            received="; ".join(
                f"{reason} ({count:,}, such as {_example(quarantine, reason)})" for reason, count in reasons
            ),
            expected=f"at most {limit:.1%}",
            fix="repair the source, or raise --quarantine-limit",
        )


def _example(quarantine: Sequence[Quarantined], reason: str) -> str:
    return next(item.name for item in quarantine if item.reason == reason)


def _plan(
    labelled: str,
    train: list[Found],
    unlabelled: str,
    test: list[Found],
    holdout: int,
    val_fraction: float,
    seed: int,
) -> list[_Plan]:
    """Assign photos to splits and cut splits into shards.

    Labelled splits are stored in seeded random order, so any run of rows is a fair sample; the unlabelled
    one in the order of its names.
    """
    labels: dict[str, int] = {}
    first: dict[str, Found] = {}
    for item in train:
        if labels.setdefault(item.sha256, item.photo.label) != item.photo.label:
            raise DataError(
                "One photo has two labels",
                received=f"the same bytes in {first[item.sha256].photo.name} and {item.photo.name}",
                fix="remove the wrong one",
            )
        first.setdefault(item.sha256, item)
    if len(labels) <= holdout:
        raise DataError(
            "There are too few photos",
            received=f"{len(train):,}",
            expected=f"more than --holdout {holdout:,}",
        )
    copies = Counter(item.sha256 for item in train)
    split = assign(labels, copies, holdout=holdout, val_fraction=val_fraction, seed=seed)
    members: dict[str, list[Found]] = {name: [] for name in SPLITS}
    for item in sorted(train, key=lambda item: (rank(seed, item.sha256), item.photo.name)):
        members[split[item.sha256]].append(item)
    members["test"] = test
    plans = []
    for name, items in members.items():
        plans += [_Plan(name, unlabelled if name == "test" else labelled, chunk) for chunk in _cut(items)]
    return plans


def _cut(items: Sequence[Found]) -> list[list[Found]]:
    chunks: list[list[Found]] = []
    room = 0
    for item in items:
        if not chunks or len(chunks[-1]) == shards.MAX_ROWS or item.bytes > room:
            chunks.append([])
            room = shards.MAX_BYTES
        chunks[-1].append(item)
        room -= item.bytes
    return chunks


def _write(
    store: Store, dataset: str, plans: Sequence[_Plan], classes: Sequence[str], progress: Progress
) -> dict[str, list[Shard]]:
    total = sum(len(plan.photos) for plan in plans)
    written: dict[int, Shard] = {}
    progress("writing", 0, total)
    for index, shard in cluster.run_tasks(_write_task, [(store.uri, dataset, plan, list(classes)) for plan in plans]):
        written[index] = shard
        progress("writing", sum(s.rows for s in written.values()), total)
    by_split: dict[str, list[Shard]] = {name: [] for name in SPLITS}
    for index, plan in enumerate(plans):
        by_split[plan.split].append(written[index])
    return by_split


@ray.remote(num_cpus=1)
def _write_task(store_uri: str, dataset: str, plan: _Plan, classes: list[str]) -> Shard:
    rows = []
    bytes_of = sources.read(plan.source, [found.photo for found in plan.photos])
    for found, data in zip(plan.photos, bytes_of, strict=True):
        if isinstance(data, ImageError) or hashlib.sha256(data).hexdigest() != found.sha256:
            raise DataError(f"{plan.source} changed while it was read", received=found.photo.name)
        photo = found.photo
        rows.append(shards.Row(photo.id, photo.name, photo.label, found.sha256, found.width, found.height, data))
    return shards.write(open_store(store_uri), dataset, plan.split, rows, classes)


def _describe(plans: Sequence[_Plan], written: list[Shard], classes: Sequence[str]) -> Split:
    labels = Counter(found.photo.label for plan in plans for found in plan.photos)
    per_class = {name: labels[i] for i, name in enumerate(classes) if labels[i]}
    return Split(photos=sum(labels.values()), per_class=per_class, shards=written)


def _source_digest(found: Sequence[Found]) -> str:
    """One sha256 over what was read: names, labels and bytes, whatever their order."""
    lines = sorted(f"{item.photo.name} {item.photo.label} {item.sha256}" for item in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
