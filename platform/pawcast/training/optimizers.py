"""A recipe's optimizer, and its variables as a file."""

from __future__ import annotations

import io

import numpy as np

from pawcast.recipes.schema import Recipe
from pawcast.runtime.tensorflow import keras
from pawcast.training.muon import ConvolutionMuon

# Biases, and batch normalization's scales and offsets, have no reason to be near 0.
_NOT_DECAYED = ["bias", "gamma", "beta"]


def build_optimizer(recipe: Recipe, model: keras.Model) -> keras.Optimizer:
    """Return the recipe's optimizer, built for the trainable variables of a model.

    The training loop sets its learning rate before every step.
    """
    rate, momentum, decay = recipe.learning_rate, recipe.momentum, recipe.weight_decay
    optimizer: keras.Optimizer
    if recipe.optimizer == "rmsprop":
        optimizer = keras.optimizers.RMSprop(rate, momentum=momentum, weight_decay=decay or None)
    elif recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum, nesterov=momentum > 0, weight_decay=decay or None)
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    else:
        optimizer = ConvolutionMuon(rate, model.compute_dtype, momentum=momentum, decay=decay)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    optimizer.build(model.trainable_variables)
    return optimizer


def dump(optimizer: keras.Optimizer) -> bytes:
    """Return an optimizer's variables, in order, as the bytes of a `.npz` file."""
    file = io.BytesIO()
    values = {f"{i:04d}": np.asarray(variable) for i, variable in enumerate(optimizer.variables)}
    np.savez(file, allow_pickle=False, **values)
    return file.getvalue()


def load(optimizer: keras.Optimizer, data: bytes) -> None:
    """Set a built optimizer's variables to what `dump` returned.

    Raises:
        ValueError: If the file is of another optimizer or network.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as values:
        for variable, name in zip(optimizer.variables, sorted(values.files), strict=True):
            variable.assign(values[name])
