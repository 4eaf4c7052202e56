"""The learning rate, a pure function of the step."""

from __future__ import annotations

import math

from pawcast.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the rate for a step.

    Args:
        recipe: Peak, schedule, warm-up and epochs.
        step: Counted from 0 over the whole run.
        steps_per_epoch: Steps in one epoch.

    Returns:
        The rate: rising linearly over the warm-up, then constant, or along half a cosine to 0 at the end
        (Loshchilov and Hutter, 2016, https://arxiv.org/abs/1608.03983, without restarts).
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if recipe.schedule == "constant":
        return recipe.learning_rate * rise
    progress = step / (recipe.epochs * steps_per_epoch)
    return recipe.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * progress))
