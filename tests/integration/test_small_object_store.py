"""A decoded set larger than Ray's object store: slower, never dead, the same training, and it says so."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pawcast import recipes
from pawcast.data.ingest import ingest
from pawcast.store import open_store
from pawcast.training.runs import Workers
from pawcast.training.trainer import train
from tests.integration.conftest import Cluster, result_of

# 240 photos of 340x340x3 bytes are 83 MB; Ray's object store here is 80 MB, of which 64 are for them.
SETTINGS = ("image_size=340", "epochs=1", "dropout=0")


@pytest.mark.long
@pytest.mark.usefixtures("local_ray")
def test_training_beyond_the_object_store_is_the_same_training(tmp_path, photos):
    store = open_store(str(tmp_path / "store"))
    ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    within = train(store, "pets", recipes.resolve("smoke", SETTINGS), Workers(number=1), run="within")

    # Ray's sockets go below TMPDIR too, and their paths must be short.
    scratch = Path(tempfile.mkdtemp(prefix="pc-"))
    cluster = Cluster(tmp_path, tmp_path / "store", object_store=80_000_000, TMPDIR=str(scratch))
    try:
        words = [word for setting in SETTINGS for word in ("--set", setting)]
        done = cluster.run(
            "python", "jobs/train.py", "--dataset", "pets", "--recipe", "smoke", "--run", "beyond", "--json", *words,
        )  # fmt: skip
    finally:
        cluster.stop()
    assert done.returncode == 0, done.stderr
    assert "more than the 0.06 GiB that Ray's object store has" in done.stderr
    assert "decoding       240 of 240 photos" in done.stderr
    assert result_of(done.stdout)["run"] == "beyond"
    assert [path.name for path in scratch.glob("pawcast-*")] == []
    shutil.rmtree(scratch)
    beyond = json.loads(store.get("runs/beyond/history.json"))
    for key in ("loss", "val_loss", "acc", "val_acc"):
        np.testing.assert_allclose(beyond[key], within.history[key], rtol=1e-4, err_msg=key)
