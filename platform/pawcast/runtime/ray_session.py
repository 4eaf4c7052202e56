"""The Ray cluster: join the one named by RAY_ADDRESS, or start a private one that ends with this process."""

from __future__ import annotations

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

# Tasks kept in flight per CPU: enough to never wait, few enough that results don't pile up.
_IN_FLIGHT_PER_CPU = 4
# A port that nobody can listen on without being root: refused at once.
_NOBODY = "http://127.0.0.1:1"
_CONNECT_SECONDS = 5


@contextmanager
def connect(cpus: int | None = None) -> Iterator[None]:
    """Hold a connection to Ray while the block runs. Does nothing if this process has one already.

    Args:
        cpus: CPUs of the private cluster, if one is started; all of the machine's if None.

    Raises:
        ClusterError: If RAY_ADDRESS names a cluster that can't be joined.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    # A task's process would otherwise see its own GPUs hidden by Ray when it asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray authenticates its processes to each other by a token that it makes itself; it says so at every start.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    try:
        with keep_sigterm_handler():
            if address:
                if not _listens(address):
                    raise ConnectionError("nothing listens there")
                ray.init(address=address, **quiet)
            else:
                # "local" even if some cluster runs on this machine: we use only what we were told to use.
                with _no_dashboard():
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
    """Give this process its own handler of SIGTERM back after the block, in which Ray replaces it.

    Ray's would end the processes of a private Ray under a job that still works with them, which then aborts.
    """
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(own) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, own)


@contextmanager
def _no_dashboard() -> Iterator[None]:
    """Tell the processes of the Ray that the block starts that there is no dashboard to ask.

    Ray Train's clean-up asks for the state of the run's controller, once a second. Left to itself it finds the
    dashboard of whichever cluster was last started on this machine, which knows no such run, takes it for dead
    and removes the workers.
    """
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = _NOBODY
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _listens(address: str) -> bool:
    """Return whether a connection is accepted at `host:port`; Ray itself would try in vain for minutes.

    Any other form of address ("auto") is left to Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return True
    hosts = [host.strip("[]")]
    if hosts[0] in ("127.0.0.1", "localhost", "::1"):
        # A head of this machine may listen at its outer address only, and that is where Ray looks.
        hosts.append(ray.util.get_node_ip_address())
    for name in hosts:
        try:
            socket.create_connection((name, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError):
            continue
        return True
    return False


def require_resources(cpus: float, gpus: float = 0, memory: float = 0) -> None:
    """Refuse early what the cluster could never schedule; Ray itself would wait for ever.

    Args:
        cpus, gpus: How many.
        memory: Bytes.

    Raises:
        ClusterError: With what is there and what is missing.
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
    """Return many rows in the form that travels to and from tasks best: a plain tuple of plain tuples.

    Ray packs a list element by element and each tuple in it on its own, in Python; a tuple it pickles at once, in a
    seventh of the time. Named tuples would carry their class along.
    """
    return tuple(map(tuple, rows))


def run_tasks(task: Any, arguments: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """Run a Ray task once for each tuple of arguments; yield (index, result) as they finish.

    Only so many run or wait at once that neither driver nor object store fills up, and no more arguments are asked
    for. Our own errors raised inside a task come out as themselves.
    """
    waiting: dict[ray.ObjectRef, int] = {}
    limit = max(2, int(ray.cluster_resources().get("CPU", 1)) * _IN_FLIGHT_PER_CPU)
    ahead = iter(enumerate(arguments))
    try:
        while True:
            while len(waiting) < limit and (following := next(ahead, None)) is not None:
                waiting[task.remote(*following[1])] = following[0]
            if not waiting:
                return
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(done)
            with unwrap_errors():
                result = ray.get(done)
            yield index, result
    finally:
        for reference in waiting:
            ray.cancel(reference, force=False)


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Turn Ray's wrapping of a Pawcast error back into that error."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, PawcastError):
            raise cause from None
        raise
