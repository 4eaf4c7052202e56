"""What tests of training on a Ray head share: arguments of `train.py`, and what they wait for."""

from __future__ import annotations

from tests.support.cluster import Cluster
from tests.support.services import wait_for

_RELEASE_SECONDS = 15
# Another test's service may hold one of the two CPUs.
TRAIN = (
    *("--dataset", "pets", "--recipe", "smoke", "--set", "image_size=48"),
    *("--workers", "2", "--gpus-per-worker", "1", "--cpus-per-worker", "0.5"),
)
FOR_EVER = ("--set", "epochs=10000")


def is_training(head: Cluster) -> bool:
    """Return whether both workers run and hold their GPUs."""
    return len(head.training_processes()) == 2 and head.idle_gpus() == 0


def wait_until_released(head: Cluster) -> None:
    """Wait until the training processes are gone and their GPUs are free."""
    wait_for(lambda: not head.training_processes(), _RELEASE_SECONDS, lambda: str(head.training_processes()))
    wait_for(lambda: head.idle_gpus() == 2, _RELEASE_SECONDS, lambda: f"{head.idle_gpus()} GPUs idle")
