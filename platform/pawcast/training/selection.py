"""Which epoch is the best so far, and whether it is worth going on. Epochs count from 0."""

from __future__ import annotations

from collections.abc import Sequence

from pawcast.recipes.schema import Recipe
from pawcast.training.checkpoint import TrainState


def best_epoch(recipe: Recipe, val_acc: Sequence[float | None]) -> int:
    """Return the index of the epoch with the best validation accuracy, of those with photos of the latest size.

    The first of equals. Smaller photos are another, harder test, and only come early. None stands for an epoch that
    wasn't validated: it is never the best, and its size doesn't count. Without any other the index is -1.
    """
    validated = {i: value for i, value in enumerate(val_acc) if value is not None}
    if not validated:
        return -1
    latest = recipe.size_at(max(validated))
    return max((i for i in validated if recipe.size_at(i) == latest), key=lambda i: (validated[i], -i))


def out_of_patience(recipe: Recipe, state: TrainState) -> bool:
    """Whether the best epoch is too many epochs ago for going on; the same on all ranks, whose states are the same.

    Only a validated epoch ends a run: any other may be a better one.
    """
    last = state.epochs_done - 1
    return bool(recipe.patience) and recipe.validates_after(last) and last - state.best_epoch >= recipe.patience
