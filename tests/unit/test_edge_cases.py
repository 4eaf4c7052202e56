"""Odd input and unlucky timing, each once a bug."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from pawcast.data import manifest as manifests
from pawcast.data import sources
from pawcast.data.manifest import Manifest
from pawcast.errors import ImageError, PawcastError, UsageError
from pawcast.recipes import resolve
from pawcast.store import Store, open_store
from pawcast.vision import decode


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.mark.parametrize("override", ["seed=[", "name=@x", "name=!!python/object:x"])
def test_malformed_yaml_is_a_usage_error(override):
    with pytest.raises(UsageError):
        resolve("article", [override])


def test_an_infinite_warmup_is_refused():
    with pytest.raises(UsageError):
        resolve("article", ["warmup_epochs=.inf"])


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
    assert len({photo.id for photo in sources.scan(str(tmp_path / "a.zip")).photos}) == 3


def test_a_name_that_is_not_unicode_can_be_written_down(tmp_path):
    (tmp_path / os.fsdecode(b"cat\xff.jpg")).write_bytes(b"")
    (photo,) = sources.scan(str(tmp_path)).photos
    assert photo.name.encode()


def test_a_zip_with_backslashes_has_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(r"train\cat.1.jpg", b"")
    try:
        (photo,) = sources.scan(str(tmp_path / "a.zip"), ["cat", "dog"]).photos
    except PawcastError:
        pytest.fail("refused")
    assert photo.label == 0


def tiff(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "value"), [(np.int32, 65_536), (np.int32, -1), (np.float32, 0.5)])
def test_samples_deeper_than_sixteen_bits_are_refused(kind, value):
    with pytest.raises(ImageError, match="32-bit"):
        decode.decode(tiff(np.full((40, 50), value, kind)))
