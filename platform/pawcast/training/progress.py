"""Progress of a run, sent from rank 0 to the driver through a queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ray.util.queue import Queue

from pawcast.training.metrics import MetricSums
from pawcast.training.timing import StepTiming

if TYPE_CHECKING:
    from pawcast.training.loader import BatchLoader

_INTERVAL_SECONDS = 0.5
_RECENT_STEPS = 20


class ProgressUpdate(NamedTuple):
    """How far the run is. Rank 0 sends it twice a second and at the end of each epoch.

    Attributes:
        epoch: Index of the epoch, from 0.
        step, steps: Steps of the epoch that are done, and all of them.
        loss, acc: Of the latest steps, or of the whole epoch at its end.
        photos_per_second: Rate of the epoch's training, over all ranks.
        resumed: Before the first step of a run that goes on: epochs that earlier attempts did.
        summary: Before the first step of a new run: the network as Keras prints it.
        finished: At the end of an epoch: its values by name; without `val_acc` and `val_loss` if it
            was not validated.
        timing: After the first epoch: the parts of an average step.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    acc: float = 0.0
    photos_per_second: float = 0.0
    resumed: int = 0
    finished: dict[str, float] | None = None
    summary: str | None = None
    timing: StepTiming | None = None


class ProgressReporter:
    """Sends updates to the driver, rarely enough to cost nothing.

    Args:
        queue: Where updates go; without one nothing is sent.
        train_loader: Gives photos and steps of an epoch.
    """

    def __init__(self, queue: Queue | None, train_loader: BatchLoader) -> None:
        self._queue, self._photos, self._steps = queue, train_loader.photos, train_loader.steps
        self._epoch, self._started, self._last = 0, 0.0, 0.0

    def send(self, update: ProgressUpdate) -> None:
        if self._queue is not None:
            self._queue.put(update)

    def start_epoch(self, epoch: int) -> None:
        """Note the start of an epoch, for its rate."""
        self._epoch = epoch
        self._started = self._last = time.monotonic()

    def end_step(self, step: int, sums: list[Any]) -> None:
        """Report a step, unless the last report was sent just before.

        Args:
            step: Index of the step in its epoch.
            sums: `MetricSums` of this rank's latest steps, as tensors: a sample of all ranks'.
        """
        now = time.monotonic()
        if self._queue is None or now - self._last < _INTERVAL_SECONDS:
            return
        self._last = now
        recent = MetricSums(*np.sum([np.asarray(values) for values in sums[-_RECENT_STEPS:]], axis=0).tolist())
        rate = (step + 1) / self._steps * self._photos / (now - self._started)
        self.send(ProgressUpdate(self._epoch, step + 1, self._steps, recent.mean_loss, recent.accuracy, rate))

    def end_epoch(self, row: dict[str, float]) -> None:
        """Report an epoch by its row of the history."""
        rate = self._photos / (row["seconds"] - row["validation_seconds"])
        self.send(ProgressUpdate(self._epoch, self._steps, self._steps, row["loss"], row["acc"], rate, finished=row))
