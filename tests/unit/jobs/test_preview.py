"""`pawcast preview`: which photo it shows."""

from __future__ import annotations

import pytest

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.errors import ImageError, NotFoundError
from pawcast.store import open_store
from tests.support.files import encode, import_job


def test_the_preview_job_reads_training_photos_and_files(tmp_path, picture):
    job = import_job("preview")
    store, own = open_store(str(tmp_path / "store")), tmp_path / "own.png"
    own.write_bytes(encode(picture))
    row = shards.PhotoRow("cat.7", "cat.7.png", 0, "", 80, 60, encode(picture[:, ::-1]))
    shard = shards.write(store, "d", "train", [row], ["cat", "dog"])
    split = manifests.Split(photos=1, per_class={"cat": 1}, shards=[shard])
    manifest = manifests.Manifest(
        dataset="d",
        classes=["cat", "dog"],
        seed=0,
        source_sha256="",
        splits={"train": split},
        quarantine=[],
        report_sha256="0",
    )
    manifests.publish(store, manifest)
    assert job.find(store.uri, "d", None) == job.find(store.uri, "d", "cat.7") == ("cat.7", row.data)
    assert job.find(store.uri, "d", str(own)) == (str(own), own.read_bytes())
    for missing in ("cat.8", str(tmp_path), "x" * 5_000):
        with pytest.raises(NotFoundError):
            job.find(store.uri, "d", missing)
    own.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"own\.png can't be used"):
        job.main("d", photo=str(own), out=tmp_path / "out.png", store_uri=store.uri)
    assert not (tmp_path / "out.png").exists()
