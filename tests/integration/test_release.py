"""After training ends, fails or is interrupted, its processes are gone and its GPUs are free again.

The head is told that its node has two GPUs, which is all that placement and release are about.
"""

from __future__ import annotations

import signal

import pytest
from conftest import Cluster, Photos, result_of, started_job, wait_for

RELEASE_SECONDS = 15
TRAIN = ("--dataset", "pets", "--recipe", "smoke", "--set", "image_size=48", "--gpus-per-worker", "1")
FOR_EVER = ("--set", "epochs=10000")


@pytest.fixture(scope="module")
def ready(head: Cluster, photos: Photos) -> Cluster:
    done = head.run(
        "python", "jobs/ingest.py", "--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled),
        "--dataset", "pets", "--holdout", "60",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return head


def released(head: Cluster) -> None:
    wait_for(lambda: not head.training_processes(), RELEASE_SECONDS, lambda: str(head.training_processes()))
    wait_for(lambda: head.idle_gpus() == 2, RELEASE_SECONDS, lambda: f"{head.idle_gpus()} GPUs idle")


def training(head: Cluster) -> bool:
    """Whether both workers run and hold their GPUs."""
    return len(head.training_processes()) == 2 and head.idle_gpus() == 0


def test_after_the_end(ready):
    done = ready.run("python", "jobs/train.py", *TRAIN, "--set", "epochs=1", "--json")
    assert done.returncode == 0, done.stderr
    assert result_of(done.stdout)["epochs"] == 1
    released(ready)


def test_after_a_failure(ready):
    done = ready.run(
        "python", "jobs/train.py", *TRAIN, "--set", "learning_rate=10", "--set", "momentum=0.99", "--set", "batch_size=16",
        "--set", "warmup_epochs=0",
    )  # fmt: skip
    assert done.returncode == 10, done.stderr
    assert "stopped being a number" in done.stderr
    assert "Traceback" not in done.stderr
    released(ready)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interrupt(ready, number):
    with started_job("train.py", *TRAIN, *FOR_EVER, environment=ready.environment) as process:
        wait_for(lambda: training(ready), 120)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    released(ready)


def test_after_the_driver_is_killed(ready):
    with started_job("train.py", *TRAIN, *FOR_EVER, environment=ready.environment) as process:
        wait_for(lambda: training(ready), 120)
        process.kill()
        process.communicate(timeout=60)
    released(ready)
