"""What a run says while it runs: from rank 0, through a queue, to whoever waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ray.util.queue import Queue

from pawcast.errors import PawcastError
from pawcast.training.loader import BatchLoader
from pawcast.training.step import MetricSums
from pawcast.training.timing import StepTiming

if TYPE_CHECKING:
    import keras

_SECONDS = 0.5
_RECENT = 20


class ProgressUpdate(NamedTuple):
    """Where the run is, sent by rank 0 twice a second and at the end of each epoch.

    Before the first epoch, `resumed` is how many epochs an earlier attempt has done. After the first epoch, `parts` tells where a step's time goes. At
    the very end, `failed` is why training can't go on.
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
    parts: StepTiming | None = None
    failed: PawcastError | None = None


class ProgressReporter:
    """Sends progress to the driver, seldom enough to cost nothing. Without a queue it says nothing."""

    def __init__(self, queue: Queue | None) -> None:
        self._queue = queue
        self._epoch, self._started, self._last = 0, 0.0, 0.0

    def about(self, train: BatchLoader, model: keras.Model, epochs_done: int) -> None:
        """This is what will be trained, and how much of it is done."""
        self._train = train
        if epochs_done:
            self._send(ProgressUpdate(resumed=epochs_done))
            return
        lines: list[str] = []
        model.summary(print_fn=lambda line, **_: lines.append(line), line_length=78)
        self._send(ProgressUpdate(summary="\n".join(lines)))

    def epoch(self, epoch: int) -> None:
        """An epoch begins."""
        self._epoch = epoch
        self._started = self._last = time.monotonic()

    def step(self, step: int, sums: list[Any]) -> None:
        """A step is over; `sums` are this rank's own of the latest steps, a fair sample of what all ranks have."""
        now = time.monotonic()
        if self._queue is None or now - self._last < _SECONDS:
            return
        self._last = now
        recent = MetricSums(*np.sum([np.asarray(own) for own in sums[-_RECENT:]], axis=0).tolist())
        done = min((step + 1) / self._train.steps, 1) * self._train.photos
        rate = done / (now - self._started)
        self._send(ProgressUpdate(self._epoch, step + 1, self._train.steps, recent.mean_loss, recent.accuracy, rate))

    def finished(self, row: dict[str, float]) -> None:
        """An epoch is over; `row` is its line of the history, without `val_acc` and `val_loss` if not validated."""
        rate = self._train.photos / (row["seconds"] - row["validation_seconds"])
        steps = self._train.steps
        self._send(ProgressUpdate(self._epoch, steps, steps, row["loss"], row["acc"], rate, finished=row))

    def parts(self, parts: StepTiming) -> None:
        """This is where a step's time goes."""
        self._send(ProgressUpdate(parts=parts))

    def failed(self, error: PawcastError) -> None:
        """Training can't go on, and trying again would not help."""
        self._send(ProgressUpdate(failed=error))

    def _send(self, progress: ProgressUpdate) -> None:
        if self._queue is not None:
            self._queue.put(progress)
