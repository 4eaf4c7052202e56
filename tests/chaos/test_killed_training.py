"""Training that is killed: a worker, or everything. What comes out is what an undisturbed run gives, bit for bit."""

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
# Dropout is on, the photos grow, the best epoch need not be the last: all of it has to come back.
TRAIN = (
    "--dataset", "pets", "--recipe", "smoke", "--cpus-per-worker", "0.5", "--set", "image_size=48", "--set",
    f"epochs={EPOCHS}", "--set", "model=residual", "--set", "train_sizes=[[0.5,32],[1,48]]", "--set", "width=0.25",
    "--set", "batch_size=30", "--set", "deterministic=true", "--set", "mirror=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, photos: Photos, local_ray: None) -> Store:
    place = open_store(str(tmp_path_factory.mktemp("store")))
    ingest(place, "pets", str(photos.labelled), str(photos.unlabelled), test_size=60)
    return place


@pytest.fixture(scope="module")
def undisturbed(store: Store) -> bytes:
    code, output, errors = job("train.py", *TRAIN, "--run", "undisturbed", "--json", "--store", store.uri)
    assert code == 0, errors
    assert result_of(output)["epochs"] == EPOCHS
    return store.get(f"runs/undisturbed/{WEIGHTS}")


class Training:
    """A `train.py` in the background, which a test may harm, and all processes that come from it."""

    def __init__(self, store: Store, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *arguments, "--store", store.uri],
            cwd=ROOT, env={**plain_environment(), "PAWCAST_TEST": self.mark}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        self._lines = self._process.stderr
        self.said: list[str] = []

    def until(self, pattern: str) -> None:
        """Read on until a line matches."""
        for line in self._lines:
            self.said.append(line.rstrip())
            if re.search(pattern, line):
                return
        pytest.fail(f"never said {pattern!r}: {self.said[-10:]}")

    def end(self) -> tuple[int, str]:
        """Read to the end; return exit code and all that was said."""
        self.said += [line.rstrip() for line in self._lines]
        return self._process.wait(), "\n".join(self.said)

    def processes(self, title: str = "") -> list[int]:
        """The living processes that came from it, of which the command line has `title`."""
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


def test_a_killed_worker_costs_time_only(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "one-killed")
    run.until(r"^epoch +2/4")
    workers = run.processes("RayTrainWorker")
    assert len(workers) == 2
    run.kill(random.choice(workers))
    code, said = run.end()
    assert code == 0, said
    assert "Going on from the last checkpoint" in said
    assert re.search(r"continuing after epoch [23] of 4", said)
    assert store.get(f"runs/one-killed/{WEIGHTS}") == undisturbed


def test_a_run_killed_whole_is_resumed_to_the_same_weights(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "killed")
    run.until(r"^epoch +1/4")
    run.until(r"^epoch +2/4")
    run.kill(*run.processes())
    assert run.end()[0] != 0
    wait_for(lambda: not run.processes(), 20)

    code, _, errors = job("train.py", *TRAIN, "--run", "killed", "--store", store.uri)
    assert code == 7
    assert "--resume killed" in errors
    code, output, errors = job("train.py", "--resume", "killed", "--workers", "2", "--cpus-per-worker", "0.5", "--json",
                               "--store", store.uri)  # fmt: skip
    assert code == 0, errors
    assert "resuming killed, started" in errors
    assert re.search(r"continuing after epoch [23] of 4", errors)
    assert result_of(output)["epochs"] == EPOCHS
    assert store.get(f"runs/killed/{WEIGHTS}") == undisturbed
    # Now it is over.
    code, _, errors = job("train.py", "--resume", "killed", "--store", store.uri)
    assert code == 7
    assert "became catdog@" in errors


def test_an_interrupted_run_ends_in_time_and_can_go_on(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "interrupted")
    run.until(r"^epoch +1/4")
    run.interrupt()
    code, said = run.end()
    assert code == 130, said
    wait_for(lambda: not run.processes("RayTrainWorker"), 15, lambda: str(run.processes()))
    code, _, errors = job("train.py", "--resume", "interrupted", "--store", store.uri)
    assert code == 0, errors
    assert store.get(f"runs/interrupted/{WEIGHTS}") == undisturbed


def test_what_cannot_be_resumed_is_refused(store: Store, undisturbed: bytes) -> None:
    for arguments, code, hint in (
        (("--resume", "undisturbd"), 3, "did you mean 'undisturbed'"),
        (("--resume", "undisturbed", "--set", "epochs=9"), 2, "--resume alone"),
        ((), 2, "--dataset NAME, or --resume RUN"),
    ):
        found, _, errors = job("train.py", *arguments, "--store", store.uri)
        assert (found, hint in errors) == (code, True), errors
