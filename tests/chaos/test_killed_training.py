"""Training that is killed and goes on gives the weights of an undisturbed run, bit for bit."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pawcast.data.ingest import ingest
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from tests.support.services import ROOT, Photos, job, plain_environment, result_of, wait_for

EPOCHS = 4
# Dropout is on, the photos grow, and the best epoch need not be the last: a resumed run has to
# restore all of it.
SETTINGS = (
    *("image_size=48", f"epochs={EPOCHS}", "model=residual", "train_sizes=[[0.5,32],[1,48]]"),
    *("width=0.25", "batch_size=30", "deterministic=true", "mirror=true"),
)
TRAIN = (
    *("--dataset", "pets", "--recipe", "smoke", "--workers", "2", "--cpus-per-worker", "0.5"),
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, photos: Photos, local_ray: None) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    ingest(store, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    return store


@pytest.fixture(scope="module")
def undisturbed(store: Store) -> bytes:
    code, output, errors = job("train.py", *TRAIN, "--run", "undisturbed", "--json", "--store", store.uri)
    assert code == 0, errors
    assert result_of(output)["epochs"] == EPOCHS
    return store.get(f"runs/undisturbed/{WEIGHTS}")


class Training:
    """A `train.py` in the background that a test may kill, and all processes that it starts."""

    def __init__(self, store: Store, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *arguments, "--store", store.uri],
            cwd=ROOT,
            env={**plain_environment(), "PAWCAST_TEST": self.mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self._lines = self._process.stderr
        self.output: list[str] = []

    def until(self, pattern: str) -> None:
        """Read standard error until a line matches."""
        for line in self._lines:
            self.output.append(line.rstrip())
            if re.search(pattern, line):
                return
        pytest.fail(f"no line matches {pattern!r}: {self.output[-10:]}")

    def end(self) -> tuple[int, str]:
        """Read standard error to its end; return the exit code and all of it."""
        self.output += [line.rstrip() for line in self._lines]
        return self._process.wait(), "\n".join(self.output)

    def processes(self, title: str = "") -> list[int]:
        """Return its living processes whose command line contains `title`."""
        return [pid for pid, command in _marked(self.mark) if title in command]

    def kill(self, *pids: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.kill(*self.processes())
        self._process.wait()
        self._lines.close()


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and f"PAWCAST_TEST={mark}".encode() in (folder / "environ").read_bytes():
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture
def training(store: Store) -> Iterator[type]:
    started: list[Training] = []

    def start(*arguments: str) -> Training:
        started.append(Training(store, *arguments))
        return started[-1]

    yield start  # type: ignore[misc]
    for one in started:
        one.close()


def test_a_killed_worker_changes_no_weight(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "one-killed")
    run.until(r"^epoch +2/4")
    workers = run.processes("RayTrainWorker")
    assert len(workers) == 2
    run.kill(random.choice(workers))
    code, errors = run.end()
    assert code == 0, errors
    assert "Going on from the last checkpoint" in errors
    assert re.search(r"continuing after epoch [23] of 4", errors)
    assert store.get(f"runs/one-killed/{WEIGHTS}") == undisturbed


def test_a_killed_run_is_resumed_to_the_same_weights(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "killed")
    run.until(r"^epoch +1/4")
    run.until(r"^epoch +2/4")
    run.kill(*run.processes())
    assert run.end()[0] != 0
    wait_for(lambda: not run.processes(), 20)

    code, _, errors = job("train.py", *TRAIN, "--run", "killed", "--store", store.uri)
    assert code == 7
    assert "--resume killed" in errors
    workers = ("--workers", "2", "--cpus-per-worker", "0.5")
    code, output, errors = job("train.py", "--resume", "killed", *workers, "--json", "--store", store.uri)
    assert code == 0, errors
    assert "resuming killed, started" in errors
    assert re.search(r"continuing after epoch [23] of 4", errors)
    assert result_of(output)["epochs"] == EPOCHS
    assert store.get(f"runs/killed/{WEIGHTS}") == undisturbed
    # A run that is over can't be resumed.
    code, _, errors = job("train.py", "--resume", "killed", "--store", store.uri)
    assert code == 7
    assert "became catdog@" in errors


def test_an_interrupted_run_ends_in_time_and_can_go_on(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "interrupted")
    run.until(r"^epoch +1/4")
    run.interrupt()
    code, errors = run.end()
    assert code == 130, errors
    wait_for(lambda: not run.processes("RayTrainWorker"), 15, lambda: str(run.processes()))
    code, _, errors = job("train.py", "--resume", "interrupted", "--store", store.uri)
    assert code == 0, errors
    assert store.get(f"runs/interrupted/{WEIGHTS}") == undisturbed


def test_a_wrong_resume_is_refused_with_a_hint(store: Store, undisturbed: bytes) -> None:
    for arguments, code, hint in (
        (("--resume", "undisturbd"), 3, "did you mean 'undisturbed'"),
        (("--resume", "undisturbed", "--set", "epochs=9"), 2, "--resume without them"),
        ((), 2, "--dataset NAME, or --resume RUN"),
    ):
        exit_code, _, errors = job("train.py", *arguments, "--store", store.uri)
        assert (exit_code, hint in errors) == (code, True), errors
