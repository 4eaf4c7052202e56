"""The training loop, as each Ray Train worker runs it."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import ray
import ray.train
import ray.train.collective
from ray.util.queue import Queue

from pawcast.data.blocks import DecodedSplit
from pawcast.errors import ConflictError, TrainingError
from pawcast.models import pretrained
from pawcast.recipes.schema import Recipe
from pawcast.runtime.devices import usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, resolve_precision
from pawcast.store import Store, open_store
from pawcast.training import checkpoint, lease, optimizers, timing
from pawcast.training.checkpoint import TrainState
from pawcast.training.collective import Collective, joined
from pawcast.training.loader import AHEAD_OF_GPU, BatchLoader
from pawcast.training.progress import ProgressReporter
from pawcast.training.schedule import learning_rate
from pawcast.training.selection import best_epoch, out_of_patience
from pawcast.training.step import MetricSums, TrainStep
from pawcast.training.timing import StepTiming

if TYPE_CHECKING:
    import keras

# `loss` and `acc` are those of the augmented training photos, with dropout; Keras's names. `cpu_seconds` are those of
# all ranks' processes: what the epoch costs, whoever else used the machine.
HISTORY_KEYS = ("acc", "val_acc", "loss", "val_loss", "learning_rate", "seconds", "validation_seconds", "cpu_seconds")
_TAKEN_OVER = ConflictError(
    "Another process goes on with this run", expected="one at a time", fix="let it; this one ends"
)
_LOOK_EVERY = 50
"""Steps between two looks at the loss over all ranks: seldom enough to cost nothing."""


class LoopConfig(NamedTuple):
    """What a worker is told, besides its rank.

    `pretrained` is the weights file that the recipe names.
    """

    recipe: Recipe
    store_uri: str
    run: str
    attempt: str
    train: DecodedSplit
    val: DecodedSplit
    pretrained: bytes | None = None
    progress: Queue | None = None


def train_loop(config: dict[str, Any]) -> None:
    """Train on this rank until the recipe is done. Runs on every worker of the group.

    A loss that is no number any more comes back with the same steps, on all ranks at once. So it is told, and the
    loop returns: raised, it would make Ray start all workers again, for nothing.

    Args:
        config: `{"job": Job}`.

    Raises:
        TrainingError: If the ranks' weights differ. Another attempt may mend that.
    """
    job: LoopConfig = config["job"]
    threads = max(1, usable_cpus() // ray.train.get_context().get_local_world_size())
    gpus = configure_tensorflow(threads, job.recipe.deterministic)
    cv2.setNumThreads(threads)
    run = _Run(job, joined(on_gpus=gpus > 0), AHEAD_OF_GPU if gpus else 1)
    for epoch in range(run.state.epochs_done, job.recipe.epochs):
        # Before the epoch: a run that is resumed may have been out of patience already.
        if out_of_patience(run.recipe, run.state):
            break
        try:
            row = run.epoch(epoch)
        except TrainingError as error:
            run.tell.failed(error)
            return
        ended = time.monotonic()
        _require_agreement(run.model, run.rank, epoch)
        if not run.owned():
            run.tell.failed(_TAKEN_OVER)
            return
        run.keep(row)
        run.leave_timing(time.monotonic() - ended)
    run.validate_as_served()


class _Run:
    """One rank's part of a run: its network, its photos, and how far it is."""

    def __init__(self, job: LoopConfig, collective: Collective, ahead: int) -> None:
        import keras

        from pawcast.models import build

        self.recipe = recipe = job.recipe
        rank, world = collective.rank, collective.world
        self.job, self.rank, self.collective = job, rank, collective
        self.store: Store = open_store(job.store_uri)
        self.tell = ProgressReporter(job.progress if rank == 0 else None)
        keras.utils.set_random_seed(recipe.seed)
        self.model = build.build_model(recipe, resolve_precision(recipe.precision))
        self.optimizer = optimizers.build_optimizer(recipe, self.model)
        # Where to start: the newest checkpoint of this run, else somebody else's weights, else scratch. Rank 0 decides.
        self.state = TrainState(epochs_done=0, history={key: [] for key in HISTORY_KEYS}, best_epoch=-1)
        self.best = b""
        self.parts: StepTiming | None = None
        if rank == 0:
            if found := checkpoint.load_latest(self.store, job.run):
                self.state, files = found
                self.best = files[checkpoint.BEST]
                checkpoint.restore(self.model, self.optimizer, files)
            elif recipe.pretrained and job.pretrained:
                pretrained.load(self.model, recipe.pretrained, job.pretrained)
        self.state = ray.train.collective.broadcast_from_rank_zero(self.state)
        collective.from_rank_zero([*self.model.weights, *self.optimizer.variables])
        # One call for each split: Ray then puts all of its blocks into this node's object store, and
        # into mapped files on the node's disk once that is full.
        self.train, self.val = (
            BatchLoader(ray.get(split.blocks), split.labels, recipe, rank, world, ahead)
            for split in (job.train, job.val)
        )
        self.steps = TrainStep(recipe, self.model, self.optimizer, collective)
        self.tell.about(self.train, self.model, self.state.epochs_done)

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train, and validate if it is time; return the epoch's line of the history, without what wasn't measured.

        Raises:
            TrainingError: If a loss is no number, or far from anything that learns. On all ranks at once.
        """
        from pawcast.models.layers import dropout

        started, cpu = time.monotonic(), time.process_time()
        dropout.seed_others(self.model, self.recipe.seed, epoch, self.rank)
        self.tell.epoch(epoch)
        parts, recent = [], []
        asked, waited = started, 0.0
        for step, batch in enumerate(self.train.training_batches(epoch)):
            if step:
                waited += time.monotonic() - asked
            of_run = epoch * self.train.steps + step
            rate = learning_rate(self.recipe, of_run, self.train.steps)
            self.optimizer.learning_rate.assign(rate)
            recent.append(self.steps.train(batch, epoch, of_run))
            self.tell.step(step, recent)
            if (step + 1) % _LOOK_EVERY == 0 or step + 1 == self.train.steps:
                parts.append(self._looked_at(recent, epoch, step))
                recent = []
            asked = time.monotonic()
            if not step:
                # The first step also traces the function.
                usual, traced = batch, asked
        trained = MetricSums(*np.sum(parts, axis=0).tolist())
        middle = time.monotonic()
        validation = self._validation(epoch) if self.recipe.validates_after(epoch) else {}
        now = time.monotonic()
        (used,) = self.steps.over_ranks([time.process_time() - cpu])
        if self.parts is None and self.train.steps > 1:
            after = self.train.steps - 1
            self.parts = timing.measure(self.steps, usual, epoch, (middle - traced) / after, waited / after)
            self.tell.parts(self.parts)
        return {
            "acc": trained.accuracy,
            "loss": trained.mean_loss,
            **validation,
            "learning_rate": rate,
            "seconds": now - started,
            "validation_seconds": now - middle if validation else 0.0,
            "cpu_seconds": used,
        }

    def _validation(self, epoch: int) -> dict[str, float]:
        """Validate with photos of the epoch's size."""
        size = self.recipe.size_at(epoch)
        sums = self.steps.validate(self.val.validation_batches(size), size)
        if not sums.finite:
            raise self._failure(f"The validation loss is no number after epoch {epoch + 1}", sums)
        return {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}

    def _looked_at(self, sums: list[Any], epoch: int, step: int) -> MetricSums:
        """Return the totals of the latest steps over all ranks, if they are what training may have."""
        total = self.steps.total(sums)
        if total.finite and (epoch == 0 or not total.diverged):
            return total
        first = next((i for i, own in enumerate(sums) if not np.isfinite(np.asarray(own)).all()), 0)
        raise self._failure(
            f"The loss {'diverged' if total.finite else 'stopped being a number'} in epoch {epoch + 1}, "
            f"step {step + 1 - len(sums) + first + 1}",
            total,
        )

    def _failure(self, what: str, sums: MetricSums) -> TrainingError:
        return TrainingError(
            what,
            received=f"{sums.mean_loss:.4g}",
            fix=f"lower learning_rate (now {self.recipe.learning_rate:g}); the last good checkpoint is kept",
        )

    def owned(self) -> bool:
        """Whether this attempt may still write; the same on all ranks."""
        mine = self.rank > 0 or lease.holder(self.store, self.job.run) == self.job.attempt
        found: bool = ray.train.collective.broadcast_from_rank_zero(mine)
        return found

    def keep(self, row: dict[str, float]) -> None:
        """End an epoch: all ranks know the new state, rank 0 leaves a checkpoint and the history so far."""
        history = {key: [*values, row.get(key)] for key, values in self.state.history.items()}
        done = self.state.epochs_done + 1
        best = best_epoch(self.recipe, history["val_acc"])
        self.state = TrainState(epochs_done=done, history=history, best_epoch=best)
        if self.rank == 0:
            from pawcast.models import weights as files

            weights = files.dump(self.model)
            if best == done - 1:
                self.best = weights
            checkpoint.save(self.store, self.job.run, self.state, weights, self.best, self.optimizer)
            self.store.put(f"runs/{self.job.run}/history.json", json.dumps(history, indent=1).encode())
        self.tell.finished(row)

    def leave_timing(self, keeping: float) -> None:
        """Write down where the time goes: a step's by its parts, and an epoch's, on average, within steps and outside.

        `keeping` is what comparing the ranks and leaving a checkpoint took after the latest.
        """
        if self.rank > 0 or self.parts is None:
            return
        done = self.state.epochs_done
        seconds, validation = self.state.total("seconds") / done, self.state.total("validation_seconds") / done
        found = {
            "world": self.steps.world,
            "step": {"photos": self.parts.photos, "seconds": self.parts.seconds, "parts": self.parts.shares()},
            "epoch": {"steps": seconds - validation, "validation": validation, "keeping": keeping},
        }
        self.store.put(f"runs/{self.job.run}/timing.json", json.dumps(found, indent=1).encode())

    def validate_as_served(self) -> None:
        """Validate the best weights in the way they will be served, once, and leave that in the last checkpoint."""
        if self.state.served is not None:
            return
        from pawcast.models import weights as files

        state, recipe = self.state, self.recipe
        weights = files.dump(self.model) if self.rank == 0 else b""
        if recipe.mirror or recipe.size_at(state.best_epoch) != recipe.image_size:
            if self.rank == 0:
                files.load(self.model, self.best)
            self.collective.from_rank_zero(self.model.weights)
            sums = self.steps.validate(self.val.validation_batches(recipe.image_size), recipe.image_size, recipe.mirror)
            served = {"val_acc": sums.accuracy, "val_loss": sums.mean_loss}
        else:
            found = {key: state.history[key][state.best_epoch] for key in ("val_acc", "val_loss")}
            served = {key: value for key, value in found.items() if value is not None}
        self.state = state.model_copy(update={"served": served})
        if self.rank == 0:
            checkpoint.save(self.store, self.job.run, self.state, weights, self.best, self.optimizer)


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
