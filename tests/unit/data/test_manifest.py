"""Manifests: loaded by name and by digest, and refused once changed."""

from __future__ import annotations

import pytest

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.data.manifest import Manifest, Split
from pawcast.errors import IntegrityError, NotFoundError
from pawcast.store import Store, open_store


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def publish(store: Store) -> Manifest:
    shard = shards.write(store, "pets", "train", [shards.PhotoRow("1", "1.jpg", 0, "", 3, 2, b"1")], ["cat", "dog"])
    manifest = Manifest(
        dataset="pets",
        classes=["cat", "dog"],
        seed=0,
        source_sha256="0" * 64,
        splits={"train": Split(photos=1, per_class={"cat": 1}, shards=[shard])},
        quarantine=[],
        report_sha256="0" * 64,
    )
    manifests.publish(store, manifest)
    return manifest


def test_a_dataset_is_loaded_by_name_and_by_digest(store):
    manifest = publish(store)
    for name in ("pets", "pets@latest", f"pets@{manifest.digest}", f"pets@{manifest.digest[:12]}"):
        assert manifests.load(store, name) == manifest
    with pytest.raises(NotFoundError, match=r"did you mean 'pets'.*pawcast ingest"):
        manifests.load(store, "pet")
    with pytest.raises(NotFoundError):
        manifests.load(store, "pets@0123456789ab")


def test_a_changed_manifest_is_refused(store, tmp_path):
    manifest = publish(store)
    path = tmp_path / "datasets" / "pets" / "manifests" / f"{manifest.digest}.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    with pytest.raises(IntegrityError, match="was changed"):
        manifests.load(store, "pets")


@pytest.mark.parametrize("name", ["refs/latest", "manifests/{}.json"])
@pytest.mark.parametrize("value", [b"", b"{}", None], ids=["emptied", "changed", "deleted"])
def test_publishing_again_puts_a_damaged_dataset_right(store, name, value):
    manifest = publish(store)
    key = f"datasets/pets/{name.format(manifest.digest)}"
    store.delete(key)
    if value is not None:
        store.put(key, value)
    with pytest.raises(IntegrityError, match=f"{key}.*pawcast ingest"):
        manifests.load(store, "pets")
    assert publish(store) == manifest
    assert manifests.load(store, "pets") == manifest
