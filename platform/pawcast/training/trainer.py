"""A run, as the driver sees it: check, decode, train on Ray Train's workers, keep what matters, register."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import ray
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.queue import Empty, Queue

import pawcast
from pawcast import cluster, names, registry
from pawcast.dataset import manifest as manifests
from pawcast.dataset import pixels
from pawcast.dataset.manifest import Manifest, Split
from pawcast.dataset.pixels import Pixels
from pawcast.errors import ClusterError, ConflictError, PawcastError, TrainingError, UsageError
from pawcast.recipe import Recipe
from pawcast.registry import Preprocessing, Version
from pawcast.reports.curves import draw_curves
from pawcast.store import Store
from pawcast.training.checkpoint import WEIGHTS
from pawcast.training.collective import TensorFlowClusterConfig
from pawcast.training.worker import HISTORY_KEYS, Job, Progress, train_loop

_CONTROLLER_FAILURES = 2
_POLL_SECONDS = 0.2
_TOO_LARGE = (
    "The decoded photos take {needed:.2f} GiB, more than the {room:.2f} GiB that Ray's object store has for them. "
    "Each node keeps them in a file instead, which is slower where memory is short. To avoid that: a larger "
    "--object-store-memory, or a smaller image_size."
)

Decoded = Callable[[int, int], None]
"""Called with photos decoded so far and in all."""


class Workers(NamedTuple):
    """How many workers, and what each gets."""

    number: int = 2
    cpus: float = 1.0
    gpus: float = 0.0


class Trained(NamedTuple):
    """What a run leaves; the rate is that of its training steps, over all workers."""

    version: Version
    history: dict[str, list[float]]
    best_epoch: int
    photos_per_second: float


def train(
    store: Store,
    dataset: str,
    recipe: Recipe,
    workers: Workers,
    *,
    run: str | None = None,
    model: str = "catdog",
    max_failures: int = 0,
    on_decoded: Decoded = lambda done, total: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Trained:
    """Train a recipe on a published dataset and register the best epoch as a model version.

    In the store, below `runs/RUN/`: `run.json` (the resolved configuration), `history.json` (renewed every
    epoch), `checkpoints/` (Ray Train's), and at the end `model.weights.h5`, `summary.txt` and `curves.png`.

    Joins or starts Ray once dataset and recipe are known to fit.

    Args:
        store: Where dataset, run and model live.
        dataset: `NAME` or `NAME@DIGEST`.
        recipe: What to train.
        workers: Data-parallel workers; the recipe's batch is divided among them.
        run: A name that no other run has; the recipe's and the time if None.
        model: The model to register a version of.
        max_failures: How many lost workers to survive, each time from the last checkpoint.
        on_decoded, on_progress: Called as things move on.
        on_note: Called with a sentence that the user should know.

    Returns:
        The registered version and the history.

    Raises:
        UsageError: For a batch or worker count that doesn't fit the data.
        ConflictError: If the run's name is taken.
        ClusterError: If the cluster is too small, or too busy to start the workers.
        TrainingError: If a worker fails for a reason of its own.
        StoreFullError: If neither the object store nor a node's disk can hold the decoded photos.
    """
    names.check("model", model)
    manifest = manifests.load(store, dataset)
    run = names.check("run", run or f"{recipe.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    _check(manifest, recipe, workers)
    with cluster.session():
        cluster.require(workers.number * workers.cpus, workers.number * workers.gpus)
        train_split, val_split = manifest.splits["train"], manifest.splits["val"]
        photos = train_split.photos + val_split.photos
        _claim(store, run, manifest, recipe, workers)
        decoded = 0

        def count(done: int) -> None:
            nonlocal decoded
            decoded += done
            on_decoded(decoded, photos)

        def observe(progress: Progress) -> None:
            if progress.decoded:
                count(progress.decoded)
            else:
                on_progress(progress)

        train_pixels: Pixels | Split = train_split
        val_pixels: Pixels | Split = val_split
        needed, room = pixels.room_for(photos, recipe.image_size)
        if needed <= room:
            train_pixels = pixels.decode(store, train_split, recipe.image_size, count)
            val_pixels = pixels.decode(store, val_split, recipe.image_size, count)
        else:
            on_note(_TOO_LARGE.format(needed=needed, room=room))
        result, summary = _fit(
            store, run, workers, max_failures, observe, Job(recipe, store.uri, run, train_pixels, val_pixels)
        )
        return _keep(store, run, model, manifest, recipe, result, summary)


def _check(manifest: Manifest, recipe: Recipe, workers: Workers) -> None:
    photos = manifest.splits["train"].photos
    if recipe.batch_size > photos:
        raise UsageError(
            "The batch is larger than the training split",
            received=f"batch_size {recipe.batch_size:,} for {photos:,} photos",
            fix=f"--set batch_size={min(photos, 32)}",
        )
    if workers.number > recipe.batch_size:
        raise UsageError(
            "There are more workers than photos in a batch",
            received=f"{workers.number} workers, batch_size {recipe.batch_size}",
            fix="ask for fewer --workers",
        )
    if not manifest.splits["val"].photos:
        raise UsageError("The dataset has no validation photos", fix="ingest with --val-fraction above 0")


def _claim(store: Store, run: str, manifest: Manifest, recipe: Recipe, workers: Workers) -> None:
    """Take the run's name by writing down what it is; the name then belongs to this configuration for ever."""
    record = {
        "run": run,
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "code": pawcast.__version__,
        "dataset": manifest.dataset,
        "dataset_sha256": manifest.digest,
        "workers": workers._asdict(),
        "recipe": recipe.model_dump(),
    }
    if not store.put_new(f"runs/{run}/run.json", json.dumps(record, indent=1).encode()):
        raise ConflictError("The run's name is taken", received=repr(run), fix="choose another --run")


def _fit(
    store: Store, run: str, workers: Workers, max_failures: int, on_progress: Callable[[Progress], None], job: Job
) -> tuple[Result, str]:
    """Run Ray Train's workers to the end; return its result and the network's summary."""
    filesystem, path = store.filesystem(f"runs/{run}")
    queue = Queue(actor_options={"num_cpus": 0})
    summary: list[str] = []

    def observe(progress: Progress) -> None:
        if progress.summary:
            summary.append(progress.summary)
        on_progress(progress)

    trainer = DataParallelTrainer(
        train_loop,
        train_loop_config={"job": job._replace(progress=queue)},
        backend_config=TensorFlowClusterConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers.number,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=path,
            storage_filesystem=filesystem,
            # The best epoch so far, and the last one: Ray never deletes that.
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="val_acc"),
            # Ray would otherwise retry for ever what can't be scheduled.
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=_CONTROLLER_FAILURES),
        ),
    )
    try:
        with _forwarded(queue, observe):
            result = trainer.fit()
        # Only now has the last of the progress come through.
        return result, "".join(summary)
    except SystemExit:
        # How Ray's own Ctrl-C handler ends; it has stopped the workers by now.
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from None
    finally:
        queue.shutdown(force=True)


