"""Training as the driver sees it: check, decode, run the workers, register a version.

The driver imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import ray

import pawcast
from pawcast import registry
from pawcast.core import names, plugins
from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import blocks
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Manifest, Split
from pawcast.errors import DataError, IntegrityError, UsageError
from pawcast.evaluation.reports.curves import draw_curves
from pawcast.models.pretrained.source import read_weights
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.runtime import ray_session
from pawcast.runtime.devices import Precision
from pawcast.store import Store, shared_store
from pawcast.training import checkpoint, lease, runs
from pawcast.training.checkpoint import BEST_WEIGHTS, TrainState
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import RunRecord, Workers
from pawcast.training.workers import LoopConfig, fit
from pawcast.vision.preprocess import Preprocessing

# TensorFlow, a small network and a batch. With less memory the system would kill the worker.
_WORKER_BYTES = 2**30
_BEYOND_OBJECT_STORE = (
    "The decoded photos take {needed:.2f} GiB, more than the {room:.2f} GiB that Ray's object store has for them. "
    "Ray keeps the rest on the disk of each node, which is slower where memory is short. To avoid that: a larger "
    "--object-store-memory, or a smaller image_size."
)
_CODE_CHANGED = "Pawcast's code has changed since this run began. The new code trains the remaining epochs."


class Trained(NamedTuple):
    """The result of a run.

    Attributes:
        version: The registered model version.
        history: Lists of values by name, one value for each epoch; `val_acc` and `val_loss` are
            None for epochs that were not validated.
        best_epoch: Number of the registered epoch, from 1.
        photos_per_second: Rate of the training steps, over all workers.
    """

    version: ModelVersion
    history: dict[str, list[float | None]]
    best_epoch: int
    photos_per_second: float


class Callbacks(NamedTuple):
    """Functions that are called while a run goes on.

    Attributes:
        progress: Gets the stages `decoding` and `comparing`; the latter compares predictions of the
            model as it will be served with those of Keras in float32.
        update: Gets the workers' progress.
        note: Gets a sentence that the user should read.
    """

    progress: Progress = silent
    update: Callable[[ProgressUpdate], None] = lambda update: None
    note: Callable[[str], None] = lambda note: None


_SILENT = Callbacks()
_ONE_WORKER = Workers()


def train(
    store: Store,
    dataset: str,
    recipe: Recipe,
    workers: Workers = _ONE_WORKER,
    *,
    run: str | None = None,
    model: str = "catdog",
    max_failures: int = 3,
    callbacks: Callbacks = _SILENT,
) -> Trained:
    """Train a recipe on a published dataset and register the best epoch as a model version.

    In the store, below `runs/RUN/`: `run.json` (what the result depends on), `history.json` and
    `timing.json` (renewed every epoch), `checkpoints/` (the last two), and at the end
    `model.weights.h5`, `summary.txt`, `curves.png` and `result.json`. Joins or starts Ray once the
    dataset is known to fit the recipe.

    Args:
        store: Where dataset, run and model are.
        dataset: `NAME` or `NAME@DIGEST`.
        recipe: What to train.
        workers: Data-parallel workers; the recipe's batch is divided among them. By default one
            worker with all CPUs of its node, see `Workers.with_cpus`.
        run: A name that no other run has; the recipe's name and the time if None.
        model: The model to register a version of.
        max_failures: How many lost workers to survive, each time from the last checkpoint.
        callbacks: Called while the run goes on.

    Raises:
        UsageError: For a recipe, batch or worker count that doesn't fit the data.
        DataError: If a split has no photos, or only one class.
        ConflictError: If the run's name is taken, or another process goes on with the run.
        ClusterError: If the cluster is too small, or too busy to start the workers.
        TrainingError: If the loss is not finite, or a worker fails and would fail again.
        StoreFullError: If neither the object store nor a node's disk can hold the decoded photos.
    """
    names.check("model", model)
    manifest = manifests.load(store, dataset)
    _check(manifest, recipe, workers)
    weights = read_weights(recipe.pretrained) if recipe.pretrained else None
    with ray_session.connect():
        workers = _with_resources(workers)
        record = runs.claim(store, run, manifest, recipe, weights, model, workers)
        return _run(store, record, manifest, workers, weights, max_failures, callbacks)


def resume(
    store: Store,
    run: str,
    workers: Workers | None = None,
    *,
    max_failures: int = 3,
    callbacks: Callbacks = _SILENT,
) -> Trained:
    """Go on with a stopped run from its newest whole checkpoint.

    With `deterministic=true` in the recipe it ends with the same weights.

    Args:
        store: Where the run is.
        run: The run's name. Recipe and dataset come from its record.
        workers: The fields that it was made with replace those that the run began with; the photos
            and their order stay the same.
        max_failures, callbacks: As for `train`, which also names the other errors.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If it is over.
        IntegrityError: If its pretrained weights have changed.
    """
    record = runs.load(store, run)
    workers = record.workers.replaced_by(workers) if workers else record.workers
    manifest = manifests.load(store, f"{record.dataset}@{record.dataset_sha256}")
    if version := registry.find_run(store, record.model, run):
        return _finish(store, manifest, version, _load_end(store, run)[0])
    _check(manifest, record.recipe, workers)
    weights = read_weights(record.recipe.pretrained) if record.recipe.pretrained else None
    if weights and hashlib.sha256(weights).hexdigest() != record.pretrained_sha256:
        what = f"{record.recipe.pretrained} isn't the file that the run {run!r} began with"
        raise IntegrityError(what, fix="restore that file, or train a new run")
    if record.code_sha256 != runs.code_digest():
        callbacks.note(_CODE_CHANGED)
    with ray_session.connect():
        workers = _with_resources(workers)
        return _run(store, record, manifest, workers, weights, max_failures, callbacks)


def _run(
    store: Store,
    record: RunRecord,
    manifest: Manifest,
    workers: Workers,
    weights: bytes | None,
    max_failures: int,
    callbacks: Callbacks,
) -> Trained:
    """Decode, train from the newest checkpoint or the beginning, and register."""
    train_split, val_split = manifest.splits["train"], manifest.splits["val"]
    train_size, val_size = record.recipe.decode_size, record.recipe.eval_size
    needed, room = blocks.memory_need([(train_split.photos, train_size), (val_split.photos, val_size)])
    if needed > room:
        callbacks.note(_BEYOND_OBJECT_STORE.format(needed=needed, room=room))
    count = Counter(callbacks.progress, "decoding", train_split.photos + val_split.photos)
    train_photos = blocks.decode_split(store, train_split, train_size, count)
    val_photos = blocks.decode_split(store, val_split, val_size, count)
    attempt = lease.acquire(store, record.run)
    config = LoopConfig(record.recipe, store.uri, record.run, attempt, train_photos, val_photos, weights)
    fit(config, workers, max_failures, callbacks.update, callbacks.note)
    return _register(store, record, manifest, callbacks.progress)


def _check(manifest: Manifest, recipe: Recipe, workers: Workers) -> None:
    """Refuse what can't be trained, before Ray is started."""
    if plugins.is_reference(recipe.model):
        plugins.load(recipe.model)
    for name in ("train", "val"):
        split = manifest.splits[name]
        if not split.photos:
            raise DataError(f"The split {name} has no photos", fix="pawcast ingest with another --val-fraction")
        if sum(count > 0 for count in split.per_class.values()) < 2:
            raise DataError(f"The split {name} has photos of one class only", received=split.per_class)
    photos = manifest.splits["train"].photos
    if recipe.batch_size > photos:
        what = f"The batch of {recipe.batch_size:,} is larger than the training split of {photos:,} photos"
        raise UsageError(what, fix=f"--set batch_size={min(photos, 32)}")
    if workers.number > recipe.batch_size:
        what = f"There are more workers than photos in a batch: {workers.number} for {recipe.batch_size}"
        raise UsageError(what, fix="ask for fewer --workers")


