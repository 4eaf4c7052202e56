"""The memory of a real GPU is free again after training ends or is stopped, in whatever way."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.support.load import gpu_mib
from tests.support.services import job, plain_environment, result_of, started_job, wait_for

RELEASE_SECONDS = 30
# TensorFlow's context alone takes more than HELD_MIB, the GPU driver's own data less than
# SPARE_MIB.
HELD_MIB, SPARE_MIB = 200, 50
TRAIN = ("--dataset", "pets", "--recipe", "smoke", "--workers", "1", "--gpus-per-worker", "1")


pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, photos):
    """An environment whose store holds a dataset."""
    store = tmp_path_factory.mktemp("gpu") / "store"
    environment = {**plain_environment(), "PAWCAST_STORE": str(store)}
    options = ("--labelled", str(photos.labelled), "--dataset", "pets", "--test-size", "60")
    code, _, errors = job("ingest.py", *options, environment=environment)
    assert code == 0, errors
    return environment


@pytest.fixture
def idle() -> int:
    """What is in use before training, in MiB."""
    return gpu_mib()


def held(idle: int) -> bool:
    return gpu_mib() > idle + HELD_MIB


def free_again(idle: int) -> None:
    wait_for(lambda: gpu_mib() < idle + SPARE_MIB, RELEASE_SECONDS, lambda: f"{gpu_mib()} MiB, before {idle}")


def test_after_the_end(environment, idle):
    with started_job("train.py", *TRAIN, "--set", "epochs=3", "--json", environment=environment) as process:
        wait_for(lambda: held(idle), 120, lambda: f"{gpu_mib()} MiB in use")
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert result_of(output)["epochs"] == 3
    free_again(idle)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_stop(environment, idle, number):
    run = f"stopped-by-{number.name.lower()}"
    history = Path(environment["PAWCAST_STORE"], "runs", run, "history.json")
    arguments = (*TRAIN, "--set", "epochs=10000", "--run", run)
    with started_job("train.py", *arguments, environment=environment) as process:
        wait_for(history.exists, 120, lambda: f"no {history}")
        assert held(idle)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), errors
    free_again(idle)
