"""kill -9 of an ingest at any moment: no partial dataset is visible, and the next run succeeds."""

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

# The line of progress after which the ingest is killed.
BEFORE_PUBLICATION = ("checking         0 of", "checking       340 of", "writing          0 of")
DURING_PUBLICATION = "writing        340 of"


@pytest.mark.usefixtures("local_ray")
def test_an_ingest_killed_at_any_moment_leaves_no_partial_dataset(tmp_path: Path, photos: Photos) -> None:
    sources = ["--labelled", str(photos.labelled), "--unlabelled", str(photos.unlabelled)]
    arguments = ["ingest.py", *sources, "--dataset", "pets", "--test-size", "60", "--json"]
    code, output, errors = job(*arguments, "--store", str(tmp_path / "undisturbed"))
    assert code == 0, errors
    store = open_store(str(tmp_path / "store"))
    for moment in BEFORE_PUBLICATION:
        kill_at(moment, arguments, tmp_path / "store")
        with pytest.raises(NotFoundError):
            verify(store, "pets")
    kill_at(DURING_PUBLICATION, arguments, tmp_path / "store")
    if any("/refs/" in key for key in store.list("datasets/pets/")):
        # Published before the kill: then it must be whole.
        verify(store, "pets")
    code, again, errors = job(*arguments, "--store", str(tmp_path / "store"))
    assert code == 0, errors
    assert result_of(again)["digest"] == result_of(output)["digest"]
    assert verify(store, "pets") == manifests.load(open_store(str(tmp_path / "undisturbed")), "pets")


def kill_at(moment: str, arguments: list[str], store: Path) -> None:
    """Start an ingest in a process group of its own; kill driver, Ray and workers at this line."""
    command = [sys.executable, str(ROOT / "jobs" / arguments[0]), *arguments[1:], "--store", str(store)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        reached = any(line.startswith(moment) for line in process.stderr)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert reached