def _with_resources(workers: Workers) -> Workers:
    """Return the workers with a number of CPUs, if the cluster has what they need.

    Raises:
        ClusterError: If it is too small.
    """
    workers = workers.with_cpus([node["Resources"] for node in ray.nodes() if node["Alive"]])
    ray_session.require_resources(
        workers.number * (workers.cpus or 0), workers.number * workers.gpus, workers.number * _WORKER_BYTES
    )
    return workers


def _register(store: Store, record: RunRecord, manifest: Manifest, progress: Progress) -> Trained:
    """Store the best epoch's weights and the curves, and register the version."""
    state, files = _load_end(store, record.run)
    run, recipe, history, best = record.run, record.recipe, state.history, state.best_epoch
    weights = files[BEST_WEIGHTS]
    title = f"{run}: {recipe.name} on {manifest.dataset}, {state.epochs_done} epochs"
    store.put(f"runs/{run}/{WEIGHTS}", weights)
    store.put(f"runs/{run}/curves.png", draw_curves(history, title))
    preprocessing = Preprocessing(
        image_size=recipe.image_size, eval_downscale=recipe.eval_downscale, mirror=recipe.mirror
    )
    progress("comparing", 0, 1, "with Keras", unit="")
    with ray_session.unwrap_errors():
        parity = ray.get(_measure_parity.remote(store.uri, manifest.splits["val"], recipe, weights, preprocessing))
    progress("comparing", 1, 1, "with Keras: done", unit="")
    version = registry.register(
        store,
        record.model,
        {WEIGHTS: weights},
        run=run,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        code=pawcast.__version__,
        recipe=recipe,
        dataset=manifest.dataset,
        dataset_sha256=manifest.digest,
        classes=manifest.classes,
        preprocessing=preprocessing,
        metrics={
            "acc": history["acc"][best],
            "loss": history["loss"][best],
            **(state.served or {}),
            "best_epoch": best + 1,
            "train_seconds": state.total("seconds"),
            "train_cpu_seconds": state.total("cpu_seconds"),
        },
        parity=parity,
        architecture=store.get(f"runs/{run}/summary.txt").decode(),
    )
    return _finish(store, manifest, version, state)


def _load_end(store: Store, run: str) -> tuple[TrainState, dict[str, bytes]]:
    """Return the last checkpoint of a run whose training is over."""
    latest = checkpoint.load_latest(store, run)
    if latest is None or latest[0].served is None:
        # Ray ends an interrupted run without an error.
        raise KeyboardInterrupt
    return latest


def _finish(store: Store, manifest: Manifest, version: ModelVersion, state: TrainState) -> Trained:
    """Note that the run is over, as the last step of all."""
    runs.finish(store, version.run, version.name)
    step_seconds = state.total("seconds") - state.total("validation_seconds")
    rate = manifest.splits["train"].photos * state.epochs_done / step_seconds
    return Trained(version, state.history, state.best_epoch + 1, rate)


@ray.remote(num_cpus=1)
def _measure_parity(
    store_uri: str, split: Split, recipe: Recipe, weights: bytes, preprocessing: Preprocessing
) -> dict[Precision, Parity]:
    """Compare the served model with Keras, in a process that may import TensorFlow."""
    from pawcast.inference.precision.parity import measure_parity

    return measure_parity(shared_store(store_uri), split, recipe, weights, preprocessing)