def _cause(error: ray.train.TrainingFailedError) -> PawcastError:
    """The first worker's own error, without Ray's wrapping; or why no worker could be started."""
    if isinstance(error, ray.train.ControllerError):
        free = ray.available_resources()
        return ClusterError(
            "Ray could not start the training workers in time",
            received=f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free, the others in use",
            fix="wait for what holds them or stop it, ask for fewer --workers, or lower --cpus-per-worker",
        )
    failures = getattr(error, "worker_failures", None) or {0: error}
    first = failures[min(failures)]
    while not isinstance(first, PawcastError):
        inner = getattr(first, "cause", None) or getattr(first, "_base_exc", None) or first.__cause__
        if inner is None or inner is first:
            lines = [line for line in str(first).splitlines() if line.strip()]
            return TrainingError(
                f"A training worker failed ({type(first).__name__})", received=lines[-1] if lines else None
            )
        first = inner
    return first


@contextmanager
def _forwarded(queue: Queue, observe: Callable[[Progress], None]) -> Iterator[None]:
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


def _keep(
    store: Store, run: str, model: str, manifest: Manifest, recipe: Recipe, result: Result, summary: str
) -> Trained:
    """Store the best epoch's weights, the summary and the curves, and register the version."""
    checkpoint = result.get_best_checkpoint("val_acc", "max")
    if checkpoint is None:
        raise KeyboardInterrupt
    with checkpoint.as_directory() as folder, open(os.path.join(folder, WEIGHTS), "rb") as file:
        weights = file.read()
    history: dict[str, list[float]] = json.loads(store.get(f"runs/{run}/history.json"))
    best = max(range(len(history["val_acc"])), key=lambda epoch: history["val_acc"][epoch])
    title = f"{run}: {recipe.name} on {manifest.dataset}, {recipe.epochs} epochs"
    store.put(f"runs/{run}/{WEIGHTS}", weights)
    store.put(f"runs/{run}/summary.txt", summary.encode())
    store.put(f"runs/{run}/curves.png", draw_curves(history, title))
    metrics: dict[str, Any] = {key: history[key][best] for key in HISTORY_KEYS[:4]}
    version = registry.register(
        store,
        model,
        {WEIGHTS: weights},
        run=run,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        code=pawcast.__version__,
        recipe=recipe,
        dataset=manifest.dataset,
        dataset_sha256=manifest.digest,
        classes=manifest.classes,
        preprocessing=Preprocessing(image_size=recipe.image_size),
        metrics={**metrics, "best_epoch": best + 1, "train_seconds": sum(history["seconds"])},
        architecture=summary,
    )
    stepping = sum(history["seconds"]) - sum(history["validation_seconds"])
    rate = manifest.splits["train"].photos * len(history["seconds"]) / stepping
    return Trained(version, history, best + 1, rate)
