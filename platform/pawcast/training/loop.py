"""The training loop, as each Ray Train worker runs it."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

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
from pawcast.training.checkpoint import BEST_WEIGHTS, OPTIMIZER, TrainState
from pawcast.training.collective import Collective
from pawcast.training.loader import BATCHES_AHEAD_OF_GPU, Batch, BatchLoader
from pawcast.training.metrics import MetricSums, balanced_weights
from pawcast.training.progress import ProgressReporter, ProgressUpdate
from pawcast.training.schedule import learning_rate
from pawcast.training.selection import best_epoch, out_of_patience
from pawcast.training.step import TrainStep
from pawcast.training.timing import StepTiming
from pawcast.training.workers import DifferentWeightsError, LoopConfig

# `loss` and `acc` are those of the augmented training photos, with dropout, under Keras's names.
# `cpu_seconds` are those of all ranks' processes: the cost of the epoch, whatever else the machine
# was doing.
HISTORY_KEYS = ("acc", "val_acc", "loss", "val_loss", "learning_rate", "seconds", "validation_seconds", "cpu_seconds")
# Steps between two checks of the loss over all ranks: rarely enough to cost nothing.
_CHECK_EVERY = 50


def train_loop(config: LoopConfig) -> None:
    """Train on this rank until the recipe is done.

    Raises:
        TrainingError: If a loss is not finite, or has diverged. On all ranks at once.
        DifferentWeightsError: If the ranks hold different weights. Another attempt may succeed.
        ConflictError: If another attempt at the run has begun.
    """
    recipe = config.recipe
    context = ray.train.get_context()
    threads = max(1, usable_cpus() // context.get_local_world_size())
    gpus = configure_tensorflow(threads, recipe.deterministic)
    cv2.setNumThreads(threads)
    ranks = Collective(context.get_world_rank(), context.get_world_size())
    trainer = RankTrainer(config, ranks, BATCHES_AHEAD_OF_GPU if gpus else 1)
    # Checked before the epoch: a resumed run may be out of patience already.
    while trainer.state.epochs_done < recipe.epochs and not out_of_patience(recipe, trainer.state):
        row = trainer.run_epoch(trainer.state.epochs_done)
        trainer.end_epoch(row)
    trainer.validate_as_served()


class RankTrainer:
    """One rank's part of a run: its model, its batches, and the state of the run.

    Args:
        config: What the driver hands over.
        ranks: All ranks of the run.
        batches_ahead: See `BatchLoader`.

    Attributes:
        state: How far the run is; the same on all ranks.
    """

    def __init__(self, config: LoopConfig, ranks: Collective, batches_ahead: int) -> None:
        recipe = config.recipe
        self._config, self._recipe, self._ranks, self._rank = config, recipe, ranks, ranks.rank
        self._store = open_store(config.store_uri)
        keras.utils.set_random_seed(recipe.seed)
        self._model = build.build_model(recipe, resolve_precision(recipe.precision))
        self._optimizer = optimizers.build_optimizer(recipe, self._model)
        self.state = TrainState(epochs_done=0, history={key: [] for key in HISTORY_KEYS}, best_epoch=-1)
        self._best_weights = b""
        self._sample: tuple[Batch, float, float] | None = None
        self._timing: StepTiming | None = None
        if self._rank == 0:
            self._restore()
        self.state = ray.train.collective.broadcast_from_rank_zero(self.state)
        ranks.broadcast([*self._model.weights, *self._optimizer.variables])
        # One call for each split: Ray then puts all of its blocks into this node's object store,
        # and into mapped files on the node's disk once that is full.
        self._train, self._val = (
            BatchLoader(ray.get(split.blocks), split.labels, recipe, self._rank, ranks.world, batches_ahead)
            for split in (config.train, config.val)
        )
        # The labels of the whole split, so that all ranks have the same weights.
        weights = balanced_weights(config.train.labels) if recipe.class_weights == "balanced" else None
        self._step = TrainStep(recipe, self._model, self._optimizer, ranks, weights)
        self._reporter = ProgressReporter(config.progress if self._rank == 0 else None, self._train)
        if self.state.epochs_done:
            self._reporter.send(ProgressUpdate(resumed=self.state.epochs_done))
        else:
            summary = _summary(self._model)
            self._put("summary.txt", summary)
            self._reporter.send(ProgressUpdate(summary=summary))

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train, and validate if it is due; return the epoch's row of the history.

        The row has no `val_acc` and `val_loss` if the epoch is not validated.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        dropout.reseed_keras_layers(self._model, self._recipe.seed, epoch, self._rank)
        self._reporter.start_epoch(epoch)
        trained = self._train_photos(epoch)
        training_ended = time.monotonic()
        validation = self._validate(epoch) if self._recipe.validates_after(epoch) else {}
        ended = time.monotonic()
        (cpu_seconds,) = self._step.sum_over_ranks([time.process_time() - cpu_started])
        if self._timing is None and self._sample:
            self._timing = timing.measure(self._step, epoch, *self._sample)
            self._reporter.send(ProgressUpdate(timing=self._timing))
        validation_seconds = ended - training_ended if validation else 0.0
        times = {"seconds": ended - started, "validation_seconds": validation_seconds, "cpu_seconds": cpu_seconds}
        return trained | validation | times

    def end_epoch(self, row: dict[str, float]) -> None:
        """Add an epoch's row to the state; save a checkpoint, `history.json` and `timing.json`."""
        ended = time.monotonic()
        _require_equal_weights(self._model, self._rank, self.state.epochs_done)
        self._require_finite_weights()
        self._require_lease()
        history = {key: [*values, row.get(key)] for key, values in self.state.history.items()}
        epochs_done = self.state.epochs_done + 1
        best = best_epoch(self._recipe, history["val_acc"], history["val_loss"])
        self.state = TrainState(epochs_done=epochs_done, history=history, best_epoch=best)
        if self._rank == 0:
            weights = weights_file.dump(self._model)
            if best == epochs_done - 1:
                self._best_weights = weights
            self._save_checkpoint(weights)
            self._put_json("history.json", history)
        self._reporter.end_epoch(row)
        if self._timing:
            validation = self.state.total("validation_seconds") / epochs_done
            steps = self.state.total("seconds") / epochs_done - validation
            epoch = {"steps": steps, "validation": validation, "checkpoint": time.monotonic() - ended}
            record = {"world": self._ranks.world, "step": self._timing, "epoch": epoch}
            self._put_json("timing.json", record)

    def validate_as_served(self) -> None:
        """Validate the best weights once with the preprocessing of serving.

        The result goes into the last checkpoint. Does nothing if it is there already.
        """
        if self.state.served is not None:
            return
        state, recipe = self.state, self._recipe
        # The best epoch may have been validated in just this way.
        served = {key: state.history[key][state.best_epoch] for key in ("val_acc", "val_loss")}
        weights = weights_file.dump(self._model) if self._rank == 0 else b""
        if recipe.mirror or recipe.size_at(state.best_epoch) != recipe.image_size:
            if self._rank == 0:
                weights_file.load(self._model, self._best_weights)
            self._ranks.broadcast(self._model.weights)
            batches = self._val.validation_batches(recipe.image_size)
            sums = self._step.validate(batches, recipe.image_size, recipe.mirror)
            served = {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}
        self.state = state.model_copy(update={"served": served})
        if self._rank == 0:
            self._save_checkpoint(weights)

    def _restore(self) -> None:
        """Load the run's newest checkpoint, or else the pretrained weights of the recipe."""
        if latest := checkpoint.load_latest(self._store, self._config.run):
            self.state, files = latest
            self._best_weights = files[BEST_WEIGHTS]
            weights_file.load(self._model, files[WEIGHTS])
            optimizers.load(self._optimizer, files[OPTIMIZER])
            # The attempt before may have been killed after its last checkpoint.
            self._put_json("history.json", self.state.history)
        elif self._recipe.pretrained and self._config.pretrained:
            load_weights(self._model, self._recipe.pretrained, self._config.pretrained)

    def _train_photos(self, epoch: int) -> dict[str, float]:
        """Train on all photos once; return accuracy, loss and last learning rate."""
        totals, recent = [], []
        data_wait, ended = 0.0, time.monotonic()
        for step, batch in enumerate(self._train.training_batches(epoch)):
            if step:
                data_wait += time.monotonic() - ended
            step_of_run = epoch * self._train.steps + step
            rate = learning_rate(self._recipe, step_of_run, self._train.steps)
            self._optimizer.learning_rate.assign(rate)
            recent.append(self._step.train(batch, epoch, step_of_run))
            self._reporter.end_step(step, recent)
            if (step + 1) % _CHECK_EVERY == 0 or step + 1 == self._train.steps:
                totals.append(self._checked_total(recent, epoch, step))
                recent = []
            ended = time.monotonic()
            if step == 0:
                first_batch, first_ended = batch, ended
        # An average step, without the first one, which traces the graph.
        if others := self._train.steps - 1:
            self._sample = (first_batch, (time.monotonic() - first_ended) / others, data_wait / others)
        sums = MetricSums(*np.sum(totals, axis=0).tolist())
        return {"acc": sums.accuracy, "loss": sums.mean_loss, "learning_rate": rate}

    def _validate(self, epoch: int) -> dict[str, float]:
        """Validate with photos of the epoch's size."""
        size = self._recipe.size_at(epoch)
        sums = self._step.validate(self._val.validation_batches(size), size)
        if not sums.is_finite:
            raise self._divergence(f"The validation loss is NaN or infinite after epoch {epoch + 1}", epoch)
        return {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}

    def _checked_total(self, sums: list[Any], epoch: int, step: int) -> MetricSums:
        """Return the totals of the latest steps over all ranks, unless their loss is unusable."""
        total = self._step.total(sums)
        if not total.is_finite:
            raise self._divergence(f"The loss became NaN or infinite in epoch {epoch + 1}, by step {step + 1}", epoch)
        if epoch and total.has_diverged:
            raise self._divergence(
                f"The loss diverged to {total.mean_loss:.4g} in epoch {epoch + 1}, by step {step + 1}", epoch
            )
        return total

    def _divergence(self, what: str, epoch: int) -> TrainingError:
        """Return the error for a bad loss. `--resume` wouldn't help: it repeats the same steps."""
        field = "frozen_learning_rate" if epoch < self._recipe.frozen_epochs else "learning_rate"
        rate: float = getattr(self._recipe, field)
        return TrainingError(
            what,
            received=f"{field} {rate:g}",
            fix=f"train again with a lower one, such as --set {field}={rate / 10:.3g}",
        )

    def _require_finite_weights(self) -> None:
        """Stop the run before it saves weights that the last step of the epoch has spoiled."""
        if not all(np.isfinite(np.asarray(weight)).all() for weight in self._model.weights):
            epoch = self.state.epochs_done
            raise self._divergence(f"Weights became NaN or infinite in epoch {epoch + 1}", epoch)

    def _require_lease(self) -> None:
        own = self._rank > 0 or lease.holder(self._store, self._config.run) == self._config.attempt
        if not ray.train.collective.broadcast_from_rank_zero(own):
            raise ConflictError("Another process goes on with this run", fix="wait for the other process")

    def _save_checkpoint(self, weights: bytes) -> None:
        optimizer = optimizers.dump(self._optimizer)
        files = {WEIGHTS: weights, BEST_WEIGHTS: self._best_weights, OPTIMIZER: optimizer}
        checkpoint.save(self._store, self._config.run, self.state, files)

    def _put(self, name: str, text: str) -> None:
        """Write a file of the run, on rank 0 alone."""
        if self._rank == 0:
            self._store.put(f"runs/{self._config.run}/{name}", text.encode())

    def _put_json(self, name: str, value: object) -> None:
        self._put(name, json.dumps(value, indent=1, allow_nan=False))


def _summary(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=78)
    return "\n".join(lines)


def _require_equal_weights(model: keras.Model, rank: int, epoch: int) -> None:
    """Stop the run unless all ranks hold the same weights to the last bit."""
    digest = hashlib.sha256(b"".join(np.asarray(w).tobytes() for w in model.weights)).hexdigest()
    expected = ray.train.collective.broadcast_from_rank_zero(digest)
    if digest != expected:
        raise DifferentWeightsError(
            f"Rank {rank} and rank 0 hold different weights after epoch {epoch + 1}",
            received=f"sha256 {digest[:12]}…",
            expected=f"{expected[:12]}…",
        )
