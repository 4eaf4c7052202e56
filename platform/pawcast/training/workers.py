"""Ray Train's workers as the driver sees them: start them, forward progress, classify failures."""

from __future__ import annotations

import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Queue

from pawcast.data.blocks import DecodedSplit
from pawcast.errors import (
    ClusterError,
    PawcastError,
    StoreAccessError,
    StoreError,
    StoreFullError,
    TrainingError,
)
from pawcast.recipes.schema import Recipe
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers
from pawcast.training.tf_config import TensorFlowClusterConfig

_CONTROLLER_FAILURES = 2
# TensorFlow's errors for a rank that is gone; those that it also raises for other reasons; and what
# the messages of the latter then mention.
_LOST_CONNECTION = {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"}
_MAY_BE_CONNECTION = {"InternalError", "UnknownError", "FailedPreconditionError"}
_CONNECTION = re.compile("collective|nccl|grpc|connection|socket", re.IGNORECASE)
# Lines of TensorFlow's and Keras's errors.
_NOT_EXPLAINING = ("Graph execution error", "Detected at", "File ", "[[", "[Op:", "Hint:", "Exception encountered when")


class LoopConfig(NamedTuple):
    """All that a worker needs besides its rank.

    Attributes:
        recipe: What to train.
        store_uri: Where the run's files go.
        run: The run's name.
        attempt: The token that `lease.acquire` gave this attempt.
        train, val: The decoded splits.
        pretrained: The weights file that the recipe names.
        progress: Carries `ProgressUpdate`s from rank 0 to the driver.
    """

    recipe: Recipe
    store_uri: str
    run: str
    attempt: str
    train: DecodedSplit
    val: DecodedSplit
    pretrained: bytes | None = None
    progress: Queue | None = None


class DifferentWeightsError(TrainingError):
    """The ranks hold different weights. Another attempt may succeed."""


def run_worker(options: dict[str, Any]) -> None:
    """Run the training loop in a Ray Train worker, which imports TensorFlow; the driver doesn't.

    Args:
        options: `{"config": LoopConfig}`.
    """
    # Import this first: it sets the environment that TensorFlow reads.
    import pawcast.runtime.tensorflow  # noqa: F401
    from pawcast.training.loop import train_loop

    train_loop(options["config"])


def fit(
    config: LoopConfig,
    workers: Workers,
    max_failures: int,
    on_update: Callable[[ProgressUpdate], None],
    on_note: Callable[[str], None],
) -> None:
    """Run Ray Train's workers until the recipe is done; the result is in the store.

    Ray Train would start the workers again after any exception, even a mistake in the network. Here
    only failures that may not come back are tried again, from the last checkpoint: a lost process
    or node, a broken collective, a store out of reach, ranks that hold different weights. The last
    error names the checkpoint.

    Args:
        config: What to train.
        workers: How many workers, and the resources of each.
        max_failures: How many such failures to survive.
        on_update: Called with the workers' progress.
        on_note: Called with a sentence for each failure that is survived.

    Raises:
        KeyboardInterrupt: If Ctrl-C has ended them.
        ClusterError: If the workers can't be started, or Ray loses processes too often.
        ConflictError: If another process goes on with the run meanwhile.
        TrainingError: If the loss is not finite, or a worker fails and would fail again.
    """
    epochs_done = 0

    def observe(update: ProgressUpdate) -> None:
        nonlocal epochs_done
        epochs_done = update.resumed or (update.epoch + 1 if update.finished else epochs_done)
        on_update(update)

    for failures_left in range(max_failures, -1, -1):
        try:
            with _ctrl_c_restored(), _forwarded(observe) as queue, tempfile.TemporaryDirectory() as folder:
                _trainer(config._replace(progress=queue), workers, folder).fit()
            return
        except SystemExit:
            # Ray's own handler of Ctrl-C raises it, after it has stopped the workers.
            raise KeyboardInterrupt from None
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            cause, is_transient = _cause(error)
            if not is_transient or not failures_left:
                if isinstance(cause, StoreError | ClusterError | DifferentWeightsError):
                    kept = f"The checkpoint of epoch {epochs_done} is kept" if epochs_done else "No epoch was completed"
                    cause.args = (f"{cause} {kept}; go on with: pawcast train --resume {config.run}.",)
                raise cause from None
            on_note(f"{cause} Going on from the last checkpoint; {failures_left - 1} more failures are allowed.")


def _trainer(config: LoopConfig, workers: Workers, folder: str) -> DataParallelTrainer:
    return DataParallelTrainer(
        run_worker,
        train_loop_config={"config": config},
        backend_config=TensorFlowClusterConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers.number,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="ray",
            # For Ray's own files, which nobody reads: the checkpoints are Pawcast's.
            storage_path=folder,
            # Ray would otherwise wait for ever for resources that the cluster doesn't have.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_FAILURES),
        ),
    )


