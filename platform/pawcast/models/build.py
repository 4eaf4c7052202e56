"""Build a recipe's network: pixels [n, S, S, 3] in [0, 1] to the probability of class 1."""

from __future__ import annotations

from collections.abc import Callable

from pawcast.core import plugins
from pawcast.errors import UsageError, suggest
from pawcast.models.article import article, small
from pawcast.models.efficientnet_lite import efficientnet_lite
from pawcast.models.residual import residual
from pawcast.recipes.schema import Recipe
from pawcast.runtime.devices import Precision
from pawcast.runtime.tensorflow import keras

HEAD = "head"
"""Prefix of the names of all layers after a pretrained backbone."""

# Each backbone turns pixels into the features of the last dense layer; the bool says whether it
# depends on the size of the photos.
_BACKBONES: dict[str, tuple[Callable[[keras.KerasTensor, Recipe], keras.KerasTensor], bool]] = {
    "article": (article, True),
    "small": (small, True),
    "residual": (residual, False),
    **{f"efficientnet_lite{size}": (efficientnet_lite, False) for size in (0, 1, 2)},
}


def build_model(recipe: Recipe, dtype: Precision = "float32") -> keras.Model:
    """Return the recipe's untrained network, one of Pawcast's or a user's own.

    A user's own is named `package.module:function`; the function is called with the recipe and
    returns a Keras model of the shapes below. Initial weights come from Keras's global seed; call
    `keras.utils.set_random_seed` first to fix them.

    Args:
        recipe: Names the network.
        dtype: Of the arithmetic. Weights and the probability are float32 in either case.

    Returns:
        A Keras model from float32 [n, S, S, 3] in [0, 1] to float32 [n, 1] in [0, 1].

    Raises:
        UsageError: For an unknown network or layer, a user's model that isn't a Keras model of
            these shapes, or training sizes that the network doesn't take.
        NotFoundError: If a user's module can't be found.
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    try:
        model = _build_user_model(recipe) if plugins.is_reference(recipe.model) else _build_own_model(recipe)
    finally:
        keras.config.set_dtype_policy(previous)
    other_sizes = sorted({size for _, size in recipe.train_sizes} - {recipe.image_size})
    if other_sizes and model.input_shape[1:3] != (None, None):
        received = f"train_sizes with {', '.join(map(str, other_sizes))} px beside image_size {recipe.image_size}"
        raise UsageError(f"{recipe.model} takes photos of one size only", received=received, fix="--set train_sizes=[]")
    if recipe.fine_tune_from:
        _freeze_before(recipe.fine_tune_from, find_backbone(model) or model)
    return model


def _build_own_model(recipe: Recipe) -> keras.Model:
    if recipe.model not in _BACKBONES:
        expected = f"{suggest(recipe.model, _BACKBONES)}, or module:function"
        raise UsageError("Unknown model", received=repr(recipe.model), expected=expected)
    backbone, fixed_size = _BACKBONES[recipe.model]
    side = recipe.image_size if fixed_size else None
    pixels = keras.Input((side, side, 3), name="pixels", dtype="float32")
    # Layers draw their seeds when they are made: the head comes after the backbone.
    features = backbone(pixels, recipe)
    head = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name=f"{HEAD}_probability")
    return keras.Model(pixels, head(features), name=recipe.model)


def _build_user_model(recipe: Recipe) -> keras.Model:
    try:
        model = plugins.load(recipe.model)(recipe)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{recipe.model} failed", received=str(error).splitlines()[0]) from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{recipe.model} made no Keras model", received=type(model).__name__, expected="keras.Model")
    expected = (None, recipe.image_size, recipe.image_size, 3)
    received = tuple(model.input_shape)
    fits = len(received) == 4 and all(a in (None, b) for a, b in zip(received, expected, strict=True))
    if not fits or tuple(model.output_shape) != (None, 1):
        shapes = f"{received} to {model.output_shape}"
        promise = f"{expected} to (None, 1), the probability of class 1"
        raise UsageError(f"{recipe.model} made a model of other shapes", received=shapes, expected=promise)
    return model


def _freeze_before(name: str, backbone: keras.Model) -> None:
    """Freeze all layers before the named one, so that no gradient is computed for them."""
    names = [layer.name for layer in backbone.layers]
    if name not in names:
        expected = suggest(name, names)
        raise UsageError("The network has no such layer", received=f"fine_tune_from={name}", expected=expected)
    for layer in backbone.layers[: names.index(name)]:
        layer.trainable = False


def find_backbone(model: keras.Model) -> keras.Model | None:
    """Return the one Keras model within a model, as with Keras Applications; otherwise None."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return inner[0] if len(inner) == 1 else None


def head_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the trainable variables after the backbone: what is new in a pretrained network.

    In a network without a model within it (`find_backbone`), they belong to the layers whose names
    begin with `HEAD`.

    Raises:
        UsageError: If the network has no such part.
    """
    backbone = find_backbone(model)
    head = [layer for layer in model.layers if layer is not backbone]
    if backbone is None:
        head = [layer for layer in head if layer.name.startswith(HEAD)]
    variables = [variable for layer in head for variable in layer.trainable_variables]
    if not variables:
        what = f"The network {model.name} has no head to train alone"
        expected = f"one model within it as the backbone, or layers named {HEAD}_…"
        raise UsageError(what, expected=expected, fix="--set frozen_epochs=0")
    return variables
