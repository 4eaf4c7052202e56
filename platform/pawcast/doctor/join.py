"""Joins or starts Ray and looks at its nodes; prints what it found as JSON. Run by `doctor.cluster`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pawcast.doctor import store as stores
from pawcast.doctor import versions
from pawcast.doctor.finding import Finding, Notes
from pawcast.errors import ClusterError, PawcastError
from pawcast.runtime import ray_session
from pawcast.store import open_store

_NODE_SECONDS = 45
_MARK = b"written by the doctor"


def examine(store: str | None) -> list[Finding]:
    """Hold a session with Ray as every job does; note its resources, and whether each node is fit."""
    notes = Notes("ray", ClusterError)
    started = time.monotonic()
    address = os.environ.get("RAY_ADDRESS")
    with notes.guarded("join" if address else "start"), ray_session.connect():
        import ray

        seconds = time.monotonic() - started
        resources = ray.cluster_resources()
        size = (
            f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, "
            f"{resources.get('object_store_memory', 0) / 1e9:,.1f} GB object store"
        )
        notes.ok("join" if address else "start", f"{address or 'a private Ray'} in {seconds:,.1f} s: {size}")
        nodes = ray.nodes()
        alive = [node for node in nodes if node["Alive"]]
        if len(alive) < len(nodes):
            seen = f"{len(alive)} of {len(nodes)} alive"
            notes.warning("nodes", seen, "nodes that were stopped stay listed; start those that you miss")
        _ask(alive, store, notes)
    return notes.findings


def _ask(alive: list[dict[str, Any]], store: str | None, notes: Notes) -> None:
    """Run one task on each node, all at the same time, and note what each says."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mine = {"python": sys.version.split()[0], **{name: versions.installed(name) for name in versions.PACKAGES}}
    with ExitStack() as held:
        key = None
        if store:
            place = open_store(store)
            prefix = held.enter_context(stores.scratch(place))
            key = f"{prefix}/mark"
            place.put(key, _MARK)
        task = ray.remote(num_cpus=0, max_retries=0)(probe())
        asked = [
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(versions.PACKAGES, store, key, _MARK)
            for node in alive
        ]  # fmt: skip
        deadline = time.monotonic() + _NODE_SECONDS
        for node, reference in zip(alive, asked, strict=True):
            name = f"node {node['NodeManagerHostname']}"
            try:
                answer = ray.get(reference, timeout=max(1.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                fix = "look at the node's load and at /tmp/ray/session_latest/logs there"
                notes.problem(name, f"no answer within {_NODE_SECONDS} s", fix)
            except ray.exceptions.RayError as error:
                notes.problem(name, str(error).strip().splitlines()[-1], "look at /tmp/ray/session_latest/logs there")
            else:
                check_node(name, answer, mine, notes, tried=bool(store))


def probe() -> Callable[..., dict[str, Any]]:
    """Return the function that runs on a node.

    It is nested so that Ray sends its code instead of its name: a node without Pawcast can then still answer.
    """

    def look(packages: tuple[str, ...], store: str | None, key: str | None, mark: bytes) -> dict[str, Any]:
        import platform
        from importlib import metadata

        found: dict[str, Any] = {"python": platform.python_version()}
        for name in packages:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = None
        trouble = None
        try:
            from pawcast.store import open_store
        except ImportError as error:
            return {"versions": found, "import": str(error), "store": None}
        try:
            if store and key:
                place = open_store(store)
                if place.get(key) != mark:
                    trouble = "other bytes are there than were written from here"
                place.put(f"{key}-{platform.node()}", mark)
        except Exception as error:
            trouble = str(error)
        return {"versions": found, "import": None, "store": trouble}

    return look


def check_node(name: str, answer: dict[str, Any], mine: dict[str, str | None], notes: Notes, *, tried: bool) -> None:
    """Note what a node's answer means; `mine` are the versions here, `tried` says whether the store was."""
    theirs = answer["versions"]
    differ = [f"{key} {theirs[key]} (here {mine[key]})" for key in mine if theirs[key] != mine[key]]
    if differ:
        fix = "install the packages of the same requirements.lock there, under the same Python"
        notes.problem(name, ", ".join(differ), fix)
    if answer["import"]:
        fix = "install this project there: pip install --no-deps ."
        notes.problem(name, f"pawcast can't be imported: {answer['import']}", fix)
    if answer["store"]:
        seen, _, fix = answer["store"].partition(" Fix: ")
        fix = fix or (
            "the nodes need the store's settings in their environment when `ray start` runs; a folder must be the "
            "same on all of them (NFS), else use s3://…"
        )
        notes.problem(name, f"the store, from there: {seen}", fix)
    if not (differ or answer["import"] or answer["store"]):
        stored = "the store can be read and written" if tried else "the store was not tried from there"
        notes.ok(name, f"same Python and packages, pawcast imports, {stored}")


def main() -> None:
    """Print the findings as JSON on standard output."""
    try:
        findings = examine(json.loads(sys.argv[1]))
    except PawcastError as error:
        notes = Notes("ray", ClusterError)
        notes.error("join", error)
        findings = notes.findings
    sys.stdout.write(json.dumps([finding.as_dict() for finding in findings]) + "\n")


if __name__ == "__main__":
    main()
