"""The manifest: one immutable JSON file that turns a set of shards into a dataset.

Layout in the store:

    datasets/NAME/shards/SPLIT-SHA256.parquet    written first, named by content
    datasets/NAME/reports/SHA256.json            the data report
    datasets/NAME/manifests/SHA256.json          written last: a reader that sees it sees all shards
    datasets/NAME/refs/latest                    the digest of the latest manifest
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Literal

from pawcast.core import names
from pawcast.core.records import Record
from pawcast.errors import ConflictError, IntegrityError, NotFoundError, suggest
from pawcast.store import Store, records, refs
from pawcast.store.refs import RefState

SPLITS = ("train", "val", "test", "unlabelled")
_DIGITS = 64
_AGAIN = "run `pawcast ingest` again; the splits stay the same"


class Shard(Record):
    """One Parquet file of a split."""

    key: str
    sha256: str
    bytes: int
    rows: int


class Split(Record):
    """One of `SPLITS`. `per_class` is empty for `unlabelled`."""

    photos: int
    per_class: dict[str, int]
    shards: list[Shard]


class QuarantinedPhoto(Record):
    """A photo that ingest left out, and why."""

    name: str
    kind: Literal["unreadable", "size"]
    reason: str


class PseudoLabels(Record):
    """How a dataset got pseudo-labels.

    Attributes:
        dataset: The dataset that they were added to, `NAME@DIGEST`.
        model: The model version that made them.
        confidence: The lowest confidence that was accepted, in [0.5, 1].
        photos: Number of photos in `train` with such a label.
    """

    dataset: str
    model: str
    confidence: float
    photos: int


class Manifest(Record):
    """A dataset. Equal photos, labels, seed and sizes give an equal manifest on any machine."""

    schema_version: Literal[3] = 3
    dataset: str
    classes: list[str]
    seed: int
    source_sha256: str
    splits: dict[str, Split]
    quarantine: list[QuarantinedPhoto]
    report_sha256: str
    pseudo_labels: PseudoLabels | None = None

    def to_json(self) -> bytes:
        """Canonical bytes: equal manifests have equal bytes."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, indent=1).encode() + b"\n"

    @property
    def digest(self) -> str:
        """The sha256 of `to_json()`, 64 hexadecimal digits: the dataset's identity."""
        return hashlib.sha256(self.to_json()).hexdigest()


def report_key(dataset: str, sha256: str) -> str:
    """Return the key of a dataset's report in the store."""
    return f"datasets/{dataset}/reports/{sha256}.json"


def read_latest(store: Store, dataset: str) -> RefState:
    """Return the current state of a dataset's `latest`, for `publish`."""
    return refs.read(store, _latest_key(dataset))


def publish(store: Store, manifest: Manifest, since: RefState | None = None) -> str:
    """Store a manifest, whose shards are stored already, and move `latest` to it.

    Args:
        store: Where the shards are.
        manifest: The dataset.
        since: The state of `latest` when the work began; the current one if None.

    Returns:
        The digest of the manifest.

    Raises:
        ConflictError: If another ingest has moved `latest` to something else since. The manifest
            is stored all the same, and can be loaded by its digest.
    """
    names.check("dataset", manifest.dataset)
    since = since or read_latest(store, manifest.dataset)
    digest, key = manifest.digest, _latest_key(manifest.dataset)
    records.write_content(store, manifest_key(manifest.dataset, digest), manifest.to_json(), digest)
    moved = since.target == digest or refs.move(store, key, digest, since)
    # Two ingests of the same photos at the same time publish the same digest: no conflict.
    if not moved and read_latest(store, manifest.dataset).target != digest:
        raise ConflictError(
            f"Another ingest moved {manifest.dataset}@latest at the same time",
            fix=f"use {manifest.dataset}@{digest[:12]}, or run this one again to make it the latest",
        )
    return digest


def _latest_key(dataset: str) -> str:
    return f"datasets/{dataset}/refs/latest"


def manifest_key(dataset: str, digest: str = "") -> str:
    """Return the key of a manifest, or without a digest the prefix of all of them."""
    return f"datasets/{dataset}/manifests/" + (f"{digest}.json" if digest else "")


def load(store: Store, dataset: str) -> Manifest:
    """Load a dataset's manifest by `NAME` (its latest) or `NAME@DIGEST`.

    The first digits of a digest do, if no other digest of the dataset begins with them.

    Raises:
        NotFoundError: If there is no such dataset, naming those that exist.
        IntegrityError: If the ref or the manifest is missing or was changed, or an earlier Pawcast
            wrote it.
    """
    name, _, wanted = dataset.partition("@")
    key = manifest_key(name, _latest(store, name) if wanted in ("", "latest") else _digest(store, name, wanted))
    digest = key.rpartition("/")[2].removesuffix(".json")
    return records.validate(store, key, records.read_content(store, key, digest, _AGAIN), Manifest, _AGAIN)


def _latest(store: Store, name: str) -> str:
    """Return the digest that a dataset's `latest` points at."""
    state = read_latest(store, name)
    if state.target:
        return state.target
    if state.etag or any(store.list(manifest_key(name))):
        raise refs.damage(store, _latest_key(name), state, _AGAIN)
    raise _unknown(store, name, "latest")


def _digest(store: Store, name: str, start: str) -> str:
    """Return the one digest that begins with some digits."""
    if len(start) == _DIGITS:
        # A record names it, so the manifest has existed.
        return start
    matches = [key for key in store.list(manifest_key(name)) if key.rpartition("/")[2].startswith(start)]
    if len(matches) != 1:
        raise _unknown(store, name, start)
    return matches[0].rpartition("/")[2].removesuffix(".json")


def _unknown(store: Store, name: str, digest: str) -> NotFoundError:
    datasets = {key.split("/")[1] for key in store.list("datasets/") if "/refs/" in key}
    return NotFoundError(
        "Unknown dataset",
        received=repr(f"{name}@{digest}"),
        expected=suggest(name, datasets),
        fix="make it with `pawcast ingest`, or check --store",
    )


def write_report(store: Store, dataset: str, report: bytes) -> str:
    """Store the JSON of a dataset's report; return its sha256."""
    digest = hashlib.sha256(report).hexdigest()
    records.write_content(store, report_key(dataset, digest), report, digest)
    return digest


def read_report(store: Store, manifest: Manifest) -> bytes:
    """Return the JSON of a dataset's report. Raises `IntegrityError` if it was changed."""
    key = report_key(manifest.dataset, manifest.report_sha256)
    return records.read_content(store, key, manifest.report_sha256, _AGAIN)


def objects(store: Store, dataset: str) -> Iterator[records.Read]:
    """Yield every object of all versions of a dataset and how to read it.

    Raises:
        NotFoundError: If there is no such dataset.
    """
    yield _latest_key(dataset), partial(_latest, store, dataset)
    stored = {key.rpartition("/")[2].removesuffix(".json") for key in store.list(manifest_key(dataset))}
    for digest in sorted(stored | ({read_latest(store, dataset).target} - {""})):
        load_it = partial(load, store, f"{dataset}@{digest}")
        yield manifest_key(dataset, digest), load_it
        with suppress(IntegrityError):
            yield from contents(store, load_it())


def contents(store: Store, manifest: Manifest) -> Iterator[records.Read]:
    """Yield a dataset's report and shards, and how to read each."""
    yield report_key(manifest.dataset, manifest.report_sha256), partial(read_report, store, manifest)
    for split in manifest.splits.values():
        for shard in split.shards:
            yield shard.key, partial(records.read_content, store, shard.key, shard.sha256, _AGAIN)
