"""What bounds the speed of training: the parts of an average step, measured during the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pawcast.training.loader import Batch
    from pawcast.training.step import TrainStep

_REPEATS = 3


class StepTiming(TypedDict):
    """The time of an average step on rank 0.

    `photos` counts those of all ranks. `parts` has the seconds of `forward_backward` (with the
    optimizer), `augmentation`, `all_reduce` and `data_wait`; they add up to `seconds`. `all_reduce`
    is an upper bound: in a real step most of it overlaps with the backward pass.
    """

    photos: int
    seconds: float
    parts: dict[str, float]


def measure(train_step: TrainStep, epoch: int, batch: Batch, seconds: float, data_wait: float) -> StepTiming:
    """Split the time of an average step into its parts. Call it on all ranks.

    Augmentation and all-reduce are run alone and timed; the rest follows by subtraction. Nothing of
    the run changes.

    Args:
        train_step: The run's.
        epoch: The epoch whose steps are measured.
        batch: One of the epoch's.
        seconds: What an average step took, with the wait for its batch.
        data_wait: What it waited for its batch.
    """
    augmentation = _mean_seconds(lambda: train_step.augment_only(batch, epoch))
    all_reduce = _mean_seconds(lambda: train_step.all_reduce_only(epoch)) if train_step.world > 1 else 0.0
    rest = max(0.0, seconds - data_wait - augmentation - all_reduce)
    parts = {"data_wait": data_wait, "augmentation": augmentation, "all_reduce": all_reduce, "forward_backward": rest}
    return {"photos": int(batch.photos), "seconds": sum(parts.values()), "parts": parts}


def _mean_seconds(function: Callable[[], object]) -> float:
    """Return the mean time of a call, after a first one that traces the graph."""
    function()
    started = time.perf_counter()
    for _ in range(_REPEATS):
        function()
    return (time.perf_counter() - started) / _REPEATS
