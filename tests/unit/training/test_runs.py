"""Workers of a run, and the number of CPUs that they get by default."""

from __future__ import annotations

import pytest

from pawcast.training.runs import Workers

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
