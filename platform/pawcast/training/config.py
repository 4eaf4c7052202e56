"""What the driver hands to each training worker."""

from __future__ import annotations

from typing import NamedTuple

from ray.util.queue import Queue

from pawcast.data.blocks import DecodedSplit
from pawcast.recipes.schema import Recipe


class LoopConfig(NamedTuple):
    """All that a worker needs besides its rank.

    Attributes:
        recipe: What to train.
        store_uri: Where the run's files go.
        run: The run's name.
        attempt: The token that `lease.acquire` gave this attempt.
        train, val: The decoded splits.
        pretrained: The weights file that the recipe names.
        progress: Carries `ProgressUpdate`s from rank 0 to the driver.
    """

    recipe: Recipe
    store_uri: str
    run: str
    attempt: str
    train: DecodedSplit
    val: DecodedSplit
    pretrained: bytes | None = None
    progress: Queue | None = None
