"""The training loop, as each Ray Train worker runs it."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray
import ray.train
import ray.train.collective
from ray.util.queue import Queue

from pawcast.augment import to_unit, warp
from pawcast.dataset import scratch
from pawcast.dataset.manifest import Split
from pawcast.dataset.pixels import Pixels
from pawcast.devices import configure_tensorflow, usable_cpus
from pawcast.errors import TrainingError
from pawcast.recipe import Recipe
from pawcast.store import open_store
from pawcast.training import checkpoint
from pawcast.training.collective import Collective
from pawcast.training.feed import Batch, Feed
from pawcast.training.schedule import learning_rate

if TYPE_CHECKING:
    import keras

_PROGRESS_SECONDS = 0.5
# `loss` and `acc` are those of the augmented training photos, with dropout; Keras's names.
HISTORY_KEYS = ("acc", "val_acc", "loss", "val_loss", "learning_rate", "seconds", "validation_seconds")


class Job(NamedTuple):
    """What a worker is told, besides its rank.

    `train` and `val` are in Ray's object store or, if that is too small, still to be decoded on each node.
    """

    recipe: Recipe
    store_uri: str
    run: str
    train: Pixels | Split
    val: Pixels | Split
    progress: Queue | None = None


class Progress(NamedTuple):
    """Where the run is, sent by rank 0 twice a second and at the end of each epoch.

    Before the first epoch, `decoded` counts photos that its node has just decoded, if the workers do that.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    acc: float = 0.0
    photos_per_second: float = 0.0
    decoded: int = 0
    finished: dict[str, float] | None = None
    summary: str | None = None


class _Sums(NamedTuple):
    """Totals over photos: summed loss, correct predictions, photos."""

    loss: float
    correct: float
    photos: float


def train_loop(config: dict[str, Any]) -> None:
    """Train on this rank until the recipe is done. Runs on every worker of the group.

    Args:
        config: `{"job": Job}`.

    Raises:
        TrainingError: If the loss is no number any more, or the ranks' weights differ.
    """
    job: Job = config["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    configure_tensorflow(threads=max(1, usable_cpus() // context.get_local_world_size()))
    collective = Collective(rank, world)

    import keras

    from pawcast import models

    recipe = job.recipe
    keras.utils.set_random_seed(recipe.seed)
    model = models.build(recipe)
    optimizer = keras.optimizers.RMSprop(recipe.learning_rate, momentum=recipe.momentum)
    optimizer.build(model.trainable_variables)

    # Where to start, in this order: a checkpoint of this run (Ray hands it over after a failure), else scratch.
    history: dict[str, list[float]] = {key: [] for key in HISTORY_KEYS}
    first = 0
    if found := ray.train.get_checkpoint():
        with found.as_directory() as folder:
            state = checkpoint.restore(Path(folder), model, optimizer)
        history, first = state["history"], state["epochs_done"]
    else:
        collective.from_rank_zero(model.weights)

    tell = _Teller(job.progress if rank == 0 else None)
    train = Feed(*_opened(job, "train", job.train, tell), recipe, rank, world)
    val = Feed(*_opened(job, "val", job.val, tell), recipe, rank, world)
    train_step, val_step, total = _compile(model, optimizer, collective)
    tell.about(train)
    if first == 0:
        tell.summary(model)

    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        _seed_dropout(model, recipe.seed, epoch, rank)
        tell.epoch(epoch)
        sums = []
        for step, batch in enumerate(train.shuffled(epoch)):
            optimizer.learning_rate.assign(learning_rate(recipe, epoch * train.steps + step, train.steps))
            sums.append(train_step(*batch))
            tell.step(step, sums)
        trained = total(sums)
        if not math.isfinite(trained.loss):
            raise TrainingError(
                f"The loss stopped being a number in epoch {epoch + 1}",
                received=trained.loss,
                fix=f"lower learning_rate (now {recipe.learning_rate:g})",
            )
        middle = time.monotonic()
        validated = total([val_step(*batch) for batch in val.in_order()])
        now = time.monotonic()
        row = {
            "acc": trained.correct / trained.photos,
            "val_acc": validated.correct / validated.photos,
            "loss": trained.loss / trained.photos,
            "val_loss": validated.loss / validated.photos,
            "learning_rate": float(optimizer.learning_rate),
            "seconds": now - started,
            "validation_seconds": now - middle,
        }
        for key in HISTORY_KEYS:
            history[key].append(row[key])
        _require_agreement(model, rank, epoch)
        _report(job, model, optimizer, history, row, rank)
        tell.finished(row)


def _opened(job: Job, name: str, split: Pixels | Split, tell: _Teller) -> tuple[Sequence[np.ndarray], np.ndarray]:
    """A split's blocks of pixels and its labels, shared with the other workers of this node."""
    if isinstance(split, Pixels):
        return ray.get(split.blocks), split.labels
    node = ray.get_runtime_context().get_node_id()[:12]
    pixels, labels = scratch.share(
        open_store(job.store_uri), split, job.recipe.image_size,
        Path(tempfile.gettempdir()) / f"pawcast-{job.run}-{name}-{node}",
        leader=ray.train.get_context().get_local_rank() == 0, barrier=ray.train.collective.barrier,
        threads=usable_cpus(), progress=tell.decoded,
    )  # fmt: skip
    return [pixels], labels


def _compile(
    model: keras.Model, optimizer: keras.Optimizer, collective: Collective
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[list[Any]], _Sums]]:
    """Build the three graph functions: a training step, a validation step, and the total over steps and ranks."""
    import keras
    import tensorflow as tf

    def measure(batch: Batch, pixels: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        probability = model(pixels, training=training)[:, 0]
        losses = keras.losses.binary_crossentropy(batch.labels[:, None], probability[:, None])
        correct = tf.cast((probability > 0.5) == (batch.labels > 0.5), tf.float32)
        loss = tf.reduce_sum(losses * batch.weights)
        return loss, tf.stack([loss, tf.reduce_sum(correct * batch.weights), tf.reduce_sum(batch.weights)])

    @tf.function
    def train_step(*parts: tf.Tensor) -> tf.Tensor:
        batch = Batch(*parts)

        def on_this_rank() -> tuple[list[tf.Tensor], tf.Tensor]:
            pixels = warp(to_unit(batch.pixels), batch.transforms)
            with tf.GradientTape() as tape:
                loss, sums = measure(batch, pixels, training=True)
                # Over the global count, so that the sum over ranks is the gradient of the global mean.
                loss = loss / batch.photos
            return collective.sum(tape.gradient(loss, model.trainable_variables)), sums

        gradients, sums = collective.run(on_this_rank)
        # Outside of the strategy: Keras's optimizer refuses to be called in it.
        optimizer.apply(gradients, model.trainable_variables)
        return sums

    @tf.function
    def val_step(*parts: tf.Tensor) -> tf.Tensor:
        batch = Batch(*parts)
        return measure(batch, to_unit(batch.pixels), training=False)[1]

    @tf.function
    def over_ranks(sums: tf.Tensor) -> tf.Tensor:
        return collective.run(lambda: collective.sum([sums]))[0]

    def total(sums: list[tf.Tensor]) -> _Sums:
        own = np.sum([np.asarray(s, np.float64) for s in sums], axis=0)
        return _Sums(*np.asarray(over_ranks(tf.constant(own, tf.float64)), np.float64).tolist())

    return train_step, val_step, total


def _seed_dropout(model: keras.Model, seed: int, epoch: int, rank: int) -> None:
    """Make dropout a function of (seed, epoch, rank), so that there is no random state to checkpoint."""
    for i, layer in enumerate(model.layers):
        if generator := getattr(layer, "seed_generator", None):
            words = np.random.SeedSequence(seed, spawn_key=(2, epoch, rank, i)).generate_state(2)
            generator.state.assign(words.astype(generator.state.dtype))


def _require_agreement(model: keras.Model, rank: int, epoch: int) -> None:
    """Stop the run unless all ranks hold the same weights to the last bit."""
    digest = hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in model.weights)).hexdigest()
    expected = ray.train.collective.broadcast_from_rank_zero(digest)
    if digest != expected:
        raise TrainingError(
            f"Rank {rank} and rank 0 hold different weights after epoch {epoch + 1}",
            received=f"sha256 {digest[:12]}…",
            expected=f"{expected[:12]}…",
        )