def _cause(error: Exception) -> tuple[PawcastError, bool]:
    """Return the error that explains a failure, and whether another attempt may succeed.

    When a worker dies, the others fail in their next collective operation. So an error that would
    come back, on any rank, explains the errors of the other ranks.
    """
    of_workers = getattr(error, "worker_failures", None)
    failures = of_workers or {0: getattr(error, "controller_failure", error)}
    roots = [_root(failures[rank]) for rank in sorted(failures)]
    if isinstance(roots[0], WorkerGroupStartupTimeoutError | InsufficientClusterResourcesError):
        free = ray.available_resources()
        busy = ClusterError(
            "Ray could not start the training workers in time",
            received=f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free, the others in use",
            fix="wait for other jobs or stop them, ask for fewer --workers, or lower --cpus-per-worker",
        )
        return busy, False
    root = next((root for root in roots if not _is_transient(root)), roots[0])
    name, is_transient = type(root).__name__, _is_transient(root)
    if isinstance(root, PawcastError):
        return root, is_transient
    if is_transient:
        what = "a training worker" if of_workers else "the run's controller"
        advice = "see `ray status` and Ray's logs"
        if isinstance(root, ray.exceptions.OutOfMemoryError):
            advice = "use a node with more memory, fewer --workers, or a smaller batch_size"
        return ClusterError(f"Ray lost {what} ({name})", received=_line(root, 0), fix=advice), True
    fix = "a smaller batch_size, image_size or network" if name == "ResourceExhaustedError" else None
    return TrainingError(f"A training worker failed ({name})", received=_line(root, -1), fix=fix), False


def _line(error: BaseException, index: int) -> str | None:
    """Return one of the lines of an error that explain it."""
    # Keras lists the arguments of a layer behind the reason, and prints the reason in bold.
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("Arguments received by")[0]
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_NOT_EXPLAINING)]
    return lines[index] if lines else None


def _root(error: BaseException) -> BaseException:
    """Return the error inside of Ray's wrapping."""
    while not isinstance(error, PawcastError):
        inner = getattr(error, "cause", None) or getattr(error, "_base_exc", None) or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return error


def _is_transient(error: BaseException) -> bool:
    """Return whether an error comes from outside of the recipe, the network and the code."""
    if isinstance(error, PawcastError):
        is_lasting = isinstance(error, StoreFullError | StoreAccessError)
        return isinstance(error, StoreError | DifferentWeightsError) and not is_lasting
    # By name: the driver doesn't import TensorFlow.
    if type(error).__module__.startswith("tensorflow.python.framework.errors"):
        name = type(error).__name__
        return name in _LOST_CONNECTION or (name in _MAY_BE_CONNECTION and bool(_CONNECTION.search(str(error))))
    return isinstance(error, ray.exceptions.RayError) or type(error).__module__.startswith("ray.train")


@contextmanager
def _ctrl_c_restored() -> Iterator[None]:
    """Restore this process's handler of Ctrl-C, in whose place Ray Train sets its own."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _forwarded(on_update: Callable[[ProgressUpdate], None]) -> Iterator[Queue]:
    """Yield a queue. While the block runs, a thread passes its updates to `on_update`."""
    # Ray starts the queue's process again if it dies. Progress is lost then, but no epoch.
    queue = Queue(actor_options={"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1})

    def forward() -> None:
        with suppress(ray.exceptions.RayError):
            while (update := queue.get()) is not None:
                on_update(update)

    thread = threading.Thread(target=forward, name="progress", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        with suppress(ray.exceptions.RayError):
            queue.put(None)
        thread.join()
        queue.shutdown(force=True)
