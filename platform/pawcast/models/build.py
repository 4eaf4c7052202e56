"""The networks: float32 pixels in [0, 1], shape [n, S, S, 3], to the probability of class 1, float32 [n, 1].

Importing this module imports TensorFlow, through Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import keras
from keras import layers

from pawcast.core import plugins
from pawcast.errors import UsageError, suggest
from pawcast.models import article, efficientnet_lite, residual
from pawcast.recipes.schema import Recipe

HEAD = "head"
"""What the name of every layer after a pretrained backbone begins with."""

# A trunk turns pixels into what the last dense layer sees; the bool says whether it depends on the size of the photos.
_TRUNKS: dict[str, tuple[Callable[[keras.KerasTensor, Recipe], keras.KerasTensor], bool]] = {
    "article": (article.article, True),
    "small": (article.small, True),
    "residual": (residual.residual, False),
    "efficientnet_lite0": (efficientnet_lite.lite0, False),
    "efficientnet_lite1": (efficientnet_lite.lite1, False),
    "efficientnet_lite2": (efficientnet_lite.lite2, False),
}


def build_model(recipe: Recipe, dtype: Literal["float32", "bfloat16"] = "float32") -> keras.Model:
    """Return the recipe's untrained network, Pawcast's or a user's own.

    A user's own is `package.module:function`, called with the recipe, that returns a Keras model of the shapes below.
    Initial weights come from Keras's global seed; call `keras.utils.set_random_seed` first to fix them.

    Args:
        recipe: Names the network.
        dtype: Of the arithmetic. Weights and the probability are float32 either way.

    Returns:
        A Keras model from float32 [n, S, S, 3] in [0, 1] to float32 [n, 1] in [0, 1].

    Raises:
        UsageError: For an unknown network or layer, a user's that isn't a Keras model of these shapes, or other sizes
            to train at than the network takes.
        NotFoundError: If a user's module can't be found.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    try:
        model = _own(recipe) if not plugins.is_reference(recipe.model) else _users(recipe)
    finally:
        keras.config.set_dtype_policy(before)
    sizes = sorted({size for _, size in recipe.train_sizes} - {recipe.image_size})
    if sizes and model.input_shape[1:3] != (None, None):
        raise UsageError(
            f"{recipe.model} takes photos of one size only",
            received=f"train_sizes with {', '.join(map(str, sizes))} px beside image_size {recipe.image_size}",
            fix="--set train_sizes=[]",
        )
    if recipe.fine_tune_from:
        _freeze_before(recipe.fine_tune_from, inner_backbone(model) or model)
    return model


def _freeze_before(name: str, backbone: keras.Model) -> None:
    """Keep the first layers' weights as they are: gradients aren't even computed beyond the first that moves."""
    names = [layer.name for layer in backbone.layers]
    if name not in names:
        raise UsageError(
            f"{backbone.name} has no such layer", received=f"fine_tune_from={name}", expected=suggest(name, names)
        )
    for layer in backbone.layers[: names.index(name)]:
        layer.trainable = False


def _own(recipe: Recipe) -> keras.Model:
    if recipe.model not in _TRUNKS:
        raise UsageError(
            "Unknown model",
            received=repr(recipe.model),
            expected=suggest(recipe.model, _TRUNKS) + ", or module:function",
        )
    trunk, fixed_size = _TRUNKS[recipe.model]
    side = recipe.image_size if fixed_size else None
    pixels = keras.Input((side, side, 3), name="pixels", dtype="float32")
    features = trunk(pixels, recipe)
    probability = layers.Dense(1, activation="sigmoid", dtype="float32", name=f"{HEAD}_probability")(features)
    return keras.Model(pixels, probability, name=recipe.model)


def _users(recipe: Recipe) -> keras.Model:
    try:
        model = plugins.load(recipe.model)(recipe)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{recipe.model} failed", received=str(error).splitlines()[0]) from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{recipe.model} made no Keras model", received=type(model).__name__, expected="keras.Model")
    wanted = (None, recipe.image_size, recipe.image_size, 3)
    taken = tuple(model.input_shape)
    fits = len(taken) == 4 and all(a in (None, b) for a, b in zip(taken, wanted, strict=True))
    if not fits or tuple(model.output_shape) != (None, 1):
        raise UsageError(
            f"{recipe.model} made a model of other shapes",
            received=f"{taken} to {model.output_shape}",
            expected=f"{wanted} to (None, 1), the probability of class 1",
        )
    return model


def inner_backbone(model: keras.Model) -> keras.Model | None:
    """Return the one Keras model within a model, as with Keras Applications; None if there is none, or several."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return inner[0] if len(inner) == 1 else None


def head_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the trainable variables after the backbone, which are all that is new in a pretrained network.

    Without a model within it (`inner_backbone`) they are those of the layers whose names begin with `HEAD`.

    Raises:
        UsageError: If the network has no such part.
    """
    inner = inner_backbone(model)
    if inner is None:
        head = [layer for layer in model.layers if layer.name.startswith(HEAD)]
    else:
        head = [layer for layer in model.layers if layer is not inner]
    variables = [variable for layer in head for variable in layer.trainable_variables]
    if not variables:
        raise UsageError(
            f"The network {model.name} has no head to train alone",
            expected=f"one model within it as the backbone, or layers named {HEAD}_…",
            fix="--set frozen_epochs=0",
        )
    return variables