def _report(
    job: Job,
    model: keras.Model,
    optimizer: keras.Optimizer,
    history: dict[str, list[float]],
    row: dict[str, float],
    rank: int,
) -> None:
    """End the epoch: rank 0 leaves a checkpoint and the history so far; all ranks wait for each other."""
    if rank != 0:
        ray.train.report(row)
        return
    with tempfile.TemporaryDirectory(prefix="pawcast-checkpoint-") as folder:
        state = {"epochs_done": len(history["acc"]), "history": history}
        checkpoint.save(Path(folder), model, optimizer, state)
        ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))
    open_store(job.store_uri).put(f"runs/{job.run}/history.json", json.dumps(history, indent=1).encode())


class _Teller:
    """Sends progress to the driver, seldom enough to cost nothing."""

    def __init__(self, queue: Queue | None) -> None:
        self._queue = queue
        self._epoch, self._started, self._last = 0, 0.0, 0.0

    def decoded(self, photos: int) -> None:
        self._send(Progress(decoded=photos))

    def about(self, train: Feed) -> None:
        self._train = train

    def summary(self, model: keras.Model) -> None:
        lines: list[str] = []
        model.summary(print_fn=lambda line, **_: lines.append(line), line_length=78)
        self._send(Progress(summary="\n".join(lines)))

    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._started = self._last = time.monotonic()

    def step(self, step: int, sums: list[Any]) -> None:
        now = time.monotonic()
        if self._queue is None or now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        # This rank's own photos are a fair sample; the totals over all ranks come with the epoch.
        loss, correct, photos = np.sum([np.asarray(s) for s in sums[-20:]], axis=0)
        done = min((step + 1) / self._train.steps, 1) * self._train.photos
        rate = done / (now - self._started)
        self._send(Progress(self._epoch, step + 1, self._train.steps, loss / photos, correct / photos, rate))

    def finished(self, row: dict[str, float]) -> None:
        rate = self._train.photos / (row["seconds"] - row["validation_seconds"])
        steps = self._train.steps
        self._send(Progress(self._epoch, steps, steps, row["loss"], row["acc"], rate, finished=row))

    def _send(self, progress: Progress) -> None:
        if self._queue is not None:
            self._queue.put(progress)
