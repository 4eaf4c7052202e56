"""Ray: can it be joined or started, and is every node fit for our tasks?

A process of its own joins Ray, with a time limit: Ray can wait for minutes, write to the terminal
from native code or end its process, and it reads its settings when it is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from pawcast.doctor.finding import Finding, failure, ok, problem, warning
from pawcast.doctor.store import scratch
from pawcast.doctor.versions import PACKAGES, installed
from pawcast.store import open_store

_JOIN_SECONDS, _NODE_SECONDS = 90, 45
_SHARED_MEMORY = Path("/dev/shm")
_LOW_SHARED_MEMORY = 2e9
_DATA = b"written by the doctor"
_LOGS = "look at the newest logs in /tmp/ray/session_latest/logs"
_JOIN = "import sys; from pawcast.doctor import cluster; cluster.join_and_print(sys.argv[1])"


def check(store: str | None) -> Iterator[Finding]:
    """Join the cluster of RAY_ADDRESS, or start a private Ray, and check its nodes.

    Args:
        store: The URI of the store that each node must reach; None to skip that.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield token(os.environ, Path.home() / ".ray" / "auth_token")
    elif _SHARED_MEMORY.is_dir():
        yield shared_memory(shutil.disk_usage(_SHARED_MEMORY).free)
    yield from join(store)


def token(environment: Mapping[str, str], file: Path) -> Finding:
    """Compare RAY_AUTH_MODE with the tokens there are. Ray doesn't say why it refuses a client."""
    mode = environment.get("RAY_AUTH_MODE")
    exists = bool(environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")) or file.exists()
    if mode is None and exists:
        seen = f"there is a token in {file}, but RAY_AUTH_MODE is unset: `ray job submit` may fail with 401"
        return warning("ray", "token", seen, "export RAY_AUTH_MODE=token on every machine and in every terminal")
    if mode == "token" and not exists:
        fix = f"copy the head's {file} here, or `ray get-auth-token --generate` before the head is started"
        return problem("ray", "token", f"RAY_AUTH_MODE=token, but there is no token in {file}", fix)
    return ok("ray", "token", f"RAY_AUTH_MODE={mode}" if mode else "no token, RAY_AUTH_MODE unset: anyone may connect")


def shared_memory(free: float) -> Finding:
    """Check the free bytes in /dev/shm, where Ray's object store keeps decoded photos."""
    seen = f"{free / 1e9:,.1f} GB free in /dev/shm; 23,000 decoded photos of 150 px take 1.6 GB, or go to disk"
    if free < _LOW_SHARED_MEMORY:
        fix = "docker run --shm-size=4g, or delete what an earlier Ray left in /dev/shm"
        return warning("ray", "shared_memory", seen, fix)
    return ok("ray", "shared_memory", seen)


def join(store: str | None) -> list[Finding]:
    """Join or start Ray in a process of its own; return its findings, or why there are none."""
    address = os.environ.get("RAY_ADDRESS")
    at_address = f" at RAY_ADDRESS={address}" if address else ""
    command = [sys.executable, "-c", _JOIN, json.dumps(store)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_JOIN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        fix = "start it (ray start --head), correct RAY_ADDRESS, or unset it" if address else _LOGS
        return [problem("ray", "session", f"Ray gave no answer{at_address} within {_JOIN_SECONDS} s", fix)]
    if "InvalidAuthToken" in done.stderr:
        # Only Ray's native log says so; its Python error doesn't.
        mode = os.environ.get("RAY_AUTH_MODE", "unset")
        fix = "export RAY_AUTH_MODE=token, with a copy of the head's ~/.ray/auth_token in the same place here"
        return [problem("ray", "session", f"Ray refused our token{at_address}; RAY_AUTH_MODE is {mode}", fix)]
    if done.returncode or not done.stdout:
        message = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return [problem("ray", "session", f"Ray failed: {message[-1][:300]}", _LOGS)]
    return [Finding(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def join_and_print(store: str) -> None:
    """Print the findings of `check_nodes` as JSON. The entry of the process that `join` starts."""
    findings: list[Finding] = []
    try:
        findings.extend(check_nodes(json.loads(store)))
    except Exception as error:
        findings.append(failure("ray", "session", error))
    sys.stdout.write(json.dumps([finding.as_dict() for finding in findings]) + "\n")


def check_nodes(store: str | None) -> Iterator[Finding]:
    """Open a session with Ray as every job does, and run one task on each node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pawcast.runtime import ray_session

    started = time.monotonic()
    with ray_session.connect(), ExitStack() as stack:
        seconds = time.monotonic() - started
        resources = ray.cluster_resources()
        size = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
        address = os.environ.get("RAY_ADDRESS") or "a private Ray"
        yield ok("ray", "session", f"{address} in {seconds:,.1f} s: {size}")
        key = None
        if store:
            opened = open_store(store)
            key = f"{stack.enter_context(scratch(opened))}/node"
            opened.put(key, _DATA)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        task = ray.remote(num_cpus=0, max_retries=0)(probe())
        strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        answers = [task.options(scheduling_strategy=s).remote(PACKAGES, store, key, _DATA) for s in strategies]
        ray.wait(answers, num_returns=len(answers), timeout=_NODE_SECONDS)
        for node, answer in zip(nodes, answers, strict=True):
            name = f"node {node['NodeManagerHostname']}"
            try:
                yield from check_node(name, store, *ray.get(answer, timeout=1))
            except ray.exceptions.RayError as error:
                seen = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
                yield problem("ray", name, seen, f"{_LOGS} there")


def probe() -> Callable[..., tuple[dict[str, str | None], str]]:
    """Return the function that runs on a node. It returns the versions there, and an error or "".

    The function is nested so that Ray sends its code instead of its name: it then runs on a node
    without Pawcast, too.
    """

    def run(packages: tuple[str, ...], store: str | None, key: str, data: bytes) -> tuple[dict[str, str | None], str]:
        import platform
        from importlib import metadata

        versions: dict[str, str | None] = {"python": platform.python_version()}
        for name in packages:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        try:
            from pawcast.store import open_store

            if store:
                opened = open_store(store)
                if opened.get(key) != data:
                    return versions, "the store has other bytes than were written from here."
                opened.put(f"{key}-{platform.node()}", data)
        except ImportError as error:
            return versions, f"pawcast can't be imported: {error}. Fix: install it there: pip install --no-deps ."
        except Exception as error:
            return versions, f"the store, from there: {error}"
        return versions, ""

    return run


def check_node(name: str, store: str | None, versions: dict[str, str | None], error: str) -> Iterator[Finding]:
    """Yield the findings from the versions and the error that a node's probe returned."""
    expected = installed(list(PACKAGES))
    differences = [
        f"{key} {versions[key]} (here {expected[key]})" for key in expected if versions[key] != expected[key]
    ]
    if differences:
        fix = "install the packages of the same requirements.lock there, under the same Python"
        yield problem("ray", name, ", ".join(differences), fix)
    if error:
        seen, _, fix = error.partition(" Fix: ")
        settings = "set the store's environment variables before `ray start` there; a folder must be shared (NFS)"
        yield problem("ray", name, seen, fix or settings)
    if not differences and not error:
        store_seen = "the store can be read and written" if store else "the store was not tried from there"
        yield ok("ray", name, f"same Python and packages, pawcast can be imported, {store_seen}")
