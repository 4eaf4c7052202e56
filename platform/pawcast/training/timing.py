"""What bounds the speed of training: the parts of an average step, measured during the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pawcast.training.loader import Batch
    from pawcast.training.step import TrainStep

_REPEATS = 3


class StepTiming(NamedTuple):
    """Seconds that rank 0 spends on the parts of an average step; they add up to the whole step.

    Attributes:
        photos: Photos of the step, over all ranks.
        data_wait: Waiting for the next batch, which threads make while the network computes.
        augmentation: Warping the photos and changing their colors.
        all_reduce: Summing gradients over the ranks. An upper bound: in a real step most of it
            overlaps with the backward pass.
        forward_backward: All the rest: forward pass, backward pass and optimizer.
    """

    photos: int
    data_wait: float
    augmentation: float
    all_reduce: float
    forward_backward: float

    @property
    def seconds(self) -> float:
        """Seconds of the whole step."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part by its name."""
        return {name: value for name, value in self._asdict().items() if name != "photos"}


def measure(train_step: TrainStep, batch: Batch, epoch: int, seconds: float, data_wait: float) -> StepTiming:
    """Split the time of an average step into its parts. Call it on all ranks.

    Augmentation and all-reduce are run alone and timed; the rest follows by subtraction. Nothing of
    the run changes.

    Args:
        train_step: The run's.
        batch: One of the epoch's.
        epoch: The epoch whose steps are measured.
        seconds: What an average step took, with the wait for its batch.
        data_wait: What it waited for its batch.
    """
    augmentation = _mean_seconds(lambda: train_step.augment_only(batch, epoch))
    all_reduce = _mean_seconds(lambda: train_step.all_reduce_only(epoch)) if train_step.world > 1 else 0.0
    forward_backward = max(0.0, seconds - data_wait - augmentation - all_reduce)
    return StepTiming(int(batch.photos), data_wait, augmentation, all_reduce, forward_backward)


def _mean_seconds(function: Callable[[], object]) -> float:
    """Return the mean time of a call, after a first one that traces the graph."""
    function()
    started = time.perf_counter()
    for _ in range(_REPEATS):
        function()
    return (time.perf_counter() - started) / _REPEATS
