"""The Ray session: join the cluster of RAY_ADDRESS, or start a private Ray; run tasks in it.

A private Ray ends with this process.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pawcast.errors import ClusterError, PawcastError

# Enough that no CPU waits for a task, few enough that results don't fill the object store.
_TASKS_PER_CPU = 4
# Port 1 refuses connections at once: nobody but root can listen there.
_NO_DASHBOARD = "http://127.0.0.1:1"
_CONNECT_SECONDS = 5
_START_ATTEMPTS = 3


@contextmanager
def connect(cpus: int | None = None) -> Iterator[None]:
    """Keep a connection to Ray while the block runs. Do nothing if this process has one already.

    Args:
        cpus: CPUs of the private Ray, if one is started; all of the machine's if None.

    Raises:
        ClusterError: If RAY_ADDRESS names a cluster that can't be joined, or Ray can't start.
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
                _start_private_ray(num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:
        what, fix = "A private Ray can't be started", "end other programs of this machine, then run the command again"
        if address:
            what = f"The Ray cluster at RAY_ADDRESS={address} can't be joined"
            fix = "start it (ray start --head), correct RAY_ADDRESS, or unset it to use a private local Ray"
        raise ClusterError(what, received=" ".join(str(error).split())[:300], fix=fix) from None
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


def _start_private_ray(**options: Any) -> None:
    """Start Ray on this machine, again if it is too slow: it waits 30 s for its own processes."""
    for attempts_left in range(_START_ATTEMPTS - 1, -1, -1):
        try:
            # "local": never join another cluster that happens to run on this machine.
            with _without_dashboard():
                ray.init(address="local", **options)
            return
        except Exception as error:
            ray.shutdown()
            # It is a plain Exception.
            if not attempts_left or "timed out" not in str(error):
                raise


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """Set an address without a dashboard while the block starts Ray.

    Ray Train's clean-up asks a dashboard once a second whether the run's controller is alive.
    Without this setting it finds the dashboard of the cluster that was started last on this
    machine. That one doesn't know the run, and the clean-up removes the workers.
    """
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = _NO_DASHBOARD
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
    """Check that the cluster has some resources in all. Ray would wait for them forever.

    Args:
        cpus: Number of CPUs.
        gpus: Number of GPUs.
        memory: Bytes.

    Raises:
        ClusterError: If the cluster has less. The message names both amounts.
    """
    total = ray.cluster_resources()
    have_cpus, have_gpus, have_memory = (total.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
    if cpus > have_cpus or gpus > have_gpus:
        raise ClusterError(
            "The cluster is too small for this",
            received=f"{have_cpus:g} CPUs and {have_gpus:g} GPUs",
            expected=f"{cpus:g} CPUs and {gpus:g} GPUs",
            fix="ask for fewer --workers, lower --cpus-per-worker, or add nodes",
        )
    if memory > have_memory:
        raise ClusterError(
            "The cluster has too little memory for this",
            received=f"{have_memory / 2**30:.1f} GiB beside the object store",
            expected=f"{memory / 2**30:.1f} GiB",
            fix="ask for fewer --workers, start Ray with a smaller --object-store-memory, or add nodes",
        )


def as_tuples(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """Return rows in the form that Ray serializes fastest: a plain tuple of plain tuples.

    Ray pickles a tuple as a whole. It serializes a list element by element in Python, which takes
    seven times as long. Named tuples would include their class.
    """
    return tuple(map(tuple, rows))


def run_tasks(task: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Run a Ray task once for each tuple of arguments.

    A limited number of tasks is submitted at a time, so that neither the driver nor the object
    store fills up. The arguments are taken from the iterable only when they are needed. Tasks that
    are still pending are cancelled when the iterator is closed.

    Args:
        task: A remote function.
        arguments: The arguments of each call.

    Yields:
        (index of the arguments, result) in the order in which the tasks finish.

    Raises:
        PawcastError: If a task raises one.
        ray.exceptions.RayError: If a task fails otherwise.
    """
    pending: dict[ray.ObjectRef, int] = {}
    limit = max(2, int(ray.cluster_resources().get("CPU", 1)) * _TASKS_PER_CPU)
    calls = enumerate(arguments)
    try:
        while True:
            for index, call in itertools.islice(calls, limit - len(pending)):
                pending[task.remote(*call)] = index
            if not pending:
                return
            (finished,), _ = ray.wait(list(pending), num_returns=1)
            index = pending.pop(finished)
            with unwrap_errors():
                result = ray.get(finished)
            yield index, result
    finally:
        for reference in pending:
            ray.cancel(reference, force=False)


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise a `PawcastError` that a task raised as itself, without Ray's wrapper."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, PawcastError):
            raise cause from None
        raise
