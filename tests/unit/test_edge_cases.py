"""Odd input and unlucky timing. Each test is a bug that was fixed."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from pawcast import registry
from pawcast.data import manifest as manifests
from pawcast.data import sources
from pawcast.data.manifest import Manifest
from pawcast.errors import ImageError, IntegrityError, NotFoundError, PawcastError, StoreError, UsageError
from pawcast.recipes import resolve
from pawcast.store import Store, open_store
from pawcast.store.folder import FolderStore
from pawcast.vision import decode
from pawcast.vision.preprocess import Preprocessing


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


def register(store: Store, run: str = "r") -> int:
    version = registry.register(
        store,
        "catdog",
        {"w": run.encode()},
        run=run,
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=resolve("smoke"),
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=64),
        metrics={},
        architecture="",
    )
    return version.version


@pytest.mark.parametrize("override", ["seed=[", "name=@x", "name=!!python/object:x"])
def test_malformed_yaml_is_a_usage_error(override):
    with pytest.raises(UsageError):
        resolve("article", [override])


def test_an_infinite_warmup_is_refused():
    with pytest.raises(UsageError):
        resolve("article", ["warmup_epochs=.inf"])


@pytest.mark.parametrize("key", ["", ".", "a/.."])
def test_the_root_of_a_store_is_not_a_key(tmp_path, key):
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "store")).put(key, b"mine")
    assert not (tmp_path / "store").is_file()


def test_list_refuses_a_prefix_outside_the_store(store, tmp_path):
    store.put("a", b"")
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a key"):
        list(store.list("../"))


@pytest.mark.parametrize("key", ["x" * 300, "a\0b"])
def test_a_key_that_the_file_system_refuses_is_a_store_error(store, key):
    store.put("a", b"")
    with pytest.raises(PawcastError):
        store.get(key)
    with pytest.raises(StoreError):
        store.exists(key)


class Interrupted(FolderStore):
    """A folder in which another run registers a version just after `latest` was read."""

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        value = super().get_with_etag(key)
        if self.others:
            register(FolderStore(self.uri), self.others.pop())
        return value


def test_a_registered_version_is_not_reported_as_a_failure(tmp_path):
    store = Interrupted(str(tmp_path))
    store.others = ["theirs"]
    register(FolderStore(store.uri), "first")
    assert register(store, "mine") == 2
    assert registry.resolve(store, "catdog").version == 3


def test_latest_never_goes_back(tmp_path):
    class Slow(FolderStore):
        """A folder in which another run registers a version before this run moves `latest`."""

        def put_if_absent(self, key: str, data: bytes, sha256: str | None = None) -> bool:
            written = super().put_if_absent(key, data, sha256)
            if written and key.endswith("versions/2.json"):
                register(FolderStore(self.uri), "theirs")
            return written

    register(FolderStore(str(tmp_path)), "first")
    register(Slow(str(tmp_path)), "mine")
    assert registry.resolve(FolderStore(str(tmp_path)), "catdog").version == 3


def test_a_superscript_digit_is_not_a_version(store):
    register(store)
    with pytest.raises((NotFoundError, UsageError)):
        registry.resolve(store, "catdog@²")


def test_a_broken_ref_is_an_integrity_error(store):
    register(store)
    store.put("models/catdog/refs/broken", b"zzz")
    with pytest.raises(IntegrityError):
        registry.resolve(store, "catdog@broken")


def test_an_unknown_file_of_a_version_is_not_found(store):
    register(store)
    with pytest.raises(NotFoundError):
        registry.read_file(store, registry.resolve(store, "catdog"), "nope")


def test_a_ref_points_at_a_version_that_exists(store):
    register(store)
    with pytest.raises(NotFoundError):
        registry.move_ref(store, "catdog", "production", 77)


@pytest.mark.parametrize("name", ["a@b", "a/b", "../models"])
def test_a_datasets_name_is_checked_before_it_is_published(store, name):
    with pytest.raises(UsageError):
        manifests.publish(
            store,
            Manifest(
                dataset=name,
                classes=["cat", "dog"],
                seed=0,
                source_sha256="0",
                splits={},
                quarantine=[],
                report_sha256="",
            ),
        )


def test_ids_stay_distinct_when_a_stem_is_another_photos_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("7.jpg", "7.png", "7.jpg.png"):
            archive.writestr(name, b"")
    assert len({photo.id for photo in sources.scan(str(tmp_path / "a.zip"))}) == 3


def test_a_file_name_that_is_not_unicode_can_be_encoded(tmp_path):
    (tmp_path / os.fsdecode(b"cat\xff.jpg")).write_bytes(b"")
    (photo,) = sources.scan(str(tmp_path))
    assert photo.name.encode()


def test_a_zip_with_backslashes_has_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(r"train\cat.1.jpg", b"")
    (photo,) = sources.scan(str(tmp_path / "a.zip"), ["cat", "dog"])
    assert photo.label == 0


def tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bit_samples_are_refused(kind):
    with pytest.raises(ImageError, match="32 bits"):
        decode.decode(tiff(np.full((40, 50), 0.5, kind)))
