"""A Ray head of its own, as tests and measurements use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pawcast_infra.local.private_ray import proxy_settings

from tests.support.services import BIN, ROOT, free_port, wait_for


class Cluster:
    """A Ray head, started as README says, with two CPUs and two fake GPUs.

    HAProxy is in front of its replicas, or Serve's own proxy with `RAY_SERVE_ENABLE_HA_PROXY="0"`.
    """

    def __init__(self, folder: Path, store: Path, object_store: int = 400_000_000, **environment: str) -> None:
        self.store = store
        # Serve keeps its first port as long as the head lives.
        self.port, self.dashboard, self.http = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        # A short path: a socket's path may have 107 characters.
        self._sockets = tempfile.TemporaryDirectory(prefix="pawcast-", dir="/tmp")
        self.environment = {
            **os.environ,
            **proxy_settings(Path(self._sockets.name)),
            # As after `source .venv/bin/activate`: submitted jobs run the first `python` on PATH.
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "PAWCAST_STORE": str(store),
            **environment,
        }
        command = [BIN / "ray", "get-auth-token", "--generate"]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)
        self._token = done.stdout.split()[-1]
        environment = {key: value for key, value in self.environment.items() if key != "RAY_ADDRESS"}
        # With `--block`, stopping this process stops the head's processes, and no others.
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

    def deploy(
        self, folder: Path, arguments: dict[str, Any], runtime: dict[str, Any] | None = None, replicas: int = 1
    ) -> None:
        """Start to deploy `serve/config.yaml` with other arguments; don't wait for it."""
        config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
        config["http_options"]["port"] = self.http
        application = config["applications"][0]
        application["args"].update(arguments)
        application["runtime_env"] = runtime or {}
        application["deployments"][0]["num_replicas"] = replicas
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

    def replicas(self) -> set[int]:
        """Process ids of the replicas that are ready for requests."""
        address = f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"
        found = httpx.get(address, headers={"authorization": f"Bearer {self._token}"}, timeout=30).json()
        deployments = found["applications"]["pawcast"]["deployments"]
        states = [replica for deployment in deployments.values() for replica in deployment["replicas"]]
        return {replica["pid"] for replica in states if replica["state"] == "RUNNING"}

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
        return list(self.workers("RayTrainWorker").values())

    def workers(self, kind: str) -> dict[int, str]:
        """Command lines of this head's processes that run actors of a kind, by process id."""
        found: dict[str, tuple[str, str]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue  # it has just ended
            found[entry.name] = (parent, line)
        raylets = {pid for pid, (_, line) in found.items() if "raylet/raylet" in line and f":{self.port}" in line}
        return {int(pid): line for pid, (parent, line) in found.items() if parent in raylets and kind in line}

    def proxies(self) -> set[int]:
        """Process ids of HAProxy, or of Serve's own proxy where HAProxy isn't used."""
        if not self.haproxy:
            return set(self.workers("ProxyActor"))
        found: set[int] = set()
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has just ended
                line = entry.read_bytes()
                if b"haproxy" in line and self._sockets.name.encode() in line:
                    found.add(int(entry.parent.name))
        return found

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
