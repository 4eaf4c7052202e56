"""Ray Train's workers as the driver sees them: start them, forward progress, classify failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Empty, Queue

from pawcast.errors import ClusterError, PawcastError, StoreError, StoreFullError, TrainingError
from pawcast.store import Store
from pawcast.training.config import LoopConfig
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers
from pawcast.training.tf_config import TensorFlowClusterConfig

_CONTROLLER_FAILURES = 2
_POLL_SECONDS = 0.2


def run_worker(options: dict[str, Any]) -> None:
    """Run the training loop in a Ray Train worker.

    TensorFlow is imported here, in the worker, and not by the driver.

    Args:
        options: `{"config": LoopConfig}`.
    """
    # Import this first: it sets the environment that TensorFlow reads.
    import pawcast.runtime.tensorflow  # noqa: F401
    from pawcast.training.loop import train_loop

    train_loop(options["config"])


def fit(
    store: Store,
    config: LoopConfig,
    workers: Workers,
    max_failures: int,
    on_update: Callable[[ProgressUpdate], None],
    on_note: Callable[[str], None],
) -> None:
    """Run Ray Train's workers until the recipe is done; the result is in the store.

    Ray Train would start the workers again after any exception, even a mistake in the network. Here
    only failures that may not come back are tried again, from the last checkpoint: a lost process
    or node, a broken collective, a store out of reach, ranks that hold different weights.

    Args:
        store: Where the run is.
        config: What to train.
        workers: How many workers, and the resources of each.
        max_failures: How many such failures to survive.
        on_update: Called with the workers' progress.
        on_note: Called with a sentence for each failure that is survived.

    Raises:
        KeyboardInterrupt: If Ctrl-C has ended them.
        ClusterError: If the workers can't be started.
        ConflictError: If another process goes on with the run meanwhile.
        TrainingError: If the loss is not finite, or a worker fails and would fail again.
    """
    reported: list[PawcastError] = []

    def observe(update: ProgressUpdate) -> None:
        if update.summary:
            store.put(f"runs/{config.run}/summary.txt", update.summary.encode())
        if update.note:
            on_note(update.note)
        elif update.failed:
            reported.append(update.failed)
        else:
            on_update(update)

    for failures_left in range(max_failures, -1, -1):
        queue = Queue(actor_options={"num_cpus": 0})
        try:
            with _forwarded(queue, observe):
                _trainer(store, config._replace(progress=queue), workers).fit()
            break
        except SystemExit:
            # Ray's own handler of Ctrl-C raises it, after it has stopped the workers.
            raise KeyboardInterrupt from None
        except ray.train.TrainingFailedError as error:
            cause, is_transient = _cause(error)
            if not is_transient or not failures_left:
                raise cause from None
            on_note(f"{cause} Going on from the last checkpoint; {failures_left - 1} more failures are allowed.")
        finally:
            queue.shutdown(force=True)
    if reported:
        raise reported[0]


def _trainer(store: Store, config: LoopConfig, workers: Workers) -> DataParallelTrainer:
    filesystem, path = store.filesystem(f"runs/{config.run}")
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
            # Only Ray's own files go there; the checkpoints are Pawcast's.
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            # Ray would otherwise wait for ever for resources that the cluster doesn't have.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_FAILURES),
        ),
    )


def _cause(error: ray.train.TrainingFailedError) -> tuple[PawcastError, bool]:
    """Return the error that explains a failure, and whether another attempt may succeed.

    When a worker dies, the others fail in their next collective operation. So an error that would
    come back, on any rank, explains the errors of the other ranks.
    """
    if isinstance(error, ray.train.ControllerError):
        free = ray.available_resources()
        busy = ClusterError(
            "Ray could not start the training workers in time",
            received=f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free, the others in use",
            fix="wait for other jobs or stop them, ask for fewer --workers, or lower --cpus-per-worker",
        )
        return busy, False
    failures = getattr(error, "worker_failures", None) or {0: error}
    roots = [_root(failures[rank]) for rank in sorted(failures)]
    permanent = next((root for root in roots if not _is_transient(root)), None)
    if permanent is not None:
        return _as_training_error("A training worker failed", permanent, line=-1), False
    return _as_training_error("A training worker was lost", roots[0], line=0), True


def _as_training_error(what: str, error: BaseException, line: int) -> PawcastError:
    """Return a Pawcast error as it is, any other one as a `TrainingError` with one of its lines."""
    if isinstance(error, PawcastError):
        return error
    lines = [text for text in str(error).splitlines() if text.strip()]
    return TrainingError(f"{what} ({type(error).__name__})", received=lines[line] if lines else None)


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
        # Ranks raise `TrainingError` only if their weights differ from those of rank 0.
        return isinstance(error, StoreError | TrainingError) and not isinstance(error, StoreFullError)
    of_ray = isinstance(error, ray.exceptions.RayError) or type(error).__module__.startswith("ray.train")
    # By name: the driver doesn't import TensorFlow.
    return of_ray or type(error).__module__.startswith("tensorflow.python.framework.errors")


@contextmanager
def _forwarded(queue: Queue, observe: Callable[[ProgressUpdate], None]) -> Iterator[None]:
    """Pass all updates from the queue to `observe`, in a thread, while the block runs."""
    ended = threading.Event()

    def forward() -> None:
        while True:
            try:
                observe(queue.get(timeout=_POLL_SECONDS))
            except Empty:
                if ended.is_set():
                    return
            except ray.exceptions.RayError:
                return

    thread = threading.Thread(target=forward, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
