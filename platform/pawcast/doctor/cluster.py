"""Ray: can it be joined or started, and is every node fit for our tasks?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from typing import Any

from pawcast.doctor.finding import Finding, find, last_line
from pawcast.doctor.machine import run_python
from pawcast.doctor.store import scratch
from pawcast.errors import ClusterError, PawcastError
from pawcast.store import open_store

_PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "boto3", "pillow")
_JOIN_SECONDS, _NODE_SECONDS = 90, 45
_DATA = b"written by the doctor"
_LOGS = "look at the newest logs in /tmp/ray/session_latest/logs"
_JOIN = "import sys; from pawcast.doctor import cluster; cluster.print_nodes(sys.argv[1])"


def check(store: str | None) -> Iterator[Finding]:
    """Join the cluster of RAY_ADDRESS, or start a private Ray, and check its nodes.

    Args:
        store: The URI of the store that each node must reach; None to skip that.
    """
    nodes: list[list[Any]] = []
    yield find("ray", "session", join, store, nodes)
    yield from (Finding(*fields) for fields in nodes)


def join(store: str | None, nodes: list[list[Any]]) -> str:
    """Join or start Ray in a process of its own; add the findings about its nodes to a list.

    Raises:
        ClusterError: If Ray doesn't answer in time, refuses the token, or fails.
    """
    address = f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')}"
    try:
        done = run_python(_JOIN, store or "", seconds=_JOIN_SECONDS)
    except PawcastError as error:
        fix = f"start it (ray start --head), correct RAY_ADDRESS, or unset it; {_LOGS}"
        raise ClusterError(f"Ray: {error.what}", received=address, fix=fix) from None
    # Only Ray's native log says so; its Python error doesn't.
    if "InvalidAuthToken" in done.stderr:
        fix = "export RAY_AUTH_MODE=token, with a copy of the head's ~/.ray/auth_token in the same place here"
        raise ClusterError("Ray refused our token", received=address, fix=fix)
    if done.returncode:
        raise ClusterError("Ray failed", received=last_line(done.stderr).removeprefix("error: "), fix=_LOGS)
    seen, findings = json.loads(last_line(done.stdout))
    nodes.extend(findings)
    return seen


def print_nodes(store: str) -> None:
    """Open a session with Ray as every job does; print its size, and the findings about its nodes.

    The entry of the process that `join` starts.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pawcast.runtime import ray_session

    def answer(reference: Any) -> str:
        with ray_session.unwrap_errors():
            return ray.get(reference, timeout=_NODE_SECONDS)

    with ray_session.connect(), ExitStack() as stack:
        key = ""
        if store:
            opened = open_store(store)
            key = f"{stack.enter_context(scratch(opened))}/node"
            opened.put(key, _DATA)
        task = ray.remote(num_cpus=0, max_retries=0)(node)
        findings = []
        for there in ray.nodes():
            strategy = NodeAffinitySchedulingStrategy(there["NodeID"], soft=False)
            reference = task.options(scheduling_strategy=strategy).remote(versions(), store, key)
            findings.append(find("ray", f"node {there['NodeManagerHostname']}", answer, reference))
        resources = ray.cluster_resources()
        seen = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    sys.stdout.write(json.dumps([seen, findings]) + "\n")


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all nodes."""
    return {"Python": sys.version.split()[0], **{name: metadata.version(name) for name in _PACKAGES}}


def node(expected: dict[str, str], store: str, key: str) -> str:
    """Compare the versions on a node, and read what the doctor wrote. The task of each node."""
    found = versions()
    if found != expected:
        fix = "install the packages of the same requirements.lock there, under the same Python"
        raise ClusterError("Other packages on this node", received=found, expected=expected, fix=fix)
    if store and open_store(store).get(key) != _DATA:
        raise ClusterError("The store has other bytes than were written from here", fix="share one folder, or use S3")
    return "the same packages, and the same store" if store else "the same packages; the store was not tried"
