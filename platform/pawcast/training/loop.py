"""The training loop, as each Ray Train worker runs it."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, NamedTuple

import cv2
import numpy as np
import ray
import ray.train
import ray.train.collective

from pawcast.errors import ConflictError, TrainingError
from pawcast.models import build
from pawcast.models import weights as weights_file
from pawcast.models.layers import dropout
from pawcast.models.pretrained.loader import load_weights
from pawcast.registry import WEIGHTS
from pawcast.runtime.devices import usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, keras, resolve_precision
from pawcast.store import open_store
from pawcast.training import checkpoint, lease, optimizers, timing
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, SUMMARY, TrainState
from pawcast.training.collective import Collective
from pawcast.training.config import LoopConfig
from pawcast.training.loader import BATCHES_AHEAD_OF_GPU, Batch, BatchLoader
from pawcast.training.metrics import MetricSums
from pawcast.training.progress import ProgressReporter
from pawcast.training.schedule import learning_rate
from pawcast.training.selection import best_epoch, out_of_patience
from pawcast.training.step import TrainStep
from pawcast.training.timing import StepTiming

# `loss` and `acc` are those of the augmented training photos, with dropout, under Keras's names.
# `cpu_seconds` are those of all ranks' processes: the cost of the epoch, whatever else the machine
# was doing.
HISTORY_KEYS = ("acc", "val_acc", "loss", "val_loss", "learning_rate", "seconds", "validation_seconds", "cpu_seconds")
_LEASE_LOST = ConflictError(
    "Another process goes on with this run", expected="one process at a time", fix="wait for the other process"
)
# Steps between two checks of the loss over all ranks: rarely enough to cost nothing.
_CHECK_EVERY = 50


def train_loop(config: LoopConfig) -> None:
    """Train on this rank until the recipe is done.

    A loss that is not finite comes back when the same steps are repeated, and all ranks see it at
    once. So it is reported, and the function returns: if it were raised, Ray would start all
    workers again for nothing.

    Raises:
        TrainingError: If the ranks hold different weights. Another attempt may succeed.
    """
    recipe = config.recipe
    context = ray.train.get_context()
    threads = max(1, usable_cpus() // context.get_local_world_size())
    gpus = configure_tensorflow(threads, recipe.deterministic)
    cv2.setNumThreads(threads)
    ranks = Collective(context.get_world_rank(), context.get_world_size())
    trainer = RankTrainer(config, ranks, BATCHES_AHEAD_OF_GPU if gpus else 1)
    for epoch in range(trainer.state.epochs_done, recipe.epochs):
        # Checked before the epoch: a resumed run may be out of patience already.
        if out_of_patience(recipe, trainer.state):
            break
        try:
            row = trainer.run_epoch(epoch)
        except TrainingError as error:
            trainer.reporter.failed(error)
            return
        ended = time.monotonic()
        _require_equal_weights(trainer.model, trainer.rank, epoch)
        if not trainer.holds_lease():
            trainer.reporter.failed(_LEASE_LOST)
            return
        trainer.end_epoch(row)
        trainer.save_timing(checkpoint_seconds=time.monotonic() - ended)
    trainer.validate_as_served()


class _TrainingPass(NamedTuple):
    """One pass over the training photos.

    Attributes:
        sums: Over all photos and ranks.
        learning_rate: Of the last step.
        batch: The first one.
        step_seconds, data_wait: Seconds of an average step, and of its wait for a batch, without
            the first step, which traces the graph. 0 if there is no other step.
    """

    sums: MetricSums
    learning_rate: float
    batch: Batch
    step_seconds: float
    data_wait: float


class RankTrainer:
    """One rank's part of a run: its model, its batches, and the state of the run.

    Args:
        config: What the driver hands over.
        ranks: All ranks of the run.
        batches_ahead: See `BatchLoader`.

    Attributes:
        model: The network.
        state: How far the run is; the same on all ranks.
        reporter: Sends progress to the driver; silent on all ranks but 0.
        rank: This rank.
    """

    def __init__(self, config: LoopConfig, ranks: Collective, batches_ahead: int) -> None:
        recipe = config.recipe
        self._config, self._recipe, self._ranks, self.rank = config, recipe, ranks, ranks.rank
        self._store = open_store(config.store_uri)
        keras.utils.set_random_seed(recipe.seed)
        self.model = build.build_model(recipe, resolve_precision(recipe.precision))
        self._optimizer = optimizers.build_optimizer(recipe, self.model)
        self.state = TrainState(epochs_done=0, history={key: [] for key in HISTORY_KEYS}, best_epoch=-1)
        self._best_weights = b""
        self._timing: StepTiming | None = None
        notes: list[str] = []
        if self.rank == 0:
            self._restore(notes)
        self.state = ray.train.collective.broadcast_from_rank_zero(self.state)
        ranks.broadcast([*self.model.weights, *self._optimizer.variables])
        # One call for each split: Ray then puts all of its blocks into this node's object store,
        # and into mapped files on the node's disk once that is full.
        self._train, self._val = (
            BatchLoader(ray.get(split.blocks), split.labels, recipe, self.rank, ranks.world, batches_ahead)
            for split in (config.train, config.val)
        )
        self._step = TrainStep(recipe, self.model, self._optimizer, ranks)
        self.reporter = ProgressReporter(config.progress if self.rank == 0 else None, self._train)
        for note in notes:
            self.reporter.note(note)
        self.reporter.start_run(self.state.epochs_done, _summary(self.model))

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train, and validate if it is due; return the epoch's row of the history.

        The row has no `val_acc` and `val_loss` if the epoch is not validated.

        Raises:
            TrainingError: If a loss is not finite, or has diverged. On all ranks at once.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        dropout.reseed_keras_layers(self.model, self._recipe.seed, epoch, self.rank)
        self.reporter.start_epoch(epoch)
        trained = self._train_photos(epoch)
        training_ended = time.monotonic()
        validation = self._validate(epoch) if self._recipe.validates_after(epoch) else {}
        ended = time.monotonic()
        (cpu_seconds,) = self._step.sum_over_ranks([time.process_time() - cpu_started])
        if self._timing is None and trained.step_seconds:
            self._timing = timing.measure(self._step, trained.batch, epoch, trained.step_seconds, trained.data_wait)
            self.reporter.timing(self._timing)
        return {
            "acc": trained.sums.accuracy,
            "loss": trained.sums.mean_loss,
            **validation,
            "learning_rate": trained.learning_rate,
            "seconds": ended - started,
            "validation_seconds": ended - training_ended if validation else 0.0,
            "cpu_seconds": cpu_seconds,
        }

    def holds_lease(self) -> bool:
        """Return whether this attempt may still write checkpoints; the same on all ranks."""
        own = self.rank > 0 or lease.holder(self._store, self._config.run) == self._config.attempt
        holds: bool = ray.train.collective.broadcast_from_rank_zero(own)
        return holds

    def end_epoch(self, row: dict[str, float]) -> None:
        """Add an epoch's row to the state, and save a checkpoint and the history."""
        history = {key: [*values, row.get(key)] for key, values in self.state.history.items()}
        epochs_done = self.state.epochs_done + 1
        best = best_epoch(self._recipe, history["val_acc"])
        self.state = TrainState(epochs_done=epochs_done, history=history, best_epoch=best)
        if self.rank == 0:
            weights = weights_file.dump(self.model)
            if best == epochs_done - 1:
                self._best_weights = weights
            self._save_checkpoint(weights)
            self._put_json("history.json", history)
        self.reporter.end_epoch(row)

    def save_timing(self, checkpoint_seconds: float) -> None:
        """Write `timing.json`: the parts of an average step, and of an average epoch.

        Args:
            checkpoint_seconds: What comparing the ranks' weights and saving a checkpoint took after
                the latest epoch.
        """
        if self.rank > 0 or self._timing is None:
            return
        epochs = self.state.epochs_done
        seconds, validation = self.state.total("seconds") / epochs, self.state.total("validation_seconds") / epochs
        step = {"photos": self._timing.photos, "seconds": self._timing.seconds, "parts": self._timing.parts()}
        epoch = {"steps": seconds - validation, "validation": validation, "checkpoint": checkpoint_seconds}
        self._put_json("timing.json", {"world": self._ranks.world, "step": step, "epoch": epoch})

    def validate_as_served(self) -> None:
        """Validate the best weights once with the preprocessing of serving.

        The result goes into the last checkpoint. Does nothing if it is there already.
        """
        if self.state.served is not None:
            return
        state, recipe = self.state, self._recipe
        weights = weights_file.dump(self.model) if self.rank == 0 else b""
        if recipe.mirror or recipe.size_at(state.best_epoch) != recipe.image_size:
            if self.rank == 0:
                weights_file.load(self.model, self._best_weights)
            self._ranks.broadcast(self.model.weights)
            batches = self._val.validation_batches(recipe.image_size)
            sums = self._step.validate(batches, recipe.image_size, recipe.mirror)
            served = {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}
        else:
            # The best epoch was validated in just this way.
            values = {key: state.history[key][state.best_epoch] for key in ("val_acc", "val_loss")}
            served = {key: value for key, value in values.items() if value is not None}
        self.state = state.model_copy(update={"served": served})
        if self.rank == 0:
            self._save_checkpoint(weights)

    def _restore(self, notes: list[str]) -> None:
        """Load the run's newest checkpoint, or else the pretrained weights of the recipe."""
        config, recipe = self._config, self._recipe
        if latest := checkpoint.load_latest(self._store, config.run, notes.append):
            self.state, files = latest
            self._best_weights = files[BEST_WEIGHTS]
            weights_file.load(self.model, files[WEIGHTS])
            optimizers.load(self._optimizer, files[OPTIMIZER])
        elif recipe.pretrained and config.pretrained:
            load_weights(self.model, recipe.pretrained, config.pretrained)

    def _train_photos(self, epoch: int) -> _TrainingPass:
        totals, recent = [], []
        data_wait, ended = 0.0, time.monotonic()
        for step, batch in enumerate(self._train.training_batches(epoch)):
            if step:
                data_wait += time.monotonic() - ended
            step_of_run = epoch * self._train.steps + step
            rate = learning_rate(self._recipe, step_of_run, self._train.steps)
            self._optimizer.learning_rate.assign(rate)
            recent.append(self._step.train(batch, epoch, step_of_run))
            self.reporter.end_step(step, recent)
            if (step + 1) % _CHECK_EVERY == 0 or step + 1 == self._train.steps:
                totals.append(self._checked_total(recent, epoch, step))
                recent = []
            ended = time.monotonic()
            if step == 0:
                first_batch, first_ended = batch, ended
        sums = MetricSums(*np.sum(totals, axis=0).tolist())
        others = self._train.steps - 1
        step_seconds = (time.monotonic() - first_ended) / others if others else 0.0
        return _TrainingPass(sums, rate, first_batch, step_seconds, data_wait / others if others else 0.0)

    def _validate(self, epoch: int) -> dict[str, float]:
        """Validate with photos of the epoch's size."""
        size = self._recipe.size_at(epoch)
        sums = self._step.validate(self._val.validation_batches(size), size)
        if not sums.is_finite:
            raise self._loss_error(f"The validation loss is NaN or infinite after epoch {epoch + 1}", sums)
        return {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}

    def _checked_total(self, sums: list[Any], epoch: int, step: int) -> MetricSums:
        """Return the totals of the latest steps over all ranks, unless their loss is unusable."""
        total = self._step.total(sums)
        if total.is_finite and (epoch == 0 or not total.has_diverged):
            return total
        first = next((i for i, values in enumerate(sums) if not np.isfinite(np.asarray(values)).all()), 0)
        raise self._loss_error(
            f"The loss {'diverged' if total.is_finite else 'became NaN or infinite'} in epoch {epoch + 1}, "
            f"step {step + 1 - len(sums) + first + 1}",
            total,
        )

    def _loss_error(self, what: str, sums: MetricSums) -> TrainingError:
        return TrainingError(
            what,
            received=f"{sums.mean_loss:.4g}",
            fix=f"lower learning_rate (now {self._recipe.learning_rate:g}); the last good checkpoint is kept",
        )

    def _save_checkpoint(self, weights: bytes) -> None:
        optimizer = optimizers.dump(self._optimizer)
        summary = _summary(self.model).encode()
        files = {WEIGHTS: weights, BEST_WEIGHTS: self._best_weights, OPTIMIZER: optimizer, SUMMARY: summary}
        checkpoint.save(self._store, self._config.run, self.state, files)

    def _put_json(self, name: str, value: object) -> None:
        self._store.put(f"runs/{self._config.run}/{name}", json.dumps(value, indent=1).encode())


def _summary(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=78)
    return "\n".join(lines)


def _require_equal_weights(model: keras.Model, rank: int, epoch: int) -> None:
    """Stop the run unless all ranks hold the same weights to the last bit."""
    digest = hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in model.weights)).hexdigest()
    expected = ray.train.collective.broadcast_from_rank_zero(digest)
    if digest != expected:
        raise TrainingError(
            f"Rank {rank} and rank 0 hold different weights after epoch {epoch + 1}",
            received=f"sha256 {digest[:12]}…",
            expected=f"{expected[:12]}…",
        )
