"""Ingest over several Ray nodes gives the dataset that one node gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pawcast.dataset import manifest as manifests
from pawcast.store import open_store
from tests.services import ROOT, plain_environment

# Ray's own way to have several nodes, each a raylet with its own workers and object store, on one machine. The head
# has no CPU for tasks, so the nodes that joined do all the work.
THREE_NODES = """
import sys, logging
import ray
from ray.cluster_utils import Cluster
from pawcast.dataset.ingest import ingest
from pawcast.store import open_store

store, labelled, unlabelled = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
try:
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.WARNING)
    assert [node["Resources"].get("CPU", 0) for node in ray.nodes()].count(1) == 2, ray.nodes()
    print(ingest(open_store(store), "pets", labelled, unlabelled, holdout=60).manifest.digest)
finally:
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.long
def test_three_nodes_make_the_dataset_that_one_makes(ready, photos, tmp_path):
    one = manifests.load(open_store(str(ready.store)), "pets")
    done = subprocess.run(
        [sys.executable, "-c", THREE_NODES, str(tmp_path / "store"), str(photos.labelled), str(photos.unlabelled)],
        env=plain_environment(), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == one.digest
    assert manifests.load(open_store(str(tmp_path / "store")), "pets") == one
