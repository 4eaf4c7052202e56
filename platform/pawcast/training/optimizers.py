"""A recipe's optimizer, and which variables it moves in which epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pawcast.recipes.schema import Recipe

if TYPE_CHECKING:
    import keras

# Scales and offsets have no reason to be near 0.
_UNDECAYED = ["bias", "gamma", "beta"]


def build_optimizer(recipe: Recipe, model: keras.Model) -> keras.Optimizer:
    """Return the recipe's optimizer, built for the network's variables; its rate is set before every step."""
    import keras

    decay = recipe.weight_decay or None
    optimizer: keras.Optimizer
    if recipe.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(recipe.learning_rate, momentum=recipe.momentum, weight_decay=decay)
    elif recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=decay
        )
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay)
    else:
        from pawcast.training.muon import ConvolutionMuon

        optimizer = ConvolutionMuon(
            dtype=model.compute_dtype,
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            adam_weight_decay=recipe.weight_decay,
        )
    optimizer.exclude_from_weight_decay(var_names=_UNDECAYED)
    optimizer.build(model.trainable_variables)
    return optimizer


def trainable_variables(recipe: Recipe, model: keras.Model, epoch: int) -> list[Any]:
    """Return the variables that an epoch trains: all, or only the head while the backbone is frozen."""
    from pawcast.models.build import head_variables

    return head_variables(model) if epoch < recipe.frozen_epochs else list(model.trainable_variables)
