"""The Ray session without a Ray: a stand-in runs tasks at once, and real sockets listen."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import ray

from pawcast.errors import ClusterError, UsageError
from pawcast.runtime import ray_session


class Task:
    """A remote function that runs when its result is asked for. Tasks finish last in, first out."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.cancelled: list[int] = []

    def remote(self, number: int) -> int:
        self.submitted.append(number)
        return number

    def result(self, number: int) -> int:
        if number < 0:
            raise UsageError("Negative")
        return number * number

    def cancel(self, number: int, force: bool) -> None:
        assert not force
        self.cancelled.append(number)


@pytest.fixture
def task(monkeypatch) -> Task:
    """A task of a stand-in for Ray with one CPU, where four tasks are submitted at a time."""
    task = Task()
    monkeypatch.setattr(
        ray_session,
        "ray",
        SimpleNamespace(
            cluster_resources=lambda: {"CPU": 1.0, "GPU": 0.0, "memory": 2.0 * 2**30},
            wait=lambda references, num_returns: ([references[-1]], references[:-1]),
            get=task.result,
            cancel=task.cancel,
            exceptions=ray.exceptions,
        ),
    )
    return task


def test_every_task_runs_once_and_comes_with_its_index(task):
    results = dict(ray_session.run_tasks(task, [(number,) for number in range(10, 30)]))
    assert results == {i: (10 + i) ** 2 for i in range(20)}
    assert task.submitted == list(range(10, 30))
    assert task.cancelled == []


def test_arguments_are_taken_only_when_a_task_can_be_submitted(task):
    taken = []

    def arguments() -> Iterator[tuple[int]]:
        for number in range(100):
            taken.append(number)
            yield (number,)

    results = ray_session.run_tasks(task, arguments())
    next(results)
    assert taken == task.submitted == [0, 1, 2, 3]
    next(results)
    assert taken == [0, 1, 2, 3, 4]
    results.close()
    assert sorted(task.cancelled) == [0, 1, 2]


def test_no_arguments_make_no_results(task):
    assert list(ray_session.run_tasks(task, [])) == []


def test_an_error_of_a_task_cancels_the_others(task):
    with pytest.raises(UsageError, match="Negative"):
        list(ray_session.run_tasks(task, [(1,), (2,), (-3,)]))
    assert sorted(task.cancelled) == [1, 2]


def test_missing_resources_are_refused_with_what_there_is(task):
    ray_session.require_resources(1, memory=2**30)
    with pytest.raises(ClusterError, match=r"Received: 1 CPUs and 0 GPUs. Expected: 2 CPUs and 1 GPUs"):
        ray_session.require_resources(2, gpus=1)
    with pytest.raises(ClusterError, match=r"Received: 2.0 GiB beside the object store. Expected: 3.0 GiB"):
        ray_session.require_resources(1, memory=3 * 2**30)


def wrapped(cause: Exception) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("task", "a traceback", cause)


def test_a_pawcast_error_loses_rays_wrapper_and_others_keep_it():
    with pytest.raises(UsageError, match="Wrong"), ray_session.unwrap_errors():
        raise wrapped(UsageError("Wrong"))
    with pytest.raises(ray.exceptions.RayTaskError), ray_session.unwrap_errors():
        raise wrapped(ZeroDivisionError())


class Row(NamedTuple):
    number: int
    name: str


def test_rows_become_plain_tuples():
    rows = ray_session.as_tuples(iter([Row(1, "a")]))
    assert rows == ((1, "a"),)
    assert type(rows[0]) is tuple


def test_an_address_without_a_server_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ray_session._accepts_connections(f"127.0.0.1:{port}")
        assert ray_session._accepts_connections(f"ray://127.0.0.1:{port}")
    assert not ray_session._accepts_connections("127.0.0.1:1")
    assert not ray_session._accepts_connections("127.0.0.1:99999")
    assert ray_session._accepts_connections("auto")


def test_the_processs_own_sigterm_handler_is_restored():
    before = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: object) -> None:
        """Do nothing."""

    signal.signal(signal.SIGTERM, handler)
    try:
        with ray_session.keep_sigterm_handler():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("failures", "starts"), [(0, 1), (2, 3), (9, 3)])
def test_a_ray_that_starts_slowly_is_started_again(monkeypatch, failures, starts):
    calls: list[str] = []

    def init(address: str, **options: object) -> None:
        calls.append(address)
        if len(calls) <= failures:
            # As Ray raises it.
            raise Exception("The current node timed out during startup.\nThis could happen because")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    outcome = pytest.raises(ClusterError, match="can't be started") if failures > 2 else nullcontext()
    with outcome as caught, ray_session.connect():
        pass
    assert calls == ["local"] * starts
    if caught:
        assert "\n" not in str(caught.value)


def test_another_failure_to_start_is_reported_at_once(monkeypatch):
    calls: list[str] = []

    def init(address: str, **options: object) -> None:
        calls.append(address)
        raise OSError("No space left on device")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match="No space left"), ray_session.connect():
        pass
    assert calls == ["local"]
