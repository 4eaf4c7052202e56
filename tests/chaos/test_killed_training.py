"""Training that is killed and goes on gives the weights of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import pytest

from pawcast.data.ingest import ingest
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from tests.support.cases import case
from tests.support.services import ROOT, Photos, free_port, job, plain_environment, result_of, wait_for

# A run is killed and goes on: on a busy machine that takes minutes.
pytestmark = pytest.mark.timeout(900)
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

    def __init__(self, store: Store, *arguments: str, environment: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "train.py"), "--store", store.uri, *arguments],
            cwd=ROOT,
            env={**plain_environment(), **environment, "PAWCAST_TEST": self.mark},
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

    def start(*arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> Training:
        started.append(Training(store, *arguments, environment=environment))
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


def test_a_killed_queue_and_a_killed_controller_change_no_weight(store: Store, undisturbed: bytes, training) -> None:
    run = training(*TRAIN, "--run", "no-queue")
    run.until(r"^epoch +1/4")
    run.kill(*run.processes("ray::_QueueActor"))
    # Ray starts the queue again, and the workers go on meanwhile.
    run.until(r"^epoch +[23]/4")
    run.kill(*run.processes("ray::TrainController"))
    code, errors = run.end()
    assert code == 0, errors
    assert errors.count("Going on from the last checkpoint") == 1
    assert "Ray lost the run's controller (ActorDiedError)" in errors
    assert "Traceback" not in errors
    assert store.get(f"runs/no-queue/{WEIGHTS}") == undisturbed


def test_a_controller_that_is_killed_without_end_ends_the_run_in_one_line(store: Store, training) -> None:
    run = training(*TRAIN, "--run", "no-controller", "--max-failures", "0")
    run.until(r"^epoch +1/4")
    run.kill(*run.processes("TrainController"))
    code, errors = run.end()
    assert code == 8, errors
    assert re.search(
        r"^error: Ray lost the run.*go on with: pawcast train --resume no-controller\.$", errors, re.MULTILINE
    )
    assert "Traceback" not in errors
    wait_for(lambda: not run.processes(), 90, lambda: str(run.processes()))


def test_an_expired_token_ends_the_run_at_once_and_names_the_checkpoint(store: Store, training) -> None:
    port = free_port()
    fake = subprocess.Popen(
        [sys.executable, str(case("fakes3.py")), str(port), "expire:70"],
        env={**os.environ, "PRELOAD": store.uri.removeprefix("file://")},
    )
    try:
        wait_for(lambda: _accepts(port), 20)
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        environment = {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1"}
        tiny = ("--set", "image_size=32", "--set", "epochs=60", "--run", "expired")
        run = training(*TRAIN, *tiny, "--store", "s3://bucket/x", environment=environment)
        code, errors = run.end()
    finally:
        fake.kill()
        fake.wait()
    assert code == 6, errors
    assert "Going on from the last checkpoint" not in errors
    last = errors.splitlines()[-1]
    assert re.search(
        r"refused the credentials.*renew.*The checkpoint of epoch \d+ is kept; go on with: .*--resume expired\.$", last
    )
    epoch = int(re.search(r"checkpoint of epoch (\d+)", last)[1])
    assert re.findall(r"^epoch +(\d+)/60", errors, re.MULTILINE)[-1] == str(epoch)
    assert "Traceback" not in errors


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    # The curves are whole, however late the run was killed.
    assert len(json.loads(store.get("runs/killed/history.json"))["loss"]) == EPOCHS
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
