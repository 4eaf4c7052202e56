"""Which failures of the workers are tried again, and what the user is told."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import ray
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

from pawcast.errors import (
    ClusterError,
    ConflictError,
    IntegrityError,
    PawcastError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    TrainingError,
)
from pawcast.recipes import resolve
from pawcast.training import workers
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers
from pawcast.training.workers import DifferentWeightsError, LoopConfig, _cause, fit

LOST = ray.exceptions.RayActorError()
OUT_OF_MEMORY = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.\nMore.")


def tensorflow_error(name: str, message: str) -> Exception:
    """Return an error as TensorFlow raises it, without TensorFlow."""
    return type(name, (Exception,), {"__module__": "tensorflow.python.framework.errors_impl"})(message)


BROKEN_COLLECTIVE = tensorflow_error("UnavailableError", "connection reset")
BROKEN_RING = tensorflow_error("InternalError", "Collective ops is aborted by: Socket closed")
GRAPH_ERROR = """Graph execution error:

Detected at node Reshape defined at (most recent call last):
  File "own_code.py", line 3, in network
Input to reshape is a tensor with 4 values, but the requested shape has 5
\t [[{{node Reshape}}]] [Op:__inference_step_5]"""
LAYER_ERROR = """Exception encountered when calling Own.call().

\x1b[1mthe shapes don't match\x1b[0m

Arguments received by Own.call():
  • training=True"""


@pytest.mark.parametrize(
    ("failures", "kind", "message", "transient"),
    [
        ({0: LOST}, ClusterError, "Ray lost a training worker .RayActorError", True),
        ({0: OUT_OF_MEMORY}, ClusterError, "OutOfMemoryError.*low on memory. Fix: .*smaller batch_size", True),
        ({0: BROKEN_COLLECTIVE, 1: LOST}, ClusterError, "lost .*UnavailableError.*connection reset", True),
        ({0: BROKEN_RING}, ClusterError, "InternalError.*Socket closed", True),
        ({0: StoreError("out of reach")}, StoreError, "out of reach", True),
        ({1: DifferentWeightsError("different weights")}, TrainingError, "different weights", True),
        ({0: TrainingError("the loss is NaN")}, TrainingError, "the loss is NaN", False),
        ({0: ConflictError("Another process")}, ConflictError, "Another process", False),
        ({0: StoreFullError("full")}, StoreFullError, "full", False),
        ({0: StoreAccessError("refused the credentials")}, StoreAccessError, "refused the credentials", False),
        ({0: IntegrityError("changed")}, IntegrityError, "changed", False),
        # The mistake explains the other rank's broken collective.
        (
            {0: BROKEN_COLLECTIVE, 1: ValueError("first\nlast line")},
            TrainingError,
            "failed .ValueError.*last line",
            False,
        ),
        ({0: BROKEN_COLLECTIVE, 1: StoreAccessError("refused")}, StoreAccessError, "refused", False),
        # A network's own mistakes, as TensorFlow and Keras report them.
        (
            {0: tensorflow_error("InvalidArgumentError", GRAPH_ERROR)},
            TrainingError,
            "Received: Input to reshape",
            False,
        ),
        ({0: tensorflow_error("InternalError", "division by zero")}, TrainingError, "division by zero", False),
        ({0: ValueError(LAYER_ERROR)}, TrainingError, "Received: the shapes don't match.$", False),
        (
            {0: tensorflow_error("ResourceExhaustedError", "OOM")},
            TrainingError,
            "OOM. Fix: a smaller batch_size",
            False,
        ),
    ],
)
def test_only_failures_that_may_not_come_back_are_tried_again(failures, kind, message, transient):
    cause, is_transient = _cause(WorkerGroupError("failed", failures))
    assert type(cause) in (kind, DifferentWeightsError)
    assert is_transient == transient
    assert re.search(message, str(cause))
    assert "\n" not in str(cause)


def test_a_lost_controller_is_tried_again_and_a_full_cluster_is_not(monkeypatch):
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    for error in (
        ray.exceptions.ActorDiedError(),
        OUT_OF_MEMORY,
        ControllerError(WorkerGroupStartupFailedError("At least one of the worker actors failed to initialize.")),
    ):
        cause, is_transient = _cause(error)
        assert (cause.exit_code, is_transient) == (8, True)
        assert "\n" not in str(cause)
    cause, is_transient = _cause(ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert (cause.exit_code, is_transient) == (8, False)
    assert "1 CPUs and 0 GPUs free" in str(cause)
    # What Pawcast says itself keeps its exit code.
    assert _cause(ControllerError(StoreAccessError("refused")))[0].exit_code == 6


@pytest.fixture
def attempts(monkeypatch) -> Callable[..., tuple[list[str], list[ProgressUpdate]]]:
    """Runs `fit` with workers that fail as told; returns its notes and updates."""

    def run(*outcomes: Exception | None, max_failures: int = 3) -> tuple[list[str], list[ProgressUpdate]]:
        notes: list[str] = []
        updates: list[ProgressUpdate] = []
        remaining = list(outcomes)

        def train() -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if outcome := remaining.pop(0):
                raise outcome

        @contextmanager
        def forwarded(on_update: Callable[[ProgressUpdate], None]):
            try:
                yield None
            finally:
                on_update(ProgressUpdate(epoch=1, finished={"loss": 0.5}))

        monkeypatch.setattr(workers, "_forwarded", forwarded)
        monkeypatch.setattr(workers, "_trainer", lambda *arguments: SimpleNamespace(fit=train))
        config = LoopConfig(resolve("smoke"), "store", "my-run", "token", None, None)
        fit(config, Workers(cpus=1.0), max_failures, updates.append, notes.append)
        return notes, updates

    return run


def test_failures_from_outside_are_survived_and_the_handler_of_ctrl_c_is_restored(attempts):
    before = signal.getsignal(signal.SIGINT)
    notes, updates = attempts(LOST, ray.exceptions.ActorDiedError(), None)
    assert [note.partition("checkpoint; ")[2][:2] for note in notes] == ["2 ", "1 "]
    assert updates
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(StoreAccessError("refused the credentials"), 6), (ray.exceptions.ActorDiedError(), 8), (OUT_OF_MEMORY, 8)],
)
def test_the_last_error_names_the_checkpoint_and_how_to_go_on(attempts, outcome, code):
    error = WorkerGroupError("failed", {0: outcome}) if isinstance(outcome, PawcastError) else outcome
    with pytest.raises(
        PawcastError, match="checkpoint of epoch 2 is kept; go on with: pawcast train --resume my-run"
    ) as e:
        attempts(error, max_failures=0)
    assert e.value.exit_code == code
    assert "\n" not in str(e.value)


def test_refused_credentials_and_a_bad_loss_are_not_tried_again(attempts):
    for error in (StoreAccessError("refused"), TrainingError("the loss is NaN")):
        with pytest.raises(type(error)) as caught:
            attempts(WorkerGroupError("failed", {0: error}))
        # A bad loss would come back.
        assert ("--resume" in str(caught.value)) == isinstance(error, StoreError)


def test_ctrl_c_interrupts(attempts):
    with pytest.raises(KeyboardInterrupt):
        attempts(SystemExit(0))
