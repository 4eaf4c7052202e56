"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pawcast.recipes.schema import Recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    While the backbone is frozen, it is `frozen_learning_rate`. Then it rises linearly over the
    warm-up, and stays constant or falls to 0 at the end of the run. `cosine` falls along half a
    cosine (Loshchilov and Hutter, 2016, https://arxiv.org/abs/1608.03983, without restarts).
    `linear` falls on a line from the end of the warm-up, as in L. Smith's one-cycle policy (2017,
    https://arxiv.org/abs/1708.07120).

    Args:
        recipe: Gives the peak, schedule, warm-up and epochs.
        step: Counted from 0 over the whole run.
        steps_per_epoch: Steps in one epoch.
    """
    step -= recipe.frozen_epochs * steps_per_epoch
    if step < 0:
        return recipe.frozen_learning_rate
    warmup = recipe.warmup_epochs * steps_per_epoch
    steps = (recipe.epochs - recipe.frozen_epochs) * steps_per_epoch
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if recipe.schedule == "cosine":
        return recipe.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
    if recipe.schedule == "linear" and step >= warmup:
        return recipe.learning_rate * (steps - step) / max(steps - warmup, 1)
    return recipe.learning_rate * rise
