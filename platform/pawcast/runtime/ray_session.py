"""The Ray session: join the cluster of RAY_ADDRESS, or start a private Ray; run tasks in it.

A private Ray ends with this process.
"""

from __future__ import annotations

import collections
import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pawcast.errors import ClusterError, PawcastError

# Enough that no CPU waits for a task, few enough that results don't fill the object store.
_TASKS_PER_CPU = 4
# Port 1 refuses connections at once: nobody but root can listen there.
_NO_DASHBOARD = "http://127.0.0.1:1"
_CONNECT_SECONDS = 5
_SILENT_SECONDS = 60
_SECONDS_AFTER_CRASH = 1
_MAX_CRASHES = 200
_DEATHS = {
    ray.exceptions.WorkerCrashedError: "A Ray worker process died",
    ray.exceptions.OutOfMemoryError: "Ray's memory monitor killed a worker process",
    ray.exceptions.NodeDiedError: "A node of the Ray cluster died",
    ray.exceptions.ObjectLostError: "A node of the Ray cluster died",
}
_RUN_AGAIN = "see `ray status` and the logs of Ray, then run the command again"


@contextmanager
def connect(cpus: int | None = None) -> Iterator[None]:
    """Keep a connection to Ray while the block runs. Do nothing if this process has one already.

    Args:
        cpus: CPUs of the private Ray, if one is started; all of the machine's if None.

    Raises:
        ClusterError: If RAY_ADDRESS names a cluster that can't be joined.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    # Otherwise Ray hides all GPUs from a task that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray makes a token for its own processes, and logs that at every start.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    try:
        with keep_sigterm_handler():
            if address:
                if not _accepts_connections(address):
                    raise ConnectionError("nothing listens there")
                ray.init(address=address, **quiet)
            else:
                # "local": never join another cluster that happens to run on this machine.
                with _without_dashboard():
                    ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            "The Ray cluster can't be joined",
            received=(f"RAY_ADDRESS={address}: " if address else "") + " ".join(str(error).split())[:300],
            fix="start it (ray start --head), correct RAY_ADDRESS, or unset it to use a private local Ray",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def keep_sigterm_handler() -> Iterator[None]:
    """Restore this process's handler of SIGTERM after the block, in which Ray replaces it.

    Ray's handler ends the processes of a private Ray while a job still uses them. The job then
    aborts instead of ending in order.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """Set an address without a dashboard while the block starts Ray.

    Ray Train's clean-up asks a dashboard once a second whether the run's controller is alive.
    Without this setting it finds the dashboard of the cluster that was started last on this
    machine. That one doesn't know the run, and the clean-up removes the workers.
    """
    name = "RAY_API_SERVER_ADDRESS"
    before = {name: os.environ[name]} if name in os.environ else {}
    os.environ[name] = _NO_DASHBOARD
    try:
        yield
    finally:
        del os.environ[name]
        os.environ.update(before)


def _accepts_connections(address: str) -> bool:
    """Return whether a server accepts connections at `host:port`. Ray itself would try for minutes.

    Return True for any other form of address, such as "auto": Ray resolves it.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return True
    hosts = [host.strip("[]")]
    if hosts[0] in ("127.0.0.1", "localhost", "::1"):
        # A head on this machine may listen at its external address only. Ray tries that one.
        hosts.append(ray.util.get_node_ip_address())
    for name in hosts:
        try:
            socket.create_connection((name, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError):
            continue
        return True
    return False


def require_resources(cpus: float, gpus: float = 0, memory: float = 0) -> None:
    """Raise `ClusterError` if the cluster has less in all: Ray would wait for ever.

    `memory` is in bytes.
    """
    total = ray.cluster_resources()
    found = [total.get(name, 0.0) for name in ("CPU", "GPU", "memory")]
    if any(need > have for need, have in zip((cpus, gpus, memory), found, strict=True)):
        resources = "{:g} CPUs, {:g} GPUs and {:.1f} GiB beside the object store"
        raise ClusterError(
            "The cluster is too small for this",
            received=resources.format(*found[:2], found[2] / 2**30),
            expected=resources.format(cpus, gpus, memory / 2**30),
            fix="ask for fewer --workers, lower --cpus-per-worker or Ray's --object-store-memory, or add nodes",
        )


def as_tuples(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """Return rows in the form that Ray serializes fastest: a plain tuple of plain tuples.

    Ray pickles a tuple as a whole. It serializes a list element by element in Python, which takes
    seven times as long. Named tuples would include their class.
    """
    return tuple(map(tuple, rows))


def run_tasks(
    task: Any,
    arguments: Iterable[tuple[Any, ...]],
    attempts: int = 3,
    on_crash: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Run a Ray task once for each tuple of arguments.

    A task whose worker process or node dies runs again, up to `attempts` times in all; then
    `on_crash` gets its index. `task` should have `max_retries=0`: Ray itself would retry without
    end what its memory monitor kills.

    A limited number of tasks is submitted at a time, so that neither the driver nor the object
    store fills up. The arguments are taken from the iterable only when they are needed. Tasks that
    are still pending are cancelled when the iterator is closed.

    Yields:
        (index of the arguments, result) in the order in which the tasks finish.

    Raises:
        PawcastError: If a task raises one.
        ClusterError: If a task's worker dies each time and there is no `on_crash`, if workers die
            and no task succeeds, or if all nodes with CPUs are gone.
        ray.exceptions.RayError: If a task fails otherwise.
    """
    pending: dict[ray.ObjectRef, tuple[int, tuple[Any, ...]]] = {}
    crashes: collections.Counter[int] = collections.Counter()
    succeeded = False
    limit = max(2, int(ray.cluster_resources().get("CPU", 1)) * _TASKS_PER_CPU)
    calls = enumerate(arguments)
    try:
        while True:
            for index, call in itertools.islice(calls, max(0, limit - len(pending))):
                pending[task.remote(*call)] = index, call
            if not pending:
                return
            finished = _wait_for_one(list(pending))
            index, call = pending.pop(finished)
            try:
                with unwrap_errors():
                    result = ray.get(finished)
            except _WorkerDiedError:
                crashes[index] += 1
                if crashes[index] < attempts:
                    # Meanwhile Ray notices a dead node, and other tasks free their memory.
                    time.sleep(_SECONDS_AFTER_CRASH)
                    pending[task.remote(*call)] = index, call
                elif on_crash and (succeeded or crashes.total() < _MAX_CRASHES):
                    on_crash(index)
                else:
                    raise
                continue
            succeeded = True
            yield index, result
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


def _wait_for_one(references: list[ray.ObjectRef]) -> ray.ObjectRef:
    while True:
        finished, _ = ray.wait(references, num_returns=1, timeout=_SILENT_SECONDS)
        if finished:
            return finished[0]
        # An autoscaler starts its first node later. Nodes that have died remain in the list.
        if any(not node["Alive"] for node in ray.nodes()) and not ray.cluster_resources().get("CPU"):
            raise ClusterError("All nodes with CPUs have left the Ray cluster", fix=_RUN_AGAIN)


class _WorkerDiedError(ClusterError):
    """The process or the node that ran a task died. `what` says which."""


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise a `PawcastError` that a task raised as itself, and for dead workers `ClusterError`."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PawcastError):
            raise error.cause from None
        raise
    except tuple(_DEATHS) as error:
        what = next(what for kind, what in _DEATHS.items() if isinstance(error, kind))
        raise _WorkerDiedError(what, fix=_RUN_AGAIN) from None
