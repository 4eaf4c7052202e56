"""A Ray head of its own for the integration tests; what they share with other tests is in `tests.support.services`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.services import ROOT, Photos, free_port, job, result_of, started_job, started_process, wait_for

__all__ = ["ROOT", "Cluster", "Photos", "free_port", "job", "result_of", "started_job", "started_process", "wait_for"]
RELEASE_SECONDS = 15
# Another test's service may hold one of the two CPUs.
HALF_CPU = ("--cpus-per-worker", "0.5")
TRAIN = ("--dataset", "pets", "--recipe", "smoke", "--set", "image_size=48", "--gpus-per-worker", "1", *HALF_CPU)
FOR_EVER = ("--set", "epochs=10000")


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("head")
    cluster = Cluster(folder, folder / "store")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def ready(head: Cluster, photos: Photos) -> Cluster:
    """The head, with a dataset in its store."""
    done = head.run(
        "python", "jobs/ingest.py", "--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled),
        "--dataset", "pets", "--test-size", "60",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return head


def released(head: Cluster) -> None:
    wait_for(lambda: not head.training_processes(), RELEASE_SECONDS, lambda: str(head.training_processes()))
    wait_for(lambda: head.idle_gpus() == 2, RELEASE_SECONDS, lambda: f"{head.idle_gpus()} GPUs idle")


def training(head: Cluster) -> bool:
    """Whether both workers run and hold their GPUs."""
    return len(head.training_processes()) == 2 and head.idle_gpus() == 0
