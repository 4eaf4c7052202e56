"""Ingest and training over several Ray nodes give what one node gives."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pawcast.data import manifest as manifests
from pawcast.store import open_store
from tests.support.services import ROOT, plain_environment

# Ray's own way to have several nodes on one machine: each is a raylet with its own workers and
# object store. The head has no CPU for tasks, so the nodes that joined do all the work.
THREE_NODES = """
import sys, logging
import ray
from ray.cluster_utils import Cluster
from pawcast.store import open_store

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
try:
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
    assert [node["Resources"].get("CPU", 0) for node in ray.nodes()].count(1) == 2, ray.nodes()
    store = open_store(sys.argv[1])
    %s
finally:
    ray.shutdown()
    cluster.shutdown()
"""
INGEST = """
    from pawcast.data.ingest import ingest
    print(ingest(store, "pets", *sys.argv[2:], test_size=60).manifest.digest)
"""
# One worker on each node, so that gradients travel over the network.
TRAIN = """
    import json
    from pawcast import recipes
    from pawcast.training.runs import Workers
    from pawcast.training.trainer import train
    recipe = recipes.resolve("smoke", ["image_size=48", "epochs=2", "batch_size=50", "precision=float32"])
    histories = [train(store, "pets", recipe, Workers(number=n), run=f"of-{n}").history for n in (1, 2)]
    print(json.dumps(histories))
"""


def on_three_nodes(body: str, *arguments: str) -> str:
    """Run a piece of Python in a cluster of three nodes; return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", THREE_NODES % body, *arguments],
        env=plain_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.long
def test_three_nodes_ingest_the_same_dataset_as_one(ready, photos, tmp_path):
    one = manifests.load(open_store(str(ready.store)), "pets")
    digest = on_three_nodes(INGEST, str(tmp_path / "store"), str(photos.labelled), str(photos.unlabelled))
    assert digest == one.digest
    assert manifests.load(open_store(str(tmp_path / "store")), "pets") == one


@pytest.mark.long
def test_workers_on_two_nodes_give_the_loss_curve_of_one(ready):
    one, two = json.loads(on_three_nodes(TRAIN, str(ready.store)))
    for key in ("loss", "val_loss", "acc", "val_acc"):
        np.testing.assert_allclose(two[key], one[key], rtol=1e-3, atol=1e-4, err_msg=key)
