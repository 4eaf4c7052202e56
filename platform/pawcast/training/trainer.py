"""A run, as the driver sees it: check, decode, train on Ray Train's workers, keep what matters, register."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import ray

import pawcast
from pawcast import registry
from pawcast.core import names, plugins
from pawcast.data import blocks
from pawcast.data import manifest as manifests
from pawcast.data.manifest import Manifest, Split
from pawcast.errors import DataError, IntegrityError, UsageError
from pawcast.evaluation.reports.curves import draw_curves
from pawcast.models import pretrained
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.runtime import ray_session
from pawcast.runtime.devices import Precision
from pawcast.store import Store, shared_store
from pawcast.training import checkpoint, lease, runs
from pawcast.training.loop import LoopConfig
from pawcast.training.progress import ProgressUpdate
from pawcast.training.runs import RunRecord, Workers
from pawcast.training.workers import fit
from pawcast.vision.preprocess import Preprocessing

# TensorFlow, a small network, and a batch on its way: less would end in a kill by the system.
_WORKER_BYTES = 2**30
_TOO_LARGE = (
    "The decoded photos take {needed:.2f} GiB, more than the {room:.2f} GiB that Ray's object store has for them. "
    "Ray keeps the rest on the disk of each node, which is slower where memory is short. To avoid that: a larger "
    "--object-store-memory, or a smaller image_size."
)
_CODE_CHANGED = "Pawcast's code has changed since this run began; what is left of it is trained by the new code."


class Trained(NamedTuple):
    """What a run leaves; the rate is that of its training steps, over all workers.

    In the history `val_acc` and `val_loss` are None for epochs that weren't validated.
    """

    version: ModelVersion
    history: dict[str, list[float | None]]
    best_epoch: int
    photos_per_second: float


class Callbacks(NamedTuple):
    """Whom to tell.

    Attributes:
        decoded: Gets photos done and in all.
        progress: Gets what the workers tell.
        note: Gets a sentence that the user should know.
        comparing: Called when training is over, and what will be served is held against Keras.
    """

    decoded: Callable[[int, int], None] = lambda done, total: None
    progress: Callable[[ProgressUpdate], None] = lambda progress: None
    note: Callable[[str], None] = lambda note: None
    comparing: Callable[[], None] = lambda: None


def train(
    store: Store,
    dataset: str,
    recipe: Recipe,
    workers: Workers,
    *,
    run: str | None = None,
    model: str = "catdog",
    max_failures: int = 3,
    watch: Callbacks = Callbacks(),  # noqa: B008 - immutable
) -> Trained:
    """Train a recipe on a published dataset and register the best epoch as a model version.

    In the store, below `runs/RUN/`: `run.json` (what the run is a function of), `history.json` (renewed every
    epoch), `checkpoints/` (the last two), and at the end `model.weights.h5`, `summary.txt`, `curves.png` and
    `result.json`. Joins or starts Ray once dataset and recipe are known to fit.

    Args:
        store: Where dataset, run and model live.
        dataset: `NAME` or `NAME@DIGEST`.
        recipe: What to train.
        workers: Data-parallel workers; the recipe's batch is divided among them.
        run: A name that no other run has; the recipe's and the time if None.
        model: The model to register a version of.
        max_failures: How many lost workers to survive, each time from the last checkpoint.
        watch: Called as things move on.

    Returns:
        The registered version and the history.

    Raises:
        UsageError: For a recipe, batch or worker count that doesn't fit the data.
        DataError: If a split has no photos, or only one class.
        ConflictError: If the run's name is taken, or another process goes on with the run meanwhile.
        ClusterError: If the cluster is too small, or too busy to start the workers.
        TrainingError: If the loss is no number any more, or a worker fails for a reason of its own.
        StoreFullError: If neither the object store nor a node's disk can hold the decoded photos.
    """
    names.check("model", model)
    manifest = manifests.load(store, dataset)
    _check(manifest, recipe, workers)
    weights = _pretrained(recipe)
    with ray_session.connect():
        _require(workers)
        record = runs.claim(store, run, manifest, recipe, weights, model, workers)
        return _carry_on(store, record, manifest, workers, weights, max_failures, watch)


def resume(
    store: Store,
    run: str,
    workers: Workers | None = None,
    *,
    max_failures: int = 3,
    watch: Callbacks = Callbacks(),  # noqa: B008 - immutable
) -> Trained:
    """Go on with a run that was stopped, from its newest whole checkpoint, to the same result.

    Args:
        store: Where the run is.
        run: Its name. Recipe, data and everything else are what it began with.
        workers: Other workers than it began with; the photos and their order stay the same.
        max_failures, watch: As for `train`, which also says what is returned and raised, besides these.

    Raises:
        NotFoundError: If there is no such run.
        ConflictError: If it is over.
        IntegrityError: If the weights it began with aren't there any more.
    """
    record = runs.load(store, run)
    workers = workers or record.workers
    manifest = manifests.load(store, f"{record.dataset}@{record.dataset_sha256}")
    _check(manifest, record.recipe, workers)
    weights = _pretrained(record.recipe)
    if weights and hashlib.sha256(weights).hexdigest() != record.pretrained_sha256:
        raise IntegrityError(f"{record.recipe.pretrained} isn't the file that the run {run!r} began with")
    if record.code_sha256 != runs.code_digest():
        watch.note(_CODE_CHANGED)
    with ray_session.connect():
        _require(workers)
        return _carry_on(store, record, manifest, workers, weights, max_failures, watch)


def _carry_on(
    store: Store,
    record: RunRecord,
    manifest: Manifest,
    workers: Workers,
    weights: bytes | None,
    max_failures: int,
    watch: Callbacks,
) -> Trained:
    """Decode, train from wherever the run is, and register."""
    sizes = record.recipe.decode_size, record.recipe.eval_size
    train_split, val_split = manifest.splits["train"], manifest.splits["val"]
    photos = train_split.photos + val_split.photos
    decoded = 0

    def count(done: int) -> None:
        nonlocal decoded
        decoded += done
        watch.decoded(decoded, photos)

    needed, room = blocks.memory_need(zip((train_split.photos, val_split.photos), sizes, strict=True))
    if needed > room:
        watch.note(_TOO_LARGE.format(needed=needed, room=room))
    train_pixels = blocks.decode_split(store, train_split, sizes[0], count)
    val_pixels = blocks.decode_split(store, val_split, sizes[1], count)
    attempt = lease.acquire(store, record.run)
    job = LoopConfig(record.recipe, store.uri, record.run, attempt, train_pixels, val_pixels, weights)
    fit(store, job, workers, max_failures, watch.progress, watch.note)
    return _keep(store, record, manifest, watch)


def _check(manifest: Manifest, recipe: Recipe, workers: Workers) -> None:
    if plugins.is_reference(recipe.model):
        plugins.load(recipe.model)
    for name in ("train", "val"):
        split = manifest.splits[name]
        if not split.photos:
            raise DataError(f"The dataset has no photos in its split {name}", fix="ingest with another --val-fraction")
        if sum(count > 0 for count in split.per_class.values()) < 2:
            raise DataError(
                f"The split {name} has photos of one class only", received=split.per_class, expected="both classes"
            )
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


def _require(workers: Workers) -> None:
    ray_session.require_resources(
        workers.number * workers.cpus, workers.number * workers.gpus, workers.number * _WORKER_BYTES
    )


def _pretrained(recipe: Recipe) -> bytes | None:
    """Read the weights to begin with here, so that only this machine needs them."""
    return pretrained.read(recipe.pretrained) if recipe.pretrained else None


def _keep(store: Store, record: RunRecord, manifest: Manifest, watch: Callbacks) -> Trained:
    """Store the best epoch's weights and the curves, and register the version."""
    found = checkpoint.load_latest(store, record.run)
    if found is None or found[0].served is None:
        # Ray ends an interrupted run without an error.
        raise KeyboardInterrupt
    state, files = found
    run, recipe, history, best = record.run, record.recipe, state.history, state.best_epoch
    weights = files[checkpoint.BEST]
    title = f"{run}: {recipe.name} on {manifest.dataset}, {state.epochs_done} epochs"
    store.put(f"runs/{run}/{WEIGHTS}", weights)
    store.put(f"runs/{run}/curves.png", draw_curves(history, title))
    preprocessing = Preprocessing(
        image_size=recipe.image_size, eval_downscale=recipe.eval_downscale, mirror=recipe.mirror
    )
    watch.comparing()
    with ray_session.unwrap_errors():
        agreement = ray.get(_measure_parity.remote(store.uri, manifest.splits["val"], recipe, weights, preprocessing))
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
        parity=agreement,
        architecture=store.get(f"runs/{run}/summary.txt").decode(),
    )
    runs.finish(store, run, version.name)
    stepping = state.total("seconds") - state.total("validation_seconds")
    rate = manifest.splits["train"].photos * state.epochs_done / stepping
    return Trained(version, history, best + 1, rate)


@ray.remote(num_cpus=1)
def _measure_parity(
    store_uri: str, split: Split, recipe: Recipe, weights: bytes, preprocessing: Preprocessing
) -> dict[Precision, Parity]:
    """Measure on a node that has a CPU to spare, not here: this process never needs TensorFlow."""
    from pawcast.inference.precision.parity import measure_parity

    return measure_parity(shared_store(store_uri), split, recipe, weights, preprocessing)
