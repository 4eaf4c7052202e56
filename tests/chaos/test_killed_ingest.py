"""kill -9 of an ingest at any moment: no dataset is seen, nothing trips the next run, and it gives the same digest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pawcast.data import manifest as manifests
from pawcast.data.verify import verify
from pawcast.errors import NotFoundError
from pawcast.store import open_store
from tests.support.services import ROOT, Photos, job, plain_environment, result_of

# What the ingest says just before it is killed; the last one is said while the dataset is being published.
MOMENTS = ("checking         0 of", "checking       340 of", "writing          0 of", "writing        340 of")


@pytest.mark.usefixtures("local_ray")
def test_an_ingest_killed_at_any_moment_leaves_nothing_to_see_or_to_trip_over(tmp_path: Path, photos: Photos) -> None:
    arguments = [
        "ingest.py", "--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled), "--dataset", "pets",
        "--test-size", "60", "--json",
    ]  # fmt: skip
    code, output, errors = job(*arguments, "--store", str(tmp_path / "undisturbed"))
    assert code == 0, errors
    store = open_store(str(tmp_path / "store"))
    for moment in MOMENTS:
        killed_at(moment, arguments, tmp_path / "store")
        try:
            # Too late to prevent the dataset: then it must be whole.
            verify(store, "pets")
            assert moment == MOMENTS[-1]
        except NotFoundError:
            assert [key for key in store.list("datasets/pets/") if "/refs/" in key] == []
    code, again, errors = job(*arguments, "--store", str(tmp_path / "store"))
    assert code == 0, errors
    assert result_of(again)["digest"] == result_of(output)["digest"]
    assert verify(store, "pets") == manifests.load(open_store(str(tmp_path / "undisturbed")), "pets")


def killed_at(moment: str, arguments: list[str], store: Path) -> None:
    """Start an ingest in a process group of its own; kill driver, Ray and workers together once it says something."""
    command = [sys.executable, str(ROOT / "jobs" / arguments[0]), *arguments[1:], "--store", str(store)]
    with subprocess.Popen(
        command, cwd=ROOT, env=plain_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = any(line.startswith(moment) for line in process.stderr)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert said
