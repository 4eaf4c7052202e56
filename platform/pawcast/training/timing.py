"""What bounds training: a step by its parts, measured on the run itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pawcast.training.loader import Batch
    from pawcast.training.step import TrainStep

_TIMES = 3


class StepTiming(NamedTuple):
    """Seconds of rank 0 in an average step, which add up to the whole.

    Attributes:
        photos: In a step, over all ranks.
        waiting: Until the next photos were there: they are gathered beside the network's work.
        augmentation: Warping and colouring them.
        gradients: Adding up over the ranks; most of that happens while others are still computed, so that this is an
            upper bound.
        network: All the rest: forward, backward, the optimizer.
    """

    photos: int
    waiting: float
    augmentation: float
    gradients: float
    network: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return sum(self.shares().values())

    def shares(self) -> dict[str, float]:
        """The parts by the names that people read."""
        return {
            "network": self.network,
            "augmentation": self.augmentation,
            "adding up gradients": self.gradients,
            "waiting for photos": self.waiting,
        }

    def __str__(self) -> str:
        parts = sorted(self.shares().items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {seconds / self.seconds:.1%}" for name, seconds in parts)
        return f"a step of {self.photos} photos takes {self.seconds:.3f} s: {told}"


def measure(steps: TrainStep, batch: Batch, epoch: int, seconds: float, waiting: float) -> StepTiming:
    """Take an average step apart. All ranks must call it alike.

    Args:
        steps: The run's.
        batch: One of the epoch's.
        epoch: Whose steps to take apart.
        seconds: What one of them took, waiting included.
        waiting: What it waited for its photos.
    """
    augmentation = _mean(lambda: steps.augment(batch, epoch))
    gradients = _mean(lambda: steps.add_gradients(epoch)) if steps.world > 1 else 0.0
    network = max(0.0, seconds - waiting - augmentation - gradients)
    return StepTiming(int(batch.photos), waiting, augmentation, gradients, network)


def _mean(function: Callable[[], object]) -> float:
    """Seconds of a call, without the first one, which traces the function."""
    function()
    started = time.perf_counter()
    for _ in range(_TIMES):
        function()
    return (time.perf_counter() - started) / _TIMES
