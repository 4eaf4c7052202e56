"""Workers of a run, its records, and its lease."""

from __future__ import annotations

import random

import pytest

from pawcast.data.manifest import Manifest
from pawcast.errors import ConflictError, IntegrityError, NotFoundError
from pawcast.recipes import resolve
from pawcast.store import Store, open_store
from pawcast.training import lease, runs
from pawcast.training.runs import RunRecord, Workers
from tests.support.damage import DAMAGES

CPU_NODE, GPU_NODE = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("workers", "nodes", "cpus"),
    [
        (Workers(), [{"CPU": 2.0}], 2),
        (Workers(number=2), [{"CPU": 2.0}], 1),
        (Workers(number=3), [{"CPU": 8.0}], 2),
        (Workers(number=3), [{"CPU": 2.0}], 0.66),
        # The head takes no tasks.
        (Workers(number=2), [{"CPU": 0.0}, {"memory": 1e9}, CPU_NODE, {"CPU": 4.0}], 4),
        (Workers(number=3), [CPU_NODE, {"CPU": 4.0}], 2),
        # Only nodes with GPUs count for workers that want one.
        (Workers(gpus=1), [CPU_NODE, GPU_NODE], 16),
        (Workers(number=4, gpus=1), [CPU_NODE, GPU_NODE], 4),
        # Nothing suits: the check of the cluster's resources explains that.
        (Workers(gpus=1), [CPU_NODE], 1),
        (Workers(number=2, cpus=0.5), [CPU_NODE], 0.5),
    ],
)
def test_workers_of_a_node_share_its_cpus_unless_told_otherwise(workers, nodes, cpus):
    shares = workers.cpus is None
    assert workers.with_cpus(nodes) == workers.model_copy(update={"cpus": cpus, "shares_cpus": shares})


def test_a_resumed_run_keeps_what_is_not_given():
    begun = Workers(number=2, cpus=0.5)
    assert begun.replaced_by(Workers(cpus=2.0)) == Workers(number=2, cpus=2.0)
    assert begun.replaced_by(Workers(number=1)) == Workers(number=1, cpus=0.5)
    assert begun.replaced_by(Workers(gpus=1.0)) == Workers(number=2, cpus=0.5, gpus=1.0)
    assert begun.replaced_by(Workers()) == begun


def test_a_share_of_a_nodes_cpus_is_computed_anew_for_other_workers():
    begun = Workers().with_cpus([CPU_NODE])
    assert (begun.cpus, begun.replaced_by(Workers())) == (8.0, begun)
    assert begun.replaced_by(Workers(number=4)).with_cpus([CPU_NODE]).cpus == 2.0
    assert begun.replaced_by(Workers(cpus=3.0)) == Workers(cpus=3.0)


def begin(store: Store, run: str) -> RunRecord:
    facts = {"dataset": "pets", "classes": ["cat", "dog"], "seed": 0, "source_sha256": "0" * 64, "quarantine": []}
    manifest = Manifest(splits={}, report_sha256="0" * 64, **facts)
    return runs.claim(store, run, manifest, resolve("smoke"), None, "catdog", Workers())


def test_a_run_is_known_until_it_is_over(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(NotFoundError, match="none exist yet"):
        runs.load(store, "first")
    record = begin(store, "first")
    assert runs.load(store, "first") == record
    with pytest.raises(ConflictError, match="--resume first"):
        begin(store, "first")
    store.put("runs/first/history.json", b"{}")
    runs.finish(store, "first", "catdog@1")
    result = runs.read_result(store, "first")
    assert (result.version, list(result.files)) == ("catdog@1", ["history.json"])
    with pytest.raises(ConflictError, match="catdog@1"):
        runs.load(store, "first")


@pytest.mark.parametrize("name", ["run.json", "result.json", "attempt.json"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_record_of_a_run_is_named(tmp_path, damage, name):
    store = open_store(str(tmp_path))
    for run in ("first", "second"):
        begin(store, run)
        lease.acquire(store, run)
        if name == "result.json":
            runs.finish(store, run, "catdog@1")
    damage(store, f"runs/first/{name}", f"runs/second/{name}", random.Random(0))
    if (damage.__name__, name) == ("delete", "result.json"):
        # Without a result the run isn't over.
        assert runs.load(store, "first").run == "first"
        return
    with pytest.raises(IntegrityError, match=f"runs/first/{name}"):
        lease.holder(store, "first") if name == "attempt.json" else runs.load(store, "first")
