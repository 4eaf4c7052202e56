"""kill -9 of an ingest at any moment: no dataset is seen, nothing trips the next run, and it gives the same digest."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pawcast.dataset import manifest as manifests
from pawcast.dataset.verify import verify
from pawcast.errors import NotFoundError
from pawcast.store import open_store
from tests.services import ROOT, Photos, job, result_of

KILLS = 3


@pytest.mark.usefixtures("local_ray")
def test_an_ingest_killed_at_any_moment_leaves_nothing_to_see_or_to_trip_over(tmp_path: Path, photos: Photos) -> None:
    arguments = [
        "ingest.py", "--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled), "--dataset", "pets",
        "--holdout", "60", "--json",
    ]  # fmt: skip
    started = time.monotonic()
    code, output, errors = job(*arguments, "--store", str(tmp_path / "undisturbed"))
    whole = time.monotonic() - started
    assert code == 0, errors
    store = open_store(str(tmp_path / "store"))
    moments = random.Random(0)
    seen = 0
    for _ in range(KILLS):
        # Most of the time goes to starting Ray; the writing is at the end.
        killed_after(arguments, tmp_path / "store", whole * moments.uniform(0.5, 1.0))
        try:
            # Too late to prevent the dataset: then it must be whole.
            verify(store, "pets")
            seen += 1
        except NotFoundError:
            assert [key for key in store.list("datasets/pets/") if "/refs/" in key] == []
    assert seen < KILLS
    code, again, errors = job(*arguments, "--store", str(tmp_path / "store"))
    assert code == 0, errors
    assert result_of(again)["digest"] == result_of(output)["digest"]
    assert verify(store, "pets") == manifests.load(open_store(str(tmp_path / "undisturbed")), "pets")


def killed_after(arguments: list[str], store: Path, seconds: float) -> None:
    """Start an ingest in a process group of its own, and kill the driver, its Ray and all workers at one moment."""
    command = [sys.executable, str(ROOT / "jobs" / arguments[0]), *arguments[1:], "--store", str(store)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
