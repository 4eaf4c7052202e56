"""A Ray head of its own for the integration tests; what they share with other tests is in `tests.services`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pawcast.serving import proxy_settings
from tests.services import BIN, ROOT, Photos, free_port, job, result_of, started_job, started_process, wait_for

__all__ = ["ROOT", "Photos", "free_port", "job", "result_of", "started_job", "started_process", "wait_for"]
RELEASE_SECONDS = 15
# Another test's service may hold one of the two CPUs.
HALF_CPU = ("--cpus-per-worker", "0.5")
TRAIN = ("--dataset", "pets", "--recipe", "smoke", "--set", "image_size=48", "--gpus-per-worker", "1", *HALF_CPU)
FOR_EVER = ("--set", "epochs=10000")


class Cluster:
    """A Ray head of its own, started as README says, with two CPUs and two GPUs that exist for Ray only.

    HAProxy stands before its replicas, or Serve's own proxy with `RAY_SERVE_ENABLE_HA_PROXY="0"`.
    """

    def __init__(self, folder: Path, store: Path, object_store: int = 400_000_000, **environment: str) -> None:
        self.store = store
        # Serve listens at one port as long as a head lives, whatever is deployed later.
        self.port, self.dashboard, self.http = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        # Short, as sockets are in there.
        self._sockets = tempfile.TemporaryDirectory(prefix="pawcast-", dir="/tmp")
        self.environment = {
            **os.environ,
            **proxy_settings(Path(self._sockets.name)),
            # As after `source .venv/bin/activate`: a submitted job runs `python` as the head finds it.
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "PAWCAST_STORE": str(store),
            **environment,
        }
        subprocess.run(
            [BIN / "ray", "get-auth-token", "--generate"],
            env=self.environment,
            check=True,
            capture_output=True,
        )
        environment = {key: value for key, value in self.environment.items() if key != "RAY_ADDRESS"}
        # `--block` keeps the head's processes with this one, so that stopping it stops them and no others.
        self.log = folder / "head.log"
        self._output = self.log.open("w")
        self._head = subprocess.Popen(
            [
                BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=2",
                f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1",
                f"--dashboard-agent-listen-port={free_port()}", "--node-ip-address=127.0.0.1",
                f"--object-store-memory={object_store}",
            ],
            env=environment, cwd=ROOT, stdout=self._output, stderr=self._output,
        )  # fmt: skip
        try:
            wait_for(self._answers, 90, lambda: self.log.read_text())
        except BaseException:
            self.stop()
            raise

    def run(self, *command: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment's `bin` from the project's folder."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def deploy(self, folder: Path, arguments: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        """Deploy `serve/config.yaml` with arguments of a test's own; it is on its way then, not there."""
        config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
        config["http_options"]["port"] = self.http
        config["applications"][0]["args"].update(arguments)
        config["applications"][0]["runtime_env"] = runtime or {}
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        done = self.run("serve", "deploy", str(path))
        assert done.returncode == 0, done.stderr

    def serves(self, model: str) -> bool:
        """Whether a model of this name, or `name@version`, is ready."""
        try:
            response = httpx.get(f"{self.url}/readyz", timeout=60)
        except httpx.TransportError:
            return False
        return response.status_code == 200 and f"{response.json()['model']}@".startswith(f"{model}@")

    def idle_gpus(self) -> float:
        """GPUs that nobody holds, as the head counts them."""
        done = self.run(
            "python", "-c",
            "import ray, json; ray.init(logging_level='ERROR', log_to_driver=False);"
            "print(json.dumps(ray.available_resources()))",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout.splitlines()[-1]).get("GPU", 0))

    def training_processes(self) -> list[str]:
        """Command lines of this head's training workers."""
        found: dict[str, tuple[str, str]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue  # it has just ended
            found[entry.name] = (parent, line)
        raylets = {pid for pid, (_, line) in found.items() if "raylet/raylet" in line and f":{self.port}" in line}
        return [line for parent, line in found.values() if parent in raylets and "RayTrainWorker" in line]

    def stop(self) -> None:
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(60)
        except subprocess.TimeoutExpired:
            self._head.kill()
            self._head.wait()
        self._output.close()
        self._sockets.cleanup()

    @property
    def haproxy(self) -> bool:
        """Whether HAProxy has been configured."""
        return any(Path(self._sockets.name).glob("*/haproxy.cfg"))

    def _answers(self) -> bool:
        if self._head.poll() is not None:
            pytest.fail(f"the head ended: {self.log.read_text()[-2000:]}")
        try:
            return httpx.get(f"http://127.0.0.1:{self.dashboard}/api/version").status_code in (200, 401)
        except httpx.TransportError:
            return False


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("head")
    cluster = Cluster(folder, folder / "store")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def ready(head: Cluster, photos: Photos) -> Cluster:
    """The head, with a dataset in its store."""
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
