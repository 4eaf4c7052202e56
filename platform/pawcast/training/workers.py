"""Ray Train's workers from the driver's side: started, listened to, and their errors unwrapped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Empty, Queue

from pawcast.errors import ClusterError, PawcastError, StoreError, StoreFullError, TrainingError
from pawcast.store import Store
from pawcast.training.collective import TensorFlowClusterConfig
from pawcast.training.loop import LoopConfig, train_loop
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import Workers

_CONTROLLER_FAILURES = 2
_POLL_SECONDS = 0.2


def fit(
    store: Store,
    job: LoopConfig,
    workers: Workers,
    max_failures: int,
    on_progress: Callable[[ProgressUpdate], None],
    on_note: Callable[[str], None],
) -> None:
    """Run Ray Train's workers to the end; what they leave is in the store.

    Ray Train itself would start them again after any exception, a mistake in the network included. Here only what
    another attempt may mend is tried again, from the last checkpoint: a worker's process or node that is gone, a
    collective that broke, a store out of reach, ranks that disagree.

    Args:
        store: Where the run is.
        job: What to train.
        workers: How many, and what each gets.
        max_failures: How many such failures to survive.
        on_progress: Called with what they tell.
        on_note: Called with a sentence for each failure that is survived.

    Raises:
        KeyboardInterrupt: If Ray's own handler of Ctrl-C has ended them.
        ClusterError: If the workers can't be started.
        ConflictError: If another process goes on with the run meanwhile.
        TrainingError: If the loss is no number any more, or a worker fails for a reason of its own.
    """
    failed: list[PawcastError] = []

    def observe(progress: ProgressUpdate) -> None:
        if progress.summary:
            store.put(f"runs/{job.run}/summary.txt", progress.summary.encode())
        if progress.failed:
            failed.append(progress.failed)
        else:
            on_progress(progress)

    for left in range(max_failures, -1, -1):
        queue = Queue(actor_options={"num_cpus": 0})
        try:
            with _forwarded(queue, observe):
                _trainer(store, job._replace(progress=queue), workers).fit()
            break
        except SystemExit:
            # How Ray's own Ctrl-C handler ends; it has stopped the workers by now.
            raise KeyboardInterrupt from None
        except ray.train.TrainingFailedError as error:
            cause, may_pass = _cause(error)
            if not may_pass or not left:
                raise cause from None
            on_note(f"{cause} Going on from the last checkpoint; {left} such failures may follow.")
        finally:
            queue.shutdown(force=True)
    if failed:
        raise failed[0]


def _trainer(store: Store, job: LoopConfig, workers: Workers) -> DataParallelTrainer:
    filesystem, path = store.filesystem(f"runs/{job.run}")
    return DataParallelTrainer(
        train_loop,
        train_loop_config={"job": job},
        backend_config=TensorFlowClusterConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers.number,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            # Ray keeps only its own bookkeeping there: the checkpoints are ours.
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            # Ray would otherwise retry for ever what can't be scheduled.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=_CONTROLLER_FAILURES),
        ),
    )


def _cause(error: ray.train.TrainingFailedError) -> tuple[PawcastError, bool]:
    """The first worker's own error, without Ray's wrapping, and whether another attempt may do without it.

    When a worker dies, the others fail in the collective that it leaves: any of them tells.
    """
    if isinstance(error, ray.train.ControllerError):
        free = ray.available_resources()
        busy = ClusterError(
            "Ray could not start the training workers in time",
            received=f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free, the others in use",
            fix="wait for what holds them or stop it, ask for fewer --workers, or lower --cpus-per-worker",
        )
        return busy, False
    failures = getattr(error, "worker_failures", None) or {0: error}
    roots = [_root(failures[rank]) for rank in sorted(failures)]
    lost = [root for root in roots if _may_pass(root)]
    # What can't pass is the reason for the rest.
    first = next((root for root in roots if root not in lost), lost[0] if lost else error)
    if isinstance(first, PawcastError):
        return first, first in lost
    lines = [line for line in str(first).splitlines() if line.strip()]
    kind = type(first).__name__
    if first in lost:
        return TrainingError(f"A training worker was lost ({kind})", received=lines[0] if lines else None), True
    return TrainingError(f"A training worker failed ({kind})", received=lines[-1] if lines else None), False


def _root(error: BaseException) -> BaseException:
    while not isinstance(error, PawcastError):
        inner = getattr(error, "cause", None) or getattr(error, "_base_exc", None) or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return error


def _may_pass(error: BaseException) -> bool:
    """Whether it comes from the world rather than from the recipe, the network or the code."""
    if isinstance(error, PawcastError):
        # Of our own only these: other ranks than rank 0 raise `TrainingError` when they disagree with it.
        return isinstance(error, StoreError | TrainingError) and not isinstance(error, StoreFullError)
    of_ray = isinstance(error, ray.exceptions.RayError) or type(error).__module__.startswith("ray.train")
    # TensorFlow's own errors, by module: the driver doesn't import it.
    return of_ray or type(error).__module__.startswith("tensorflow.python.framework.errors")


@contextmanager
def _forwarded(queue: Queue, observe: Callable[[ProgressUpdate], None]) -> Iterator[None]:
    """Hand the workers' progress to `observe` in a thread while the block runs, to the last item."""
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
