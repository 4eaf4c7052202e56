"""Training on a decoded set that is larger than Ray's object store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pawcast import recipes
from pawcast.data.ingest import ingest
from pawcast.store import Store, open_store
from pawcast.training.runs import Workers
from pawcast.training.trainer import train
from tests.support.cluster import Cluster
from tests.support.services import Photos, result_of

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("local_ray")]
# 240 photos of 400x400x3 bytes are 115 MB; the object store has 80 MB, of which 64 are for photos.
STORE_BYTES = 80_000_000
SETTINGS = ("image_size=400", "epochs=1", "dropout=0")
TRAIN = (
    *("python", "jobs/train.py", "--dataset", "pets", "--recipe", "smoke", "--run", "beyond", "--json"),
    *("--workers", "2", "--cpus-per-worker", "0.5"),
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


@pytest.fixture
def store(tmp_path: Path, photos: Photos) -> Store:
    store = open_store(str(tmp_path / "store"))
    ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    return store


@contextmanager
def small_cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    cluster = Cluster(folder, folder / "store", object_store=STORE_BYTES, **environment)
    try:
        yield cluster
    finally:
        cluster.stop()


def test_training_beyond_the_object_store_is_the_same_training(store, tmp_path):
    within = train(store, "pets", recipes.resolve("smoke", SETTINGS), Workers(number=1), run="within")
    with small_cluster(tmp_path) as cluster:
        done = cluster.run(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert "more than the 0.06 GiB that Ray's object store has" in done.stderr
    assert "decoding       240 of 240 photos" in done.stderr
    assert result_of(done.stdout)["run"] == "beyond"
    beyond = json.loads(store.get("runs/beyond/history.json"))
    for key in ("loss", "val_loss", "acc", "val_acc"):
        np.testing.assert_allclose(beyond[key], within.history[key], rtol=1e-4, err_msg=key)


def test_a_full_disk_is_reported_before_training_starts(store, tmp_path):
    # Ray refuses to write to a disk that is fuller than this share.
    with small_cluster(tmp_path, RAY_local_fs_capacity_threshold="0.001") as cluster:
        done = cluster.run(*TRAIN)
    assert done.returncode == 6, done.stderr
    assert "fit neither into Ray's object store nor onto the disk of a node" in done.stderr
    assert "Traceback" not in done.stderr
    assert not store.exists("runs/beyond/history.json")
