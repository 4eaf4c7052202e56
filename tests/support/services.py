"""Real parts that tests share: photos, a private Ray, an S3 server, jobs as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pawcast_infra.local import seaweedfs
from pawcast_infra.local.drawn_photos import write_zips
from pawcast_infra.local.private_ray import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


class Photos:
    """Drawn photos as zips and as folders."""

    def __init__(self, folder: Path) -> None:
        self.labelled, self.unlabelled = write_zips(folder, labelled=300, unlabelled=40, seed=1)
        with zipfile.ZipFile(self.labelled) as archive:
            archive.extractall(folder / "unpacked")
        with zipfile.ZipFile(self.unlabelled) as archive:
            archive.extractall(folder / "unpacked")
        self.labelled_folder = folder / "unpacked" / "train"
        self.unlabelled_folder = folder / "unpacked" / "test1"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return Photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def local_ray(s3: str) -> Iterator[None]:
    """A private Ray of two CPUs. It starts after S3, because it inherits S3's credentials."""
    from pawcast.runtime import ray_session

    with ray_session.connect(cpus=2):
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server (SeaweedFS). Sets the environment to reach it, and yields a bucket's URI."""
    with seaweedfs.serve(tmp_path_factory.mktemp("s3")) as settings, pytest.MonkeyPatch.context() as environment:
        for key, value in settings.items():
            environment.setenv(key, value)
        yield f"s3://{seaweedfs.BUCKET}"


def free_port() -> int:
    return free_ports(1)[0]


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = lambda: "") -> None:
    """Poll until the condition holds; fail with an explanation if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {explain()[-2000:]}")
        time.sleep(0.1)


def job(*arguments: str, environment: dict[str, str] | None = None, timeout: float = 240) -> tuple[int, str, str]:
    """Run `python jobs/…` as a user does; return exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / arguments[0]), *arguments[1:]],
        env=environment or plain_environment(), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def result_of(output: str) -> dict[str, Any]:
    """The JSON object on a job's last line."""
    value: dict[str, Any] = json.loads(output.splitlines()[-1])
    return value


def started_job(*arguments: str, environment: dict[str, str]) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a job in the background; kill it if the test leaves it running."""
    return started_process(str(ROOT / "jobs" / arguments[0]), *arguments[1:], environment=environment)


@contextmanager
def started_process(*arguments: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start Python in the background; kill it if the test leaves it running."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def plain_environment() -> dict[str, str]:
    """This environment, without a cluster or store that it names."""
    return {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "PAWCAST_STORE")}
