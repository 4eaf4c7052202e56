"""Which epoch is the best so far, and when to stop early. Epochs count from 0."""

from __future__ import annotations

from collections.abc import Sequence

from pawcast.recipes.schema import Recipe
from pawcast.training.checkpoint import TrainState


def best_epoch(recipe: Recipe, val_acc: Sequence[float | None], val_loss: Sequence[float | None]) -> int:
    """Return the index of the epoch with the highest validation accuracy.

    Of equals it is the one with the lowest validation loss, of these the first.

    Only epochs with the image size of the latest validated epoch are compared: validation with
    smaller photos is another, harder test.

    Args:
        recipe: Gives the image size of each epoch.
        val_acc, val_loss: One value for each epoch; None where the epoch was not validated.

    Returns:
        -1 if no epoch was validated.
    """
    scores = enumerate(zip(val_acc, val_loss, strict=True))
    validated = {i: (acc, -loss, -i) for i, (acc, loss) in scores if acc is not None and loss is not None}
    if not validated:
        return -1
    latest_size = recipe.size_at(max(validated))
    return max((i for i in validated if recipe.size_at(i) == latest_size), key=validated.__getitem__)


def out_of_patience(recipe: Recipe, state: TrainState) -> bool:
    """Return whether `patience` epochs have passed since the best one.

    Only a validated epoch ends a run: an epoch that was not validated may be a better one. All
    ranks have the same state, so all get the same answer.
    """
    last = state.epochs_done - 1
    return bool(recipe.patience) and recipe.validates_after(last) and last - state.best_epoch >= recipe.patience
